"""The Python SDK of eventbroker: publish and consume events, with asyncio.

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
    Unauthenticated,
    Unavailable,
    VersionConflict,
    Violation,
)
from eventbroker_client.events.cause import tracing
from eventbroker_client.events.domain_event import DomainEvent
from eventbroker_client.events.event import Event
from eventbroker_client.events.ids import new_id
from eventbroker_client.events.payload import Binary
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

__all__ = [
    "Binary",
    "BlockingPublisher",
    "Broker",
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
    "Middleware",
    "NotFound",
    "OnLost",
    "Outcome",
    "Overloaded",
    "PayloadMismatch",
    "PermissionChecked",
    "PermissionCheckedEvent",
    "PermissionDenied",
    "Proceed",
    "Published",
    "Publisher",
    "Reject",
    "Retry",
    "RoleAssigned",
    "RoleAssignedEvent",
    "SessionRevoked",
    "SessionRevokedEvent",
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
    "VersionConflict",
    "Violation",
    "connect",
    "event_type",
    "new_id",
    "publishes",
    "tracing",
]
