// The client of the event broker: publishes events, and hands events to handlers.
//
// It is thin: events, results and groups are the messages of the contract (@eventbroker/client/v1), and what it adds is
// what every service would have to write for itself: publishing again when the outcome is not known, staying
// subscribed, giving handlers the time that they need, and errors that tell what was wrong.

export { type Logger } from "./calls.js";
export { connect, type Client, type ConnectOptions } from "./client.js";
export { type Delivery } from "./delivery.js";
export { type CallOptions, type Stub, type Token } from "./door.js";
export {
  Code,
  EventBrokerError,
  GroupDeletedError,
  LostError,
  ReplacedError,
  type Conflict,
  type Violation,
} from "./errors.js";
export {
  binary,
  json,
  message,
  newEvent,
  newId,
  permissionChecked,
  roleAssigned,
  sessionRevoked,
  typedData,
  userCreated,
  userLoggedIn,
  userStatusChanged,
  type Data,
  type NewEvent,
  type Place,
  type TypedData,
} from "./event.js";
export { type Event } from "./gen/eventbroker/v1/event_pb.js";
export { PublishOutcome, type PublishResult } from "./gen/eventbroker/v1/publisher_service_pb.js";
export { NackAction, SettleOutcome, StartPoint } from "./gen/eventbroker/v1/subscriber_service_pb.js";
export { Reject, RetryAfter, type ConsumeOptions, type Handler } from "./handling.js";
export { atVersion, exists, type EventInit, type PublishOptions } from "./publish.js";
export { type NackOptions } from "./settling.js";
export { type SubscribeOptions, type Subscription } from "./subscription.js";
