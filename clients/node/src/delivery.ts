// An event handed to this consumer, which settles it.

import { timestampDate } from "@bufbuild/protobuf/wkt";

import { type CallOptions } from "./door.js";
import { type Event } from "./gen/eventbroker/v1/event_pb.js";
import {
  type DeliveryBatch,
  type Delivery as Delivered,
  type SettleOutcome,
} from "./gen/eventbroker/v1/subscriber_service_pb.js";
import { type NackOptions, type Settling } from "./settling.js";
import { type Stream } from "./stream.js";

export class Delivery {
  /** The event, as it was published. */
  readonly event: Event;
  /** 1 the first time, and one more after each attempt that failed. */
  readonly attempt: number;
  /** Whether a seek made the group get the event again. */
  readonly isReplay: boolean;
  /** Until when the event is this consumer's, by the broker's clock, if it is not extended. */
  readonly deadline: Date;
  /** Names the delivery, for `client.ack` in another place. */
  readonly ackId: string;
  /** @internal The stream that brought it. */
  readonly stream: Stream;
  readonly #settling: Settling;

  /** @internal */
  constructor(delivered: Delivered, batch: DeliveryBatch, stream: Stream, settling: Settling) {
    this.event = delivered.event!;
    this.attempt = delivered.attempt;
    this.isReplay = delivered.isReplay;
    this.deadline = timestampDate(batch.ackDeadline!);
    this.ackId = delivered.ackId;
    this.stream = stream;
    this.#settling = settling;
  }

  /** Settles the delivery: the event is done for the group. Acks that are made at the same time share a call. */
  ack(): Promise<SettleOutcome> {
    return this.#settling.ackOne(this.ackId);
  }

  /** Gives the delivery back, to be tried again after the group's back-off unless the options say otherwise. */
  async nack(reason: string, options?: NackOptions): Promise<SettleOutcome> {
    return (await this.#settling.nack([this.ackId], reason, options))[0]!;
  }

  /** Gives the delivery more time, counted from now. */
  async extend(deadlineMs: number, options?: CallOptions): Promise<SettleOutcome> {
    return (await this.#settling.extend([this.ackId], deadlineMs, options))[0]!;
  }
}
