import assert from "node:assert/strict";
import { test } from "node:test";

import { create, toBinary, type DescMessage, type MessageInitShape } from "@bufbuild/protobuf";
import { anyPack, type Any } from "@bufbuild/protobuf/wkt";
import { Metadata } from "@grpc/grpc-js";
import { Code, EventBrokerError } from "@eventbroker/client";

import { backoff, FIRST_BACKOFF_MS, MOST_BACKOFF_MS } from "../src/backoff.js";
import { asError } from "../src/errors.js";
import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";

function detail<D extends DescMessage>(schema: D, fields: MessageInitShape<D>): Any {
  return anyPack(schema, create(schema, fields));
}

function ours(reason: string): Any {
  return detail(ErrorInfoSchema, { domain: "eventbroker", reason, metadata: { a: "b" } });
}

function told(code: Code, ...details: Any[]): EventBrokerError {
  const metadata = new Metadata();
  if (details.length > 0) {
    metadata.set(
      "grpc-status-details-bin",
      Buffer.from(toBinary(StatusSchema, create(StatusSchema, { code, details }))),
    );
  }
  const error = asError(Object.assign(new Error("m"), { code, details: "m", metadata }), "open.");
  assert.ok(error instanceof EventBrokerError);
  return error;
}

test("what errors mean", () => {
  for (const [error, definite, retryable] of [
    [told(Code.UNAVAILABLE), false, true],
    [told(Code.DEADLINE_EXCEEDED), false, true],
    [told(Code.INTERNAL), false, true],
    [told(Code.UNIMPLEMENTED), false, false],
    [told(Code.RESOURCE_EXHAUSTED), false, false], // of gRPC: a message that is too large
    [told(Code.RESOURCE_EXHAUSTED, ours("OVERLOADED")), true, true],
    [told(Code.UNAVAILABLE, ours("STORE_UNAVAILABLE")), false, true],
    [told(Code.ABORTED, ours("VERSION_CONFLICT")), true, false],
    [told(Code.INTERNAL, ours("INTERNAL")), true, false],
    [told(Code.ABORTED, detail(ErrorInfoSchema, { domain: "a proxy", reason: "X" })), false, false],
  ] as const) {
    assert.deepEqual([error.definite, error.retryable], [definite, retryable], error.message);
  }
});

test("details become fields", () => {
  const error = told(
    Code.INVALID_ARGUMENT,
    ours("R"),
    detail(BadRequestSchema, { fieldViolations: [{ field: "open.group", description: "d" }] }),
    detail(PreconditionFailureSchema, { violations: [{ subject: "User/u1", description: "expected 0, actual 1" }] }),
    detail(RetryInfoSchema, { retryDelay: { seconds: 1n, nanos: 500_000_000 } }),
  );
  assert.deepEqual(
    { ...error },
    {
      name: "EventBrokerError",
      code: Code.INVALID_ARGUMENT,
      reason: "R",
      metadata: { a: "b" },
      violations: [{ field: "group", rule: "d" }],
      conflicts: [{ aggregate: "User/u1", description: "expected 0, actual 1" }],
      retryAfterMs: 1500,
    },
  );
  assert.equal(error.message, "R: m");
});

test("what is no status stays what it is", () => {
  const error = new TypeError("x");
  assert.equal(asError(error), error);
});

test("the back-off is jittered and bounded", () => {
  const waits = Array.from({ length: 200 }, (_, n) => backoff(n + 1, 1000) - 1000);
  waits.forEach((wait, n) => assert.ok(wait >= 0 && wait < Math.min(MOST_BACKOFF_MS, FIRST_BACKOFF_MS * 2 ** n)));
  assert.ok(
    waits.some((wait) => wait > MOST_BACKOFF_MS / 2) && waits.slice(10).some((wait) => wait < MOST_BACKOFF_MS / 2),
  );
});
