import assert from "node:assert/strict";
import { once } from "node:events";
import { test, type TestContext } from "node:test";

import {
  EventBrokerError,
  LostError,
  NackAction,
  Reject,
  RetryAfter,
  SettleOutcome,
  type Client,
  type Delivery,
  type Handler,
  type Subscription,
} from "@eventbroker/client";

import { asReason } from "../src/settling.js";
import { Answers, connected, nextNack } from "./server.js";

async function consume(t: TestContext, answers: Answers, handler: Handler): Promise<() => Promise<void>> {
  const client = await connected(t, answers);
  const drain = new AbortController();
  const over = client.consume("g", handler, { signal: drain.signal });
  return () => {
    drain.abort();
    return over;
  };
}

test("what a handler throws is a nack", async (t) => {
  const never = new Reject("never");
  for (const [thrown, reason, action, seconds] of [
    [new TypeError("no\nluck"), "no luck", NackAction.RETRY, undefined],
    [new RangeError(), "RangeError", NackAction.RETRY, undefined],
    ["text", "text", NackAction.RETRY, undefined],
    [new Reject("never"), "never", NackAction.DEAD_LETTER, undefined],
    [new Error("told", { cause: never }), "told", NackAction.DEAD_LETTER, undefined],
    [new RetryAfter(90_000, "later"), "later", NackAction.RETRY, 90n],
  ] as const) {
    const answers = new Answers();
    const stop = await consume(t, answers, () => {
      throw thrown;
    });
    const nacked = await nextNack(answers);
    assert.deepEqual([nacked.reason, nacked.action, nacked.delay?.seconds], [reason, action, seconds]);
    assert.deepEqual(nacked.ackIds, ["a1"]);
    await stop();
  }
});

test("a handler hears that its delivery is lost, which is not settled", async (t) => {
  const answers = new Answers();
  answers.deadlineSeconds = 1n;
  answers.extend = () => SettleOutcome.OUTDATED;
  let lost: (reason: unknown) => void;
  const reason = new Promise((resolve) => (lost = resolve));
  const stop = await consume(t, answers, async (_, signal) => {
    await once(signal, "abort");
    lost(signal.reason);
    signal.throwIfAborted();
  });
  assert.ok((await reason) instanceof LostError);
  await stop();
  assert.deepEqual([answers.nacked, answers.acked], [[], []]);
});

test("consume returns no earlier than its handlers", async (t) => {
  const answers = new Answers();
  const client = await connected(t, answers);
  let handled = false;
  const over = client.consume("g", async (_, signal) => {
    client.close();
    await once(signal, "abort");
    await new Promise((resolve) => setImmediate(resolve));
    handled = true;
  });
  await assert.rejects(over, EventBrokerError);
  assert.ok(handled);
});

test("a drain waits for handlers no longer than it was told", async (t) => {
  const answers = new Answers();
  const client = await connected(t, answers);
  const drain = new AbortController();
  await client.consume(
    "g",
    () => {
      drain.abort();
      return new Promise(() => {});
    },
    { signal: drain.signal, drainTimeoutMs: 50 },
  );
  assert.deepEqual(answers.acked, []);
});

test("a subscription goes on when its stream broke", async (t) => {
  const answers = new Answers();
  answers.breaking = 2;
  const client = await connected(t, answers);
  const stop = new AbortController();
  await client.consume("g", ({ ackId }) => ackId === "a3" && stop.abort(), { signal: stop.signal });
  assert.equal(answers.streams, 3);
});

async function settle(subscription: Subscription, work: (delivery: Delivery) => unknown): Promise<void> {
  for await (const delivery of subscription) {
    await work(delivery);
    await delivery.ack();
  }
}

test("a subscription is settled by hand until it is drained", async (t) => {
  const answers = new Answers();
  const subscription = await (await connected(t, answers)).subscribe("g");
  await settle(subscription, () => subscription.drain());
  assert.deepEqual(
    answers.acked.map(({ ackIds }) => ackIds),
    [["a1"]],
  );
});

test("what a broken stream has left is not handed out", async (t) => {
  const answers = new Answers();
  answers.breaking = 1;
  const subscription = await (await connected(t, answers)).subscribe("g");
  await once(answers.told, "again");
  assert.equal((await subscription.next())?.ackId, "a2");
});

test("a drain while the broker is away is over at once", async (t) => {
  const answers = new Answers();
  const quiet = () => {};
  const logger = { debug: quiet, warn: quiet, info: () => answers.told.emit("again") };
  const subscription = await (await connected(t, answers, { logger })).subscribe("g");
  await subscription.next();
  answers.end();
  await once(answers.told, "again");
  subscription.drain();
  assert.equal(await subscription.next(), undefined);
});

test("to leave the loop closes the subscription", async (t) => {
  const subscription = await (await connected(t, new Answers())).subscribe("g");
  for await (const { ackId, attempt } of subscription) {
    assert.deepEqual([ackId, attempt], ["a1", 1]);
    break;
  }
  assert.ok(subscription.over);
  assert.equal(await subscription.next(), undefined);
});

test("a signal ends the subscription with its reason, and a wait without ending it", async (t) => {
  const client = await connected(t, new Answers());
  const end = new AbortController();
  const subscription = await client.subscribe("g", { signal: end.signal });
  await subscription.next();
  await assert.rejects(subscription.next(AbortSignal.timeout(10)), { name: "TimeoutError" });
  const waiting = subscription.next();
  end.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
  await assert.rejects(subscription.next(), /enough/);
});

test("acks of the same time share a call", async (t) => {
  const answers = new Answers();
  const client: Client = await connected(t, answers);
  const subscription = await client.subscribe("g");
  const delivery = await subscription.next();
  let letGo: () => void;
  answers.ack = () => new Promise<void>((resolve) => (letGo = resolve));
  const first = delivery!.ack();
  await once(answers.told, "acked");
  const others = Array.from({ length: 100 }, () => delivery!.ack());
  answers.ack = () => {};
  letGo!();
  assert.deepEqual(await Promise.all([first, ...others]), Array(101).fill(SettleOutcome.DONE));
  assert.deepEqual(
    answers.acked.map(({ ackIds }) => ackIds.length),
    [1, 100],
  );
});

test("handlers are at least one", async (t) => {
  const client = await connected(t, new Answers());
  await assert.rejects(
    client.consume("g", () => {}, { concurrency: 0 }),
    RangeError,
  );
});

test("any text becomes a reason", () => {
  for (const [text, reason] of [
    ["", ""],
    ["a\r\nb\0", "a  b "],
    ["\ud800\u0085", "\ufffd "],
  ] as const) {
    assert.equal(asReason(text), reason);
  }
  assert.equal([...asReason("😀".repeat(2000))].length, 1024);
});
