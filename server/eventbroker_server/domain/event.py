"""What an event is: as its publisher told it, and as it is stored.

Tuples rather than dataclasses: a broker makes a great many of them, and they never change.
"""

from __future__ import annotations

import zlib
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime


SYSTEM_TENANT = "_broker"  # whose events the broker itself publishes


class DataForm(IntEnum):
    """The form of an event's data. The numbers are stored."""

    JSON = 1
    MESSAGE = 2
    BINARY = 3


Data = tuple[DataForm, str, bytes]  # form, content type, content


class Metadata(NamedTuple):
    """What a publisher says beside the data. Attributes are sorted by key."""

    source: str = ""
    caused_by: str = ""
    entity_version: int = 0
    tags: tuple[str, ...] = ()
    attributes: tuple[tuple[str, str], ...] = ()


class Event(NamedTuple):
    """An event as its publisher told it. Empty text means that nothing was said."""

    tenant_id: str
    event_id: str
    event_type: str
    event_version: str
    aggregate_type: str
    aggregate_id: str
    user_id: str
    session_id: str
    request_id: str
    correlation_id: str
    timestamp: datetime  # UTC, whole microseconds
    form: DataForm
    content_type: str  # the type URL of a message, the media type of binary data, empty for JSON
    content: bytes
    metadata: Metadata
    wire: bytes = (
        b""  # the same, serialized, where that is at hand; saves making it again, and is not part of the event
    )

    def same_as(self, other: Event) -> bool:
        return self[:-1] == other[:-1]

    @property
    def key(self) -> EventKey:
        return self[:2]

    @property
    def aggregate(self) -> AggregateKey:
        return (self.tenant_id, self.aggregate_type, self.aggregate_id)


EventKey = tuple[str, str]  # tenant, event id
AggregateKey = tuple[str, str, str]  # tenant, aggregate type, aggregate id


class StoredEvent(NamedTuple):
    """An event and its place: the position in its shard, its number in its aggregate, and when it was stored."""

    event: Event
    position: int
    aggregate_version: int
    record_time: datetime


def shard_of(tenant_id: str, shards: int) -> int:
    """The shard of a tenant's events. Fixed for the life of a database: changing it would tear histories apart."""
    return zlib.crc32(tenant_id.encode()) % shards if shards > 1 else 0
