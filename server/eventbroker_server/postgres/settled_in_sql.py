"""What consumers settled with eventbroker.settle: keeps the promises of ports.SettledInSql."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from eventbroker_server.postgres.pool import Pool

_STEP = 1_000  # rows that are locked at a time
_TIMEOUT = 60.0  # seconds for a step, which may look at every row


class PostgresSettledInSql:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def purge(self) -> int:
        total = 0
        while True:
            async with self._pool.connection() as connection:
                gone: int = await connection.fetchval(QUERIES["purge_settled_in_sql"], _STEP, timeout=_TIMEOUT)
            total += gone
            if gone < _STEP:
                return total
