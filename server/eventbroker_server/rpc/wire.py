"""Protobuf's wire format, as far as the broker writes it by hand.

An event is serialized once, when it is published. What is relayed, and each delivery of it, is these bytes with a few
fields around them: to parse them into a message and to serialize that again took half as long again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from google.protobuf.message import Message

_LENGTH_DELIMITED = (9, 11, 12)  # FieldDescriptor.TYPE_STRING, TYPE_MESSAGE, TYPE_BYTES


def varint(number: int) -> bytes:
    """A number that is not negative, seven bits a byte, the lowest first."""
    if number < 0x80:
        return _SHORT[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    return _SHORT[number & 0x7F | 0x80] + varint(number >> 7)


_SHORT = [bytes((number,)) for number in range(0x100)]


def field_tag(message: type[Message], field: str) -> bytes:
    """What goes before the value of a field: its number and whether its length follows or a varint."""
    descriptor = message.DESCRIPTOR.fields_by_name[field]
    return varint(descriptor.number << 3 | (2 if descriptor.type in _LENGTH_DELIMITED else 0))


def sized(content: bytes) -> bytes:
    return varint(len(content)) + content
