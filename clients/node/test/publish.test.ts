import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { test } from "node:test";

import { create, toBinary } from "@bufbuild/protobuf";
import { type Any, anyPack } from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { Code, connect, EventBrokerError, PublishOutcome } from "@eventbroker/client";
import { PublishMode } from "@eventbroker/client/v1";

import { ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";
import { pause } from "../src/time.js";
import { Answers, connected } from "./server.js";

const { STORED, REFUSED } = PublishOutcome;

test("only events of unknown outcome are published again", async (t) => {
  const answers = new Answers();
  answers.publish = ({ events }) => ({
    results: events.map(({ eventId }) => {
      const code = eventId === "bad" ? Code.INVALID_ARGUMENT : Code.UNAVAILABLE;
      const refused = eventId === "bad" || (eventId === "late" && answers.published.length < 3);
      return refused ? { eventId, outcome: REFUSED, error: { code } } : { eventId, outcome: STORED };
    }),
  });
  const client = await connected(t, answers);
  const results = await client.publishMany(
    ["bad", "late", "good"].map((eventId) => ({ eventId })),
    { perEvent: true },
  );
  assert.deepEqual(
    results.map(({ eventId, outcome }) => [eventId, outcome]),
    [
      ["bad", REFUSED],
      ["late", STORED],
      ["good", STORED],
    ],
  );
  assert.deepEqual(
    answers.published.map(({ events }) => events.length),
    [3, 1, 1],
  );
  assert.ok(answers.published.every(({ mode }) => mode === PublishMode.PER_EVENT));
});

test("what is not known when the time is over is refused as unavailable", async (t) => {
  const answers = new Answers();
  answers.publish = ({ events }) => ({
    results: events.map(({ eventId }) =>
      eventId === "late"
        ? { eventId, outcome: REFUSED, error: { code: Code.UNAVAILABLE } }
        : { eventId, outcome: STORED },
    ),
  });
  const client = await connected(t, answers);
  const options = { perEvent: true, timeoutMs: 300 };
  const results = await client.publishMany([{ eventId: "good" }, { eventId: "late" }], options);
  assert.deepEqual(
    results.map(({ error }) => error?.code),
    [undefined, Code.UNAVAILABLE],
  );
});

test("an error that does not come from the broker is tried again until the time is over", async (t) => {
  const answers = new Answers();
  answers.publish = () => {
    throw { code: Code.UNAVAILABLE, details: "away" };
  };
  const client = await connected(t, answers, { patienceMs: 1000 });
  const refusal = (error: unknown) => error instanceof EventBrokerError && error.message === "UNAVAILABLE: away";
  await assert.rejects(client.publish({ eventId: "e1" }), refusal);
  assert.ok(answers.published.length > 1, "tried once");
});

test("a refusal at the door tells nothing of a try before", async (t) => {
  for (const code of [Code.PERMISSION_DENIED, Code.INVALID_ARGUMENT]) {
    const answers = new Answers();
    answers.publish = () => {
      if (answers.published.length === 1) {
        throw { code: Code.UNAVAILABLE, details: "the answer was lost" };
      }
      const info = create(ErrorInfoSchema, { reason: "NO", domain: "eventbroker" });
      throw { code, details: "no", metadata: withDetail(code, anyPack(ErrorInfoSchema, info)) };
    };
    const client = await connected(t, answers);
    const definite = code === Code.INVALID_ARGUMENT;
    await assert.rejects(client.publish({ eventId: "e1" }), (error) => {
      assert.ok(error instanceof EventBrokerError);
      assert.deepEqual([error.code, error.definite], [code, definite]);
      return true;
    });
  }
});

test("the tenant of the client is that of events that name none, and its token goes with every call", async (t) => {
  const answers = new Answers();
  const tokens: unknown[] = [];
  answers.publish = ({ events }, metadata) => {
    tokens.push(...metadata.get("authorization"));
    return { results: events.map(({ eventId }) => ({ eventId })) };
  };
  const client = await connected(t, answers, { token: () => `secret${tokens.length}` });
  await client.publishMany([{ eventId: "e1" }, { eventId: "e2", tenantId: "other" }]);
  await client.publish({ eventId: "e3" });
  const tenants = answers.published.map(({ events }) => events.map(({ tenantId }) => tenantId));
  assert.deepEqual(tenants, [["acme", "other"], ["acme"]]);
  assert.deepEqual(tokens, ["Bearer secret0", "Bearer secret1"]);
});

test("to close the client ends what waits", async (t) => {
  const answers = new Answers();
  const client = await connected(t, answers, { patienceMs: Infinity, tryTimeoutMs: Infinity });
  const asked = new EventEmitter();
  answers.publish = ({ events: [event] }) => {
    asked.emit("asked");
    if (event?.eventId === "again") {
      throw { code: Code.UNAVAILABLE, details: "away", metadata: inAnHour() };
    }
    return new Promise(() => {});
  };
  const closed = { code: Code.FAILED_PRECONDITION, message: /the client is closed/ };
  const subscription = await client.subscribe("g");
  await subscription.next();
  const waiting = [
    assert.rejects(subscription.next(), closed),
    assert.rejects(client.publish({ eventId: "again" }), closed),
  ];
  await once(asked, "asked");
  waiting.push(assert.rejects(client.publish({ eventId: "never" }), closed));
  await once(asked, "asked");
  await client.ack(["a1"]); // so the first one has its answer, too, and waits for its next try
  client.close();
  await Promise.all(waiting);
  await assert.rejects(client.publish({ eventId: "e1" }), closed);
  await assert.rejects(client.subscribe("g"), closed);
  await assert.rejects(client.groups.getGroup({ name: "g" }), closed);
});

function inAnHour(): Metadata {
  const retry = create(RetryInfoSchema, { retryDelay: { seconds: 3600n } });
  return withDetail(Code.UNAVAILABLE, anyPack(RetryInfoSchema, retry));
}

function withDetail(code: Code, detail: Any): Metadata {
  const metadata = new Metadata();
  const status = create(StatusSchema, { code, details: [detail] });
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, status)));
  return metadata;
}

