"""The frame of an export: a first line that says what it is, and a last line with counts and a digest of all before it,
so that one that was cut off or changed is known for it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson

from eventbroker_server.domain.names import is_name

if TYPE_CHECKING:
    from collections.abc import Sequence

VERSION = 1
KINDS = ("group", "retry", "dead_letter", "event")  # of lines, in the order in which they come


class Header(NamedTuple):
    """What an export holds. Positions are one for each shard."""

    schema: int  # the last migration of the database it was made from
    heads: tuple[int, ...]  # the newest events when it was made
    after: tuple[int, ...]  # its events are those after these; all of them where these are 0
    tenant: str = ""  # whose events and groups it holds; empty: all

    @property
    def shards(self) -> int:
        return len(self.heads)

    @property
    def increment(self) -> bool:
        """Whether it goes on where an earlier export ended."""
        return any(self.after)

    def line(self) -> bytes:
        said: dict[str, Any] = {"eventbroker": "export", "version": VERSION, "schema": self.schema}
        said |= {"shards": self.shards, "heads": _numbered(self.heads), "after": _numbered(self.after)}
        return _line(said | ({"tenant": self.tenant} if self.tenant else {}))

    @classmethod
    def of(cls, line: bytes) -> Header:
        """Raises ValueError with what is wrong with it."""
        said = _object(line)
        if said.get("eventbroker") != "export":
            raise ValueError("is not the first line of an export")
        if said.get("version") != VERSION:
            raise ValueError(f"is of version {said.get('version')}, and this broker knows version {VERSION}")
        shards, schema, tenant = said.get("shards"), said.get("schema"), said.get("tenant", "")
        if type(shards) is not int or not 0 < shards <= 10_000 or type(schema) is not int:
            raise ValueError("must tell schema and shards")
        heads, after = (_positions(said.get(name), shards) for name in ("heads", "after"))
        if heads is None or after is None or any(map(int.__gt__, after, heads)):
            raise ValueError("must tell heads and after, a position for each shard, and none after the head")
        if tenant and not (isinstance(tenant, str) and is_name(tenant)):
            raise ValueError("names a tenant that cannot be")
        return cls(schema, heads, after, tenant)


class Tally:
    """Counts lines by their kind, and digests them."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(KINDS, 0)
        self._digest = hashlib.sha256()

    def add(self, lines: bytes) -> None:
        self._digest.update(lines)

    def trailer(self) -> bytes:
        return _line({"trailer": self.counts, "sha256": self._digest.hexdigest()})


def _line(said: dict[str, Any]) -> bytes:
    return orjson.dumps(said) + b"\n"


def _object(line: bytes) -> dict[str, Any]:
    try:
        said = orjson.loads(line)
    except ValueError as exc:
        raise ValueError(f"is not JSON: {exc}") from exc
    if not isinstance(said, dict):
        raise ValueError("is no object of JSON")
    return said


def _numbered(positions: Sequence[int]) -> dict[str, int]:
    return {str(shard): position for shard, position in enumerate(positions)}


def _positions(said: Any, shards: int) -> tuple[int, ...] | None:
    if not isinstance(said, dict) or set(said) != {str(shard) for shard in range(shards)}:
        return None
    positions = tuple(said[str(shard)] for shard in range(shards))
    return positions if all(type(position) is int and 0 <= position < 2**63 for position in positions) else None
