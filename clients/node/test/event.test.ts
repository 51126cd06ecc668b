import assert from "node:assert/strict";
import { test } from "node:test";

import { newEvent, newId, json, sessionRevoked, typedData, userCreated } from "@eventbroker/client";

test("ids are unique UUIDs that sort by time", () => {
  const ids: string[] = [];
  for (let made = 0; ids.length < 5;) {
    if (Date.now() > made) {
      ids.push(newId());
      made = Date.now();
    }
  }
  ids.forEach((id) => assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/));
  assert.deepEqual(ids.toSorted(), ids);
  assert.equal(new Set(ids).size, 5);
});

test("a typed event is read as it was made", () => {
  const event = sessionRevoked("s1", { userId: "u1", affectedSessions: ["s1", "s2"] }, { correlationId: "c1" });
  const { eventType, aggregateType, aggregateId, correlationId } = event;
  assert.deepEqual([eventType, aggregateType, aggregateId, correlationId], ["session.revoked", "Session", "s1", "c1"]);
  assert.ok(event.eventId && event.timestamp);
  const data = typedData(event);
  assert.ok(data?.$typeName === "eventbroker.events.v1.SessionRevoked");
  assert.deepEqual(data.affectedSessions, ["s1", "s2"]);
});

test("data that is not of the contract is no typed data", () => {
  const event = newEvent({ eventType: "a.b", aggregateType: "A", aggregateId: "a1", data: json("{}") });
  assert.equal(typedData(event), undefined);
});

test("each event has an id of its own", () => {
  assert.notEqual(userCreated("u1", {}).eventId, userCreated("u1", {}).eventId);
});
