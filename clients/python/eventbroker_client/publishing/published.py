"""What is said of an event that was published, and what may be asked for before it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from eventbroker.v1 import publisher_service_pb2 as pb

from eventbroker_client.connection.failure import refusal_of
from eventbroker_client.errors import EventBrokerError

if TYPE_CHECKING:
    from eventbroker_client.events.event import Event


@dataclass(frozen=True, slots=True)
class Published:
    """The event is stored, for good. `position` is its place in its shard of the log, `aggregate_version` its number
    within its aggregate. `duplicate`: it was stored before, maybe by an earlier attempt of the same call."""

    event_id: str
    position: int
    aggregate_version: int
    duplicate: bool


@dataclass(frozen=True, slots=True)
class Expect:
    """What must hold of an aggregate for events to be stored: exactly this version (0: it has no event yet), or
    whether it has any event. Give one of the two."""

    aggregate_type: str
    aggregate_id: str
    version: int | None = None
    exists: bool | None = None

    def message(self) -> pb.AggregateExpectation:
        """Raises ValueError if not exactly one of version and exists is given."""
        if (self.version is None) == (self.exists is None):
            raise ValueError("give either version or exists")
        made = pb.AggregateExpectation(aggregate_type=self.aggregate_type, aggregate_id=self.aggregate_id)
        if self.version is not None:
            made.version = self.version
        else:
            made.exists = bool(self.exists)
        return made


class Publisher(Protocol):
    """Whatever publishes an event and waits until it is stored: a Broker, or a stand-in of a test."""

    async def publish(self, event: Event, *, timeout: float | None = None) -> Published:
        """Raises EventBrokerError."""


def stored_of(result: pb.PublishResult) -> Published:
    """The same for an event of a call that stores all or none. Raises EventBrokerError."""
    outcome = published_of(result)
    if isinstance(outcome, EventBrokerError):
        raise outcome
    return outcome


def published_of(result: pb.PublishResult) -> Published | EventBrokerError:
    """What became of one event."""
    if result.outcome == pb.PUBLISH_OUTCOME_REFUSED:
        return refusal_of(result.error)
    duplicate = result.outcome == pb.PUBLISH_OUTCOME_DUPLICATE
    return Published(result.event_id, result.position, result.aggregate_version, duplicate)
