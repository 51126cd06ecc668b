// Runs handlers by `consume`, and looks at what they saw.

import { GroupDeletedError, Reject, ReplacedError, RetryAfter, type Delivery } from "@eventbroker/client";

import { type Action, type Steps } from "./case.js";
import { numbered, type Play, type Verbs } from "./play.js";
import { same } from "./same.js";
import { wishOf } from "./taking.js";

/** A `consume` under way, with what its handler saw. */
export class Worker {
  readonly begun = new Map<string, number>();
  readonly done = new Map<string, number>();
  readonly drain = new AbortController();
  readonly over: Promise<{ error?: unknown }>;
  ended: { error?: unknown } | undefined;
  readonly #on: Record<string, Action[]>;
  readonly #finish = new Map<string, () => void>();
  readonly #finished = new Map<string, Promise<void>>();

  constructor(play: Play, say: Steps["run"]) {
    this.#on = say.on ?? {};
    for (const id of Object.keys(this.#on)) {
      this.#finished.set(id, new Promise((resolve) => this.#finish.set(id, resolve)));
    }
    play.life.signal.addEventListener("abort", () => this.drain.abort());
    const options = {
      ...wishOf(play, say),
      ...(say.concurrency !== undefined && { concurrency: say.concurrency }),
      signal: this.drain.signal,
      drainTimeoutMs: 30_000,
    };
    this.over = play.client
      .consume(say.group, (delivery, signal) => this.#handle(delivery, signal), options)
      .then(
        () => ({}),
        (error: unknown) => ({ error }),
      )
      .then((ended) => (this.ended = ended));
  }

  finish(id: string): void {
    this.#finish.get(id)!();
  }

  async #handle({ event: { eventId: id } }: Delivery, signal: AbortSignal): Promise<void> {
    const ordinal = (this.begun.get(id) ?? 0) + 1;
    this.begun.set(id, ordinal);
    const { hold, fail, reject, retry_after: seconds } = this.#on[id]?.[ordinal - 1] ?? {};
    if (hold) {
      const lost = new Promise((_, no) => signal.addEventListener("abort", () => no(signal.reason)));
      await Promise.race([this.#finished.get(id), lost]);
    }
    this.done.set(id, (this.done.get(id) ?? 0) + 1);
    if (reject !== undefined) {
      throw new Reject(reject);
    }
    if (seconds !== undefined) {
      throw new RetryAfter(seconds * 1000, fail);
    }
    if (fail !== undefined) {
      throw new Error(fail);
    }
  }
}

const ENDINGS = { REPLACED: ReplacedError, GROUP_DELETED: GroupDeletedError };

export const handling: Pick<Verbs, "run" | "expect_handled" | "finish" | "stop" | "expect_end"> = {
  run(play, say) {
    play.workers.set(say.as, new Worker(play, say));
  },

  async expect_handled(play, { by, events, state = "done", times }) {
    const worker = play.workers.get(by)!;
    for (const name of events) {
      const [id, ordinal] = numbered(name);
      await play.eventually(() => {
        if (worker.ended?.error !== undefined) {
          throw worker.ended.error;
        }
        const count = worker[state].get(id) ?? 0;
        if (count < Math.max(ordinal, 1)) {
          throw new Error(`${id} was handled ${count} times`);
        }
      });
      same(`times of ${id}`, worker.begun.get(id), times ?? worker.begun.get(id));
    }
  },

  finish(play, { by, events }) {
    events.forEach((id) => play.workers.get(by)!.finish(id));
  },

  stop(play, { who, how }) {
    if (how === "drain") {
      play.workers.get(who)!.drain.abort();
    } else {
      play.subscriptions.get(who)!.close();
    }
  },

  async expect_end(play, { who, error }) {
    const wait = play.within();
    const worker = play.workers.get(who);
    const ended = worker
      ? await Promise.race([
          worker.over,
          new Promise<never>((_, no) => wait.addEventListener("abort", () => no(wait.reason))),
        ])
      : await play.subscriptions
          .get(who)!
          .next(wait)
          .then(
            (came) => ({ error: came && "goes on" }),
            (error: unknown) => ({ error }),
          );
    if (error ? !(ended.error instanceof ENDINGS[error]) : ended.error !== undefined) {
      throw new Error(`it ended with ${ended.error}`);
    }
  },
};
