"""Pages of a list: their sizes, what fits into them, and the tokens that ask for the next.

A token tells where the page before ended, and has a digest, so that it serves only the request that it was made for. It
is no secret: what a caller may see is decided without it.
"""

from __future__ import annotations

import base64
import json
from hashlib import blake2s
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from eventbroker_server.domain.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.message import Message

    M = TypeVar("M", bound=Message)

MAX_PAGE, DEFAULT_PAGE = 1_000, 100
MAX_BYTES = 4 << 20  # which is what a client takes, if it is not told otherwise
_FRAME_BYTES = 8  # of a message in an answer
_TOKEN_BYTES = 8 << 10  # more than any token has
_DIGEST_BYTES = 10
_RULE = "must be a next_page_token of this broker, with all else that the request before asked for"


class Paged(Protocol):
    """A request for a page; a protobuf message."""

    page_size: int
    page_token: str


def size_of(request: Paged, violations: list[Violation]) -> int:
    """How many may be on the page."""
    if not 0 <= request.page_size <= MAX_PAGE:
        violations.append(Violation("page_size", f"must be from 1 to {MAX_PAGE}, or 0"))
    return request.page_size or DEFAULT_PAGE


def fitting(messages: Iterable[M]) -> list[M]:
    """The first of them that fit into an answer together; at least one, if there is one."""
    fit: list[M] = []
    size = _TOKEN_BYTES
    for message in messages:
        size += message.ByteSize() + _FRAME_BYTES
        if fit and size > MAX_BYTES:
            break
        fit.append(message)
    return fit


def token_of(request: Paged, *place: str | int) -> str:
    """Asks for what is after a place, in the order of the list."""
    told = json.dumps(place).encode()
    return base64.urlsafe_b64encode(_digest(request, told) + told).decode()


def place_of(request: Paged, violations: list[Violation], *kinds: type[str] | type[int]) -> list[Any] | None:
    """The place that `token_of` was given, of parts of these kinds; None for the first page, or after adding to
    `violations`."""
    if not request.page_token:
        return None
    try:
        raw = base64.b64decode(request.page_token, altchars=b"-_", validate=True)
        if raw[:_DIGEST_BYTES] == _digest(request, raw[_DIGEST_BYTES:]):
            place = json.loads(raw[_DIGEST_BYTES:])
            if [type(part) for part in place] == [*kinds] and all(map(_storable, place)):
                return list(place)
    except (ValueError, TypeError, RecursionError):
        pass  # not one of ours; anyone can make the digest
    violations.append(Violation("page_token", _RULE))
    return None


def _storable(part: str | int) -> bool:
    """Whether PostgreSQL has such a value."""
    if isinstance(part, int):
        return 0 <= part < 1 << 63
    part.encode()  # raises a ValueError, if it is not Unicode
    return "\0" not in part


def _digest(request: Paged, place: bytes) -> bytes:
    asked: Message = type(request)()  # type: ignore[assignment]
    asked.CopyFrom(request)  # type: ignore[arg-type]
    for field in ("page_size", "page_token"):
        asked.ClearField(field)
    said = asked.DESCRIPTOR.full_name.encode() + asked.SerializeToString(deterministic=True)
    return blake2s(said + place, digest_size=_DIGEST_BYTES).digest()
