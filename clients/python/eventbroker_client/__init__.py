"""The Python SDK of eventbroker: publish, consume and read events, with asyncio.

    async with connect("127.0.0.1:50051", tenant="acme") as broker:
        await broker.publish(Event("user.created", "User", "u1", {"email": "ada@example.com"}))

`BlockingPublisher` is for code without asyncio. Everything raised is an EventBrokerError. See clients/python/README.md.
"""

from eventbroker_client.broker import Broker, connect
from eventbroker_client.connection.address import Tls
from eventbroker_client.consuming.consumer import Consumer
from eventbroker_client.consuming.delivery import Delivery
from eventbroker_client.consuming.job import Middleware, OnLost, Proceed
from eventbroker_client.consuming.settling import Outcome
from eventbroker_client.consuming.subscription import Subscription
from eventbroker_client.consuming.verdict import Reject, Retry
from eventbroker_client.errors import (
    AggregateNotFound,
    Closed,
    Conflict,
    ConsumerReplaced,
    EventBrokerError,
    EventIdReused,
    EventNotFound,
    GroupDeleted,
    GroupMismatch,
    GroupNotFound,
    InvalidArgument,
    NotFound,
    Overloaded,
    PayloadMismatch,
    PermissionDenied,
    PositionBeyond,
    SnapshotAhead,
    SnapshotNotFound,
    Unauthenticated,
    Unavailable,
    VersionBeyond,
    VersionConflict,
    Violation,
)
from eventbroker_client.events.cause import tracing
from eventbroker_client.events.domain_event import DomainEvent
from eventbroker_client.events.event import Event
from eventbroker_client.events.ids import new_id
from eventbroker_client.events.payload import Binary, Json
from eventbroker_client.events.ready_made import (
    PermissionChecked,
    PermissionCheckedEvent,
    RoleAssigned,
    RoleAssignedEvent,
    SessionRevoked,
    SessionRevokedEvent,
    UserCreated,
    UserCreatedEvent,
    UserLoggedIn,
    UserLoggedInEvent,
    UserStatusChanged,
    UserStatusChangedEvent,
)
from eventbroker_client.events.types import event_type
from eventbroker_client.publishing.blocking import BlockingPublisher
from eventbroker_client.publishing.decorator import publishes
from eventbroker_client.publishing.event_publisher import EventPublisher, User
from eventbroker_client.publishing.published import Expect, Published, Publisher
from eventbroker_client.reading.aggregate import Aggregate, Snapshot
from eventbroker_client.reading.causality import CausalEvent, Causality
from eventbroker_client.reading.reading import Reading
from eventbroker_client.sourcing.repository import Repository
from eventbroker_client.sourcing.sourced import Sourced

__all__ = [
    "Aggregate",
    "AggregateNotFound",
    "Binary",
    "BlockingPublisher",
    "Broker",
    "CausalEvent",
    "Causality",
    "Closed",
    "Conflict",
    "Consumer",
    "ConsumerReplaced",
    "Delivery",
    "DomainEvent",
    "Event",
    "EventBrokerError",
    "EventIdReused",
    "EventNotFound",
    "EventPublisher",
    "Expect",
    "GroupDeleted",
    "GroupMismatch",
    "GroupNotFound",
    "InvalidArgument",
    "Json",
    "Middleware",
    "NotFound",
    "OnLost",
    "Outcome",
    "Overloaded",
    "PayloadMismatch",
    "PermissionChecked",
    "PermissionCheckedEvent",
    "PermissionDenied",
    "PositionBeyond",
    "Proceed",
    "Published",
    "Publisher",
    "Reading",
    "Reject",
    "Repository",
    "Retry",
    "RoleAssigned",
    "RoleAssignedEvent",
    "SessionRevoked",
    "SessionRevokedEvent",
    "Snapshot",
    "SnapshotAhead",
    "SnapshotNotFound",
    "Sourced",
    "Subscription",
    "Tls",
    "Unauthenticated",
    "Unavailable",
    "User",
    "UserCreated",
    "UserCreatedEvent",
    "UserLoggedIn",
    "UserLoggedInEvent",
    "UserStatusChanged",
    "UserStatusChangedEvent",
    "VersionBeyond",
    "VersionConflict",
    "Violation",
    "connect",
    "event_type",
    "new_id",
    "publishes",
    "tracing",
]
