"""Retries and dead letters in PostgreSQL: keeps the promises of ports.RetryStore."""

from __future__ import annotations

import json
import random
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.group import GroupKey
from eventbroker_server.ports import Died, Due, DuePage, Recorded, Trouble, Turn, Waiting, WaitingGroup
from eventbroker_server.postgres.event_log import stored_event
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Mapping, Sequence

    from eventbroker_server.domain.event import AggregateKey
    from eventbroker_server.domain.group import Group
    from eventbroker_server.ports import Failure
    from eventbroker_server.postgres.pool import Pool


class PostgresRetryStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record(self, group: Group, shard: int, generation: int, failures: Sequence[Failure]) -> Recorded:
        place = (*group.key, shard)
        positions = sorted({failure.position for failure in failures})
        again: dict[int, tuple[Any, ...]] = {}
        dead: dict[int, tuple[Any, ...]] = {}
        async with self._pool.transaction() as connection:
            if await connection.fetchval(QUERIES["hold_generation"], *place) != generation:
                return Recorded([], set())
            rows = await connection.fetch(QUERIES["failed_before"], *place, positions)
            before = {row["position"]: row["attempts"] for row in rows}
            recorded = {(row["position"], row["delivery"]) for row in rows}
            dead_before = set(map(tuple, await connection.fetch(QUERIES["dead_of"], *place, positions)))
            recorded |= dead_before
            told = {(failure.position, failure.delivery) for failure in failures}
            dead_now = {failure.position for failure in failures if (failure.position, failure.delivery) in dead_before}
            for failure in sorted(failures):
                position = failure.position
                if (position, failure.delivery) in recorded or position in dead:
                    continue
                failed = before[position] = before.get(position, 0) + 1
                delay = group.retry.delay(failed, random.random())  # noqa: S311 - spreads load, hides nothing
                item = (position, failed, failure.delivery, _entry(failure.consumer, failure.error, failed))
                if failure.rejected or delay is None:
                    dead[position] = (*item, failure.rejected)
                    again.pop(position, None)
                else:
                    again[position] = (*item, delay if failure.delay is None else failure.delay)
            if known := [position for position, delivery in recorded - dead_before if (position, delivery) in told]:
                await connection.execute(QUERIES["queue_again"], *place, known)
            if again:
                await connection.execute(QUERIES["save_retries"], *place, *zip(*again.values(), strict=True))
            if dead:
                died = await connection.fetch(QUERIES["save_dead_letters"], *place, *zip(*dead.values(), strict=True))
                await connection.execute(QUERIES["drop_retries"], *place, list(dead))
                return Recorded([Died(*row) for row in died], dead_now | set(dead))
        return Recorded([], dead_now)

    async def blocked(self, group: Group, shard: int, aggregates: Collection[AggregateKey]) -> set[AggregateKey]:
        columns = zip(*aggregates, strict=True)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["blocked"], *group.key, shard, group.hold, *columns)
        return {(row[0], row[1], row[2]) for row in rows}

    async def turns(self, key: GroupKey, shard: int, positions: Sequence[int], size: int) -> list[Turn]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["turns"], *key, shard, positions, size)
        said = ("failed", "dropped", "dead", "waits", "dead_before")
        return [Turn(stored_event(row), *(row[column] for column in said)) for row in rows]

    async def bury(self, group: Group, shard: int, generation: int, behind: Mapping[int, int]) -> Recorded:
        place = (*group.key, shard)
        async with self._pool.transaction() as connection:
            if await connection.fetchval(QUERIES["hold_generation"], *place) != generation:
                return Recorded([], set())
            held = await connection.fetch(QUERIES["hold_dead"], *place, sorted({*behind, *behind.values()}))
            dead = {row["position"] for row in held}
            items = [
                (position, 0, f"behind:{generation}:{before}", _entry("", _behind(before), 0), False)
                for position, before in sorted(behind.items())
                if before in dead
            ]
            if not items:
                return Recorded([], set())
            buried = [item[0] for item in items]
            died = await connection.fetch(QUERIES["save_dead_letters"], *place, *zip(*items, strict=True))
            await connection.execute(QUERIES["drop_retries"], *place, buried)
        return Recorded([Died(*row) for row in died], set(buried))

    async def trouble(self, key: GroupKey, shard: int, position: int) -> Trouble | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(QUERIES["trouble"], *key, shard, position)
        return Trouble(*row) if row else None

    async def oldest(self, key: GroupKey, shard: int) -> int | None:
        async with self._pool.connection() as connection:
            position: int | None = await connection.fetchval(QUERIES["oldest_retry"], *key, shard)
        return position

    async def waiting_groups(self, asked: Collection[tuple[GroupKey, int]]) -> list[WaitingGroup]:
        if not asked:
            return []
        columns = zip(*((*key, shard) for key, shard in asked), strict=True)
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["waiting_groups"], *columns)
        return [WaitingGroup(GroupKey(row[0], row[1]), row[2], row[3]) for row in rows]

    @asynccontextmanager
    async def due(self, key: GroupKey, shard: int, generation: int, most: int) -> AsyncIterator[DuePage]:
        async with self._pool.transaction() as connection:
            rows = await connection.fetch(QUERIES["due_retries"], *key, shard, generation, most)
            page = DuePage([Due(row[0], row[1], row[2], (row[3], row[4], row[5])) for row in rows], [])
            yield page
            if page.due:
                noted = zip(*((event.position, event.failed) for event in page.due), strict=True)
                await connection.execute(QUERIES["note_queued"], *key, shard, generation, *noted)
            if page.later:
                positions = [event.position for event in page.later]
                await connection.execute(QUERIES["postpone"], *key, shard, positions)

    async def queue_all_again(self) -> None:
        async with self._pool.transaction() as connection:
            await connection.execute(QUERIES["lock_retries"])
            await connection.execute(QUERIES["queue_all_again"])

    async def settled(self, key: GroupKey, shard: int, generation: int, events: Sequence[Waiting]) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(QUERIES["settle_retries"], *key, shard, generation, *zip(*events, strict=True))

    async def unsettled(self, key: GroupKey, shard: int, positions: Sequence[int]) -> list[Waiting]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["unsettled_of"], *key, shard, positions)
        return [Waiting(*row) for row in rows]


def _entry(consumer: str, error: str, attempt: int) -> str:
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    return json.dumps({"attempt": attempt, "at": at, "consumer": consumer, "error": error})


def _behind(before: int) -> str:
    return f"behind the event at {before} of its aggregate, which is dead"
