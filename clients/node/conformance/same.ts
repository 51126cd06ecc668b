// What is compared.

import { isDeepStrictEqual, inspect } from "node:util";

import { Code, EventBrokerError } from "@eventbroker/client";

import { type Refusal } from "./case.js";

export function same(what: string, got: unknown, want: unknown): void {
  if (!isDeepStrictEqual(got, want)) {
    throw new Error(`${what}: ${inspect(got)}, not ${inspect(want)}`);
  }
}

/** Takes a step, which is to succeed or to be refused as it says; undefined: it was refused. */
export async function refused<T>(refusal: Refusal | undefined, step: () => Promise<T>): Promise<T | undefined> {
  let done: T;
  try {
    done = await step();
  } catch (error) {
    if (!refusal || !(error instanceof EventBrokerError)) {
      throw error;
    }
    same("code", Code[error.code], refusal.code);
    same("reason", error.reason, refusal.reason);
    same("retryable", error.retryable, refusal.retryable);
    same("fields", error.violations.map(({ field }) => field).sort(), [...(refusal.fields ?? [])].sort());
    same(
      "conflicts",
      error.conflicts.map(({ aggregate }) => aggregate),
      refusal.conflicts ?? [],
    );
    for (const [name, value] of Object.entries(refusal.metadata ?? {})) {
      same(name, error.metadata[name], value);
    }
    return undefined;
  }
  if (refusal) {
    throw new Error(`no error, where ${refusal.reason} was to come`);
  }
  return done;
}
