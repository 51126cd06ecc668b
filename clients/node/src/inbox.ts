// What a subscription brought and nobody has taken yet; and those that wait for more.

import { type Delivery } from "./delivery.js";

export class Inbox {
  readonly #deliveries: Delivery[] = []; // as many as may be out at most
  readonly #waiting = new Set<() => void>();
  #over: { error: unknown } | undefined;

  /** Whether no more will come. */
  get over(): boolean {
    return this.#over !== undefined;
  }

  put(delivery: Delivery): void {
    this.#deliveries.push(delivery);
    for (const wake of this.#waiting) {
      wake(); // one
      break;
    }
  }

  /** No more will come: `take` throws the error, unless it is undefined. */
  end(error: unknown): void {
    this.#over ??= { error };
    this.#waiting.forEach((wake) => wake());
  }

  /** The next delivery; undefined: there will be none. The signal ends the wait. */
  async take(signal: AbortSignal | undefined): Promise<Delivery | undefined> {
    for (;;) {
      for (let d = this.#deliveries.shift(); d; d = this.#deliveries.shift()) {
        if (!d.stream.over) {
          return d; // otherwise it comes again
        }
      }
      if (this.#over) {
        if (this.#over.error !== undefined) {
          throw this.#over.error;
        }
        return undefined;
      }
      await this.#change(signal);
    }
  }

  #change(signal: AbortSignal | undefined): Promise<void> {
    return new Promise((resolve, reject) => {
      signal?.throwIfAborted();
      const done = () => {
        this.#waiting.delete(done);
        signal?.removeEventListener("abort", aborted);
        resolve();
      };
      const aborted = () => {
        this.#waiting.delete(done);
        reject(signal?.reason);
      };
      this.#waiting.add(done);
      signal?.addEventListener("abort", aborted, { once: true });
    });
  }
}
