"""PostgresEventReader keeps the promises of ports.EventReader, on true PostgreSQL servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.event import DataForm, Metadata
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.ports import Row
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.reader import PostgresEventReader

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.ports import Read
    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

END = 2**62
ALL = EventFilter()


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 2)
        yield pool


@pytest.fixture
def reader(pool: Pool) -> PostgresEventReader:
    return PostgresEventReader(pool)


@pytest.fixture
def event_log(pool: Pool) -> PostgresEventLog:
    return PostgresEventLog(pool)


async def append(event_log: PostgresEventLog, *changes: dict[str, Any], shard: int = 0) -> None:
    await event_log.append(shard, [Row(domain_event(**each), None, 1) for each in changes])


def of(read: Read) -> tuple[list[int], int]:
    return [event.position for event in read.events], read.reached


async def test_a_page_begins_after_a_position_and_ends_with_another(
    reader: PostgresEventReader, event_log: PostgresEventLog
) -> None:
    await append(event_log, *[{}] * 5)
    await append(event_log, {}, shard=1)
    assert of(await reader.page(0, "acme", ALL, 0, 5)) == ([1, 2, 3, 4, 5], 5)
    assert of(await reader.page(0, "acme", ALL, 2, 4)) == ([3, 4], 4)
    assert of(await reader.page(1, "acme", ALL, 0, 1)) == ([1], 1)
    assert of(await reader.page(0, "globex", ALL, 0, 5)) == ([], 5)


async def test_all_tenants_are_read_but_the_broker_s_own(
    reader: PostgresEventReader, event_log: PostgresEventLog
) -> None:
    await append(event_log, {}, {"tenant_id": "globex"}, {"tenant_id": "_broker"})
    assert of(await reader.page(0, ALL_TENANTS, ALL, 0, 3)) == ([1, 2], 3)
    assert of(await reader.page(0, "_broker", ALL, 0, 3)) == ([3], 3)


@pytest.mark.parametrize(
    ("asked", "changes"),
    [
        (EventFilter(types=TypeFilter.of("user.left")), {"event_type": "user.left"}),
        (EventFilter(types=TypeFilter.of("order.*", "user.left")), {"event_type": "order.line.added"}),
        (EventFilter(aggregate_type="Order"), {"aggregate_type": "Order"}),
        (EventFilter(aggregate_type="User", aggregate_id="u1"), {"aggregate_id": "u1"}),
        (EventFilter(correlation_id="c"), {"correlation_id": "c"}),
        (EventFilter(user_id="u"), {"user_id": "u"}),
        (EventFilter(caused_by="e"), {"metadata": Metadata(caused_by="e")}),
        (EventFilter(conditions=Conditions(tags=frozenset("r"))), {"metadata": Metadata(tags=("q", "r"))}),
        (EventFilter(conditions=Conditions(sources=frozenset("s"))), {"metadata": Metadata(source="s")}),
    ],
)
async def test_only_what_is_asked_for_is_read_and_the_place_moves_past_the_rest(
    reader: PostgresEventReader, event_log: PostgresEventLog, asked: EventFilter, changes: dict[str, Any]
) -> None:
    await append(event_log, {}, changes, {})
    assert of(await reader.page(0, "acme", asked, 0, 3)) == ([2], 3)


async def test_a_filter_that_nothing_matches_moves_by_a_bounded_number_of_positions(
    reader: PostgresEventReader, pool: Pool
) -> None:
    _, reached = of(await reader.page(0, "acme", ALL, 0, END))
    assert 0 < reached < END
    assert of(await reader.page(0, "acme", ALL, reached, END)) == ([], 2 * reached)


async def test_a_page_of_many_events_ends_with_the_last_that_it_has(
    reader: PostgresEventReader, event_log: PostgresEventLog
) -> None:
    await append(event_log, *[{}] * 2_500)
    found: list[int] = []
    after = 0
    while after < 2_500:
        positions, after = of(await reader.page(0, "acme", ALL, after, 2_500))
        assert 0 < len(positions) < 2_500
        found += positions
    assert found == [*range(1, 2_501)]


@pytest.mark.parametrize(("size", "pages"), [(1 << 20, [[1, 2, 3, 4], [5, 6]]), (5 << 20, [[1], [2]])])
async def test_a_page_ends_when_it_has_4_mib_or_one_event_that_is_larger(
    reader: PostgresEventReader, event_log: PostgresEventLog, size: int, pages: list[list[int]]
) -> None:
    events = pages[-1][-1]
    large = {"form": DataForm.BINARY, "content_type": "a/b", "content": bytes(size)}
    await append(event_log, *[large] * events)
    after = 0
    for page in pages:
        positions, after = of(await reader.page(0, "acme", ALL, after, events))
        assert positions == page
        assert after == page[-1]
