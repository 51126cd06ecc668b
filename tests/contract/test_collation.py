"""A database that was given may sort text by the rules of a language; what is listed is bytewise all the same."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import pytest
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.ports import Row, Span
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.history import PostgresHistory
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.conftest import Stores

NAMES = [("User", "b"), ("User", "B"), ("User", "ä"), ("User", "a-b"), ("User", "ab"), ("order", "a"), ("Order", "z")]
HAS_ICU = "SELECT true FROM pg_collation WHERE collname = 'und-x-icu'"


@asynccontextmanager
async def database_of_a_language(stores: Stores) -> AsyncIterator[str]:
    """Its URL. The wheel's PostgreSQL knows no language: there it is a database like the others."""
    admin = await asyncpg.connect(stores.postgres)
    name = f"{stores.prefix}_en"
    try:
        language = "LOCALE_PROVIDER icu ICU_LOCALE 'en'" if await admin.fetchval(HAS_ICU) else ""
        await admin.execute(f"CREATE DATABASE {name} TEMPLATE template0 {language}")
        yield stores.postgres.replace(f"/{stores.prefix}?", f"/{name}?")
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.mark.parametrize("size", [1, 3, 100])
async def test_aggregates_are_listed_bytewise_whatever_the_language_of_the_database(stores: Stores, size: int) -> None:
    async with database_of_a_language(stores) as url, open_pool(stores.settings(), url) as pool:
        await migrate(pool, 1)
        log, history = PostgresEventLog(pool), PostgresHistory(pool)
        await log.append(0, [Row(domain_event(aggregate_type=kind, aggregate_id=key), None, 1) for kind, key in NAMES])
        found: list[tuple[str, str]] = []
        while page := await history.aggregates("acme", "", found[-1] if found else None, size):
            found += [(head.aggregate_type, head.aggregate_id) for head in page]
        assert found == sorted(NAMES, key=lambda name: (name[0].encode(), name[1].encode()))
        user = [head.aggregate_id for head in await history.aggregates("acme", "User", None, 100)]
        assert user == ["B", "a-b", "ab", "b", "ä"]


async def test_types_are_found_whatever_the_language_of_the_database(stores: Stores) -> None:
    types = ["user.a-b", "user.ab", "user.a_b", "user", "users.a", "user.a.b", "us.er"]
    async with database_of_a_language(stores) as url, open_pool(stores.settings(), url) as pool:
        await migrate(pool, 1)
        log, history = PostgresEventLog(pool), PostgresHistory(pool)
        await log.append(0, [Row(domain_event(event_type=event_type), None, 1) for event_type in types])
        for pattern in ("user.*", "*"):
            asked = EventFilter(types=TypeFilter.of(pattern))
            page = await history.events("acme", 0, asked, Span(0, 7), 10)
            assert [stored.event.event_type for stored in page.events] == [t for t in types if asked.types.matches(t)]