test("an event that no message can carry is refused without a call", async (t) => {
  const answers = new Answers();
  const client = await connected(t, answers);
  await assert.rejects(client.publish({ eventId: "e1", position: "many" as unknown as bigint }), /position/);
  assert.equal(answers.published.length, 0);
});

test("a signal ends a publish that waits, with its reason", async (t) => {
  const answers = new Answers();
  const gone = new AbortController();
  answers.publish = () => {
    gone.abort(new Error("changed my mind"));
    throw { code: Code.UNAVAILABLE, details: "away", metadata: new Metadata() };
  };
  const client = await connected(t, answers);
  await assert.rejects(client.publish({ eventId: "e1" }, { signal: gone.signal }), /changed my mind/);
  await assert.rejects(client.publish({ eventId: "e1" }, { signal: gone.signal }), /changed my mind/);
  assert.equal(answers.published.length, 1);
});

test("a signal ends a call of the generated services, with its reason", async (t) => {
  const answers = new Answers();
  const client = await connected(t, answers);
  const gone = new AbortController();
  answers.told.once("waiting", () => gone.abort(new Error("changed my mind")));
  await assert.rejects(client.groups.waitForGroup({ name: "g" }, { signal: gone.signal }), /changed my mind/);
});

test("a wait may be for ever", async () => {
  const end = new AbortController();
  const ever = pause(Infinity, end.signal);
  assert.equal(await Promise.race([ever.then(() => "over"), pause(20).then(() => "waits")]), "waits");
  end.abort(new Error("enough"));
  await assert.rejects(ever, /enough/);
});

test("connecting ends with its patience, and with its signal", async () => {
  const away = "127.0.0.1:1";
  await assert.rejects(connect(away, { patienceMs: 50 }), { code: Code.UNAVAILABLE, retryable: true });
  await assert.rejects(connect(away, { signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
});
