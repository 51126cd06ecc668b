"""The contract's rules of events and names, each fault by its field."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from eventbroker.v1.event_pb2 import Event, Metadata
    from google.protobuf.message import Message

    from eventbroker_client.testing.memory.refused import Violation

MAX_PAGE = 1_000
MAX_EVENT_BYTES = 1024 * 1024
MAX_LEVELS_OF_JSON = 64
FIRST_SECOND, LAST_SECOND = -62_135_596_799, 253_402_300_798  # of the years 1 and 9999
NAME_RULE = "must be 1 to 128 characters of A-Z a-z 0-9 . _ -"
ID_RULE = "must be 1 to 256 characters without control characters"
TYPE_RULE = "must be 1 to 8 levels between dots, of a-z 0-9 _ -, at most 128 characters"
PATTERN_RULE = 'must be an event type, a wildcard such as "user.*", or "*"'
_NAME = re.compile(r"[A-Za-z0-9._-]{1,128}")
_ID = re.compile(r"[^\x00-\x1f\x7f-\x9f]{1,256}")
_TYPE = re.compile(r"(?=.{1,128}\Z)[a-z0-9_-]+(?:\.[a-z0-9_-]+){0,7}")


def name_faults(named: dict[str, str], *, optional: bool = True) -> Iterator[Violation]:
    """`named` are names by their fields; `optional` ones may be empty."""
    for field, name in named.items():
        if not (_NAME.fullmatch(name) or (optional and not name)):
            yield field, NAME_RULE


def pattern_faults(patterns: Iterable[str]) -> Iterator[Violation]:
    for number, pattern in enumerate(patterns):
        if pattern != "*" and not _TYPE.fullmatch(pattern.removesuffix(".*")):
            yield f"event_types[{number}]", PATTERN_RULE


def event_faults(event: Event, path: str) -> list[Violation]:
    faults = [(f"{path}.{field}", rule) for field, rule in _faults(event)]
    if not faults and event.ByteSize() > MAX_EVENT_BYTES:
        faults.append((path, f"must be at most {MAX_EVENT_BYTES} bytes, not {event.ByteSize()}"))
    return faults


def history_faults(request: Message) -> list[Violation]:
    """Of a list, or of a stream of history, as far as it has these fields."""
    said: Any = request
    has = request.DESCRIPTOR.fields_by_name
    faults: list[Violation] = []
    if said.tenant_id != "*" or "follow" not in has:  # which is for all tenants
        faults += name_faults({"tenant_id": said.tenant_id}, optional=False)
    if "filter" in has:
        faults += [(f"filter.{field}", rule) for field, rule in pattern_faults(said.filter.event_types)]
        if said.filter.aggregate_id and not said.filter.aggregate_type:
            faults.append(("filter.aggregate_type", "must be set where aggregate_id is"))
        if 0 < said.upto_position < said.after_position:
            faults.append(("upto_position", "must not be before after_position, or be 0"))
    if "follow" in has and said.follow and said.upto_position:
        faults.append(("upto_position", "must be 0 with follow"))
    for field in ("after_position", "upto_position", "from_version"):
        if field in has and getattr(said, field) < 0:
            faults.append((field, "must not be negative"))
    for field in ("page_size", "max_batch_events"):
        if field in has and not 0 <= getattr(said, field) <= MAX_PAGE:
            faults.append((field, f"must be from 1 to {MAX_PAGE}, or 0"))
    return faults


def _faults(event: Event) -> Iterator[Violation]:
    for field in ("event_id", "aggregate_id"):
        if not _ID.fullmatch(getattr(event, field)):
            yield field, ID_RULE
    for field in ("user_id", "session_id", "request_id", "correlation_id"):
        if (text := getattr(event, field)) and not _ID.fullmatch(text):
            yield field, ID_RULE
    named = {field: getattr(event, field) for field in ("tenant_id", "event_version", "aggregate_type")}
    yield from name_faults(named, optional=False)
    if not _TYPE.fullmatch(event.event_type):
        yield "event_type", TYPE_RULE
    for field in ("aggregate_version", "position", "record_time"):
        if any(said.name == field for said, _ in event.ListFields()):
            yield field, "is set by the broker; leave it out"
    if not event.HasField("timestamp"):
        yield "timestamp", "is required"
    elif not FIRST_SECOND <= event.timestamp.seconds <= LAST_SECOND:
        yield "timestamp", "must be from 0001-01-01T00:00:01Z to 9999-12-31T23:59:58Z"
    yield from _data_faults(event)
    yield from _metadata_faults(event.metadata)


def _data_faults(event: Event) -> Iterator[Violation]:
    match event.WhichOneof("data"):
        case None:
            yield "data", "is required: one of json, message, binary"
        case "json":
            try:
                too_deep = _depth(json.loads(event.json, parse_constant=_refuse)) > MAX_LEVELS_OF_JSON
            except (ValueError, RecursionError):
                yield "json", "must be well-formed JSON"
            else:
                if too_deep:
                    yield "json", f"must nest at most {MAX_LEVELS_OF_JSON} levels"
        case "message" if "/" not in event.message.type_url:
            yield "message.type_url", "must name a type"
        case "binary" if not _ID.fullmatch(event.binary.content_type):
            yield "binary.content_type", ID_RULE


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not of JSON")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        value = list(value.values())
    return 1 + max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _metadata_faults(metadata: Metadata) -> Iterator[Violation]:
    for field in ("source", "caused_by"):
        if (text := getattr(metadata, field)) and not _ID.fullmatch(text):
            yield f"metadata.{field}", ID_RULE
    if metadata.entity_version < 0:
        yield "metadata.entity_version", "must not be negative"
    for field in ("tags", "attributes"):
        if len(getattr(metadata, field)) > 64:
            yield f"metadata.{field}", "must be at most 64"
    for number, tag in enumerate(metadata.tags):
        if not _ID.fullmatch(tag):
            yield f"metadata.tags[{number}]", ID_RULE
    for name, text in metadata.attributes.items():
        if not _NAME.fullmatch(name):
            yield "metadata.attributes", f"has a key that {NAME_RULE}"
        elif len(text) > 4096 or "\0" in text:
            yield f'metadata.attributes["{name}"]', "must be at most 4096 characters without NUL"
