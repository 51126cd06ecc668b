// Makes events, and reads the data of those of the contract.

import { randomBytes } from "node:crypto";

import {
  create,
  createRegistry,
  type DescMessage,
  type MessageInitShape,
  type MessageShape,
  type Registry,
} from "@bufbuild/protobuf";
import { anyPack, anyUnpack, timestampNow, type Any } from "@bufbuild/protobuf/wkt";

import {
  PermissionCheckedSchema,
  RoleAssignedSchema,
  SessionRevokedSchema,
  UserCreatedSchema,
  UserLoggedInSchema,
  UserStatusChangedSchema,
} from "./events.js";
import { BinarySchema, EventSchema, type Binary, type Event } from "./gen/eventbroker/v1/event_pb.js";

/** The data of an event, in one of its forms: what `json`, `binary` and `message` make. */
export type Data = Event["data"];

/** What an event needs; all other fields of Event may be given, too. */
export type NewEvent = MessageInitShape<typeof EventSchema> & {
  eventType: string;
  aggregateType: string;
  aggregateId: string;
  data: Data;
};

/** Makes an event that happens now, with an id of its own. A tenant that is not given is that of the client. */
export function newEvent(fields: NewEvent): Event {
  return create(EventSchema, { eventId: newId(), timestamp: timestampNow(), ...fields });
}

/** Data that is JSON text, kept byte for byte. */
export function json(text: string): { case: "json"; value: string } {
  return { case: "json", value: text };
}

/** Data of any content type. */
export function binary(contentType: string, content: Uint8Array): { case: "binary"; value: Binary } {
  return { case: "binary", value: create(BinarySchema, { contentType, content }) };
}

/** Typed data: any message that protobuf-es has generated. */
export function message<D extends DescMessage>(schema: D, data: MessageInitShape<D>): { case: "message"; value: Any } {
  return { case: "message", value: anyPack(schema, create(schema, data)) };
}

/** Where an event of the contract goes, beside its data. */
export type Place = Omit<
  MessageInitShape<typeof EventSchema>,
  "$typeName" | "eventType" | "aggregateType" | "aggregateId" | "data"
>;

function typed<D extends DescMessage>(schema: D, eventType: string, aggregateType: string) {
  return (aggregateId: string, data: MessageInitShape<D>, more: Place = {}): Event =>
    newEvent({ ...more, eventType, aggregateType, aggregateId, data: message(schema, data) });
}

/** Makes the event "user.created" of a user. */
export const userCreated = typed(UserCreatedSchema, "user.created", "User");
/** Makes the event "user.status_changed" of a user. */
export const userStatusChanged = typed(UserStatusChangedSchema, "user.status_changed", "User");
/** Makes the event "user.login" of a user. */
export const userLoggedIn = typed(UserLoggedInSchema, "user.login", "Session");
/** Makes the event "session.revoked" of a session. */
export const sessionRevoked = typed(SessionRevokedSchema, "session.revoked", "Session");
/** Makes the event "role.assigned" of a user. */
export const roleAssigned = typed(RoleAssignedSchema, "role.assigned", "UserRole");
/** Makes the event "permission.checked" of a user. */
export const permissionChecked = typed(PermissionCheckedSchema, "permission.checked", "Permission");

const SCHEMAS = [
  UserCreatedSchema,
  UserStatusChangedSchema,
  UserLoggedInSchema,
  SessionRevokedSchema,
  RoleAssignedSchema,
  PermissionCheckedSchema,
] as const;
const REGISTRY: Registry = createRegistry(...SCHEMAS);

/** Any data of eventbroker.events.v1; `$typeName` tells which. */
export type TypedData = MessageShape<(typeof SCHEMAS)[number]>;

/** The typed data of an event of the contract; undefined if it is another. Throws if it is broken. */
export function typedData(event: Event): TypedData | undefined {
  return event.data.case === "message" ? (anyUnpack(event.data.value, REGISTRY) as TypedData | undefined) : undefined;
}

/** Makes an event id: a UUIDv7, which sorts by time. */
export function newId(): string {
  const id = randomBytes(16);
  id.writeUIntBE(Date.now(), 0, 6);
  id[6] = (id[6]! & 0x0f) | 0x70;
  id[8] = (id[8]! & 0x3f) | 0x80;
  return id.toString("hex").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
}
