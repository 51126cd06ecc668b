"""Messages to what the rules work with, and back.

Whatever a caller sends is checked here, all of it, and each fault is named by the path of its field and the rule it
breaks. The events are checked by hand: this is the path of every event, and each microsecond counts.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import orjson
from eventbroker.v1 import event_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from eventbroker_server.domain.conditions import Facts
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.event import DataForm, Event, Metadata
from eventbroker_server.domain.names import (
    ID_RULE,
    NAME_RULE,
    TYPE_RULE,
    TYPE_URL_RULE,
    are_ids,
    are_names,
    is_event_type,
    is_id,
    is_name,
    is_type_url,
)
from eventbroker_server.rpc.wire import field_tag, varint

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventbroker.v1 import event_store_service_pb2

    from eventbroker_server.domain.event import Data, StoredEvent

    _WithData = event_pb2.Event | event_store_service_pb2.Snapshot

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DEFAULT_EVENT_VERSION = "v1.0"
MAX_JSON_DEPTH = 64
MAX_TAGS = MAX_ATTRIBUTES = 64
MAX_ATTRIBUTE_CHARACTERS = 4096

_FIRST_SECOND = -62_135_596_799  # 0001-01-01T00:00:01: the second before is what an unset time looks like
_LAST_SECOND = 253_402_300_798  # 9999-12-31T23:59:58
_IDS = {  # and whether each is required
    "event_id": True,
    "aggregate_id": True,
    "user_id": False,
    "session_id": False,
    "request_id": False,
    "correlation_id": False,
}
_SET_BY_BROKER = ("aggregate_version", "position", "record_time")


def event_of(message: event_pb2.Event, path: str, max_bytes: int, violations: list[Violation]) -> Event | None:
    """An event as it was published; None after adding what is wrong with it to `violations`. What the broker fills in
    (a missing version, a timestamp's digits below the microsecond) is filled in in the message, too."""
    before = len(violations)

    def wrong(field: str, rule: str) -> None:
        violations.append(Violation(f"{path}.{field}", rule))

    event_id, aggregate_id = message.event_id, message.aggregate_id
    optional_ids = (message.user_id, message.session_id, message.request_id, message.correlation_id)
    if not (event_id and aggregate_id and are_ids((event_id, aggregate_id, *optional_ids))):
        for field, required in _IDS.items():
            text = getattr(message, field)
            if (text or required) and not is_id(text):
                wrong(field, ID_RULE)
    tenant_id, event_type, aggregate_type = message.tenant_id, message.event_type, message.aggregate_type
    event_version = message.event_version
    if not event_version:
        event_version = message.event_version = DEFAULT_EVENT_VERSION
    names = (tenant_id, event_version, aggregate_type)
    if not (are_names(names) and is_event_type(event_type)):
        for field, text in zip(("tenant_id", "event_version", "aggregate_type"), names, strict=True):
            if not is_name(text):
                wrong(field, NAME_RULE)
        if not is_event_type(event_type):
            wrong("event_type", TYPE_RULE)
    if message.aggregate_version or message.position or message.HasField("record_time"):
        for descriptor, _ in message.ListFields():
            if descriptor.name in _SET_BY_BROKER:
                wrong(descriptor.name, "is set by the broker; leave it out")
    timestamp = _timestamp(message, wrong)
    form, content_type, content = data_of(message, wrong)
    metadata = _NO_METADATA
    if message.HasField("metadata"):
        said = message.metadata.SerializeToString()
        known = _good_metadata(said) if len(said) <= _COMMON_METADATA else None
        metadata = known or _metadata(message.metadata, wrong)
        if metadata == _NO_METADATA:
            message.ClearField("metadata")  # said or not, nothing is nothing
    if len(violations) > before:
        return None
    wire = message.SerializeToString()
    if len(wire) > max_bytes:
        violations.append(Violation(path, f"must be at most {max_bytes} bytes, not {len(wire)}"))
        return None
    return Event(
        tenant_id,
        event_id,
        event_type,
        event_version,
        aggregate_type,
        aggregate_id,
        *optional_ids,
        timestamp,
        form,
        content_type,
        content,
        metadata,
        wire,
    )


_NO_METADATA = Metadata()
_COMMON_METADATA = 512  # bytes; what is longer is not remembered


def _timestamp(message: event_pb2.Event, wrong: Callable[[str, str], None]) -> datetime:
    if not message.HasField("timestamp"):
        wrong("timestamp", "is required")
        return EPOCH
    stamp = message.timestamp
    seconds, nanos = stamp.seconds, stamp.nanos
    if not (_FIRST_SECOND <= seconds <= _LAST_SECOND and 0 <= nanos < 1_000_000_000):
        wrong("timestamp", "must be from 0001-01-01T00:00:01Z to 9999-12-31T23:59:58Z, with nanos below 1,000,000,000")
        return EPOCH
    if nanos % 1000:
        stamp.nanos = nanos - nanos % 1000
    return EPOCH + timedelta(0, seconds, nanos // 1000)


_JSON = DataForm.JSON  # an attribute of an enum costs three times as much


def data_of(message: _WithData, wrong: Callable[[str, str], None]) -> Data:
    """The data of an event or a snapshot; what is wrong with it is told to `wrong`, by field and rule."""
    form = message.WhichOneof("data")
    if form == "json":
        text = message.json
        if (fault := _json_fault(text)) is not None:
            wrong("json", fault)
        return _JSON, "", text.encode()
    if form == "message":
        if not is_type_url(message.message.type_url):
            wrong("message.type_url", TYPE_URL_RULE)
        return DataForm.MESSAGE, message.message.type_url, message.message.value
    if form == "binary":
        if not is_id(message.binary.content_type):
            wrong("binary.content_type", ID_RULE)
        return DataForm.BINARY, message.binary.content_type, message.binary.content
    wrong("data", "is required: one of json, message, binary")
    return DataForm.BINARY, "", b""


def _json_fault(text: str) -> str | None:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        return f"must be well-formed JSON, at most {MAX_JSON_DEPTH} levels deep ({str(exc)[:100]})"
    # Only text with more brackets than levels can nest too deep, and few have as many.
    if text.count("{") + text.count("[") > MAX_JSON_DEPTH and _depth(text) > MAX_JSON_DEPTH:
        return f"must nest at most {MAX_JSON_DEPTH} levels"
    return None


def _depth(text: str) -> int:
    """How deep well-formed JSON nests; in the text, as a parsed object has one of two equal keys only."""
    levels = accumulate(1 if bracket in "{[" else -1 for bracket in _BRACKETS.findall(_STRINGS.sub("", text)))
    return max(levels, default=0)


_STRINGS = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"')
_BRACKETS = re.compile(r"[][{}]")


@lru_cache(4096)
def _good_metadata(wire: bytes) -> Metadata | None:
    """Metadata that is as it should be, from its serialized form: most events of a service say the same."""
    faults: list[str] = []
    metadata = _metadata(event_pb2.Metadata.FromString(wire), lambda field, _: faults.append(field))
    return None if faults else metadata


def _metadata(message: event_pb2.Metadata, wrong: Callable[[str, str], None]) -> Metadata:
    if message.source and not is_id(message.source):
        wrong("metadata.source", ID_RULE)
    if message.caused_by and not is_id(message.caused_by):
        wrong("metadata.caused_by", ID_RULE)
    if message.entity_version < 0:
        wrong("metadata.entity_version", "must not be negative")
    tags = tuple(message.tags)
    if len(tags) > MAX_TAGS:
        wrong("metadata.tags", f"must be at most {MAX_TAGS}")
    for number, tag in enumerate(tags[:MAX_TAGS]):
        if not is_id(tag):
            wrong(f"metadata.tags[{number}]", ID_RULE)
    attributes = tuple(sorted(message.attributes.items()))
    if len(attributes) > MAX_ATTRIBUTES:
        wrong("metadata.attributes", f"must be at most {MAX_ATTRIBUTES}")
    for name, value in attributes[:MAX_ATTRIBUTES]:
        if not is_name(name):
            wrong("metadata.attributes", f"has a key that {NAME_RULE}")
        elif len(value) > MAX_ATTRIBUTE_CHARACTERS or "\0" in value:
            wrong(
                f'metadata.attributes["{name}"]', f"must be at most {MAX_ATTRIBUTE_CHARACTERS} characters without NUL"
            )
    return Metadata(message.source, message.caused_by, message.entity_version, tags, attributes)


def set_time(stamp: Timestamp, moment: datetime) -> None:
    since = moment - EPOCH
    stamp.seconds = since.days * 86_400 + since.seconds
    stamp.nanos = since.microseconds * 1000


def set_data(message: _WithData, form: DataForm, content_type: str, content: bytes) -> None:
    """Put into a message what `data_of` took from one."""
    if form == DataForm.JSON:
        message.json = content.decode()
    elif form == DataForm.MESSAGE:
        message.message.type_url = content_type
        message.message.value = content
    else:
        message.binary.content_type = content_type
        message.binary.content = content


def event_message(stored: StoredEvent) -> event_pb2.Event:
    """An event as it is handed out."""
    event = stored.event
    message = event_pb2.Event(
        event_id=event.event_id,
        event_type=event.event_type,
        event_version=event.event_version,
        aggregate_id=event.aggregate_id,
        aggregate_type=event.aggregate_type,
        tenant_id=event.tenant_id,
        user_id=event.user_id,
        session_id=event.session_id,
        request_id=event.request_id,
        correlation_id=event.correlation_id,
        aggregate_version=stored.aggregate_version,
        position=stored.position,
    )
    set_time(message.timestamp, event.timestamp)
    set_time(message.record_time, stored.record_time)
    set_data(message, event.form, event.content_type, event.content)
    if event.metadata != _NO_METADATA:
        said = event.metadata
        message.metadata.source = said.source
        message.metadata.caused_by = said.caused_by
        message.metadata.entity_version = said.entity_version
        message.metadata.tags.extend(said.tags)
        message.metadata.attributes.update(said.attributes)
    return message


class EventCodec:
    """Serializes stored events for the relay: keeps the promises of ports.Codec."""

    def encode(self, stored: StoredEvent) -> bytes:
        if not stored.event.wire:
            return event_message(stored).SerializeToString()
        # Two serialized messages, one after the other, are the serialized merge of both.
        return b"".join(
            (
                stored.event.wire,
                _VERSION + varint(stored.aggregate_version),
                _POSITION + varint(stored.position),
                _recorded_at(stored.record_time),
            )
        )

    def facts(self, body: bytes) -> Facts:
        event = event_pb2.Event.FromString(body)
        return Facts(event.metadata.source, event.aggregate_type, tuple(event.metadata.tags))

    def type_of(self, body: bytes) -> str:
        # What this broker writes begins with the id and the type: most ids are shorter than 128 bytes.
        if body[:1] == _EVENT_ID and len(body) > 2 and (size := body[1]) < 0x80:
            at = 2 + size
            if body[at : at + 1] == _EVENT_TYPE and len(body) > at + 1 and (size := body[at + 1]) < 0x80:
                return body[at + 2 : at + 2 + size].decode()
        return event_pb2.Event.FromString(body).event_type

    def record_time(self, body: bytes) -> float:
        # What this broker writes ends with it.
        at = body.rfind(_RECORD_TIME, -_LONGEST_TIME)
        if 0 <= at < len(body) - 2 and body[at + 2] == len(body) - at - 3:
            stamp = Timestamp.FromString(body[at + 3 :])
        else:
            stamp = event_pb2.Event.FromString(body).record_time
        return stamp.seconds + stamp.nanos / 1e9


_EVENT_ID, _EVENT_TYPE, _VERSION, _POSITION, _RECORD_TIME = (
    field_tag(event_pb2.Event, field)
    for field in ("event_id", "event_type", "aggregate_version", "position", "record_time")
)
_LONGEST_TIME = 2 + 1 + 12  # bytes: tag, length, and seconds and nanos of five bytes each behind a tag


@lru_cache(8)
def _recorded_at(moment: datetime) -> bytes:
    """The field of an event that says so: the same for all of a flush."""
    stamp = event_pb2.Event()
    set_time(stamp.record_time, moment)
    return stamp.SerializeToString()
