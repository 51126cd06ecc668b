// Dead letters, and whoever holds the broker.

import { connect as dial } from "node:net";
import { text } from "node:stream/consumers";

import { type Verbs } from "./play.js";
import { refused, same } from "./same.js";

export const dead: Pick<Verbs, "dead_letters" | "redrive" | "control"> = {
  async dead_letters(play, { group, events, reasons, attempts, rejected }) {
    await play.eventually(async () => {
      const request = { group, tenantId: play.tenant };
      const { deadLetters: all } = await play.client.deadLetters.listDeadLetters(request, { signal: play.within() });
      same("dead letters", all.map(({ eventId }) => eventId).sort(), [...events].sort());
      const by = <T>(of: (each: (typeof all)[number]) => T) =>
        Object.fromEntries(all.map((each) => [each.eventId, of(each)]));
      for (const [what, got, want] of [
        ["reasons", by(({ reason }) => reason), reasons],
        ["attempts", by((each) => each.attempts), attempts],
        ["rejected", by((each) => each.rejected), rejected],
      ] as const) {
        same(what, got, want ?? got);
      }
    });
  },

  async redrive(play, { group, events: eventIds = [], all = false, redriven, remaining, error }) {
    const request = { group, tenantId: play.tenant, filter: { all, eventIds } };
    const answer = await refused(error, () =>
      play.client.deadLetters.redriveDeadLetters(request, { signal: play.within() }),
    );
    if (answer) {
      same("redriven and remaining", [String(answer.redriven), String(answer.remaining)], [redriven, remaining]);
    }
  },

  async control(play, { say, event, delivery }) {
    const mark = event ?? (delivery && play.delivery(delivery).ackId);
    const socket = dial({ port: Number(play.control), host: "127.0.0.1", signal: play.life.signal });
    socket.end(`${mark === undefined ? say : `${say} ${mark}`}\n`);
    same("control answers", (await text(socket)).trim(), "ok");
  },
};
