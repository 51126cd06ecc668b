// Calls that are made again until they succeed, fail for good, or their time is over.

import { type DescMessage, type DescMethod, type MessageInitShape, type MessageShape } from "@bufbuild/protobuf";

import { backoff } from "./backoff.js";
import { type CallOptions, type Door } from "./door.js";
import { Code, EventBrokerError } from "./errors.js";
import { pause } from "./time.js";

/** Where reconnects and failed handlers are told, such as `console`. */
export interface Logger {
  debug(message: string, details: object): void;
  info(message: string, details: object): void;
  warn(message: string, details: object): void;
}

export class Calls {
  constructor(
    readonly door: Door,
    readonly patienceMs: number,
    readonly tryTimeoutMs: number,
    readonly logger: Logger | undefined,
  ) {}

  /** Calls a method again and again. When the time is over it throws the last error, its cause being the one before. */
  call<I extends DescMessage, O extends DescMessage>(
    method: DescMethod & { input: I; output: O },
    request: MessageInitShape<I>,
    options: CallOptions = {},
  ): Promise<MessageShape<O>> {
    return this.repeat((deadline) => this.door.unary(method, request, deadline, options.signal), options);
  }

  /** Does the same with anything that calls once, until the deadline that it is given. */
  async repeat<T>(once: (deadline: number) => Promise<T>, { signal, timeoutMs }: CallOptions = {}): Promise<T> {
    const end = Date.now() + (timeoutMs ?? this.patienceMs);
    let before: EventBrokerError | undefined;
    let unknown = false; // what became of a try before
    for (let n = 1; ; n++) {
      try {
        return await once(Math.min(end, Date.now() + this.tryTimeoutMs));
      } catch (error) {
        if (unknown && error instanceof EventBrokerError) {
          error.afterUnknown();
        }
        unknown ||= !(error instanceof EventBrokerError && error.definite);
        if (!(error instanceof EventBrokerError && error.retryable)) {
          throw error;
        }
        if (before && error.code === Code.DEADLINE_EXCEEDED) {
          error.cause = before;
        }
        const wait = backoff(n, error.retryAfterMs);
        if (Date.now() + wait >= end) {
          throw error;
        }
        before = error;
        await pause(wait, signal, this.door.closed);
        this.logger?.debug("eventbroker: trying again", { try: n + 1, error });
      }
    }
  }
}
