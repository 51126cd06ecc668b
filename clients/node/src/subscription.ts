// A consumer of a group. It reconnects by itself; what it held when a connection broke comes again, to it or to others.

import { create, type MessageShape } from "@bufbuild/protobuf";

import { backoff, MOST_BACKOFF_MS } from "./backoff.js";
import { type Calls } from "./calls.js";
import { Delivery } from "./delivery.js";
import { Code, EventBrokerError, GroupDeletedError, ReplacedError } from "./errors.js";
import {
  ClosingReason,
  SubscribeRequestSchema,
  type Closing,
  type StartPoint,
} from "./gen/eventbroker/v1/subscriber_service_pb.js";
import { type Holding } from "./holding.js";
import { Inbox } from "./inbox.js";
import { type Settling } from "./settling.js";
import { Stream } from "./stream.js";
import { duration, milliseconds, pause } from "./time.js";

/** What a consumer wants. What is left out is the group's, or the broker's default. */
export interface SubscribeOptions {
  /** Event types: names such as "user.created", wildcards such as "user.*", or "*". */
  types?: string[];
  /** The tenant whose events the group gets. Default: that of the client; without one the caller's, or all. */
  tenant?: string;
  /** Names this consumer, the same over reconnects. Default: the broker makes one up. */
  consumerId?: string;
  /** Where a group starts that is made by this. */
  start?: StartPoint;
  /** How long the consumers of the group have to settle an event, in ms, when it is made by this. */
  ackDeadlineMs?: number;
  /** How many events this consumer may have out. For `consume` it is twice the concurrency by default. */
  maxUnsettled?: number;
  /** Their size. */
  maxUnsettledBytes?: bigint;
  /** Ends the subscription. */
  signal?: AbortSignal;
}

export class Subscription implements AsyncIterable<Delivery> {
  readonly #calls: Calls;
  readonly #settling: Settling;
  readonly #holding: Holding | undefined;
  readonly #request: MessageShape<typeof SubscribeRequestSchema>;
  readonly #life = new AbortController();
  readonly #inbox = new Inbox();
  #stream: Stream | undefined;
  #draining = false;

