"""What the store of retries and dead letters promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.ports import Failure, Row, Waiting
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.retry_store import PostgresRetryStore

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

KEY = GroupKey("acme", "billing")
GROUP = Group(KEY, TypeFilter.of("*"), 30.0, RetryPolicy(max_attempts=3))
EVENTS = 5


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    """A database with five events and a group that gets them."""
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 1)
        await PostgresEventLog(pool).append(0, [Row(domain_event(), None, 1) for _ in range(EVENTS)])
        groups = PostgresGroupStore(pool)
        await groups.ensure(GROUP, from_latest=False)
        await groups.next_generation(KEY, 0, 0)
        yield pool


@pytest.fixture
async def retries(pool: Pool) -> PostgresRetryStore:
    return PostgresRetryStore(pool)


def failure(position: int, delivery: str, delay: float | None = 0.0, *, rejected: bool = False) -> Failure:
    return Failure(position, delivery, "c1", f"error of {delivery}", delay, rejected)


async def dead(pool: Pool) -> list[Any]:
    async with pool.connection() as connection:
        rows: list[Any] = await connection.fetch("SELECT * FROM eventbroker.dead_letters ORDER BY position")
        return rows


async def test_each_failure_counts_an_attempt_and_keeps_its_error(retries: PostgresRetryStore, pool: Pool) -> None:
    await retries.record(GROUP, 0, [failure(1, "a"), failure(2, "b")])
    await retries.record(GROUP, 0, [failure(1, "c")])
    assert sorted(await retries.due(KEY, 0, 1, 10)) == [Waiting(1, 2), Waiting(2, 1)]
    async with pool.connection() as connection:
        history = json.loads(await connection.fetchval("SELECT history FROM eventbroker.retries WHERE position = 1"))
    assert [(one["attempt"], one["consumer"], one["error"]) for one in history] == [
        (1, "c1", "error of a"),
        (2, "c1", "error of c"),
    ]


async def test_recording_a_failure_twice_counts_it_once(retries: PostgresRetryStore, pool: Pool) -> None:
    await asyncio.gather(*(retries.record(GROUP, 0, [failure(1, "a"), failure(2, "b")]) for _ in range(5)))
    assert sorted(await retries.due(KEY, 0, 1, 10)) == [Waiting(1, 1), Waiting(2, 1)]
    for _ in range(2):
        await retries.record(GROUP, 0, [failure(1, "c", rejected=True)])
    (letter,) = await dead(pool)
    assert (letter["attempts"], len(json.loads(letter["history"]))) == (2, 2)


async def test_after_the_last_attempt_an_event_is_dead(retries: PostgresRetryStore, pool: Pool) -> None:
    for delivery in ("a", "b", "c"):
        assert await dead(pool) == []
        await retries.record(GROUP, 0, [failure(4, delivery)])
    (letter,) = await dead(pool)
    assert (letter["position"], letter["attempts"], letter["reason"], letter["rejected"]) == (4, 3, "error of c", False)
    assert (letter["event_type"], letter["event_tenant_id"]) == ("user.created", "acme")
    assert [one["error"] for one in json.loads(letter["history"])] == ["error of a", "error of b", "error of c"]
    assert await retries.waiting_groups() == []


async def test_a_rejected_event_is_dead_at_once(retries: PostgresRetryStore, pool: Pool) -> None:
    await retries.record(GROUP, 0, [failure(4, "a", rejected=True)])
    (letter,) = await dead(pool)
    assert (letter["attempts"], letter["rejected"]) == (1, True)


async def test_an_event_is_due_after_its_delay_or_the_back_off(retries: PostgresRetryStore) -> None:
    slow = replace(GROUP, retry=RetryPolicy(initial=100.0))
    await retries.record(slow, 0, [failure(1, "a", None), failure(2, "b", 50.0), failure(3, "c", 0.0)])
    assert await retries.due(KEY, 0, 1, 10) == [Waiting(3, 1)]
    (group,) = await retries.waiting_groups()
    assert (group.key, group.shard) == (KEY, 0)
    await retries.settled(KEY, 0, [Waiting(3, 1)])
    (group,) = await retries.waiting_groups()
    assert group.next_due
    assert 40 < (group.next_due - datetime.now(UTC)).total_seconds() < 51
    await retries.settled(KEY, 0, [Waiting(2, 1)])
    (group,) = await retries.waiting_groups()
    assert group.next_due
    assert 70 < (group.next_due - datetime.now(UTC)).total_seconds() < 121


async def test_what_is_queued_is_due_again_in_another_generation_only(retries: PostgresRetryStore) -> None:
    await retries.record(GROUP, 0, [failure(1, "a"), failure(2, "b")])
    await retries.queued(KEY, 0, 1, [Waiting(1, 1), Waiting(2, 7)])
    assert await retries.due(KEY, 0, 1, 10) == [Waiting(2, 1)]
    assert sorted(await retries.due(KEY, 0, 2, 10)) == [Waiting(1, 1), Waiting(2, 1)]
    await retries.record(GROUP, 0, [failure(1, "c")])
    assert sorted(await retries.due(KEY, 0, 1, 10)) == [Waiting(1, 2), Waiting(2, 1)]


async def test_only_the_attempt_that_was_settled_is_forgotten(retries: PostgresRetryStore) -> None:
    await retries.record(GROUP, 0, [failure(1, "a"), failure(2, "b")])
    await retries.settled(KEY, 0, [Waiting(1, 1), Waiting(2, 2)])
    assert await retries.due(KEY, 0, 1, 10) == [Waiting(2, 1)]


async def test_history_leaves_out_what_waits_or_is_dead(retries: PostgresRetryStore, pool: Pool) -> None:
    event_log = PostgresEventLog(pool)

    async def fed(group: Group = GROUP) -> list[int]:
        events, upto = await event_log.read_for(group, 0, 0, EVENTS)
        assert upto == EVENTS
        return [stored.position for stored in events]

    await retries.record(GROUP, 0, [failure(1, "a"), failure(4, "b", rejected=True)])
    assert await fed() == [2, 3, 5]
    assert await fed(replace(GROUP, key=GroupKey("acme", "other"))) == [1, 2, 3, 4, 5]
    async with pool.connection() as connection:
        await connection.execute("UPDATE eventbroker.group_shards SET sought_at = clock_timestamp()")
    assert await fed() == [2, 3, 4, 5]


async def test_an_event_that_dies_again_after_a_seek_keeps_its_history(retries: PostgresRetryStore, pool: Pool) -> None:
    await retries.record(GROUP, 0, [failure(4, "a", rejected=True)])
    await retries.record(GROUP, 0, [failure(4, "b", rejected=True)])
    (letter,) = await dead(pool)
    assert [one["error"] for one in json.loads(letter["history"])] == ["error of a", "error of b"]
    assert letter["reason"] == "error of b"


async def test_an_event_is_found_by_its_position(pool: Pool) -> None:
    found = await PostgresEventLog(pool).at(0, [2, 5, 99])
    assert sorted(stored.position for stored in found) == [2, 5]
