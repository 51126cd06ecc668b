"""Typed events: an event whose data is of a registered class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from eventbroker_client.events.event import Event
from eventbroker_client.events.types import type_of

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Unpack

P = TypeVar("P")


class Envelope(TypedDict, total=False):
    """What may be said of a DomainEvent beside its aggregate and data: the fields of Event."""

    type: str
    aggregate_type: str
    id: str
    version: str
    timestamp: datetime
    tenant_id: str
    user_id: str
    session_id: str
    request_id: str
    correlation_id: str
    source: str
    caused_by: str
    entity_version: int
    tags: tuple[str, ...]
    attributes: Mapping[str, str]
    aggregate_version: int
    position: int
    record_time: datetime | None


@dataclass(frozen=True, init=False)
class DomainEvent(Event, Generic[P]):
    """An event that knows its type, its version and the kind of its aggregate by the class of its data:
    `DomainEvent("u1", UserCreated(email="ada@example.com"))`. Subclass it to fix more."""

    data: P

    def __init__(self, aggregate_id: str, data: P, **envelope: Unpack[Envelope]) -> None:
        """Raises TypeError if the class of the data is not registered (see event_type)."""
        kind = type_of(type(data))
        known: dict[str, Any] = {
            "type": kind.name,
            "aggregate_type": kind.aggregate_type,
            "version": kind.version,
        }
        Event.__init__(self, aggregate_id=aggregate_id, data=data, **(known | envelope))  # type: ignore[arg-type]
