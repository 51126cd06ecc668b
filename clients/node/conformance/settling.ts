// Settles by hand, and checks what became of it.

import { NackAction, SettleOutcome } from "@eventbroker/client";

import { type Settle } from "./case.js";
import { type Play, type Verbs } from "./play.js";
import { refused, same } from "./same.js";

async function settle(play: Play, say: Settle, ids: string[], call: (ackIds: string[]) => Promise<SettleOutcome[]>) {
  const ackIds = [...ids, ...(say.deliveries ?? []).map((name) => play.delivery(name).ackId)];
  const outcomes = await refused(say.error, () => call(ackIds));
  if (outcomes) {
    same(
      "outcomes",
      outcomes.map((each) => SettleOutcome[each]),
      say.outcomes ?? ackIds.map(() => "DONE"),
    );
  }
}

export const settling: Pick<Verbs, "ack" | "nack" | "extend"> = {
  ack: (play, say) => settle(play, say, say.ack_ids ?? [], (ids) => play.client.ack(ids, { signal: play.life.signal })),

  nack: (play, say) =>
    settle(play, say, [], (ids) =>
      play.client.nack(ids, say.reason ?? "", {
        action: say.action ? NackAction[say.action] : NackAction.RETRY,
        delayMs: say.delay === undefined ? undefined : say.delay * 1000,
        signal: play.life.signal,
      }),
    ),

  extend: (play, say) =>
    settle(play, say, [], (ids) => play.client.extend(ids, say.seconds * 1000, { signal: play.life.signal })),
};
