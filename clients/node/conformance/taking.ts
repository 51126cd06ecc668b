// Subscribes, and takes what comes by hand.

import { type Delivery, type Event } from "@eventbroker/client";
import { EventSchema } from "@eventbroker/client/v1";

import { type Wish } from "./case.js";
import { asPublished } from "./event.js";
import { type Play, type Verbs } from "./play.js";
import { refused, same } from "./same.js";

export function wishOf(play: Play, { event_types: types = [], ack_deadline: seconds }: Wish) {
  return { types, tenant: play.tenant, ...(seconds !== undefined && { ackDeadlineMs: seconds * 1000 }) };
}

export const taking: Pick<Verbs, "subscribe" | "take" | "expect_none_within"> = {
  async subscribe(play, say) {
    const options = {
      ...wishOf(play, say),
      consumerId: say.consumer_id ?? "",
      maxUnsettled: say.max_unsettled ?? 0,
      signal: play.life.signal,
    };
    const opening = play.client.subscribe(say.group, options);
    const late = play.within();
    const opened = await refused(say.error, () =>
      Promise.race([
        opening,
        new Promise<never>((_, reject) => late.addEventListener("abort", () => reject(new Error("no answer")))),
      ]),
    );
    if (opened) {
      play.subscriptions.set(say.as, opened);
    }
  },

  async take(play, say) {
    const wait = play.within();
    const missing = new Set(say.events);
    const counts: Record<string, number> = {};
    while (missing.size > 0) {
      const [from, delivery] = await next(play, [say.from].flat(), wait).catch((error) => {
        throw new Error(`without ${[...missing]}: ${error}`);
      });
      const { event, attempt } = delivery;
      const id = event.eventId;
      if (!missing.delete(id)) {
        throw new Error(`${id} came, which was not to come`);
      }
      counts[from] = (counts[from] ?? 0) + 1;
      play.deliveries.set(id, [...(play.deliveries.get(id) ?? []), delivery]);
      same(`attempt of ${id}`, attempt, say.attempt ?? attempt);
      asPublished(event, play.published.get(id)!);
      for (const [name, value] of Object.entries(say.like?.[id] ?? {})) {
        const field = EventSchema.fields.find((each) => each.name === name)!;
        same(`${name} of ${id}`, String(event[field.localName as keyof Event]), value);
      }
    }
    same("they share", counts, say.counts ?? counts);
  },

  async expect_none_within(play, say) {
    const wait = play.within(say.seconds);
    const came = await play.subscriptions
      .get(say.from)!
      .next(wait)
      .catch((error) => {
        if (!wait.aborted || play.life.signal.aborted) {
          throw error;
        }
      });
    same("what came", came?.event.eventId, undefined);
  },
};

/** The next delivery to any of some subscriptions: a little with each, in turn, if there are several. */
async function next(play: Play, from: string[], wait: AbortSignal): Promise<[string, Delivery]> {
  for (;;) {
    for (const name of from) {
      const turn = from.length > 1 ? play.within(0.02) : wait;
      try {
        const delivery = await play.subscriptions.get(name)!.next(turn);
        if (!delivery) {
          throw new Error(`${name} ended`);
        }
        return [name, delivery];
      } catch (error) {
        if (wait.aborted || !turn.aborted) {
          throw error;
        }
      }
    }
  }
}
