"""Dead letters in PostgreSQL: keeps the promises of ports.DeadLetterStore."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.dead_letter import DeadLetter, FailedAttempt, Redriven
from eventbroker_server.domain.errors import DeadLetterNotFound
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from eventbroker_server.domain.dead_letter import DeadLetterFilter, DeadLetterPlace
    from eventbroker_server.domain.event import EventKey
    from eventbroker_server.domain.group import GroupKey
    from eventbroker_server.postgres.pool import Pool

_STEP = 5_000  # rows that go in one transaction
_TIMEOUT = 60.0  # seconds for a statement that may look at every dead letter of a group


class PostgresDeadLetterStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(
        self, key: GroupKey, wanted: DeadLetterFilter, before: DeadLetterPlace | None, count: int
    ) -> list[DeadLetter]:
        place = before or (None, 0, 0)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                QUERIES["dead_letters"], *_columns(key, wanted), *place, count, timeout=_TIMEOUT
            )
        return [DeadLetter._make((*row, ())) for row in rows]

    async def find(self, key: GroupKey, event: EventKey) -> DeadLetter | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(QUERIES["dead_letter"], *key, *event)
        return DeadLetter._make((*row[:-1], _history(row["history"]))) if row else None

    async def redrive(
        self, key: GroupKey, wanted: DeadLetterFilter, most: int, rate: float, *, dry_run: bool
    ) -> Redriven:
        columns = _columns(key, wanted)
        async with self._pool.transaction() as connection:
            await connection.execute(QUERIES["hold_group"], *key)
            await _hold(connection, key, wanted)
            redriven = 0
            if not dry_run:
                redriven = await connection.fetchval(QUERIES["redrive"], *columns, most, rate, timeout=_TIMEOUT)
            remaining = await connection.fetchval(QUERIES["count_dead_letters"], *columns, timeout=_TIMEOUT)
        if dry_run:
            redriven = min(most, remaining)
            remaining -= redriven
        return Redriven(redriven, remaining)

    async def delete(self, key: GroupKey, wanted: DeadLetterFilter, *, dry_run: bool) -> int:
        columns = _columns(key, wanted)
        if dry_run:
            async with self._pool.connection() as connection:
                count: int = await connection.fetchval(QUERIES["count_dead_letters"], *columns, timeout=_TIMEOUT)
                return count
        return await self._in_steps("delete_dead_letters", *columns)

    async def purge(self) -> int:
        return await self._in_steps("purge_dead_letters")

    async def _in_steps(self, query: str, *arguments: Any) -> int:
        total = 0
        while True:
            async with self._pool.connection() as connection:
                gone: int = await connection.fetchval(QUERIES[query], *arguments, _STEP, timeout=_TIMEOUT)
            total += gone
            if gone < _STEP:
                return total


async def _hold(connection: Any, key: GroupKey, wanted: DeadLetterFilter) -> None:
    """Lock the dead letters that are wanted by their ids. Raises DeadLetterNotFound."""
    if not wanted.event_ids:
        return
    rows = await connection.fetch(
        QUERIES["hold_dead_letters"], *key, wanted.event_tenant_id, wanted.event_ids, timeout=_TIMEOUT
    )
    found = {row["event_id"] for row in rows}
    if missing := [event_id for event_id in wanted.event_ids if event_id not in found]:
        raise DeadLetterNotFound(key.name, missing)


def _columns(key: GroupKey, wanted: DeadLetterFilter) -> tuple[Any, ...]:
    return (
        *key,
        wanted.types.exact(),
        wanted.types.prefixes(),
        wanted.aggregate_type,
        wanted.aggregate_id,
        wanted.event_tenant_id,
        wanted.event_ids,
        wanted.reason_contains,
        wanted.dead_after,
        wanted.dead_before,
    )


def _history(text: str) -> tuple[FailedAttempt, ...]:
    return tuple(
        FailedAttempt(said["attempt"], datetime.fromisoformat(said["at"]), said["consumer"], said["error"])
        for said in json.loads(text)
    )
