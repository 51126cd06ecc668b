"""What a dead letter is: an event that a group has given up, and why."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.filter import TypeFilter

if TYPE_CHECKING:
    from datetime import datetime


class FailedAttempt(NamedTuple):
    """A delivery that failed: the `attempt`th of its event."""

    attempt: int
    at: datetime
    consumer: str
    error: str


class DeadLetterPlace(NamedTuple):
    """The place of a dead letter among those of its group, which are in the order of these."""

    dead_at: datetime
    shard: int
    position: int


class DeadLetter(NamedTuple):
    """An event that a group has given up."""

    event_tenant_id: str
    event_id: str
    event_type: str
    aggregate_type: str
    aggregate_id: str
    shard: int
    position: int
    attempts: int
    reason: str  # the last error, or what the consumer said when it rejected the event
    rejected: bool  # by a consumer, rather than by the last attempt failing
    dead_at: datetime
    history: tuple[FailedAttempt, ...] = ()  # the oldest first

    @property
    def place(self) -> DeadLetterPlace:
        return DeadLetterPlace(self.dead_at, self.shard, self.position)


@dataclass(frozen=True, slots=True)
class DeadLetterFilter:
    """Which dead letters of a group: those that meet every field. Empty and None stand for any."""

    types: TypeFilter = field(default_factory=TypeFilter.of)
    aggregate_type: str = ""
    aggregate_id: str = ""
    event_tenant_id: str = ""
    event_ids: tuple[str, ...] = ()  # of one tenant: event_tenant_id goes with them
    reason_contains: str = ""
    dead_after: datetime | None = None  # at this moment or later
    dead_before: datetime | None = None


class Redriven(NamedTuple):
    """How many dead letters were redriven, and how many that the filter means are left."""

    moved: int
    remaining: int
