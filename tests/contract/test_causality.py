"""What is found around an event, on true PostgreSQL servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.broker.causality import Causality
from eventbroker_server.domain.causality import tree
from eventbroker_server.domain.event import Event, Metadata
from eventbroker_server.ports import Row
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.history import PostgresHistory
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

SHARD = 1


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 2)
        yield pool


@pytest.fixture
def log(pool: Pool) -> PostgresEventLog:
    return PostgresEventLog(pool)


@pytest.fixture
def history(pool: Pool) -> PostgresHistory:
    return PostgresHistory(pool)


async def store(log: PostgresEventLog, *events: Event) -> None:
    """One by one, so that each can be the next of its aggregate."""
    for event in events:
        await log.append(SHARD, [Row(event, None, 1)])


def caused(event_id: str, by: str = "", **changes: Any) -> Event:
    return domain_event(event_id=event_id, aggregate_id=event_id, metadata=Metadata(caused_by=by), **changes)


FAMILY = [  # by position from 1
    caused("root", "a_command", correlation_id="c"),
    caused("left", "root"),
    caused("right", "root", correlation_id="c"),
    caused("leaf", "left"),
    caused("cousin", "right"),
    caused("friend", correlation_id="c"),
    caused("stranger", "a_command"),
    caused("late friend", "friend", correlation_id="c"),
    caused("other tenant", "root", correlation_id="c", tenant_id="globex"),
]


async def around(log: PostgresEventLog, history: PostgresHistory, event_id: str, most: int) -> tuple[str, bool]:
    start = await log.find(("acme", event_id))
    assert start
    near, truncated = await Causality(log, history).around(SHARD, start, most)
    return ", ".join(stored.event.event_id for stored in near), truncated


async def test_causality_goes_outwards_and_the_nearest_and_oldest_come_first(
    log: PostgresEventLog, history: PostgresHistory
) -> None:
    await store(log, *FAMILY)
    everything = "root, left, right, leaf, cousin, friend, late friend"
    assert await around(log, history, "root", 100) == (everything, False)
    assert await around(log, history, "root", 7) == (everything, False)
    for most in range(1, 7):
        assert await around(log, history, "root", most) == (", ".join(everything.split(", ")[:most]), True)
    assert await around(log, history, "leaf", 100) == ("leaf, left, root, right, cousin", False)
    assert await around(log, history, "stranger", 100) == ("stranger", False)


async def test_causality_ends_where_events_cause_one_another_in_a_circle(
    log: PostgresEventLog, history: PostgresHistory
) -> None:
    await store(log, caused("below", "b"), caused("a", "c"), caused("b", "a"), caused("c", "b"), caused("own", "own"))
    assert await around(log, history, "c", 100) == ("c, a, b, below", False)
    assert await around(log, history, "own", 100) == ("own", False)
    stored: list[StoredEvent] = await log.read(SHARD, 0, 5)
    assert [(each.stored.event.event_id, each.parent, each.depth) for each in tree(stored)] == [
        ("below", "b", 2),
        ("a", "", 0),
        ("b", "a", 1),
        ("c", "b", 2),
        ("own", "", 0),
    ]
