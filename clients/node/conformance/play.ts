// A case under way: its state, and how its steps are taken.

import { type Client, type Delivery, type Event, type Subscription } from "@eventbroker/client";
import { newId } from "@eventbroker/client";

import { check, type Case, type Steps } from "./case.js";
import { dead } from "./dead.js";
import { handling, type Worker } from "./handling.js";
import { publishing } from "./publishing.js";
import { settling } from "./settling.js";
import { taking } from "./taking.js";

export type Verbs = { [V in keyof Steps]: (play: Play, say: Steps[V]) => unknown };

const MOST_OF_CASE_MS = 120_000;
const MOST_OF_WAIT_MS = 15_000;

export class Play {
  readonly tenant = `t-${newId()}`;
  readonly life = new AbortController(); // of all that the case starts
  readonly published = new Map<string, Event>(); // by event id, as they were stored
  readonly results = new Map<string, bigint[][]>(); // by name, where a publish stored its events
  position = 0n; // of the last event that was published
  readonly deliveries = new Map<string, Delivery[]>();
  readonly subscriptions = new Map<string, Subscription>();
  readonly workers = new Map<string, Worker>();

  constructor(
    readonly client: Client,
    readonly control: string,
  ) {}

  async run({ steps }: Case): Promise<void> {
    const verbs: Verbs = { ...publishing, ...taking, ...settling, ...handling, ...dead };
    const late = setTimeout(() => this.life.abort(new Error("the case took too long")), MOST_OF_CASE_MS);
    try {
      for (const [number, step] of steps.entries()) {
        for (const [verb, say] of Object.entries(step)) {
          try {
            check(verb, say);
            await (verbs[verb] as (play: Play, say: object) => unknown)(this, say);
          } catch (error) {
            throw new Error(`step ${number + 1}, ${verb}: ${error instanceof Error ? error.message : error}`);
          }
        }
      }
    } finally {
      clearTimeout(late);
      this.life.abort(new Error("the case is over"));
    }
  }

  /** Bounds a wait; without a number it is 15 s. */
  within(seconds?: number): AbortSignal {
    const wait = new AbortController(); // Node 20 may forget what AbortSignal.any waits for
    const ms = seconds === undefined ? MOST_OF_WAIT_MS : seconds * 1000;
    const late = setTimeout(() => wait.abort(new Error("it took too long")), ms);
    this.life.signal.addEventListener("abort", () => {
      clearTimeout(late);
      wait.abort(this.life.signal.reason);
    });
    return wait.signal;
  }

  /** Asks until the answer does not throw. */
  async eventually(ask: () => unknown): Promise<void> {
    const wait = this.within();
    for (;;) {
      try {
        await ask();
        return;
      } catch (error) {
        if (wait.aborted) {
          throw error;
        }
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The last delivery of an event that was taken; "e1#1" is the first, and so on. */
  delivery(name: string): Delivery {
    const [id, ordinal] = numbered(name);
    const found = (this.deliveries.get(id) ?? []).at(ordinal === 0 ? -1 : ordinal - 1);
    if (!found) {
      throw new Error(`${name} was not taken`);
    }
    return found;
  }
}

export function numbered(name: string): [string, number] {
  const [, id, ordinal] = /^(.*)#([0-9]+)$/s.exec(name) ?? [];
  return id === undefined ? [name, 0] : [id, Number(ordinal)];
}
