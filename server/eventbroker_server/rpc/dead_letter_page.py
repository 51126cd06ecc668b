"""Page tokens of ListDeadLetters: where the page before ended, and a digest, so that a token serves only the request
that it was made for. It is no secret: what a caller may see is decided without it."""

from __future__ import annotations

import base64
import struct
from datetime import timedelta
from hashlib import blake2s
from typing import TYPE_CHECKING

from eventbroker_server.domain.dead_letter import DeadLetterPlace
from eventbroker_server.domain.errors import Violation
from eventbroker_server.rpc.convert import EPOCH

if TYPE_CHECKING:
    from eventbroker.v1.dead_letter_service_pb2 import ListDeadLettersRequest

_PLACE = struct.Struct(">qiq")  # microseconds, shard, position
_DIGEST_BYTES = 10


def token_of(request: ListDeadLettersRequest, last: DeadLetterPlace) -> str:
    place = _PLACE.pack((last.dead_at - EPOCH) // timedelta(microseconds=1), last.shard, last.position)
    return base64.urlsafe_b64encode(place + _digest(request, place)).decode()


def place_of(request: ListDeadLettersRequest, violations: list[Violation]) -> DeadLetterPlace | None:
    """None for the first page, or after adding to `violations`."""
    if not request.page_token:
        return None
    try:
        raw = base64.b64decode(request.page_token, altchars=b"-_", validate=True)
        place, digest = raw[: _PLACE.size], raw[_PLACE.size :]
        micros, shard, position = _PLACE.unpack(place)
        if digest == _digest(request, place):
            return DeadLetterPlace(EPOCH + timedelta(microseconds=micros), shard, position)
    except (ValueError, struct.error, OverflowError):
        pass
    rule = "must be a next_page_token of this broker, with the group, tenant and filter that it was given for"
    violations.append(Violation("page_token", rule))
    return None


def _digest(request: ListDeadLettersRequest, place: bytes) -> bytes:
    said = (request.group, request.tenant_id, request.filter.SerializeToString(deterministic=True), place)
    return blake2s(repr(said).encode(), digest_size=_DIGEST_BYTES).digest()
