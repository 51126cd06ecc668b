"""The log in PostgreSQL: keeps the promises of ports.EventLog."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import asyncpg

from eventbroker_server.domain.event import DataForm, Event, Metadata, StoredEvent
from eventbroker_server.ports import Appended, Collision
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Sequence
    from datetime import datetime

    from eventbroker_server.domain.conditions import Conditions
    from eventbroker_server.domain.event import AggregateKey, EventKey
    from eventbroker_server.domain.group import Group
    from eventbroker_server.ports import Row
    from eventbroker_server.postgres.pool import Pool

_FORMS = {form.value: form for form in DataForm}
_PAGE_BYTES = 4 << 20  # of data in one read, give or take an event
_PAGE_POSITIONS = 100_000  # looked at in one count
_SEPARATOR = "\x1f"
_ARRAYS = (10, 13)  # columns that are not text: timestamp, content


class PostgresEventLog:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def append(self, shard: int, rows: Sequence[Row]) -> Appended:
        async with self._pool.connection() as connection:
            return await _insert(connection, shard, rows)

    @asynccontextmanager
    async def deciding(self, shard: int) -> AsyncIterator[LockedShard]:
        async with self._pool.transaction() as connection:
            await connection.fetchval(QUERIES["lock_shard"], shard)
            yield LockedShard(connection, shard)

    async def head(self, shard: int) -> int:
        async with self._pool.connection() as connection:
            position: int = await connection.fetchval(QUERIES["head"], shard)
            return position

    async def read(self, shard: int, after: int, upto: int) -> list[StoredEvent]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["read"], shard, after, upto, _PAGE_BYTES)
            return [stored_event(row) for row in rows]

    async def read_for(
        self, group: Group, shard: int, after: int, upto: int, most: int = 1 << 31
    ) -> tuple[list[StoredEvent], int]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["read_for"], shard, after, upto, _PAGE_BYTES, *_wanted(group), most)
        events = [stored_event(row) for row in rows]
        whole = sum(len(stored.event.content) for stored in events) < _PAGE_BYTES and len(events) < most
        return events, upto if whole else events[-1].position

    async def places(self, group: Group, shard: int, after: int, upto: int) -> list[tuple[int, AggregateKey]]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["places"], shard, after, upto, upto - after, *_wanted(group))
        return [(row[0], (row[1], row[2], row[3])) for row in rows]

    async def find(self, key: EventKey) -> StoredEvent | None:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["events_by_id"], [key[0]], [key[1]])
            return stored_event(rows[0]) if rows else None

    async def at(self, shard: int, positions: Sequence[int]) -> list[StoredEvent]:
        async with self._pool.connection() as connection:
            return [stored_event(row) for row in await connection.fetch(QUERIES["at"], shard, positions)]

    async def record_time(self, shard: int, position: int) -> datetime | None:
        async with self._pool.connection() as connection:
            found: datetime | None = await connection.fetchval(QUERIES["record_time"], shard, position)
            return found

    async def position_before(self, shard: int, time: datetime) -> int:
        async with self._pool.connection() as connection:
            position: int = await connection.fetchval(QUERIES["position_before"], shard, time)
            return position

    async def count_for(self, group: Group, shard: int, after: int, upto: int) -> int:
        wanted = (group.key.tenant, group.filter.exact(), group.filter.prefixes(), *named(group.conditions))
        count = 0
        for first in range(after, upto, _PAGE_POSITIONS):  # each well within the timeout of a statement
            last = min(upto, first + _PAGE_POSITIONS)
            async with self._pool.connection() as connection:
                count += await connection.fetchval(QUERIES["count_for"], shard, first, last, *wanted)
        return count


def named(conditions: Conditions) -> tuple[list[str], list[str], list[str]]:
    """Conditions as their columns."""
    return sorted(conditions.sources), sorted(conditions.aggregate_types), sorted(conditions.tags)


def _wanted(group: Group) -> tuple[object, ...]:
    """What a group wants, as the statements take it."""
    types = (group.filter.exact(), group.filter.prefixes())
    return (group.key.tenant, *types, group.key.name, *named(group.conditions))


class LockedShard:
    """A transaction that holds the shard's lock: keeps the promises of ports.Decision."""

    def __init__(self, connection: Any, shard: int) -> None:
        self._connection = connection
        self._shard = shard

    async def find_events(self, keys: Collection[EventKey]) -> dict[EventKey, StoredEvent]:
        rows = await self._connection.fetch(QUERIES["events_by_id"], *_columns(keys, 2))
        found = [stored_event(row) for row in rows]
        return {stored.event.key: stored for stored in found}

    async def versions(self, aggregates: Collection[AggregateKey]) -> dict[AggregateKey, int]:
        rows = await self._connection.fetch(QUERIES["versions"], *_columns(aggregates, 3))
        return {(row[0], row[1], row[2]): row[3] for row in rows}

    async def insert(self, rows: Sequence[Row]) -> Appended:
        return await _insert(self._connection, self._shard, rows)


async def _insert(connection: Any, shard: int, rows: Sequence[Row]) -> Appended:
    columns: list[Any] = list(zip(*(row.event for row in rows), strict=True))
    columns[11] = [str(form.value) for form in columns[11]]
    same: dict[int, str] = {}  # most events of a flush have the very same metadata
    columns[14] = [same.get(id(said)) or same.setdefault(id(said), metadata_json(said)) for said in columns[14]]
    columns[15] = ["" if row.base is None else str(row.base) for row in rows]
    columns.append([str(row.step) for row in rows])
    for number, column in enumerate(columns):
        if number not in _ARRAYS:
            columns[number] = _joined(column)
    try:
        stored = await connection.fetchrow(QUERIES["append"], shard, *columns)
    except asyncpg.UniqueViolationError as exc:
        raise Collision from exc
    return Appended(stored["first"], stored["versions"], stored["recorded_at"])


def _joined(column: Sequence[str]) -> str:
    text = _SEPARATOR.join(column)
    if text.count(_SEPARATOR) != len(column) - 1:
        raise ValueError("a text of an event has a control character")  # the door lets none through
    return text


def _columns(keys: Collection[tuple[str, ...]], width: int) -> list[list[str]]:
    return [[key[column] for key in keys] for column in range(width)]


def told_event(row: Any) -> Event:
    """Of a row that begins with what the publisher told."""
    return Event._make((*row[:11], _FORMS[row[11]], row[12], row[13], _metadata(row[14]), b""))


def stored_event(row: Any) -> StoredEvent:
    return StoredEvent(told_event(row), row[15], row[16], row[17])


@lru_cache(1024)
def metadata_json(metadata: Metadata) -> str:
    said: dict[str, object] = {name: value for name, value in metadata._asdict().items() if value}
    if metadata.attributes:
        said["attributes"] = dict(metadata.attributes)
    return json.dumps(said, ensure_ascii=False)


@lru_cache(1024)
def _metadata(text: str) -> Metadata:
    said = json.loads(text)
    attributes = tuple(sorted(said.pop("attributes", {}).items()))
    return Metadata(tags=tuple(said.pop("tags", ())), attributes=attributes, **said)
