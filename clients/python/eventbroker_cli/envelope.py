"""What the command line says of the events that it publishes."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker.v1 import event_pb2
from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker_client import new_id

from eventbroker_cli import given
from eventbroker_cli.event_json import event_from
from eventbroker_cli.exits import Failed

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True, slots=True)
class Envelope:
    """What events have that do not say otherwise themselves."""

    like: event_pb2.Event
    data_lines: bool = False  # a line is the data, not the event

    def made(self, data: str = "") -> event_pb2.Event:
        """An event with this JSON as its data."""
        event = event_pb2.Event()
        event.CopyFrom(self.like)
        if data:
            event.json = data
        return finished(event)

    def read(self, line: bytes) -> event_pb2.Event:
        """Raises ValueError with the fault."""
        text = line.decode()
        if self.data_lines:
            return self.made(text.strip())
        fields = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError("an event is an object of JSON")
        said = event_from(fields)
        event = event_pb2.Event()
        event.CopyFrom(self.like)
        if said.metadata.tags:
            del event.metadata.tags[:]
        event.MergeFrom(said)
        return finished(event)

    def numbered(self, number: int) -> event_pb2.Event:
        """One of many: {n} in its aggregate and its JSON is the number."""
        event = self.made()
        event.aggregate_id = event.aggregate_id.replace("{n}", str(number))
        if event.HasField("json"):
            event.json = event.json.replace("{n}", str(number))
        return event


def finished(event: event_pb2.Event) -> event_pb2.Event:
    """With an id and a time, if it has none."""
    event.event_id = event.event_id or new_id()
    if not event.HasField("timestamp"):
        event.timestamp.GetCurrentTime()
        event.timestamp.nanos -= event.timestamp.nanos % 1_000  # the broker keeps microseconds
    return event


def like(tenant: str, event_type: str, aggregate: str, more: tuple[str, ...]) -> event_pb2.Event:
    event_id, version, time, user, source, correlation, caused_by = more
    kind, name = given.aggregate(aggregate) if aggregate else ("", "")
    event = event_pb2.Event(
        event_id=event_id,
        event_type=event_type,
        event_version=version,
        aggregate_type=kind,
        aggregate_id=name,
        tenant_id=tenant,
        user_id=user,
        correlation_id=correlation,
        metadata=event_pb2.Metadata(source=source, caused_by=caused_by),
    )
    if time:
        event.timestamp.CopyFrom(given.time(time))
    return event


def put(event: event_pb2.Event, data: str, content_type: str) -> None:
    """Raises Failed if the data cannot be read."""
    content = data.encode()
    if data.startswith("@"):
        try:
            content = sys.stdin.buffer.read() if data == "@-" else Path(data[1:]).expanduser().read_bytes()
        except OSError as error:
            raise Failed(f"{data[1:]} cannot be read: {error.strerror}") from None
    if content_type:
        event.binary.content, event.binary.content_type = content, content_type
        return
    try:
        event.json = content.decode().strip() or "{}"
    except UnicodeDecodeError:
        raise Failed("DATA is not in UTF-8; give its --content-type") from None


def pairs(texts: Iterable[str]) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise Failed(f"{text!r} is no NAME=VALUE")
        pairs[name] = value
    return pairs


def expectation(text: str) -> pb.AggregateExpectation:
    aggregate, equals, version = text.rpartition("=")
    if not equals or not version.isdecimal():
        raise Failed(f"{text!r} is no AGGREGATE=VERSION, such as User/u1=3; 0 stands for a new one")
    kind, name = given.aggregate(aggregate)
    return pb.AggregateExpectation(aggregate_type=kind, aggregate_id=name, version=int(version))
