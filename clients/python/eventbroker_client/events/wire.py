"""Events to messages of the contract, and back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import event_pb2

from eventbroker_client.errors import InvalidArgument, Violation
from eventbroker_client.events.cause import current_cause
from eventbroker_client.events.domain_event import DomainEvent
from eventbroker_client.events.event import Event
from eventbroker_client.events.payload import fitted, put, take
from eventbroker_client.events.types import type_named

if TYPE_CHECKING:
    from google.protobuf.timestamp_pb2 import Timestamp

_PLAIN = ("aggregate_type", "aggregate_id", "user_id", "session_id", "request_id")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What stands for what an event leaves empty; `inject` adds headers of the current trace to a dict."""

    tenant_id: str = ""
    source: str = ""
    inject: Callable[[dict[str, str]], None] | None = None


def message_of(event: Event, defaults: Defaults) -> event_pb2.Event:
    """The event as it goes out, with what it inherits from what is being handled.

    Raises InvalidArgument if a field cannot be said on the wire; the broker checks the rest.
    """
    cause = current_cause()
    violations: list[Violation] = []
    kind = type_named(event.type, event.version)
    message = event_pb2.Event(
        event_id=event.id,
        event_type=event.type,
        event_version=event.version,
        tenant_id=event.tenant_id or defaults.tenant_id or cause.tenant_id,
        correlation_id=event.correlation_id or cause.correlation_id or event.id,
        **{name: getattr(event, name) for name in _PLAIN},
    )
    if event.timestamp.tzinfo is None:
        violations.append(Violation("timestamp", "must have a time zone"))
    else:
        since = event.timestamp - _EPOCH
        message.timestamp.seconds = since.days * 86_400 + since.seconds
        message.timestamp.nanos = since.microseconds * 1000
    metadata = message.metadata
    metadata.source = event.source or defaults.source or (kind.source if kind else "")
    metadata.caused_by = event.caused_by or cause.event_id or (kind.caused_by if kind else "")
    metadata.tags.extend(event.tags)
    trace = dict(cause.trace)
    if defaults.inject is not None:
        defaults.inject(trace)
    metadata.attributes.update(trace | dict(event.attributes))
    try:
        metadata.entity_version = event.entity_version
    except ValueError:
        violations.append(Violation("metadata.entity_version", "must fit into 64 bits"))
    try:
        put(event.data, message)
    except InvalidArgument as exc:
        violations += exc.violations
    if violations:
        raise InvalidArgument(violations=violations)
    return message


def event_of(message: event_pb2.Event) -> Event:
    """The event as it came: a DomainEvent if a class is registered for its type and version, and the data is of its
    kind (JSON for a dataclass, that message for a class of messages).

    Raises PayloadMismatch if JSON does not fit the dataclass.
    """
    metadata = message.metadata
    envelope: dict[str, Any] = {name: getattr(message, name) for name in _PLAIN}
    envelope |= {
        "type": message.event_type,
        "id": message.event_id,
        "version": message.event_version,
        "timestamp": time_of(message.timestamp),
        "tenant_id": message.tenant_id,
        "correlation_id": message.correlation_id,
        "source": metadata.source,
        "caused_by": metadata.caused_by,
        "entity_version": metadata.entity_version,
        "tags": tuple(metadata.tags),
        "attributes": dict(metadata.attributes),
        "aggregate_version": message.aggregate_version,
        "position": message.position,
        "record_time": time_of(message.record_time) if message.HasField("record_time") else None,
    }
    kind = type_named(message.event_type, message.event_version)
    data = take(message)
    if kind is not None:
        if is_dataclass(kind.payload) and message.WhichOneof("data") == "json":
            data = fitted(data, kind.payload)
        if isinstance(data, kind.payload):
            return DomainEvent(data=data, **envelope)
    return Event(data=data, **envelope)


def typed(event: Event, payload: type) -> Event:
    """The event with data of that class, also if it came as JSON. Raises PayloadMismatch."""
    if isinstance(event.data, payload):
        return event
    return replace(event, data=fitted(event.data, payload))


def time_of(timestamp: Timestamp) -> datetime:
    return _EPOCH + timedelta(seconds=timestamp.seconds, microseconds=timestamp.nanos // 1000)
