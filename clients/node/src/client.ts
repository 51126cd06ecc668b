// The client: what every service would have to write for itself, over the messages of the contract.

import { Client as Channel, connectivityState, credentials, type ChannelInterface } from "@grpc/grpc-js";

import { Calls, type Logger } from "./calls.js";
import { Door, type CallOptions, type Stub, type Token } from "./door.js";
import { Code, EventBrokerError } from "./errors.js";
import { DeadLetterService } from "./gen/eventbroker/v1/dead_letter_service_pb.js";
import { EventStoreService } from "./gen/eventbroker/v1/event_store_service_pb.js";
import { GroupService } from "./gen/eventbroker/v1/group_service_pb.js";
import { type PublishResult } from "./gen/eventbroker/v1/publisher_service_pb.js";
import { type SettleOutcome } from "./gen/eventbroker/v1/subscriber_service_pb.js";
import { Handling, type ConsumeOptions, type Handler } from "./handling.js";
import { publishMany, type EventInit, type PublishOptions } from "./publish.js";
import { Settling, type NackOptions } from "./settling.js";
import { Subscription, type SubscribeOptions } from "./subscription.js";

export interface ConnectOptions {
  /** The tenant of events and subscriptions that name none. */
  tenant?: string;
  /** Says who calls. */
  token?: Token;
  /** Encrypts the connection: `true` trusts the authorities that Node trusts; files are in PEM. Default: plain text. */
  tls?: boolean | { ca?: Buffer; key?: Buffer; cert?: Buffer };
  /** How long a call is tried that does not say it, in ms; also how long to wait for the broker. Default 30 s. */
  patienceMs?: number;
  /** When a try that has no answer is given up, and the next one begins, in ms. Default 10 s. */
  tryTimeoutMs?: number;
  /** Has reconnects and failed handlers logged, such as `console`. By default nothing is. */
  logger?: Logger;
  /** Gives up waiting for the broker. */
  signal?: AbortSignal;
}

/**
 * Connects to a broker, such as "127.0.0.1:50051", and waits until it answers. Afterwards the connection is renewed by
 * itself. Throws an EventBrokerError if there is no answer in time, or the signal's reason.
 */
export async function connect(target: string, options: ConnectOptions = {}): Promise<Client> {
  const { tls, signal, patienceMs = 30_000 } = options;
  signal?.throwIfAborted();
  const { ca, key, cert } = typeof tls === "object" ? tls : {};
  const trust = tls ? credentials.createSsl(ca ?? null, key ?? null, cert ?? null) : credentials.createInsecure();
  const channel = new Channel(target, trust, {
    // The server takes pings every 10 s. A peer that is gone without a word is noticed within 30 s.
    "grpc.keepalive_time_ms": 20_000,
    "grpc.keepalive_timeout_ms": 10_000,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 5_000,
    "grpc.use_local_subchannel_pool": 1, // a client that is closed leaves no connection
    "grpc.enable_retries": 0, // this package tries again itself
    "grpc.max_receive_message_length": 64 * 1024 * 1024,
  });
  const aborted = () => channel.close();
  signal?.addEventListener("abort", aborted);
  try {
    await ready(channel.getChannel(), Date.now() + patienceMs, signal);
  } catch (cause) {
    channel.close();
    signal?.throwIfAborted();
    throw Object.assign(new EventBrokerError(Code.UNAVAILABLE, `no answer from ${target}`), { cause });
  } finally {
    signal?.removeEventListener("abort", aborted);
  }
  return new Client(channel, { ...options, patienceMs });
}

/** As waitForReady of gRPC, which wakes a channel again that was closed meanwhile. */
async function ready(channel: ChannelInterface, deadline: number, signal: AbortSignal | undefined): Promise<void> {
  for (;;) {
    signal?.throwIfAborted();
    const state = channel.getConnectivityState(true);
    if (state === connectivityState.READY) {
      return;
    }
    await new Promise<void>((resolve, reject) =>
      channel.watchConnectivityState(state, deadline, (error) => (error ? reject(error) : resolve())),
    );
  }
}

