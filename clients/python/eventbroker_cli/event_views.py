"""Events as people look at them: a line, a row of a table, or all there is to one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import event_pb2
from rich.text import Text

from eventbroker_cli.event_json import as_json
from eventbroker_cli.output import facts
from eventbroker_cli.readable import clean, moment, number, size

if TYPE_CHECKING:
    from rich.console import RenderableType

HEADS = (">position", "recorded", "type", "aggregate", ">version", "id", "data")
_MOST = 60  # characters of data in a table


def line(event: event_pb2.Event, *, tenant: bool, remark: str = "") -> Text:
    """One line: when it was stored, what happened to what, and the data."""
    parts = [
        (moment(event.record_time), "dim"),
        (event.tenant_id if tenant else "", "magenta"),
        (event.event_type, "cyan"),
        (f"{event.aggregate_type}/{event.aggregate_id}", "green"),
        (remark, "yellow"),
        (data_of(event), ""),
    ]
    told = Text("  ").join(Text(clean(text), style) for text, style in parts if text)
    told.no_wrap = True
    return told


def row(event: event_pb2.Event) -> tuple[str | Text, ...]:
    data = data_of(event)
    return (
        number(event.position),
        moment(event.record_time),
        Text(event.event_type, "cyan"),
        f"{event.aggregate_type}/{event.aggregate_id}",
        number(event.aggregate_version),
        event.event_id,
        data if len(data) <= _MOST else f"{data[: _MOST - 1]}…",
    )


def view(event: event_pb2.Event) -> RenderableType:
    """All there is to it."""
    metadata = event.metadata
    return facts(
        (
            ("event", event.event_id),
            ("type", f"{event.event_type} {event.event_version}"),
            ("tenant", event.tenant_id),
            ("aggregate", f"{event.aggregate_type}/{event.aggregate_id}, version {number(event.aggregate_version)}"),
            ("happened", moment(event.timestamp)),
            ("stored", f"{moment(event.record_time)} at position {number(event.position)}"),
            ("user", event.user_id),
            ("session", event.session_id),
            ("request", event.request_id),
            ("correlation", event.correlation_id),
            ("caused by", metadata.caused_by),
            ("source", metadata.source),
            ("entity version", str(metadata.entity_version or "")),
            ("tags", ", ".join(metadata.tags)),
            *((f"{name} =", metadata.attributes[name]) for name in sorted(metadata.attributes)),
            ("data", Text(_indented(event))),
        )
    )


def data_of(event: Any) -> str:
    """The data of an event, or of a snapshot, on one line."""
    form = event.WhichOneof("data")
    if form == "json":
        return " ".join(event.json.split())
    if form == "message":
        return json.dumps(_message(event), ensure_ascii=False)
    if form == "binary":
        return f"<{size(len(event.binary.content))} of {event.binary.content_type}>"
    return ""


def _indented(event: event_pb2.Event) -> str:
    form = event.WhichOneof("data")
    if form == "binary":
        return data_of(event)
    try:
        data = json.loads(event.json) if form == "json" else _message(event)
        return "\n".join(clean(each) for each in json.dumps(data, indent=2, ensure_ascii=False).split("\n"))
    except (ValueError, RecursionError):
        return clean(event.json)


def _message(event: Any) -> Any:
    holder = event_pb2.Event()
    holder.message.CopyFrom(event.message)
    return as_json(holder)["message"]
