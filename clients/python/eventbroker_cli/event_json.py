"""Messages of the contract as JSON (the proto3 form, with the names of the protos), and events from JSON.

Typed data whose type is not known here stands as {"@type": ..., "value": base64}, and is read back from that.
"""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

# Loaded for their descriptors: typed data of these is shown in clear.
from eventbroker.events.v1 import role_pb2, session_pb2, user_pb2  # noqa: F401
from eventbroker.v1 import event_pb2
from google.protobuf import json_format, message_factory, wrappers_pb2
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from google.protobuf.any_pb2 import Any as Packed
    from google.protobuf.message import Message

_OPAQUE = "type.googleapis.com/google.protobuf.BytesValue"


def as_json(message: Message) -> Any:
    """Fields that are not set have their zero values, but for messages, which are left out."""
    plain = type(message)()
    plain.CopyFrom(message)
    urls = []
    for packed in _packed(plain):
        url = packed.type_url
        if not _readable(packed):
            packed.Pack(wrappers_pb2.BytesValue(value=packed.value))
        if packed.type_url == _OPAQUE:
            urls.append(url)
    made = json_format.MessageToDict(plain, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    if urls:
        _rename(made, iter(urls))
    return made


def event_from(fields: dict[str, Any]) -> event_pb2.Event:
    """An event of its fields. `data`, any value of JSON, may stand for `json`, its text. What the broker sets is left
    out, so that what was listed can be published elsewhere. Raises ValueError with the fault."""
    given = dict(fields)
    if "data" in given:
        if any(form in given for form in ("json", "message", "binary")):
            raise ValueError("data goes with none of json, message, binary")
        given["json"] = json.dumps(given.pop("data"), ensure_ascii=False, separators=(",", ":"))
    for own in ("aggregate_version", "aggregateVersion", "position", "record_time", "recordTime"):
        given.pop(own, None)
    packed = given.get("message")
    opaque = isinstance(packed, dict) and not _known(str(packed.get("@type", ""))) and {"@type", "value"} == {*packed}
    if opaque:
        del given["message"]
    event = event_pb2.Event()
    try:
        json_format.ParseDict(given, event)
        if isinstance(packed, dict) and opaque:
            event.message.type_url = packed["@type"]
            event.message.value = base64.b64decode(packed["value"], validate=True)
    except (json_format.ParseError, TypeError) as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    return event


def _packed(message: Message) -> list[Packed]:
    """The typed data in a message, in the order in which it is rendered."""
    found: list[Packed] = []
    for field, value in message.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for each in value if field.is_repeated else (value,):
            if field.message_type.full_name == "google.protobuf.Any":
                found.append(each)
            elif field.message_type.full_name.startswith("eventbroker."):
                found += _packed(each)
    return found


def _readable(packed: Packed) -> bool:
    if not _known(packed.type_url):
        return False
    kind = message_factory.GetMessageClass(Default().FindMessageTypeByName(packed.TypeName()))
    try:
        kind.FromString(packed.value)
    except DecodeError:
        return False
    return True


def _known(url: str) -> bool:
    try:
        Default().FindMessageTypeByName(url.rpartition("/")[2])
    except KeyError:
        return False
    return True


def _rename(made: Any, urls: Iterator[str]) -> None:
    """Gives typed data that was wrapped to be rendered its own type again."""
    for value in made.values() if isinstance(made, dict) else made:
        if isinstance(value, dict) and value.get("@type") == _OPAQUE:
            value["@type"] = next(urls, _OPAQUE)
        elif isinstance(value, (dict, list)):
            _rename(value, urls)
