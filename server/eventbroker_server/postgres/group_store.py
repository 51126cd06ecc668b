"""Consumer groups in PostgreSQL: keeps the promises of ports.GroupStore."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.errors import StoreUnavailable
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.ports import Membership
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
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

    async def next_generation(self, key: GroupKey, shard: int, after: int) -> Membership:
        async with self._pool.connection() as connection:
            await connection.execute(QUERIES["next_generation"], *key, shard, after)
            return await _membership(connection, key, shard)

    async def save_checkpoint(self, key: GroupKey, shard: int, generation: int, position: int) -> int | None:
        async with self._pool.connection() as connection:
            checkpoint: int | None = await connection.fetchval(
                QUERIES["save_checkpoint"], *key, shard, generation, position
            )
            return checkpoint


def _group(row: Any) -> Group:
    retry = RetryPolicy(row["backoff_initial"], row["backoff_multiplier"], row["backoff_max"], row["max_attempts"])
    return Group(
        GroupKey(row["tenant_id"], row["name"]),
        TypeFilter(frozenset(row["event_types"])),
        row["ack_deadline"],
        retry,
        row["dead_letter_retention"],
        row["paused"],
    )


async def _membership(connection: Any, key: GroupKey, shard: int) -> Membership:
    row = await connection.fetchrow(QUERIES["membership"], *key, shard)
    if row is None:
        raise StoreUnavailable(cause=f"there is no group {key}")
    return Membership(*row)