/** A connection to a broker. A process needs one. */
export class Client {
  /** Manages consumer groups; as generated, so nothing is tried again. */
  readonly groups: Stub<typeof GroupService>;
  /** Shows and redrives what groups have given up; as generated. */
  readonly deadLetters: Stub<typeof DeadLetterService>;
  /** Reads what is stored; as generated. */
  readonly events: Stub<typeof EventStoreService>;

  readonly #door: Door;
  readonly #calls: Calls;
  readonly #settling: Settling;
  readonly #tenant: string;

  /** @internal */
  constructor(channel: Channel, { tenant = "", token, logger, patienceMs = 0, tryTimeoutMs = 10_000 }: ConnectOptions) {
    const door = new Door(channel, token);
    this.#door = door;
    this.#calls = new Calls(door, patienceMs, tryTimeoutMs, logger);
    this.#settling = new Settling(this.#calls);
    this.#tenant = tenant;
    this.groups = door.stub(GroupService);
    this.deadLetters = door.stub(DeadLetterService);
    this.events = door.stub(EventStoreService);
  }

  /** Stores one event. As `publishMany`. */
  async publish(event: EventInit, options: PublishOptions = {}): Promise<PublishResult> {
    return (await this.publishMany([event], options))[0]!;
  }

  /**
   * Stores 1 to 1,000 events, all or none unless `perEvent` says otherwise. When it returns they are committed and
   * flushed.
   *
   * While the broker is away or its answer got lost, the same events are published again, with the same ids, until the
   * timeout: so each is stored once. An event that such a try has stored without our knowing is a DUPLICATE then. After
   * an error that is `definite` nothing was stored. With `perEvent`, events whose outcome is not known when the time is
   * over are REFUSED with code UNAVAILABLE.
   */
  publishMany(events: readonly EventInit[], options: PublishOptions = {}): Promise<PublishResult[]> {
    return publishMany(this.#calls, this.#tenant, events, options);
  }

  /**
   * Joins a group; an empty name makes an ephemeral one, which ends when its connection breaks. It returns when the
   * broker has answered, which it tries until then unless the broker refuses.
   *
   * Every delivery must be settled before its deadline, or extended: `consume` does that for you.
   */
  async subscribe(group: string, options: SubscribeOptions = {}): Promise<Subscription> {
    const subscription = new Subscription(this.#calls, this.#settling, undefined, group, this.#tenant, options);
    await subscription.open(options.signal);
    subscription.closeOn(options.signal);
    return subscription;
  }

  /**
   * Hands the events of a group to a handler, several at a time, and settles them by what becomes of it. It reconnects
   * by itself, and throws only when the broker refuses, the group was deleted, or another consumer took over this one's
   * id.
   *
   * When its signal is aborted it drains: no more handlers start, those that run may end, their events are settled, and
   * the rest goes to other consumers at once. Then it returns.
   */
  async consume(group: string, handler: Handler, options: ConsumeOptions = {}): Promise<void> {
    await new Handling(this.#calls, this.#settling, group, this.#tenant, handler, options).run();
  }

  /** Settles deliveries by their ack ids, which may come from anywhere. One outcome for each, in their order. */
  ack(ackIds: string[], options?: CallOptions): Promise<SettleOutcome[]> {
    return this.#settling.ack(ackIds, options);
  }

  /** Gives deliveries back by their ack ids. The reason is kept with the attempt; what is too long of it is cut. */
  nack(ackIds: string[], reason: string, options?: NackOptions): Promise<SettleOutcome[]> {
    return this.#settling.nack(ackIds, reason, options);
  }

  /** Gives deliveries more time by their ack ids, counted from now. */
  extend(ackIds: string[], deadlineMs: number, options?: CallOptions): Promise<SettleOutcome[]> {
    return this.#settling.extend(ackIds, deadlineMs, options);
  }

  /** Closes the connection: calls and subscriptions end with an error. What these hold goes to other consumers. */
  close(): void {
    this.#door.close();
  }
}
