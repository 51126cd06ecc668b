// The cases, as tests/conformance/schema.json tells their form.

import { readdirSync, readFileSync } from "node:fs";
import { basename, join } from "node:path";

/** One behaviour, as steps of one verb each. */
export interface Case {
  name: string;
  description: string;
  needs_control?: boolean;
  steps: Record<string, object>[];
  file: string;
}

export function load(directory: string): Case[] {
  const files = readdirSync(directory)
    .filter((file) => file.endsWith(".json"))
    .sort();
  return files.flatMap((file) => {
    const cases = JSON.parse(readFileSync(join(directory, file), "utf8")) as Case[];
    return cases.map((each) => ({ ...each, file: basename(file, ".json") }));
  });
}

/** The error that a step expects. */
export interface Refusal {
  code: string;
  reason: string;
  retryable: boolean;
  fields?: string[];
  metadata?: Record<string, string>;
  conflicts?: string[];
}

/** An event as a case says it. A field that is null is left out of the event; one that is missing has a default. */
export interface Said {
  event_id: string;
  event_type?: string;
  event_version?: string;
  aggregate_id?: string;
  aggregate_type?: string;
  timestamp?: string | null;
  user_id?: string;
  session_id?: string;
  request_id?: string;
  correlation_id?: string;
  json?: string | null;
  message?: { type_url: string; base64: string };
  binary?: { content_type: string; base64: string };
  fill?: { form: "json" | "binary"; bytes: number };
  typed?: Record<string, Record<string, never>>;
  metadata?: {
    source?: string;
    caused_by?: string;
    entity_version?: string;
    tags?: string[];
    attributes?: Record<string, string>;
  };
}

/** Durations are in seconds, numbers of 64 bits are text. */
export interface Steps {
  publish: {
    events: Said[];
    mode?: "PER_EVENT";
    expectations?: { aggregate_type: string; aggregate_id: string; version?: string; exists?: boolean }[];
    outcomes?: string[];
    versions?: string[];
    as?: string;
    same_as?: string;
    refused?: Record<string, { reason: string; fields: string[] }>;
    error?: Refusal;
  };
  create_group: {
    group: string;
    event_types?: string[];
    ack_deadline?: number;
    initial_backoff?: number;
    maximum_backoff?: number;
    max_attempts?: number;
    error?: Refusal;
  };
  subscribe: Wish & { consumer_id?: string; max_unsettled?: number; error?: Refusal };
  run: Wish & { concurrency?: number; on?: Record<string, Action[]> };
  take: {
    from: string | string[];
    events: string[];
    attempt?: number;
    counts?: Record<string, number>;
    like?: Record<string, Record<string, string>>;
  };
  expect_none_within: { from: string; seconds: number };
  ack: Settle & { ack_ids?: string[] };
  nack: Settle & { action?: "DEAD_LETTER" | "RELEASE"; reason?: string; delay?: number };
  extend: Settle & { seconds: number };
  expect_handled: { by: string; events: string[]; state?: "begun" | "done"; times?: number };
  finish: { by: string; events: string[] };
  stop: { who: string; how: "close" | "drain" };
  expect_end: { who: string; error?: "REPLACED" | "GROUP_DELETED" };
  dead_letters: {
    group: string;
    events: string[];
    reasons?: Record<string, string>;
    attempts?: Record<string, number>;
    rejected?: Record<string, boolean>;
  };
  redrive: { group: string; events?: string[]; all?: boolean; redriven?: string; remaining?: string; error?: Refusal };
  settled: { group: string };
  control: { say: string; event?: string; delivery?: string };
}

export interface Wish {
  as: string;
  group: string;
  event_types?: string[];
  ack_deadline?: number;
}

export interface Settle {
  deliveries?: string[];
  outcomes?: string[];
  error?: Refusal;
}

/** What a handler does with an event: holds it until `finish`, then fails or succeeds. */
export interface Action {
  hold?: boolean;
  fail?: string;
  reject?: string;
  retry_after?: number;
}

/** The arguments that this runner knows of each verb, and of what is in them; another one is a failure. */
const EVENT = [
  "event_id",
  "event_type",
  "event_version",
  "aggregate_id",
  "aggregate_type",
  "timestamp",
  "user_id",
  "session_id",
  "request_id",
  "correlation_id",
  "json",
  "message",
  "binary",
  "fill",
  "typed",
  "metadata",
];

const KNOWN: Record<keyof Steps, string[]> = {
  publish: ["events", "mode", "expectations", "outcomes", "versions", "as", "same_as", "refused", "error"],
  create_group: ["group", "event_types", "ack_deadline", "initial_backoff", "maximum_backoff", "max_attempts", "error"],
  subscribe: ["as", "group", "event_types", "ack_deadline", "consumer_id", "max_unsettled", "error"],
  run: ["as", "group", "event_types", "ack_deadline", "concurrency", "on"],
  take: ["from", "events", "attempt", "counts", "like"],
  expect_none_within: ["from", "seconds"],
  ack: ["deliveries", "ack_ids", "outcomes", "error"],
  nack: ["deliveries", "action", "reason", "delay", "outcomes", "error"],
  extend: ["deliveries", "seconds", "outcomes", "error"],
  expect_handled: ["by", "events", "state", "times"],
  finish: ["by", "events"],
  stop: ["who", "how"],
  expect_end: ["who", "error"],
  dead_letters: ["group", "events", "reasons", "attempts", "rejected"],
  redrive: ["group", "events", "all", "redriven", "remaining", "error"],
  settled: ["group"],
  control: ["say", "event", "delivery"],
};

function only(known: string[], of: object): void {
  const strange = Object.keys(of).filter((name) => !known.includes(name));
  if (strange.length > 0) {
    throw new Error(`this runner does not know ${strange}`);
  }
}

export function check(verb: string, step: object): asserts verb is keyof Steps {
  only(Object.keys(KNOWN), { [verb]: step });
  only(KNOWN[verb as keyof Steps], step);
  if (verb === "publish") {
    for (const event of (step as Steps["publish"]).events) {
      only(EVENT, event);
      only(["source", "caused_by", "entity_version", "tags", "attributes"], event.metadata ?? {});
    }
  }
  if (verb === "run") {
    for (const actions of Object.values((step as Steps["run"]).on ?? {})) {
      actions.forEach((action) => only(["hold", "fail", "reject", "retry_after"], action));
    }
  }
  if ("error" in step && typeof step.error === "object") {
    only(["code", "reason", "retryable", "fields", "metadata", "conflicts"], step.error ?? {});
  }
}
