// What events of eventbroker.events.v1 carry.

export * from "./gen/eventbroker/events/v1/role_pb.js";
export * from "./gen/eventbroker/events/v1/session_pb.js";
export * from "./gen/eventbroker/events/v1/user_pb.js";
