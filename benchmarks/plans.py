"""How PostgreSQL goes about each query of the event store: EXPLAIN (ANALYZE) of what its adapters ask."""

from __future__ import annotations

import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.ports import Link, Span
from eventbroker_server.postgres.history import PostgresHistory
from eventbroker_server.postgres.pool import Pool, open_pool
from eventbroker_server.postgres.reader import PostgresEventReader
from eventbroker_server.postgres.snapshots import PostgresSnapshotStore
from eventbroker_server.settings import Settings

from benchmarks.events import TENANT, TYPES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class _Explaining:
    """A connection that prints the plan of each statement before it asks. Plans are those for any value, as the broker
    has them."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __getattr__(self, name: str) -> Any:
        ask = getattr(self._connection, name)

        async def explained(sql: str, *args: Any) -> Any:
            await self._connection.execute(f"PREPARE asked AS {sql}")
            given = f"({', '.join(map(_literal, args))})" if args else ""
            rows = await self._connection.fetch(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) EXECUTE asked{given}")
            await self._connection.execute("DEALLOCATE asked")
            for line in (row[0] for row in rows):
                if found := re.search(r"(Index|Seq|Bitmap)\b.* Scan .*|Index Cond: .*|Execution Time: .*", line):
                    print(f"    {found[0]}")
            print()
            return await ask(sql, *args)

        return explained


class _Pool(Pool):
    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with super().connection() as connection:
            yield _Explaining(connection)

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[Any]:
        async with super().connection() as connection:
            yield _Explaining(connection)


async def explain(database: str, stored: int) -> None:
    """Print the plans of queries about the middle of what is stored."""
    settings = Settings(postgres_url=database)
    half = stored // 2
    everything = Span(0, stored)
    async with open_pool(settings, database) as opened:
        pool = _Pool(opened._pool, opened._timeout)
        history, snapshots = PostgresHistory(pool), PostgresSnapshotStore(pool)
        aggregate = (TENANT, "User", "user-05000")
        lists = {
            "by type": (EventFilter(types=TypeFilter.of(TYPES[0])), Span(half, stored)),
            "by types, with a wildcard": (EventFilter(types=TypeFilter.of("*")), Span(half, stored)),
            "by correlation": (EventFilter(correlation_id="chain-000000500"), everything),
            "by user": (EventFilter(user_id="user-05000"), everything),
        }
        for name, (asked, span) in lists.items():
            print(f"ListEvents {name}\n")
            await history.events(TENANT, 0, asked, span, 100)
        print("ListAggregateEvents\n")
        await history.aggregate_events(0, aggregate, Span(0, 1 << 62), 100)
        print("ListAggregates\n")
        await history.aggregates(TENANT, "User", None, 100)
        print("GetAggregate\n")
        await snapshots.rebuild(aggregate, None, 1000, with_snapshot=True)
        print("GetCausality, a step of it\n")
        await history.links_near(TENANT, [Link(half, "one", "another", 0)], [], 100)
        print("ReadEvents\n")
        await PostgresEventReader(pool).page(0, TENANT, EventFilter(), half, stored)


def _literal(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, list):
        return "'{" + ",".join('"' + str(each).replace('"', '\\"') + '"' for each in value) + "}'"
    return str(value) if isinstance(value, (int, float)) else "'" + str(value).replace("'", "''") + "'"
