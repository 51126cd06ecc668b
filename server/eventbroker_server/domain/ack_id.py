"""Ack ids: opaque, signed names of deliveries.

An ack id names one hand-over of one event to one consumer, so that settling can be fenced: by the generation of the
group, and by the owner and number of the delivery. It is signed, so no caller can make one up, and it carries all that
is needed to settle through any broker without asking PostgreSQL.

Layout: head (shared by all deliveries of a stream to a consumer), position, number of the entry in the retry stream and
number of the delivery (8 + 8 + 4 bytes, big endian), MAC (12 bytes of keyed BLAKE2s, a third of the time of HMAC); as
base64. The length is a multiple of three bytes, so that the same bytes cannot be spelled in two ways.
"""

from __future__ import annotations

import binascii
import hmac
import struct
from functools import lru_cache
from hashlib import blake2s
from typing import NamedTuple

_TAIL = struct.Struct(">QQI")
_MAC_BYTES = 12


BACKFILL, RETRY = "", "!"  # the streams that belong to one group; no event type is named so


class Lane(NamedTuple):
    """One stream of one group, as one consumer reads it."""

    group: str
    shard: int
    generation: int
    stream: str  # an event type, BACKFILL or RETRY
    consumer: str


class AckId(NamedTuple):
    """A delivery: the `number`th hand-over of the event at `position`, from its `retry`th entry in the retry stream, or
    from another stream if that is 0."""

    lane: Lane
    position: int
    number: int
    retry: int = 0


class Signer:
    """Makes ack ids and checks them. All brokers over one database share the key."""

    def __init__(self, key: bytes) -> None:
        """`key` is of at most 32 bytes."""
        self._keyed = blake2s(key=key, digest_size=_MAC_BYTES)

    def _mac(self, signed: bytes) -> bytes:
        mac = self._keyed.copy()  # half the time of keying a new one
        mac.update(signed)
        return mac.digest()

    def sign(self, head: bytes, position: int, number: int, retry: int = 0) -> str:
        """The ack id of a delivery in the lane of which this is the head."""
        signed = head + _TAIL.pack(position, retry, number)
        return binascii.b2a_base64(signed + self._mac(signed), newline=False).decode()

    def verify(self, text: str) -> AckId | None:
        """None for anything that this broker's kind did not sign."""
        if len(text) % 4 or "=" in text:
            return None
        try:
            raw = binascii.a2b_base64(text, strict_mode=True)
        except ValueError:
            return None
        signed, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
        if not hmac.compare_digest(mac, self._mac(signed)):
            return None
        position, retry, number = _TAIL.unpack(signed[-_TAIL.size :])
        return AckId(_lane(signed[: -_TAIL.size]), position, number, retry)


def head_of(lane: Lane) -> bytes:
    """What the ack ids of a lane begin with."""
    head = "\0".join((lane.group, lane.stream, lane.consumer, str(lane.shard), str(lane.generation))).encode()
    return head + b"\0" * (-(len(head) + _TAIL.size + _MAC_BYTES) % 3)


@lru_cache(4096)
def _lane(head: bytes) -> Lane:
    group, stream, consumer, shard, generation = head.decode().rstrip("\0").split("\0")
    return Lane(group, int(shard), int(generation), stream, consumer)
