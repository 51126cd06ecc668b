"""Consumer groups in PostgreSQL: keeps the promises of ports.GroupStore."""

from __future__ import annotations

from dataclasses import astuple
from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.errors import StoreUnavailable
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey
from eventbroker_server.domain.limits import Limits
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.ports import Leftovers, Membership, Place, Saved
from eventbroker_server.postgres.event_log import named
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from eventbroker_server.domain.group import GroupChange
    from eventbroker_server.postgres.pool import Pool


class PostgresGroupStore:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def ensure(self, group: Group, *, from_latest: bool) -> Group:
        async with self._pool.transaction() as connection:
            properties = (sorted(group.filter.patterns), group.ack_deadline)
            if await connection.fetchval(QUERIES["insert_group"], *group.key, *properties):
                await connection.execute(QUERIES["insert_memberships"], *group.key, from_latest)
        return await self.find(group.key) or group

    async def find(self, key: GroupKey) -> Group | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(QUERIES["group"], *key)
        return _group(row) if row else None

    async def membership(self, key: GroupKey, shard: int) -> Membership:
        async with self._pool.connection() as connection:
            return await _membership(connection, key, shard)

    async def next_generation(self, key: GroupKey, shard: int, after: int) -> Membership | None:
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(QUERIES["next_generation"], *key, shard, after)
            return Membership(*row) if row else None

    async def save_checkpoint(
        self, key: GroupKey, shard: int, generation: int, position: int, beyond: Sequence[tuple[int, int]] = ()
    ) -> Saved | None:
        ranges = ([first for first, _ in beyond], [after for _, after in beyond])
        async with self._pool.connection() as connection:
            row = await connection.fetchrow(QUERIES["save_checkpoint"], *key, shard, generation, position, *ranges)
        return Saved(row[0], [(told.lower, told.upper) for told in row[1]]) if row else None

    async def is_settled(self, key: GroupKey, shard: int, position: int) -> bool:
        async with self._pool.connection() as connection:
            return bool(await connection.fetchval(QUERIES["is_settled"], *key, shard, position))

    async def create(self, group: Group, checkpoints: Mapping[int, int]) -> bool:
        retry = group.retry
        policy = (retry.initial, retry.multiplier, retry.maximum, retry.max_attempts, group.dead_letter_retention)
        properties = (sorted(group.filter.patterns), group.ack_deadline, *policy)
        properties += (*named(group.conditions), *astuple(group.limits), group.ordered, group.fair, group.hold)
        async with self._pool.transaction() as connection:
            if not await connection.fetchval(QUERIES["create_group"], *group.key, *properties):
                return False
            places = (list(checkpoints), list(checkpoints.values()))
            await connection.execute(QUERIES["create_memberships"], *group.key, *places)
            return True

    async def list_groups(self, tenant: str, after: str, count: int) -> list[Group]:
        async with self._pool.connection() as connection:
            return [_group(row) for row in await connection.fetch(QUERIES["list_groups"], tenant, after, count)]

    async def leftovers(self, key: GroupKey) -> Leftovers:
        async with self._pool.connection() as connection:
            return Leftovers(*await connection.fetchrow(QUERIES["leftovers"], *key))

    async def count_retries(self, key: GroupKey, shard: int, upto: int) -> int:
        async with self._pool.connection() as connection:
            count: int = await connection.fetchval(QUERIES["count_retries"], *key, shard, upto)
        return count

    async def oldest_at(self, key: GroupKey, shard: int, unsettled: int | None) -> datetime | None:
        async with self._pool.connection() as connection:
            at: datetime | None = await connection.fetchval(QUERIES["oldest_at"], *key, shard, unsettled)
        return at

    async def places(self, tenant: str, count: int) -> list[Place]:
        async with self._pool.connection() as connection:
            rows = await connection.fetch(QUERIES["group_places"], tenant, count)
        return [Place(GroupKey(of, name), *place) for of, name, *place in rows]

    async def update(self, key: GroupKey, change: GroupChange) -> Group | None:
        types = _sorted(change.filter.patterns if change.filter else None)
        conditions = (_sorted(change.sources), _sorted(change.aggregate_types), _sorted(change.tags))
        retry = change.retry
        backoff = (retry.initial, retry.multiplier, retry.maximum, retry.max_attempts) if retry else (None,) * 4
        changes = (types, change.ack_deadline, *backoff, change.dead_letter_retention, change.paused, *conditions)
        changes += (*(astuple(change.limits) if change.limits else (None,) * 3), change.hold)
        async with self._pool.transaction() as connection:
            row = await connection.fetchrow(QUERIES["update_group"], *key, *changes)
            if row and change.refilters:
                group = _group(row)
                wanted = (group.filter.exact(), group.filter.prefixes(), *named(group.conditions))
                forget = "drop_unwanted_retries" if group.in_turn else "forget_unwanted_retries"
                await connection.execute(QUERIES[forget], *key, *wanted)
        return _group(row) if row else None

    async def seek(self, key: GroupKey, checkpoints: Mapping[int, int], pace: float = 0.0) -> bool:
        async with self._pool.transaction() as connection:
            for shard, checkpoint in sorted(checkpoints.items()):  # in one order, so that two never wait for each other
                await connection.execute(QUERIES["hold_place"], *key, shard)
                if not await connection.fetchval(QUERIES["seek"], *key, shard, checkpoint, pace):
                    return False
                await connection.execute(QUERIES["forget_retries"], *key, shard)
        return True

    async def delete(self, key: GroupKey) -> bool:
        async with self._pool.connection() as connection:
            return bool(await connection.fetchval(QUERIES["delete_group"], *key))


def _group(row: Any) -> Group:
    retry = RetryPolicy(row["backoff_initial"], row["backoff_multiplier"], row["backoff_max"], row["max_attempts"])
    return Group(
        GroupKey(row["tenant_id"], row["name"]),
        TypeFilter(frozenset(row["event_types"])),
        row["ack_deadline"],
        retry,
        row["dead_letter_retention"],
        row["paused"],
        row["ordered"],
        row["fair"],
        row["hold"],
        conditions=Conditions(*(frozenset(row[column]) for column in ("sources", "aggregate_types", "tags"))),
        limits=Limits(row["max_unsettled_events"], row["max_unsettled_bytes"], row["max_batch_events"]),
    )


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


async def _membership(connection: Any, key: GroupKey, shard: int) -> Membership:
    row = await connection.fetchrow(QUERIES["membership"], *key, shard)
    if row is None:
        raise StoreUnavailable(cause=f"there is no group {key}")
    return Membership(*row)
