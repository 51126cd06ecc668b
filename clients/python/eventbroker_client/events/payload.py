"""The data of an event, or of a snapshot, in the three forms of the wire: JSON, a protobuf message, or bytes with a
content type."""

from __future__ import annotations

import json
from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any

from google.protobuf import any_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.message import DecodeError, Message

from eventbroker_client.errors import InvalidArgument, PayloadMismatch, Violation
from eventbroker_client.events.shape import plain, shaped

if TYPE_CHECKING:
    from eventbroker.v1 import event_pb2, event_store_service_pb2

    Carrier = event_pb2.Event | event_store_service_pb2.Snapshot

BYTES = "application/octet-stream"

_JSON = json.JSONEncoder(default=plain, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Binary:
    """Bytes with a content type of their own, such as "application/avro"."""

    content: bytes
    content_type: str = BYTES


@dataclass(frozen=True, slots=True)
class Json:
    """JSON text that is at hand: it goes as it is, byte for byte. It comes as any JSON: parsed."""

    text: str


def put(data: Any, message: Carrier) -> None:
    """Raises InvalidArgument if the data has no form on the wire."""
    if isinstance(data, any_pb2.Any):
        message.message.CopyFrom(data)
    elif isinstance(data, Message):
        message.message.Pack(data, deterministic=True)
    elif isinstance(data, (bytes, bytearray, memoryview)):
        message.binary.content, message.binary.content_type = bytes(data), BYTES
    elif isinstance(data, Binary):
        message.binary.content, message.binary.content_type = data.content, data.content_type
    elif isinstance(data, Json):
        message.json = data.text
    else:
        try:
            message.json = _JSON.encode(data)
        except (TypeError, ValueError, RecursionError) as exc:  # a lone surrogate is a ValueError, too
            raise InvalidArgument(violations=[Violation("data", f"has no form in JSON: {exc}")]) from exc


def take(message: Carrier) -> Any:
    """The data without regard to its type: JSON parsed; a message whose class is loaded, else the Any; bytes, or
    Binary if their content type is another than application/octet-stream."""
    form = message.WhichOneof("data")
    if form == "json":
        return json.loads(message.json)
    if form == "message":
        return _unpacked(message.message)
    binary = message.binary
    return binary.content if binary.content_type == BYTES else Binary(binary.content, binary.content_type)


def fitted(data: Any, payload: type) -> Any:
    """Values of JSON as an instance of a dataclass or of a class of messages, whose other fields are left out. Raises
    PayloadMismatch."""
    try:
        if is_dataclass(payload):
            return shaped(data, payload)
        if isinstance(data, dict) and issubclass(payload, Message):
            return json_format.ParseDict(data, payload(), ignore_unknown_fields=True)
    except (TypeError, ValueError, ArithmeticError, json_format.ParseError) as exc:
        raise PayloadMismatch(f"the data does not fit {payload.__qualname__}: {exc}") from exc
    raise PayloadMismatch(f"the data is {type(data).__qualname__} where {payload.__qualname__} is wanted")


def _unpacked(packed: any_pb2.Any) -> Message:
    try:
        kind = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(packed.TypeName()))
        return kind.FromString(packed.value)
    except (KeyError, DecodeError):
        return packed
