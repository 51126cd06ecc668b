"""Which index serves each list, on true PostgreSQL servers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.queries import QUERIES
from eventbroker_server.postgres.ways import way_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 2)
        yield pool


# 200,000 events, of which every 20th is of a tiny tenant, and few of a rare type.
MANY = """
INSERT INTO eventbroker.events
SELECT 1, n, CASE WHEN n % 20 = 0 THEN 'tiny' ELSE 'acme' END, 'e' || n,
    CASE WHEN n % 50000 = 1 THEN 'rare.one' WHEN n % 3 = 0 THEN 'user.created' ELSE 'user.left' END, 'v1.0',
    'User', 'u' || n % 10000, (n + 9999) / 10000, CASE WHEN n % 2 = 0 THEN 'user' || n % 500 ELSE '' END, '', '',
    CASE WHEN n % 2 = 0 THEN 'c' || n / 10 ELSE '' END, now(), 1, '', '{}',
    CASE WHEN n % 4 = 0 THEN jsonb_build_object('caused_by', 'e' || n - 1) ELSE '{}' END, now()
FROM generate_series(1, 200000) AS n
"""
SERVED: list[tuple[str, EventFilter]] = [
    ("events_by_type", EventFilter()),
    ("events_by_type", EventFilter(types=TypeFilter.of("rare.one"))),
    ("events_by_type", EventFilter(types=TypeFilter.of("rare.*", "user.left"))),
    ("events_by_type", EventFilter(conditions=Conditions(tags=frozenset(["red"])))),
    ("events_by_type", EventFilter(aggregate_type="User")),
    ("events_version", EventFilter(aggregate_type="User", aggregate_id="u77")),
    ("events_version", EventFilter(aggregate_type="User", aggregate_id="u77", user_id="user42")),
    ("events_by_correlation", EventFilter(correlation_id="c500", types=TypeFilter.of("user.left"))),
    ("events_by_cause", EventFilter(caused_by="e99")),
    ("events_by_user", EventFilter(user_id="user42", aggregate_type="User")),
]


OTHERS: list[tuple[str, set[str]]] = [
    ("events_by_id", {"events_id"}),
    ("versions", {"events_version"}),
    ("types_of_tenant", {"events_by_type"}),
    ("version_at", {"events_version"}),
    ("aggregates", {"aggregates", "events_version"}),
    ("links_near", {"events_by_cause", "events_id"}),
    ("links_correlated", {"events_by_correlation"}),
]


async def plan(connection: Any, sql: str) -> str:
    """As the pool's connections make it: for any values."""
    count = max(int(number) for number in re.findall(r"\$(\d+)", sql))
    await connection.execute(f"PREPARE planned AS {sql}")
    rows = await connection.fetch(f"EXPLAIN EXECUTE planned({', '.join(['NULL'] * count)})")
    await connection.execute("DEALLOCATE planned")
    return "\n".join(row[0] for row in rows)


def indexes(planned: str) -> set[str]:
    return set(re.findall(r"(?:using| on) ((?:events_|aggregates)\w*)", planned)) - {"events_1"}


async def test_each_list_goes_through_its_index_in_order_before_and_after_statistics_are_gathered(pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute(MANY, timeout=50)
        for gather in ("SELECT", "ANALYZE eventbroker.events"):
            await connection.execute(gather)
            for index, asked in SERVED:
                way = await way_of(connection, "acme", asked)
                for newest_first in (False, True):
                    page = await plan(connection, way.page(newest_first=newest_first).sql)
                    assert indexes(page) == {index, "events_position"}, (asked, page)
                    assert page.count("Sort  (") == 2, page  # of what the lanes found, and of the page
                    step = await plan(connection, way.step(newest_first=newest_first))
                    assert indexes(step) == {index}, (asked, step)
                    assert step.count("Sort  (") == 1, step
                    assert "Seq Scan" not in page + step
            for name, expected in OTHERS:
                planned = await plan(connection, QUERIES[name])
                assert indexes(planned) == expected, planned
                assert "Seq Scan" not in planned, planned


async def test_a_plan_that_was_made_while_nothing_was_stored_looks_each_id_up(pool: Pool) -> None:
    async with pool.connection() as connection:
        planned = await plan(connection, QUERIES["events_by_id"])
        assert indexes(planned) == {"events_id"}, planned
        assert re.search(r"Index Cond: .*tenant_id.*event_id", planned), planned
