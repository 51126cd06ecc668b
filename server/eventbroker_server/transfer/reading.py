"""Reads an export line by line, and vouches for it: what it hands out is in order, and when it has handed out all, the
counts and the digest of the last line were right."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import orjson

from eventbroker_server.domain.errors import BadExport, InvalidArgument
from eventbroker_server.domain.event import shard_of
from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.domain.names import is_name
from eventbroker_server.transfer.cloud_events import BEGIN, event_of
from eventbroker_server.transfer.frame import KINDS, Header, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.domain.event import StoredEvent

_BATCH_LINES = 1_000
_BATCH_BYTES = 4 << 20
_LONGEST = 1 << 28  # bytes of a line


class Line(NamedTuple):
    """A line of an export: an event with its shard, or the text of a group, a retry or a dead letter."""

    number: int
    kind: str
    value: Any
    nth: int  # of its kind


class Reader:
    """Call `header` first, then `batches` once."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._tally = Tally()
        self._number = 0
        self._kind = KINDS[0]
        self._last = 0  # shard of the last event
        self._ended = False
        self._header: Header
        self._reached: list[int]  # the last position in each shard

    @property
    def counts(self) -> dict[str, int]:
        """How many lines of each kind have been read."""
        return self._tally.counts

    async def header(self) -> Header:
        """Raises BadExport."""
        line = await asyncio.to_thread(self._next)
        try:
            self._header = Header.of(line)
        except ValueError as exc:
            raise self._bad(str(exc)) from exc
        self._tally.add(line)
        self._reached = list(self._header.after)
        return self._header

    async def batches(self) -> AsyncIterator[list[Line]]:
        """All lines between the first and the last, some at a time. Raises BadExport, maybe at the very end."""
        while batch := await asyncio.to_thread(self._batch):
            yield batch

    def _batch(self) -> list[Line]:
        batch: list[Line] = []
        size = 0
        while len(batch) < _BATCH_LINES and size < _BATCH_BYTES and not self._ended:
            line = self._next()
            if line.startswith(b'{"trailer":'):
                self._end(line)
                break
            batch.append(self._read(line))
            self._tally.add(line)
            self.counts[batch[-1].kind] += 1
            size += len(line)
        return batch

    def _next(self) -> bytes:
        self._number += 1
        try:
            line = self._file.readline(_LONGEST)
        except OSError as exc:
            raise self._bad(f"cannot be read: {exc}") from exc
        if not line.endswith(b"\n"):
            raise self._bad("is cut off, or missing: the export has no last line")
        return line

    def _end(self, line: bytes) -> None:
        if line != self._tally.trailer():
            raise self._bad("tells other counts or another digest than the lines before it have")
        if not self._header.tenant and (heads := list(self._header.heads)) != self._reached:
            raise self._bad(f"comes after the positions {self._reached}, where the first line tells {heads}")
        if self._file.read(1):
            self._number += 1
            raise self._bad("comes after the last line of the export")
        self._ended = True

    def _read(self, line: bytes) -> Line:
        kind, value = ("event", self._event(line)) if line.startswith(BEGIN) else self._other(line)
        if KINDS.index(kind) < KINDS.index(self._kind):
            raise self._bad(f"is a {kind} after a {self._kind}")
        self._kind = kind
        return Line(self._number, kind, value, self.counts[kind] + 1)

    def _event(self, line: bytes) -> tuple[int, StoredEvent]:
        try:
            shard, stored = event_of(line)
        except InvalidArgument as exc:
            raise self._bad(exc.message()) from exc
        header, tenant, position = self._header, stored.event.tenant_id, stored.position
        if shard != shard_of(tenant, header.shards):
            raise self._bad(f"shard is {shard}, and the events of {tenant} are in {shard_of(tenant, header.shards)}")
        if header.tenant not in ("", tenant):
            raise self._bad(f"tenantid is {tenant}, and this is an export of {header.tenant}")
        before = self._reached[shard]
        if shard < self._last or (position <= before if header.tenant else position != before + 1):
            raise self._bad(f"position is {position} of shard {shard}, after {before} there, and shard {self._last}")
        if stored.aggregate_version < 1:
            raise self._bad("aggregateversion must be above 0")
        self._reached[shard] = position
        self._last = shard
        return shard, stored

    def _other(self, line: bytes) -> tuple[str, str]:
        try:
            said = orjson.loads(line)
        except ValueError as exc:
            raise self._bad(f"is not JSON: {exc}") from exc
        kind = next(iter(said), "") if isinstance(said, dict) else ""
        if kind not in KINDS or not isinstance(row := said[kind], dict):
            raise self._bad(f"begins as none of {', '.join(KINDS)}")
        tenant, name = row.get("tenant_id"), row.get("name")
        if not (isinstance(tenant, str) and isinstance(name, str) and is_name(name)) or not (
            tenant == self._header.tenant or (not self._header.tenant and (tenant == ALL_TENANTS or is_name(tenant)))
        ):
            raise self._bad(f"{kind} must name a group that belongs to the export")
        if kind == "group" and not isinstance(said.get("places"), list):
            raise self._bad("group must have its places")
        return kind, line.decode()

    def _bad(self, rule: str) -> BadExport:
        return BadExport(self._number, rule)
