// What a `consume` has out: it extends its deadlines, and aborts the signals of handlers whose delivery is lost.

import { type Calls } from "./calls.js";
import { type Delivery } from "./delivery.js";
import { LostError } from "./errors.js";
import { SettleOutcome } from "./gen/eventbroker/v1/subscriber_service_pb.js";
import { type Settling } from "./settling.js";
import { type Stream } from "./stream.js";
import { pause } from "./time.js";

export class Holding {
  readonly #held = new Map<Delivery, AbortController>();
  readonly #calls: Calls;
  readonly #settling: Settling;

  constructor(calls: Calls, settling: Settling) {
    this.#calls = calls;
    this.#settling = settling;
  }

  take(delivery: Delivery): void {
    this.#held.set(delivery, new AbortController());
  }

  /** That of the delivery's handler; undefined if it is lost already. */
  signal(delivery: Delivery): AbortSignal | undefined {
    return this.#held.get(delivery)?.signal;
  }

  /** The delivery is settled. */
  drop(delivery: Delivery): void {
    this.#held.delete(delivery);
  }

  /** All that came by a stream is lost; without one, all. */
  lose(stream?: Stream): void {
    for (const delivery of this.#held.keys()) {
      if (!stream || delivery.stream === stream) {
        this.#lose(delivery);
      }
    }
  }

  #lose(delivery: Delivery): void {
    this.#held.get(delivery)?.abort(new LostError());
    this.#held.delete(delivery);
  }

  /** Gives what is held more time, three times in each deadline, until the signal. */
  async extend(deadlineMs: number, signal: AbortSignal): Promise<void> {
    const third = deadlineMs / 3;
    for (let next = Date.now() + third; !signal.aborted; next = Math.max(next + third, Date.now())) {
      await pause(next - Date.now(), signal).catch(() => {});
      const deliveries = [...this.#held.keys()];
      if (signal.aborted || deliveries.length === 0) {
        continue;
      }
      try {
        const ackIds = deliveries.map(({ ackId }) => ackId);
        const outcomes = await this.#settling.extend(ackIds, deadlineMs, { signal, timeoutMs: third });
        deliveries
          .filter((_, number) => outcomes[number] === SettleOutcome.OUTDATED)
          .forEach((each) => this.#lose(each));
      } catch (error) {
        this.#calls.logger?.warn("eventbroker: cannot extend deadlines", { error });
      }
    }
  }
}
