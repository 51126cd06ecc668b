"""Snapshots in PostgreSQL: keeps the promises of ports.SnapshotStore."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.errors import SnapshotAhead, VersionBeyond
from eventbroker_server.domain.event import DataForm
from eventbroker_server.domain.snapshot import Rebuilt, Snapshot
from eventbroker_server.postgres.event_log import stored_event
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from eventbroker_server.domain.event import AggregateKey, Data
    from eventbroker_server.postgres.pool import Pool

_ANSWER_BYTES = 4 << 20  # of data, of a snapshot and events together


class PostgresSnapshotStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def save(self, aggregate: AggregateKey, version: int, data: Data) -> datetime:
        form, content_type, content = data
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(
                QUERIES["save_snapshot"], *aggregate, version, form.value, content_type, content
            )
        saved_at: datetime | None = row["created_at"]
        if saved_at is None:
            raise SnapshotAhead(**_named(aggregate), asked=version, actual=row["actual"])
        return saved_at

    async def find(self, aggregate: AggregateKey, most: int | None = None) -> Snapshot | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(QUERIES["snapshot"], *aggregate, most)
        return _snapshot(aggregate, row) if row else None

    async def page(self, aggregate: AggregateKey, before: int | None, count: int) -> list[Snapshot]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["snapshots"], *aggregate, before, count)
        return [Snapshot(aggregate, row["version"], None, row["created_at"]) for row in rows]

    async def rebuild(
        self, aggregate: AggregateKey, as_of: int | datetime | None, most: int, *, with_snapshot: bool
    ) -> Rebuilt | None:
        time = as_of if isinstance(as_of, datetime) else None
        version = None if isinstance(as_of, datetime) else as_of
        async with self._pool.moment() as connection:
            then = await connection.fetchrow(QUERIES["aggregate"], *aggregate, version, time)
            if then is None:
                return None
            if version is not None and version > then["latest"]:
                raise VersionBeyond(**_named(aggregate), asked=version, actual=then["latest"])
            if then["version"] is None:
                return None  # its first event came later
            snapshot, after, room = None, 0, _ANSWER_BYTES
            if with_snapshot and (row := await connection.fetchrow(QUERIES["snapshot"], *aggregate, then["version"])):
                snapshot, after, room = _snapshot(aggregate, row), row["version"], room - len(row["content"])
            upto = min(then["version"], after + most)
            rows = await connection.fetch(QUERIES["aggregate_events"], *aggregate, after, upto, room)
        events = [stored_event(row) for row in rows]
        return Rebuilt(then["version"], then["position"], then["recorded_at"], snapshot, events)


def _named(aggregate: AggregateKey) -> dict[str, str]:
    return {"aggregate_type": aggregate[1], "aggregate_id": aggregate[2]}


def _snapshot(aggregate: AggregateKey, row: Any) -> Snapshot:
    data = (DataForm(row["form"]), row["content_type"], row["content"])
    return Snapshot(aggregate, row["version"], data, row["created_at"])
