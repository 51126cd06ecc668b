// Publishes, makes groups, and waits until these are done.

import { atVersion, exists, PublishOutcome } from "@eventbroker/client";

import { eventOf } from "./event.js";
import { type Play, type Verbs } from "./play.js";
import { refused, same } from "./same.js";

export const publishing: Pick<Verbs, "publish" | "create_group" | "settled"> = {
  async publish(play, say) {
    const events = say.events.map((each) => eventOf(each, play.tenant));
    const expect = (say.expectations ?? []).map(({ aggregate_type: type, aggregate_id: id, version, exists: is }) =>
      version === undefined ? exists(type, id, is) : atVersion(type, id, BigInt(version)),
    );
    const perEvent = say.mode === "PER_EVENT";
    const options = { expect, perEvent, signal: play.life.signal };
    const results = await refused(say.error, () => play.client.publishMany(events, options));
    if (!results) {
      return;
    }
    same(
      "outcomes",
      results.map(({ outcome }) => PublishOutcome[outcome]),
      say.outcomes ?? events.map(() => "STORED"),
    );
    results.forEach(({ eventId, outcome, error, position }, number) => {
      if (outcome === PublishOutcome.REFUSED) {
        const why = { reason: error?.reason, fields: error?.violations.map(({ field }) => field) };
        same(`refusal of ${eventId}`, why, say.refused?.[eventId]);
        return;
      }
      if (!play.published.has(eventId)) {
        play.published.set(eventId, events[number]!);
      }
      play.position = position > play.position ? position : play.position;
    });
    if (say.versions) {
      same(
        "versions",
        results.map(({ aggregateVersion }) => String(aggregateVersion)),
        say.versions,
      );
    }
    const places = results.map(({ position, aggregateVersion }) => [position, aggregateVersion]);
    if (say.same_as !== undefined) {
      same("places", places, play.results.get(say.same_as));
    }
    play.results.set(say.as ?? "", places);
  },

  async create_group(play, say) {
    const seconds = (number: number | undefined) => (number === undefined ? {} : duration(number));
    await refused(say.error, () =>
      play.client.groups.createGroup(
        {
          name: say.group,
          tenantId: play.tenant,
          eventTypes: say.event_types ?? [],
          ...(say.ack_deadline !== undefined && { ackDeadline: seconds(say.ack_deadline) }),
          retryPolicy: {
            ...(say.initial_backoff !== undefined && { initialBackoff: seconds(say.initial_backoff) }),
            ...(say.maximum_backoff !== undefined && { maximumBackoff: seconds(say.maximum_backoff) }),
            maxAttempts: say.max_attempts ?? 0,
          },
        },
        { signal: play.within() },
      ),
    );
  },

  async settled(play: Play, { group: name }) {
    await play.eventually(async () => {
      const request = { name, tenantId: play.tenant, position: play.position, timeout: duration(5) };
      const answer = await play.client.groups.waitForGroup(request, { signal: play.within() });
      same(`settled up to ${answer.settledPosition}`, answer.reached, true);
    });
  },
};

function duration(seconds: number) {
  return { seconds: BigInt(Math.trunc(seconds)), nanos: Math.round((seconds % 1) * 1e9) };
}
