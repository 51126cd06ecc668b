// Makes events as cases say them, and compares what comes with what was published.

import { deepStrictEqual } from "node:assert/strict";
import { inspect } from "node:util";

import { clone, create, equals, fromJson, type DescMessage, type MessageShape } from "@bufbuild/protobuf";
import { AnySchema, TimestampSchema, type Timestamp } from "@bufbuild/protobuf/wkt";
import {
  binary,
  json,
  newEvent,
  permissionChecked,
  roleAssigned,
  sessionRevoked,
  typedData,
  userCreated,
  userLoggedIn,
  userStatusChanged,
  type Data,
  type Event,
} from "@eventbroker/client";
import {
  PermissionCheckedSchema,
  RoleAssignedSchema,
  SessionRevokedSchema,
  UserCreatedSchema,
  UserLoggedInSchema,
  UserStatusChangedSchema,
} from "@eventbroker/client/events";
import { EventSchema, MetadataSchema } from "@eventbroker/client/v1";

import { type Said } from "./case.js";

export function eventOf(said: Said, tenantId: string): Event {
  const { source, caused_by, entity_version, tags, attributes } = said.metadata ?? {};
  const fields = {
    eventId: said.event_id,
    eventVersion: said.event_version ?? "",
    tenantId,
    userId: said.user_id ?? "",
    sessionId: said.session_id ?? "",
    requestId: said.request_id ?? "",
    correlationId: said.correlation_id ?? "",
  };
  const aggregateId = said.aggregate_id ?? "u1";
  const event = said.typed
    ? typedEvent(said.typed, aggregateId, fields)
    : newEvent({
        ...fields,
        aggregateId,
        data: dataOf(said),
        eventType: said.event_type ?? "user.created",
        aggregateType: said.aggregate_type ?? "User",
      });
  delete event.timestamp;
  if (said.timestamp !== null) {
    event.timestamp = moment(said.timestamp ?? "2026-01-02T03:04:05.678901Z");
  }
  if (said.metadata) {
    event.metadata = create(MetadataSchema, {
      source: source ?? "",
      causedBy: caused_by ?? "",
      entityVersion: BigInt(entity_version ?? 0),
      tags: tags ?? [],
      attributes: attributes ?? {},
    });
  }
  return event;
}

function moment(text: string): Timestamp {
  const [, whole, fraction] = /^([^.Z]*)\.?(\d*)Z$/.exec(text)!;
  const seconds = BigInt(Date.parse(`${whole}Z`)) / 1000n;
  return create(TimestampSchema, { seconds, nanos: Number(fraction!.padEnd(9, "0")) });
}

function dataOf({ json: text, message, binary: bytes, fill }: Said): Data {
  if (text === null) {
    return { case: undefined };
  }
  if (message) {
    const value = new Uint8Array(Buffer.from(message.base64, "base64"));
    return { case: "message", value: create(AnySchema, { typeUrl: message.type_url, value }) };
  }
  if (bytes) {
    return binary(bytes.content_type, new Uint8Array(Buffer.from(bytes.base64, "base64")));
  }
  if (fill?.form === "json") {
    return json(`"${"x".repeat(fill.bytes - 2)}"`);
  }
  if (fill) {
    return binary(
      "application/octet-stream",
      Uint8Array.from({ length: fill.bytes }, (_, number) => number % 251),
    );
  }
  return json(text ?? "{}");
}

function typedEvent(typed: Record<string, Record<string, never>>, aggregateId: string, more: object): Event {
  const [[name, fields] = []] = Object.entries(typed);
  const read = <D extends DescMessage>(schema: D): MessageShape<D> => fromJson(schema, fields ?? {});
  switch (name) {
    case "UserCreated":
      return userCreated(aggregateId, read(UserCreatedSchema), more);
    case "UserStatusChanged":
      return userStatusChanged(aggregateId, read(UserStatusChangedSchema), more);
    case "UserLoggedIn":
      return userLoggedIn(aggregateId, read(UserLoggedInSchema), more);
    case "SessionRevoked":
      return sessionRevoked(aggregateId, read(SessionRevokedSchema), more);
    case "RoleAssigned":
      return roleAssigned(aggregateId, read(RoleAssignedSchema), more);
    case "PermissionChecked":
      return permissionChecked(aggregateId, read(PermissionCheckedSchema), more);
  }
  throw new Error(`there is no typed event ${name}`);
}

/** Throws unless a delivered event is the one that was published. */
export function asPublished(delivered: Event, published: Event): void {
  const [got, want] = [clone(EventSchema, delivered), clone(EventSchema, published)];
  if (got.position < 1n || got.aggregateVersion < 1n || !got.recordTime) {
    throw new Error(`${got.eventId} lacks what the broker sets`);
  }
  got.position = got.aggregateVersion = 0n;
  delete got.recordTime;
  want.eventVersion ||= "v1.0";
  for (const event of [got, want]) {
    if (event.metadata && equals(MetadataSchema, event.metadata, create(MetadataSchema))) {
      delete event.metadata;
    }
  }
  if (!equals(EventSchema, got, want)) {
    const text = (event: Event) => inspect(event, { depth: 5 }).slice(0, 500);
    throw new Error(`${want.eventId} came as ${text(got)}, not as ${text(want)}`);
  }
  const typed = published.data.case === "message" && published.data.value.typeUrl.includes("/eventbroker.events.v1.");
  if (typed) {
    const [read, wrote] = [typedData(got), typedData(want)];
    if (!read) {
      throw new Error(`${want.eventId} cannot be read`);
    }
    deepStrictEqual(read, wrote);
  }
}
