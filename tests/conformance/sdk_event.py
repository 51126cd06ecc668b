"""An event of a case as one of the SDK, and what the SDK makes of one that comes."""

from __future__ import annotations

from datetime import UTC
from typing import TYPE_CHECKING, Any

from eventbroker_client import Binary, Event, Json
from eventbroker_client.events.payload import BYTES, take
from eventbroker_client.events.types import type_named

if TYPE_CHECKING:
    from eventbroker.v1.event_pb2 import Event as Message

SAME = (
    "tenant_id", "aggregate_type", "aggregate_id", "user_id", "session_id", "request_id", "correlation_id",
    "aggregate_version", "position",
)  # fmt: skip
SAME_METADATA = ("source", "caused_by", "entity_version")


def is_of_the_sdk(message: Message) -> bool:
    """An event of the SDK has a time and data."""
    return message.HasField("timestamp") and message.WhichOneof("data") is not None


def sdk_event_of(message: Message) -> Event:
    metadata = message.metadata
    return Event(
        type=message.event_type,
        data=_data(message),
        id=message.event_id,
        version=message.event_version or "v1.0",
        timestamp=message.timestamp.ToDatetime(UTC),
        tags=tuple(metadata.tags),
        attributes=dict(metadata.attributes),
        **{name: getattr(message, name) for name in SAME},
        **{name: getattr(metadata, name) for name in SAME_METADATA},
    )


def _data(message: Message) -> Any:
    match message.WhichOneof("data"):
        case "json":
            return Json(message.json)
        case "message":
            return message.message
        case _:
            return Binary(message.binary.content, message.binary.content_type)


def fill_in_as_the_sdk(message: Message) -> None:
    """Where the case says nothing: an event begins a chain, and its type tells of its source and cause."""
    message.correlation_id = message.correlation_id or message.event_id
    kind = type_named(message.event_type, message.event_version or "v1.0")
    message.metadata.source = message.metadata.source or (kind.source if kind else "")
    message.metadata.caused_by = message.metadata.caused_by or (kind.caused_by if kind else "")


def check_as_read(event: Event, message: Message) -> None:
    """Raise AssertionError unless the SDK's event says what the message says."""
    said = {name: getattr(event, name) for name in (*SAME, *SAME_METADATA)}
    wanted = {name: getattr(message, name) for name in SAME}
    assert said == wanted | {name: getattr(message.metadata, name) for name in SAME_METADATA}
    assert (event.id, event.type, event.version) == (message.event_id, message.event_type, message.event_version)
    assert event.timestamp == message.timestamp.ToDatetime(UTC)
    assert event.record_time == message.record_time.ToDatetime(UTC)
    assert (event.tags, dict(event.attributes)) == (tuple(message.metadata.tags), dict(message.metadata.attributes))
    if message.HasField("binary"):
        content, content_type = message.binary.content, message.binary.content_type
        assert event.data == (content if content_type == BYTES else Binary(content, content_type))
    else:
        assert event.data == take(message)
