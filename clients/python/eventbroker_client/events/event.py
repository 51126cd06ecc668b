"""An event, as it is published and as it comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from eventbroker_client.events.ids import new_id


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Event:
    """Something that happened: `Event("user.created", "User", "u1", {"email": "ada@example.com"})`.

    Ids are text of 1 to 256 characters without control characters, names 1 to 128 of `A-Z a-z 0-9 . _ -`. The broker
    checks them. What is left empty may be filled in when the event is published: see each field.
    """

    type: str
    """What happened: a name of lower case, with dots."""

    aggregate_type: str
    """The kind of what it happened to: a name."""

    aggregate_id: str
    """What it happened to: an id."""

    data: Any = None
    """A value of JSON (dict, list, str, int, float, bool, None), a dataclass (which becomes JSON), a protobuf message,
    bytes, or Binary. A str is a JSON string, not JSON text."""

    id: str = field(default_factory=new_id, kw_only=True)
    """The event's own id, for ever: to publish it again gets the first answer. A UUIDv7 unless given."""

    version: str = field(default="v1.0", kw_only=True)
    """The version of the data's shape: a name."""

    timestamp: datetime = field(default_factory=_now, kw_only=True)
    """When it happened, with a time zone; kept to the microsecond. Now unless given."""

    tenant_id: str = field(default="", kw_only=True)
    """Whose event it is: a name. Empty: the tenant of `connect`, else that of the event that is being handled."""

    user_id: str = field(default="", kw_only=True)
    """Who caused it: an id, or empty."""

    session_id: str = field(default="", kw_only=True)
    """The session in which it happened: an id, or empty."""

    request_id: str = field(default="", kw_only=True)
    """The request that caused it: an id, or empty."""

    correlation_id: str = field(default="", kw_only=True)
    """Joins all events of one chain of causes: an id. Empty: that of the event that is being handled, or of `tracing`,
    else the event's own id, which so begins a chain."""

    source: str = field(default="", kw_only=True)
    """The service that published it: an id. Empty: the source of `connect`, else that of its type."""

    caused_by: str = field(default="", kw_only=True)
    """What caused it: an id. Empty: the id of the event that is being handled, else that of its type."""

    entity_version: int = field(default=0, kw_only=True)
    """The version of the entity in the publisher's own store; 0 when it has none."""

    tags: tuple[str, ...] = field(default=(), kw_only=True)
    """Free labels, at most 64, each an id."""

    attributes: Mapping[str, str] = field(default_factory=dict, kw_only=True)
    """Free attributes, at most 64. `traceparent` and `tracestate` are filled in from what is being handled."""

    aggregate_version: int = field(default=0, kw_only=True)
    """The number of the event within its aggregate: 1, 2, 3, ... Told by the broker; not sent."""

    position: int = field(default=0, kw_only=True)
    """Its place in its shard of the log: 1, 2, 3, ... Told by the broker; not sent."""

    record_time: datetime | None = field(default=None, kw_only=True)
    """When the broker stored it, in UTC. Told by the broker; not sent."""
