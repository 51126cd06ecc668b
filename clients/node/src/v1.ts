// The contract: events, groups, results and the requests of the generated services, package eventbroker.v1.

export * from "./gen/eventbroker/v1/dead_letter_service_pb.js";
export * from "./gen/eventbroker/v1/event_pb.js";
export * from "./gen/eventbroker/v1/event_store_service_pb.js";
export * from "./gen/eventbroker/v1/group_service_pb.js";
export * from "./gen/eventbroker/v1/publisher_service_pb.js";
export * from "./gen/eventbroker/v1/stats_service_pb.js";
export * from "./gen/eventbroker/v1/subscriber_service_pb.js";
