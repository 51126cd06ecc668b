// Publishing: again with the same ids while the outcome is not known, so that each event is stored once.

import { create, type MessageInitShape } from "@bufbuild/protobuf";
import { status as Code } from "@grpc/grpc-js";

import { type Calls } from "./calls.js";
import { type CallOptions } from "./door.js";
import { EventBrokerError } from "./errors.js";
import { EventSchema } from "./gen/eventbroker/v1/event_pb.js";
import {
  AggregateExpectationSchema,
  PublisherService,
  PublishMode,
  type AggregateExpectation,
  type PublishResult,
} from "./gen/eventbroker/v1/publisher_service_pb.js";

/** An event, or the fields of one. */
export type EventInit = MessageInitShape<typeof EventSchema>;

export interface PublishOptions extends CallOptions {
  /** The events are stored only if all of this holds; otherwise the error's reason is VERSION_CONFLICT. */
  expect?: AggregateExpectation[];
  /** Each event is decided for itself: some may be refused, as their results tell, and the others stored. */
  perEvent?: boolean;
}

/** Expects that an aggregate is at exactly this version; 0n: it has no event yet. */
export function atVersion(aggregateType: string, aggregateId: string, version: bigint): AggregateExpectation {
  return create(AggregateExpectationSchema, {
    aggregateType,
    aggregateId,
    expected: { case: "version", value: version },
  });
}

/** Expects that an aggregate has at least one event, or none. */
export function exists(aggregateType: string, aggregateId: string, expected = true): AggregateExpectation {
  return create(AggregateExpectationSchema, {
    aggregateType,
    aggregateId,
    expected: { case: "exists", value: expected },
  });
}

export async function publishMany(
  calls: Calls,
  tenant: string,
  events: readonly EventInit[],
  { expect = [], perEvent = false, ...options }: PublishOptions,
): Promise<PublishResult[]> {
  const mode = perEvent ? PublishMode.PER_EVENT : PublishMode.UNSPECIFIED;
  const all = events.map((event) => create(EventSchema, event.tenantId ? event : { ...event, tenantId: tenant }));
  let results: PublishResult[] = [];
  let open = [...all.keys()]; // the places of the events whose outcome is not known
  const publishOpen = async (deadline: number): Promise<void> => {
    const request = { events: open.map((place) => all[place]!), mode, expectations: expect };
    const answer = await calls.door.unary(PublisherService.method.publish, request, deadline, options.signal);
    if (answer.results.length !== open.length) {
      throw new Error(`${answer.results.length} results for ${open.length} events`);
    }
    const next = results.slice();
    answer.results.forEach((result, number) => (next[open[number]!] = result));
    results = next;
    open = open.filter((place) => results[place]?.error?.code === Code.UNAVAILABLE);
    if (open.length > 0) {
      throw new EventBrokerError(Code.UNAVAILABLE, results[open[0]!]?.error?.message ?? "");
    }
  };
  try {
    await calls.repeat(publishOpen, options);
  } catch (error) {
    if (results.length === 0 || options.signal?.aborted) {
      throw error;
    }
  }
  return results;
}
