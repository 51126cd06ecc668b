"""The outbox in PostgreSQL: keeps the promises of ports.Outbox."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import asyncpg

from eventbroker_server.domain.errors import StoreUnavailable
from eventbroker_server.postgres.event_log import LockedShard, told_event
from eventbroker_server.postgres.pool import translated
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from eventbroker_server.domain.event import Event
    from eventbroker_server.ports import Appended, Row
    from eventbroker_server.postgres.pool import Pool

log = logging.getLogger(__name__)

_CHANNEL = "eventbroker_outbox"
_BYTES = 4 << 20  # of data taken at once, give or take an event
_AGAIN = 1.0  # seconds until it is tried again to listen
_ALIVE = 30.0  # seconds between two questions whether the connection still is


class PostgresOutbox:
    """Listens on a connection of its own, straight to `url`."""

    def __init__(self, pool: Pool, url: str, timeout: float) -> None:
        self._pool = pool
        self._url = url
        self._timeout = timeout

    async def shards(self) -> list[int]:
        async with self._pool.connection() as connection:
            return [row[0] for row in await connection.fetch(QUERIES["outbox_shards"])]

    @asynccontextmanager
    async def taking(self, shard: int, most: int) -> AsyncIterator[_Taken]:
        async with self._pool.transaction() as connection:
            rows = []
            if await connection.fetchval(QUERIES["outbox_turn"], shard):
                rows = await connection.fetch(QUERIES["outbox_rows"], shard, most, _BYTES)
            if rows:
                await connection.execute(QUERIES["lock_shard"], shard)
            yield _Taken(connection, shard, rows)

    async def refuse(self, shard: int, number: int, reason: str) -> None:
        async with self._pool.connection() as connection:
            await connection.execute(QUERIES["outbox_refuse"], shard, [number], [reason])

    async def listen(self, published: Callable[[], None]) -> None:
        away = False
        while True:
            try:
                async with translated():
                    await self._listen(published)
                away = False
            except StoreUnavailable as exc:  # until it is back the looks now and then do
                if not away:
                    log.info("cannot listen for the outbox: %s", exc)
                away = True
            await asyncio.sleep(_AGAIN)

    async def _listen(self, published: Callable[[], None]) -> None:
        """Until the connection is lost."""
        connection = await asyncpg.connect(
            self._url,
            timeout=self._timeout,
            command_timeout=self._timeout,
            server_settings={"application_name": "eventbroker outbox"},
        )
        ended = asyncio.Event()
        try:
            connection.add_termination_listener(lambda _: ended.set())
            await connection.add_listener(_CHANNEL, lambda *_: published())
            published()  # what was told while nobody listened
            while not connection.is_closed():
                with suppress(TimeoutError):
                    await asyncio.wait_for(ended.wait(), _ALIVE)
                if not ended.is_set():
                    await connection.execute("SELECT")
        finally:
            connection.terminate()


class _Taken(LockedShard):
    """Keeps the promises of ports.TakenFromOutbox."""

    def __init__(self, connection: Any, shard: int, rows: Sequence[Any]) -> None:
        super().__init__(connection, shard)
        self._rows = rows
        self.numbers = [row["number"] for row in rows]

    def events(self) -> list[Event]:
        return [told_event(row) for row in self._rows]

    async def insert(self, rows: Sequence[Row]) -> Appended:
        async with self._connection.transaction():  # a savepoint
            return await super().insert(rows)

    async def forget(self, numbers: Sequence[int]) -> None:
        await self._connection.execute(QUERIES["outbox_forget"], self._shard, numbers)

    async def refuse(self, reasons: Mapping[int, str]) -> None:
        columns = (list(reasons), list(reasons.values()))
        await self._connection.execute(QUERIES["outbox_refuse"], self._shard, *columns)