  /** @internal */
  constructor(
    calls: Calls,
    settling: Settling,
    holding: Holding | undefined,
    group: string,
    tenant: string,
    options: SubscribeOptions,
  ) {
    this.#calls = calls;
    this.#settling = settling;
    this.#holding = holding;
    this.#request = create(SubscribeRequestSchema, {
      group,
      tenantId: options.tenant ?? tenant,
      eventTypes: options.types ?? [],
      consumerId: options.consumerId ?? "",
      start: options.start ?? 0,
      flowControl: {
        maxUnsettledEvents: options.maxUnsettled ?? 0,
        maxUnsettledBytes: options.maxUnsettledBytes ?? 0n,
      },
      ...(options.ackDeadlineMs !== undefined && { ackDeadline: duration(options.ackDeadlineMs) }),
    });
  }

  /** Whether no more will come. */
  get over(): boolean {
    return this.#inbox.over;
  }

  /** @internal Joins the group, and answers with its deadline in ms. Tries until the broker refuses, or the signal. */
  async open(signal?: AbortSignal): Promise<number> {
    this.closeOn(this.#calls.door.closed);
    const aborted = () => this.close(signal?.reason);
    signal?.addEventListener("abort", aborted);
    try {
      signal?.throwIfAborted();
      const stream = await this.#open();
      void this.#run(stream);
      return milliseconds(stream.opened.ackDeadline!);
    } catch (error) {
      this.#end(error);
      throw error;
    } finally {
      signal?.removeEventListener("abort", aborted);
    }
  }

  /** @internal Closes when the signal is aborted. */
  closeOn(signal: AbortSignal | undefined): void {
    const aborted = () => this.close(signal?.reason);
    signal?.addEventListener("abort", aborted, { signal: this.#life.signal });
    if (signal?.aborted) {
      aborted();
    }
  }

  /** The next delivery; undefined: the subscription was closed or drained. The signal ends the wait. */
  next(signal?: AbortSignal): Promise<Delivery | undefined> {
    return this.#inbox.take(signal);
  }

  /** All deliveries, until the subscription ends. To leave the loop closes it. */
  async *[Symbol.asyncIterator](): AsyncGenerator<Delivery, void, undefined> {
    try {
      for (let d = await this.next(); d; d = await this.next()) {
        yield d;
      }
    } finally {
      this.close();
    }
  }

  /**
   * Says that no more is wanted. What is out can be settled; then the subscription ends. What was sent already still
   * comes out of `next`.
   */
  drain(): void {
    if (!this.#stream) {
      this.close(); // between two streams nothing is out
    } else if (!this.#draining) {
      this.#draining = true;
      this.#stream.drain();
    }
  }

  /** Ends the subscription at once. What it holds goes to other consumers. `next` throws the reason, if it has one. */
  close(reason?: unknown): void {
    this.#stream?.end();
    this.#end(reason);
  }

  #end(error: unknown): void {
    this.#inbox.end(error);
    this.#life.abort(new Closed(error)); // the first time only
  }

  /** Tries until a stream is open, the broker refuses, or it is closed. */
  async #open(): Promise<Stream> {
    const life = this.#life.signal;
    for (let n = 1; ; n++) {
      try {
        life.throwIfAborted();
        const stream = await Stream.open(this.#calls.door, this.#request, life);
        if (this.#request.group) {
          this.#request.consumerId = stream.opened.consumerId; // it takes over from what is left of the stream before
        }
        this.#stream = stream;
        return stream;
      } catch (error) {
        if (life.aborted) {
          throw (life.reason as Closed).reason;
        }
        if (!(error instanceof EventBrokerError && error.retryable)) {
          throw error;
        }
        this.#calls.logger?.warn("eventbroker: cannot subscribe", { group: this.#request.group, error });
        await pause(backoff(n, error.retryAfterMs), life).catch(() => {});
      }
    }
  }

  /** Reads stream after stream until there is to be no other. */
  async #run(stream: Stream): Promise<void> {
    try {
      for (let n = 1; ; n++) {
        const began = Date.now();
        const { closing, error } = await this.#read(stream);
        this.#stream = undefined;
        stream.end();
        this.#holding?.lose(stream);
        if (this.over || !this.#comesBack(closing, error)) {
          break;
        }
        const { group } = this.#request;
        this.#calls.logger?.info("eventbroker: subscribing again", { group, closing: closing?.reason, error });
        if (Date.now() - began > MOST_BACKOFF_MS) {
          n = 1;
        }
        await pause(backoff(n, closing?.retryAfter ? milliseconds(closing.retryAfter) : 0), this.#life.signal);
        stream = await this.#open();
      }
      this.#end(undefined);
    } catch (error) {
      this.#end(error);
    }
  }

  /** Takes in what a stream brings until it ends. */
  async #read(stream: Stream): Promise<{ closing?: Closing; error?: unknown }> {
    let closing: { closing?: Closing } = {};
    try {
      for await (const said of stream.read()) {
        if (said.case === "closing") {
          closing = { closing: said.value };
        } else if (said.case === "deliveries") {
          for (const each of said.value.deliveries) {
            const delivery = new Delivery(each, said.value, stream, this.#settling);
            this.#holding?.take(delivery);
            this.#inbox.put(delivery);
          }
        }
      }
      return closing;
    } catch (error) {
      return { ...closing, error };
    }
  }

  /** Whether there is to be another stream after one that ended; throws if it was the last one, and not orderly. */
  #comesBack(closing: Closing | undefined, error: unknown): boolean {
    switch (closing?.reason) {
      case ClosingReason.REPLACED:
        throw new ReplacedError();
      case ClosingReason.GROUP_DELETED:
        throw new GroupDeletedError();
    }
    if (this.#draining) {
      return false; // whatever ended it, nothing is out any more
    }
    if (error !== undefined && !(error instanceof EventBrokerError && error.retryable)) {
      throw error;
    }
    if (!this.#request.group) {
      // The group is gone with its stream, and with it the place in the log.
      throw error ?? new EventBrokerError(Code.UNAVAILABLE, "the stream of an ephemeral group ended");
    }
    return true;
  }
}

/** Why a life ended; its reason may be undefined. */
class Closed {
  constructor(readonly reason: unknown) {}
}
