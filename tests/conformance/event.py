"""The events of the conformance cases: made from what a case says, and compared when they come."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from eventbroker.events.v1 import role_pb2, session_pb2, user_pb2
from eventbroker.v1.event_pb2 import Event, Metadata
from google.protobuf import json_format
from google.protobuf.any_pb2 import Any as AnyMessage

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULTS = {
    "event_type": "user.created",
    "aggregate_id": "u1",
    "aggregate_type": "User",
    "timestamp": "2026-01-02T03:04:05.678901Z",
}
TYPED: dict[str, tuple[Any, str, str]] = {
    "UserCreated": (user_pb2.UserCreated, "user.created", "User"),
    "UserStatusChanged": (user_pb2.UserStatusChanged, "user.status_changed", "User"),
    "UserLoggedIn": (user_pb2.UserLoggedIn, "user.login", "Session"),
    "SessionRevoked": (session_pb2.SessionRevoked, "session.revoked", "Session"),
    "RoleAssigned": (role_pb2.RoleAssigned, "role.assigned", "UserRole"),
    "PermissionChecked": (role_pb2.PermissionChecked, "permission.checked", "Permission"),
}


def event_of(said: dict[str, Any], tenant: str) -> Event:
    """A field that is None is left out."""
    fields = DEFAULTS | {name: value for name, value in said.items() if name not in FORMS and name != "metadata"}
    moment = fields.pop("timestamp")
    event = Event(tenant_id=tenant, **fields)
    if moment is not None:
        event.timestamp.FromJsonString(moment)
    if (metadata := said.get("metadata")) is not None:
        version = int(metadata.get("entity_version", "0"))
        event.metadata.CopyFrom(Metadata(**metadata | {"entity_version": version}))
    forms = [form for form in FORMS if form in said]
    if not forms:
        event.json = "{}"
    elif said[forms[0]] is not None:
        FORMS[forms[0]](event, said[forms[0]])
    return event


def _json(event: Event, text: str) -> None:
    event.json = text


def _message(event: Event, said: dict[str, str]) -> None:
    event.message.CopyFrom(AnyMessage(type_url=said["type_url"], value=base64.b64decode(said["base64"])))


def _binary(event: Event, said: dict[str, str]) -> None:
    event.binary.content_type = said["content_type"]
    event.binary.content = base64.b64decode(said["base64"])


def _fill(event: Event, said: dict[str, Any]) -> None:
    size = said["bytes"]
    if said["form"] == "json":
        event.json = '"' + "x" * (size - 2) + '"'
    else:
        event.binary.content_type = "application/octet-stream"
        event.binary.content = (bytes(range(251)) * (size // 251 + 1))[:size]


def _typed(event: Event, said: dict[str, dict[str, Any]]) -> None:
    ((name, fields),) = said.items()
    kind, event.event_type, event.aggregate_type = TYPED[name]
    event.message.Pack(json_format.ParseDict(fields, kind()))


FORMS: dict[str, Callable[[Event, Any], None]] = {
    "json": _json,
    "message": _message,
    "binary": _binary,
    "fill": _fill,
    "typed": _typed,
}


def check_as_published(delivered: Event, published: Event) -> None:
    """Raise AssertionError unless it is that event."""
    assert delivered.position > 0, delivered
    assert delivered.aggregate_version > 0, delivered
    assert delivered.HasField("record_time"), delivered
    events = [Event.FromString(event.SerializeToString()) for event in (delivered, published)]
    for event in events:
        for name in ("position", "aggregate_version", "record_time"):
            event.ClearField(name)
        event.event_version = event.event_version or "v1.0"
        if not event.metadata.ByteSize():
            event.ClearField("metadata")
    assert events[0] == events[1], f"{str(events[0])[:500]} is not {str(events[1])[:500]}"
    for kind, _, _ in TYPED.values():
        if delivered.message.Is(kind.DESCRIPTOR):
            read = kind()
            assert delivered.message.Unpack(read)
            assert read == kind.FromString(published.message.value)
