"""What the store of retries and dead letters promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.dead_letter import DeadLetterFilter
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.ports import Died, Failure, Recorded, Row, Waiting, WaitingGroup
from eventbroker_server.postgres.dead_letter_store import PostgresDeadLetterStore
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.queries import QUERIES
from eventbroker_server.postgres.retry_store import PostgresRetryStore

from tests.domain_events import domain_event
from tests.waiting import eventually

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
        await PostgresGroupStore(pool).ensure(GROUP, from_latest=False)
        yield pool


class Retries:
    """The store, for the group in its present generation."""

    def __init__(self, pool: Pool, generation: int) -> None:
        self.store = PostgresRetryStore(pool)
        self.generation = generation

    async def record(self, *failures: Failure, group: Group = GROUP) -> list[Died]:
        return (await self.store.record(group, 0, self.generation, failures)).died

    async def due(self, later: int = 0) -> list[Waiting]:
        """What is due in this generation or a later one; it is not noted as queued."""
        with suppress(asyncio.CancelledError):
            async with self.store.due(KEY, 0, self.generation + later, 10) as (due, _):
                found = sorted(Waiting(event.position, event.failed) for event in due)
                raise asyncio.CancelledError
        return found

    async def settled(self, *events: Waiting, later: int = 0) -> None:
        await self.store.settled(KEY, 0, self.generation + later, events)

    async def waiting_groups(self) -> list[WaitingGroup]:
        return await self.store.waiting_groups([(KEY, 0), (KEY, 1), (GroupKey("acme", "none"), 0)])

    async def due_in(self) -> float | None:
        (group,) = await self.waiting_groups()
        assert (group.key, group.shard) == (KEY, 0)
        return group.due_in


@pytest.fixture
async def retries(pool: Pool) -> Retries:
    return Retries(pool, (await PostgresGroupStore(pool).membership(KEY, 0)).generation)


def failure(position: int, delivery: str, delay: float | None = 0.0, *, rejected: bool = False) -> Failure:
    return Failure(position, delivery, "c1", f"error of {delivery}", delay, rejected)


async def dead(pool: Pool) -> list[Any]:
    async with pool.connection() as connection:
        rows: list[Any] = await connection.fetch("SELECT * FROM eventbroker.dead_letters ORDER BY position")
        return rows


async def test_each_failure_counts_an_attempt_and_keeps_its_error(retries: Retries, pool: Pool) -> None:
    await retries.record(failure(1, "a"), failure(2, "b"))
    await retries.record(failure(1, "c"))
    assert await retries.due() == [Waiting(1, 2), Waiting(2, 1)]
    async with pool.connection() as connection:
        history = json.loads(await connection.fetchval("SELECT history FROM eventbroker.retries WHERE position = 1"))
    assert [(one["attempt"], one["consumer"], one["error"]) for one in history] == [
        (1, "c1", "error of a"),
        (2, "c1", "error of c"),
    ]


async def test_recording_a_failure_twice_counts_it_once(retries: Retries, pool: Pool) -> None:
    await asyncio.gather(*(retries.record(failure(1, "a"), failure(2, "b")) for _ in range(5)))
    assert await retries.due() == [Waiting(1, 1), Waiting(2, 1)]
    for _ in range(2):
        await retries.record(failure(1, "c", rejected=True))
    (letter,) = await dead(pool)
    assert (letter["attempts"], len(json.loads(letter["history"]))) == (2, 2)


async def test_the_failure_that_an_event_died_of_is_not_counted_again_after_a_redrive(
    retries: Retries, pool: Pool
) -> None:
    for _ in range(2):  # who did not hear of it records it again
        await retries.record(failure(1, "a", rejected=True))
        await PostgresDeadLetterStore(pool).redrive(KEY, DeadLetterFilter(), 10, 0.0, dry_run=False)
        await retries.record(failure(1, "a", rejected=True))
        assert await dead(pool) == []
        assert await retries.due() == [Waiting(1, 0)]
    await retries.record(failure(1, "b"))
    assert await retries.due() == [Waiting(1, 1)]


async def test_an_event_is_not_given_up_behind_one_that_was_redriven_meanwhile(retries: Retries, pool: Pool) -> None:
    async def bury(position: int, behind: int) -> set[int]:
        return (await retries.store.bury(GROUP, 0, retries.generation, {position: behind})).dead

    await retries.record(failure(1, "a", rejected=True))
    assert await bury(2, 1) == {2}
    await PostgresDeadLetterStore(pool).redrive(KEY, DeadLetterFilter(), 10, 0.0, dry_run=False)
    assert (await bury(2, 1), await bury(3, 2), await dead(pool)) == (set(), set(), [])
    assert await retries.due() == [Waiting(1, 0), Waiting(2, 0)]


async def test_what_dies_while_a_seek_waits_for_it_died_before_the_seek(retries: Retries, pool: Pool) -> None:
    async with pool.transaction() as connection:
        await connection.execute(QUERIES["hold_generation"], *KEY, 0)
        seeking = asyncio.create_task(PostgresGroupStore(pool).seek(KEY, {0: 0}))
        await eventually(lambda: _somebody_waits(pool))
        died = ([1], [1], ["d"], ['{"error": "poison"}'], [True])
        await connection.execute(QUERIES["save_dead_letters"], *KEY, 0, *died)
    assert await seeking
    (turn,) = await retries.store.turns(KEY, 0, [1], 1_000_000)
    assert not turn.dead


async def _somebody_waits(pool: Pool) -> bool:
    async with pool.connection() as connection:
        return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))


async def test_after_the_last_attempt_an_event_is_dead(retries: Retries, pool: Pool) -> None:
    for delivery in ("a", "b", "c"):
        assert await dead(pool) == []
        await retries.record(failure(4, delivery))
    (letter,) = await dead(pool)
    assert (letter["position"], letter["attempts"], letter["reason"], letter["rejected"]) == (4, 3, "error of c", False)
    assert (letter["event_type"], letter["event_tenant_id"]) == ("user.created", "acme")
    assert [one["error"] for one in json.loads(letter["history"])] == ["error of a", "error of b", "error of c"]
    assert await retries.waiting_groups() == []


async def test_a_rejected_event_is_dead_at_once(retries: Retries, pool: Pool) -> None:
    await retries.record(failure(4, "a", rejected=True))
    (letter,) = await dead(pool)
    assert (letter["attempts"], letter["rejected"]) == (1, True)


async def test_an_event_is_due_after_its_delay_or_the_back_off(retries: Retries) -> None:
    slow = replace(GROUP, retry=RetryPolicy(initial=100.0))
    await retries.record(failure(1, "a", None), failure(2, "b", 50.0), failure(3, "c", 0.0), group=slow)
    assert await retries.due() == [Waiting(3, 1)]
    assert (await retries.due_in() or 0) <= 0
    await retries.settled(Waiting(3, 1))
    assert 40 < (await retries.due_in() or 0) < 51
    await retries.settled(Waiting(2, 1))
    assert 70 < (await retries.due_in() or 0) < 121


async def test_what_is_queued_is_due_again_in_another_generation_only(retries: Retries) -> None:
    await retries.record(failure(1, "a"), failure(2, "b"))
    async with retries.store.due(KEY, 0, retries.generation, 1) as (due, _):
        queued = [Waiting(event.position, event.failed) for event in due]
        assert [event.delivery for event in due] == ["a" if queued == [Waiting(1, 1)] else "b"]
    rest = [one for one in (Waiting(1, 1), Waiting(2, 1)) if one not in queued]
    assert await retries.due() == rest
    assert await retries.due(later=1) == [Waiting(1, 1), Waiting(2, 1)]
    await retries.record(failure(queued[0].position, "c"))
    assert await retries.due() == sorted([Waiting(queued[0].position, 2), *rest])


async def test_what_is_moved_to_later_is_due_again_in_a_while(retries: Retries) -> None:
    await retries.record(failure(1, "a"))
    async with retries.store.due(KEY, 0, retries.generation, 1) as (due, later):
        later.append(due.pop())
    assert await retries.due() == []
    assert 0 < (await retries.due_in() or 0) <= 2


async def test_a_failure_that_is_told_again_puts_the_attempt_back_where_it_is_due(retries: Retries) -> None:
    await retries.record(failure(1, "a"))
    async with retries.store.due(KEY, 0, retries.generation, 1):
        pass
    assert await retries.due() == []
    await retries.record(failure(1, "a"))
    assert await retries.due() == [Waiting(1, 1)]


async def test_what_is_due_is_for_one_broker_at_a_time(retries: Retries) -> None:
    await retries.record(failure(1, "a"), failure(2, "b"))
    async with retries.store.due(KEY, 0, retries.generation, 10) as (ours, _):
        assert len(ours) == 2
        assert await retries.due() == []
        ours.clear()
    assert await retries.due() == [Waiting(1, 1), Waiting(2, 1)]


async def test_only_the_attempt_that_was_settled_is_forgotten_and_only_in_its_generation(retries: Retries) -> None:
    await retries.record(failure(1, "a"), failure(2, "b"))
    await retries.settled(Waiting(1, 1), Waiting(2, 1), later=1)
    await retries.settled(Waiting(1, 1), Waiting(2, 2))
    assert await retries.due() == [Waiting(2, 1)]


async def test_nothing_is_recorded_for_another_generation_or_a_group_that_is_gone(retries: Retries, pool: Pool) -> None:
    recorded = await retries.store.record(GROUP, 0, retries.generation - 1, [failure(1, "a", rejected=True)])
    assert recorded == Recorded([], set())
    await PostgresGroupStore(pool).delete(KEY)
    assert await retries.record(failure(1, "a", rejected=True)) == []
    assert (await dead(pool), await retries.waiting_groups()) == ([], [])


async def test_two_failures_of_an_event_in_one_call_are_two_attempts(retries: Retries, pool: Pool) -> None:
    await retries.record(failure(1, "a"), failure(1, "b"), failure(2, "c"))
    assert await retries.due() == [Waiting(1, 2), Waiting(2, 1)]
    (died,) = await retries.record(failure(1, "d"), failure(1, "e"))
    assert (died.position, died.attempts) == (1, 3)
    assert await retries.due() == [Waiting(2, 1)]
    assert len(await dead(pool)) == 1


async def test_what_waits_or_is_dead_is_told_from_what_is_settled(retries: Retries) -> None:
    await retries.record(failure(1, "a"), failure(2, "b", rejected=True))
    found = await retries.store.unsettled(KEY, 0, [1, 2, 3])
    assert sorted(found) == [Waiting(1, 1), Waiting(2, -1)]


async def test_history_leaves_out_what_waits_or_is_dead(retries: Retries, pool: Pool) -> None:
    event_log = PostgresEventLog(pool)

    async def fed(group: Group = GROUP) -> list[int]:
        events, upto = await event_log.read_for(group, 0, 0, EVENTS)
        assert upto == EVENTS
        return [stored.position for stored in events]

    await retries.record(failure(1, "a"), failure(4, "b", rejected=True))
    assert await fed() == [2, 3, 5]
    assert await fed(replace(GROUP, key=GroupKey("acme", "other"))) == [1, 2, 3, 4, 5]
    async with pool.connection() as connection:
        await connection.execute("UPDATE eventbroker.group_shards SET sought_at = clock_timestamp()")
    assert await fed() == [2, 3, 4, 5]


async def test_an_event_that_dies_again_after_a_seek_keeps_its_history(retries: Retries, pool: Pool) -> None:
    await retries.record(failure(4, "a", rejected=True))
    await retries.record(failure(4, "b", rejected=True))
    (letter,) = await dead(pool)
    assert [one["error"] for one in json.loads(letter["history"])] == ["error of a", "error of b"]
    assert letter["reason"] == "error of b"


async def test_an_event_is_found_by_its_position(pool: Pool) -> None:
    found = await PostgresEventLog(pool).at(0, [2, 5, 99])
    assert sorted(stored.position for stored in found) == [2, 5]


@pytest.mark.parametrize("query", ["waiting_groups", "due_retries"])
async def test_a_look_for_what_is_due_does_not_read_all_that_waits(retries: Retries, pool: Pool, query: str) -> None:
    asked = {"waiting_groups": (["acme"], ["billing"], [0]), "due_retries": (*KEY, 0, retries.generation, 100)}
    async with pool.connection() as connection:
        await connection.execute(
            "INSERT INTO eventbroker.retries "
            "SELECT 'acme', 'billing', 0, n, 1, now() + n * interval '1 h', 0, 'd', '[]', 'acme', 'User', 'u1' "
            "FROM generate_series(0, 20000) n"
        )
        await connection.execute("ANALYZE eventbroker.retries")
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {QUERIES[query]}"
        plan = json.loads(await connection.fetchval(explain, *asked[query]))[0]["Plan"]
    assert plan["Actual Rows"] == 1
    assert plan["Shared Hit Blocks"] + plan["Shared Read Blocks"] < 50
