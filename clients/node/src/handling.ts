// Hands the events of a group to a handler, and settles them by what becomes of it.

import { type Calls } from "./calls.js";
import { type Delivery } from "./delivery.js";
import { NackAction } from "./gen/eventbroker/v1/subscriber_service_pb.js";
import { Holding } from "./holding.js";
import { type NackOptions, type Settling } from "./settling.js";
import { Subscription, type SubscribeOptions } from "./subscription.js";
import { pause } from "./time.js";

/**
 * Handles an event. To return acks it. To throw nacks it, with the error's message as the reason: it is tried again
 * after the group's back-off, unless the error, or one that caused it, is a Reject or a RetryAfter.
 *
 * The delivery's deadline is extended for as long as the handler runs. The signal is aborted with a LostError when the
 * delivery is over anyway, and when `drainTimeoutMs` is.
 */
export type Handler = (delivery: Delivery, signal: AbortSignal) => unknown;

export interface ConsumeOptions extends SubscribeOptions {
  /** How many handlers run at once. Default 16. */
  concurrency?: number;
  /** How long to wait for handlers when the signal is aborted, in ms. Default 30 s. */
  drainTimeoutMs?: number;
}

/** What a handler throws when no attempt can succeed: the event becomes a dead letter. */
export class Reject extends Error {
  override readonly name: string = "Reject";
}

/** What a handler throws to have the event tried again after this time, in ms. */
export class RetryAfter extends Error {
  override readonly name: string = "RetryAfter";
  constructor(
    readonly delayMs: number,
    message?: string,
    options?: ErrorOptions,
  ) {
    super(message, options);
  }
}

/** A `consume` under way. */
export class Handling {
  readonly #calls: Calls;
  readonly #holding: Holding;
  readonly #subscription: Subscription;
  readonly #handler: Handler;
  readonly #concurrency: number;
  readonly #drainTimeoutMs: number;
  readonly #signal: AbortSignal | undefined;

  constructor(
    calls: Calls,
    settling: Settling,
    group: string,
    tenant: string,
    handler: Handler,
    { signal, concurrency = 16, drainTimeoutMs = 30_000, ...options }: ConsumeOptions,
  ) {
    if (!Number.isInteger(concurrency) || concurrency < 1) {
      throw new RangeError("concurrency must be a whole number from 1");
    }
    const maxUnsettled = options.maxUnsettled ?? Math.min(2 * concurrency, 10_000);
    this.#calls = calls;
    this.#holding = new Holding(calls, settling);
    this.#subscription = new Subscription(calls, settling, this.#holding, group, tenant, { ...options, maxUnsettled });
    this.#handler = handler;
    this.#concurrency = concurrency;
    this.#drainTimeoutMs = drainTimeoutMs;
    this.#signal = signal;
  }

  /** Until the signal is aborted and all is drained; throws when the subscription ends otherwise. */
  async run(): Promise<void> {
    const life = new AbortController();
    try {
      await this.#work(life.signal);
    } catch (error) {
      if (!this.#signal?.aborted) {
        throw error;
      }
    } finally {
      life.abort();
      this.#subscription.close();
    }
  }

  async #work(life: AbortSignal): Promise<void> {
    const deadlineMs = await this.#subscription.open(this.#signal);
    void this.#holding.extend(deadlineMs, life);
    const workers = Array.from({ length: this.#concurrency }, () =>
      this.#each((d) => (this.#signal?.aborted ? this.#release(d) : this.#handle(d))),
    );
    const patience = new Promise<void>((resolve) => {
      const drain = () => {
        this.#subscription.drain();
        this.#each((d) => this.#release(d)).catch(() => {}); // what waits behind busy handlers, which hear of the error
        pause(this.#drainTimeoutMs, life).then(resolve, () => {});
      };
      this.#signal?.addEventListener("abort", drain, { once: true });
      life.addEventListener("abort", () => this.#signal?.removeEventListener("abort", drain));
      if (this.#signal?.aborted) {
        drain();
      }
    });
    const ended = await Promise.race([Promise.allSettled(workers), patience]);
    this.#holding.lose(); // all that a handler still has when the patience is over
    for (const worker of ended ?? []) {
      if (worker.status === "rejected") {
        throw worker.reason;
      }
    }
  }

  async #each(settle: (delivery: Delivery) => Promise<void>): Promise<void> {
    for (let d = await this.#subscription.next(); d; d = await this.#subscription.next()) {
      await settle(d);
    }
  }

  async #handle(delivery: Delivery): Promise<void> {
    const signal = this.#holding.signal(delivery);
    if (!signal) {
      return; // lost, while it waited
    }
    try {
      await this.#handler(delivery, signal);
    } catch (error) {
      this.#warn("handler", delivery, error);
      return signal.aborted ? undefined : this.#settle("nack", delivery, () => delivery.nack(...verdict(error)));
    }
    return signal.aborted ? undefined : this.#settle("ack", delivery, () => delivery.ack());
  }

  /** Gives a delivery that no handler has seen to another consumer. */
  #release(delivery: Delivery): Promise<void> {
    return this.#settle("release", delivery, () => delivery.nack("", { action: NackAction.RELEASE }));
  }

  /** Settling is tried for as long as the client's patience lasts, also when it drains. */
  async #settle(what: string, delivery: Delivery, settle: () => Promise<unknown>): Promise<void> {
    try {
      await settle();
    } catch (error) {
      this.#warn(what, delivery, error);
    }
    this.#holding.drop(delivery);
  }

  #warn(what: string, { event, attempt }: Delivery, error: unknown): void {
    this.#calls.logger?.warn(`eventbroker: ${what}`, { event: event.eventId, attempt, error });
  }
}

/** What an error of a handler says: why, and what is to become of the event. */
function verdict(error: unknown): [string, NackOptions] {
  const reason = error instanceof Error ? error.message || error.name : String(error);
  for (let cause = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof Reject) {
      return [reason, { action: NackAction.DEAD_LETTER }];
    }
    if (cause instanceof RetryAfter) {
      return [reason, { delayMs: cause.delayMs }];
    }
  }
  return [reason, {}];
}
