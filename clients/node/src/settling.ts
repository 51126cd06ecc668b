// Ack, nack and extend, by ack ids. All can be made again, and are until their outcome is known.

import { Acks } from "./acks.js";
import { type Calls } from "./calls.js";
import { type CallOptions } from "./door.js";
import {
  NackAction,
  SubscriberService,
  type SettleOutcome,
  type SettleResult,
} from "./gen/eventbroker/v1/subscriber_service_pb.js";
import { duration } from "./time.js";

export interface NackOptions extends CallOptions {
  /** What is to become of the event. Default: it is tried again. */
  action?: NackAction;
  /** When it is to be tried again, in ms, instead of after the group's back-off. */
  delayMs?: number | undefined;
}

const MOST_REASON = 1024; // characters

/** Makes any text one that the broker takes as a reason: valid, without control characters, not too long. */
export function asReason(text: string): string {
  const whole = text.toWellFormed().replace(/\p{Cc}/gu, " ");
  return [...whole].slice(0, MOST_REASON).join("");
}

export class Settling {
  readonly #calls: Calls;
  readonly #acks = new Acks((ackIds) => this.ack(ackIds));

  constructor(calls: Calls) {
    this.#calls = calls;
  }

  async ack(ackIds: string[], options?: CallOptions): Promise<SettleOutcome[]> {
    return outcomes(await this.#calls.call(SubscriberService.method.ack, { ackIds }, options));
  }

  /** Together with others of the same time. It is tried as long as the client's patience lasts. */
  ackOne(ackId: string): Promise<SettleOutcome> {
    return this.#acks.ack(ackId);
  }

  async nack(
    ackIds: string[],
    reason: string,
    { action = NackAction.RETRY, delayMs, ...options }: NackOptions = {},
  ): Promise<SettleOutcome[]> {
    const delay = delayMs === undefined ? {} : { delay: duration(delayMs) };
    const request = { ackIds, reason: asReason(reason), action, ...delay };
    return outcomes(await this.#calls.call(SubscriberService.method.nack, request, options));
  }

  async extend(ackIds: string[], deadlineMs: number, options?: CallOptions): Promise<SettleOutcome[]> {
    const request = { ackIds, deadline: duration(deadlineMs) };
    return outcomes(await this.#calls.call(SubscriberService.method.extendDeadline, request, options));
  }
}

function outcomes({ results }: { results: SettleResult[] }): SettleOutcome[] {
  return results.map(({ outcome }) => outcome);
}
