// What the client throws: EventBrokerError for every call that failed, and why a subscription or a delivery is over.

import { fromBinary, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { anyUnpack, type Any } from "@bufbuild/protobuf/wkt";
import { status as Code, type Metadata, type ServiceError } from "@grpc/grpc-js";

import {
  BadRequestSchema,
  ErrorInfoSchema,
  PreconditionFailureSchema,
  RetryInfoSchema,
} from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";
import { milliseconds } from "./time.js";

export { Code };

/** A field that breaks a rule: its path in the request, such as "events[3].aggregate_id", and the rule. */
export interface Violation {
  field: string;
  rule: string;
}

/** An aggregate, such as "User/u1", that was not as expected. */
export interface Conflict {
  aggregate: string;
  description: string;
}

/** Why the broker did not do what was asked, or that it could not be reached. Every call that fails throws one. */
export class EventBrokerError extends Error {
  #maybeDone = false;
  override readonly name = "EventBrokerError";
  /** The status code of gRPC. */
  readonly code: Code;
  /** The broker's stable name for the error, such as "EVENT_ID_REUSED". Empty: it does not come from the broker. */
  readonly reason: string = "";
  /** The particulars of the reason. */
  readonly metadata: Readonly<Record<string, string>> = {};
  /** The fields that break a rule, with INVALID_ARGUMENT. */
  readonly violations: readonly Violation[] = [];
  /** The expectations that did not hold, with VERSION_CONFLICT. */
  readonly conflicts: readonly Conflict[] = [];
  /** How long to wait before the next try at least, in ms, if the broker said so. */
  readonly retryAfterMs: number = 0;

  constructor(code: Code, message: string, details: Partial<Details> = {}) {
    super(`${details.reason || Code[code]}: ${message}`);
    this.code = code;
    Object.assign(this, details);
  }

  /**
   * Whether the same call may succeed later. Unless `definite` says that nothing was done, the call may have done its
   * work, too: all calls of this package can be repeated.
   */
  get retryable(): boolean {
    if (this.reason) {
      return this.code === Code.UNAVAILABLE || this.code === Code.RESOURCE_EXHAUSTED;
    }
    return [Code.UNAVAILABLE, Code.DEADLINE_EXCEEDED, Code.CANCELLED, Code.INTERNAL, Code.UNKNOWN].includes(this.code);
  }

  /** The broker refused, and nothing was done, also not by the tries before. */
  get definite(): boolean {
    return this.reason !== "" && this.code !== Code.UNAVAILABLE && !this.#maybeDone;
  }

  /** The outcome of a try before is not known: refused at the door, this one tells nothing of it. @internal */
  afterUnknown(): void {
    this.#maybeDone = [Code.RESOURCE_EXHAUSTED, Code.UNAUTHENTICATED, Code.PERMISSION_DENIED].includes(this.code);
  }
}

type Details = Pick<EventBrokerError, "reason" | "metadata" | "violations" | "conflicts" | "retryAfterMs">;

/** Ends a subscription whose consumer id was taken over by another stream. */
export class ReplacedError extends Error {
  override readonly name = "ReplacedError";
  constructor() {
    super("another stream took over this consumer id");
  }
}

/** Ends a subscription whose group was deleted. */
export class GroupDeletedError extends Error {
  override readonly name = "GroupDeletedError";
  constructor() {
    super("the group was deleted");
  }
}

/**
 * Aborts the signal of a handler whose delivery is over: its deadline ran out, its stream broke, or the group was
 * moved. The event is, or will be, with another handler.
 */
export class LostError extends Error {
  override readonly name = "LostError";
  constructor() {
    super("the delivery is over");
  }
}

/** Turns an error of gRPC into an EventBrokerError; others stay what they are. `prefix` is taken off fields' paths. */
export function asError(error: unknown, prefix = ""): unknown {
  return isServiceError(error) ? new EventBrokerError(error.code, error.details, read(error.metadata, prefix)) : error;
}

function isServiceError(error: unknown): error is ServiceError {
  return error instanceof Error && !(error instanceof EventBrokerError) && "code" in error && "metadata" in error;
}

function read(metadata: Metadata | undefined, prefix: string): Partial<Details> {
  const [told] = metadata?.get("grpc-status-details-bin") ?? [];
  if (!Buffer.isBuffer(told)) {
    return {};
  }
  const { details } = fromBinary(StatusSchema, told);
  const info = detail(details, ErrorInfoSchema);
  const delay = detail(details, RetryInfoSchema)?.retryDelay;
  return {
    ...(info?.domain === "eventbroker" && { reason: info.reason, metadata: info.metadata }),
    violations: (detail(details, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({
      field: field.startsWith(prefix) ? field.slice(prefix.length) : field,
      rule: description,
    })),
    conflicts: (detail(details, PreconditionFailureSchema)?.violations ?? []).map(({ subject, description }) => ({
      aggregate: subject,
      description,
    })),
    retryAfterMs: delay ? milliseconds(delay) : 0,
  };
}

function detail<D extends DescMessage>(details: Any[], schema: D): MessageShape<D> | undefined {
  for (const each of details) {
    const unpacked = anyUnpack(each, schema);
    if (unpacked) {
      return unpacked;
    }
  }
  return undefined;
}
