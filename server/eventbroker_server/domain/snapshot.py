"""Aggregates, as they are rebuilt: from a snapshot, and from the events after it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

    from eventbroker_server.domain.event import AggregateKey, Data, StoredEvent


class Snapshot(NamedTuple):
    """The state of an aggregate as it was at a version. In a list it comes without its data."""

    aggregate: AggregateKey
    version: int
    data: Data | None
    created_at: datetime


class Rebuilt(NamedTuple):
    """An aggregate as of then: the version it was at, the place of the event that brought it there, and what to rebuild
    it from. The events are not all up to that version, if they are many."""

    version: int
    position: int
    record_time: datetime
    snapshot: Snapshot | None
    events: list[StoredEvent]
