"""What the group store promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.event import Metadata
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupChange, GroupKey
from eventbroker_server.domain.limits import Limits
from eventbroker_server.domain.retry import RetryPolicy
from eventbroker_server.ports import Leftovers, Membership, Row, Saved
from eventbroker_server.postgres import event_log as postgres_log
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

KEY = GroupKey("acme", "billing")
GROUP = Group(KEY, TypeFilter.of("user.*", "role.granted"), 12.25)
SHARDS = 2
# Generations begin with the time; here with 0, so that a test can name them.
FROM_ZERO = """
CREATE FUNCTION from_zero() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.generation := 0; RETURN NEW; END $$;
CREATE TRIGGER from_zero BEFORE INSERT ON eventbroker.group_shards FOR EACH ROW EXECUTE FUNCTION from_zero();
"""


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    """A database with three events in shard 1."""
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, SHARDS)
        await PostgresEventLog(pool).append(1, [Row(domain_event(), None, 1) for _ in range(3)])
        async with pool.connection() as connection:
            await connection.execute(FROM_ZERO)
        yield pool


@pytest.fixture
async def groups(pool: Pool) -> PostgresGroupStore:
    return PostgresGroupStore(pool)


async def memberships(groups: PostgresGroupStore, key: GroupKey = KEY) -> list[Membership]:
    return [await groups.membership(key, shard) for shard in range(SHARDS)]


async def test_a_group_is_found_as_it_was_made(groups: PostgresGroupStore) -> None:
    assert await groups.find(KEY) is None
    assert await groups.ensure(GROUP, from_latest=False) == GROUP
    assert await groups.find(KEY) == GROUP


async def test_a_group_that_exists_is_answered_and_not_changed(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    other = replace(GROUP, filter=TypeFilter.of("*"), ack_deadline=99.0)
    assert await groups.ensure(other, from_latest=True) == GROUP
    assert await groups.find(KEY) == GROUP
    assert await memberships(groups) == [Membership(0, 0), Membership(0, 0)]


async def test_a_group_that_many_make_at_once_is_made_once(groups: PostgresGroupStore) -> None:
    offered = [replace(GROUP, ack_deadline=float(seconds)) for seconds in range(1, 9)]
    answers = await asyncio.gather(*(groups.ensure(group, from_latest=False) for group in offered))
    assert len(set(answers)) == 1
    assert answers[0] in offered
    assert await memberships(groups) == [Membership(0, 0), Membership(0, 0)]


async def test_groups_of_one_name_in_two_scopes_never_meet(groups: PostgresGroupStore) -> None:
    keys = [KEY, GroupKey("other", "billing"), GroupKey(ALL_TENANTS, "billing")]
    made = [replace(GROUP, key=key, ack_deadline=float(number)) for number, key in enumerate(keys, 1)]
    for group in made:
        await groups.ensure(group, from_latest=False)
    await groups.next_generation(KEY, 1, 0)
    await groups.save_checkpoint(KEY, 1, 1, 2)
    assert [await groups.find(key) for key in keys] == made
    assert [await groups.membership(key, 1) for key in keys] == [Membership(2, 1), Membership(0, 0), Membership(0, 0)]


async def test_a_group_starts_at_the_earliest_event(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    assert await memberships(groups) == [Membership(0, 0), Membership(0, 0)]


async def test_a_group_starts_after_the_latest_event_of_each_shard(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=True)
    assert await memberships(groups) == [Membership(0, 0), Membership(3, 0)]


async def test_a_generation_is_counted_in_its_own_shard(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=True)
    assert await groups.next_generation(KEY, 1, 0) == Membership(3, 1)
    assert await memberships(groups) == [Membership(0, 0), Membership(3, 1)]


async def test_of_many_who_count_a_generation_one_does(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    answers = await asyncio.gather(*(groups.next_generation(KEY, 0, 0) for _ in range(8)))
    assert sorted(answers, key=bool) == [None] * 7 + [Membership(0, 1)]


async def test_who_does_not_know_the_present_generation_counts_nothing(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.next_generation(KEY, 0, 1)
    for after in (0, 1):
        assert await groups.next_generation(KEY, 0, after) is None
    assert await groups.membership(KEY, 0) == Membership(0, 2)


async def test_a_store_that_forgot_generations_counts_on_from_the_last_that_was(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    assert await groups.next_generation(KEY, 0, 7) == Membership(0, 8)


async def test_a_checkpoint_moves_forward_and_never_back(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    for saved, then in [(2, 2), (1, 2), (2, 2), (9, 9), (0, 9)]:
        assert await groups.save_checkpoint(KEY, 1, 0, saved) == Saved(then, [])
        assert await memberships(groups) == [Membership(0, 0), Membership(then, 0)]


@pytest.mark.parametrize("generation", [0, 2])
async def test_a_checkpoint_of_another_generation_is_not_taken(groups: PostgresGroupStore, generation: int) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.next_generation(KEY, 1, 0)
    assert await groups.save_checkpoint(KEY, 1, generation, 3) is None
    assert await groups.membership(KEY, 1) == Membership(0, 1)
    assert await groups.save_checkpoint(KEY, 1, 1, 3) == Saved(3, [])
    assert await groups.membership(KEY, 1) == Membership(3, 1)


async def test_what_is_settled_beyond_the_checkpoint_adds_up_until_that_reaches_it(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    assert await groups.save_checkpoint(KEY, 1, 0, 2, [(4, 6), (9, 12)]) == Saved(2, [(4, 6), (9, 12)])
    assert await groups.save_checkpoint(KEY, 1, 0, 1, [(6, 8)]) == Saved(2, [(4, 8), (9, 12)])
    assert await groups.next_generation(KEY, 1, 0) == Membership(2, 1)
    assert await groups.save_checkpoint(KEY, 1, 1, 9) == Saved(9, [(10, 12)])
    assert await groups.save_checkpoint(KEY, 1, 1, 11) == Saved(11, [])


async def test_a_seek_forgets_what_was_settled_beyond_the_checkpoint(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.save_checkpoint(KEY, 1, 0, 2, [(4, 6)])
    await groups.seek(KEY, {1: 1})
    assert await groups.save_checkpoint(KEY, 1, 1, 1) == Saved(1, [])


async def test_a_new_generation_begins_at_the_checkpoint_of_the_old(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.save_checkpoint(KEY, 1, 0, 2)
    assert await groups.next_generation(KEY, 1, 0) == Membership(2, 1)


# Groups as resources.

POLICY = RetryPolicy(0.5, 3.0, 60.0, 7)
LIMITS = Limits(7, 1 << 40, 3)
CONDITIONS = Conditions(frozenset({"a,b", '"c"'}), frozenset({"User"}), frozenset({"ü", "{}"}))


async def wait_for_retry(pool: Pool, *positions: int) -> None:
    """Let the group have retries of these events of shard 1."""
    async with pool.connection() as connection:
        await connection.executemany(
            "INSERT INTO eventbroker.retries VALUES"
            " ($1, $2, 1, $3, 1, clock_timestamp(), 0, 'd', '[]', 'acme', 'User', 'u1')",
            [(*KEY, position) for position in positions],
        )


async def test_a_group_is_created_with_all_it_says_at_its_checkpoints(groups: PostgresGroupStore) -> None:
    group = replace(GROUP, retry=POLICY, dead_letter_retention=7200.0, conditions=CONDITIONS, limits=LIMITS)
    assert await groups.create(group, {1: 2})
    assert await groups.find(KEY) == group
    assert await memberships(groups) == [Membership(0, 0), Membership(2, 0)]


async def test_a_group_that_exists_is_not_created_again(groups: PostgresGroupStore) -> None:
    await groups.create(GROUP, {1: 2})
    assert not await groups.create(replace(GROUP, ack_deadline=99.0), {1: 3})
    assert await groups.find(KEY) == GROUP
    assert await memberships(groups) == [Membership(0, 0), Membership(2, 0)]


async def test_groups_of_a_scope_are_listed_by_name(groups: PostgresGroupStore) -> None:
    for name in ("b", "B", "a.b", "a-b"):
        await groups.create(replace(GROUP, key=GroupKey("acme", name)), {})
    await groups.create(replace(GROUP, key=GroupKey("other", "a")), {})
    assert [group.key.name for group in await groups.list_groups("acme", "", 3)] == ["B", "a-b", "a.b"]
    assert [group.key.name for group in await groups.list_groups("acme", "a-b", 9)] == ["a.b", "b"]


def with_conditions(**named: frozenset[str]) -> Group:
    return replace(GROUP, conditions=Conditions(**named))


async def test_a_change_leaves_what_it_does_not_name(groups: PostgresGroupStore) -> None:
    await groups.create(GROUP, {})
    changes = [
        (GroupChange(filter=TypeFilter.of("a")), replace(GROUP, filter=TypeFilter.of("a"))),
        (GroupChange(ack_deadline=1.0, retry=POLICY), replace(GROUP, ack_deadline=1.0, retry=POLICY)),
        (GroupChange(dead_letter_retention=3600.0), replace(GROUP, dead_letter_retention=3600.0)),
        (GroupChange(paused=True), replace(GROUP, paused=True)),
        (GroupChange(sources=CONDITIONS.sources), with_conditions(sources=CONDITIONS.sources)),
        (GroupChange(aggregate_types=CONDITIONS.aggregate_types), with_conditions(aggregate_types=frozenset({"User"}))),
        (GroupChange(limits=LIMITS), replace(GROUP, limits=LIMITS)),
        (GroupChange(tags=CONDITIONS.tags), with_conditions(tags=CONDITIONS.tags)),
    ]
    for change, expected in changes:
        assert await groups.update(KEY, change) == expected
        assert await groups.find(KEY) == expected
        whole = GroupChange(GROUP.filter, GROUP.ack_deadline, GROUP.retry, GROUP.dead_letter_retention, paused=False)
        whole = replace(whole, sources=frozenset(), aggregate_types=frozenset(), tags=frozenset(), limits=Limits())
        assert await groups.update(KEY, whole) == GROUP
    assert await groups.update(GroupKey("acme", "none"), GroupChange(paused=True)) is None


async def test_retries_of_types_that_are_no_longer_wanted_are_forgotten(groups: PostgresGroupStore, pool: Pool) -> None:
    await groups.create(GROUP, {})
    await wait_for_retry(pool, 1, 2)
    await groups.update(KEY, GroupChange(filter=TypeFilter.of("user.*")))
    assert (await groups.leftovers(KEY)).retries == 2
    await groups.update(KEY, GroupChange(filter=TypeFilter.of("role.*")))
    assert await groups.leftovers(KEY) == Leftovers(0, None, 0)


async def test_retries_that_miss_a_condition_are_forgotten(groups: PostgresGroupStore, pool: Pool) -> None:
    await groups.create(GROUP, {})
    tagged = domain_event(metadata=Metadata(tags=("eu",)))
    await PostgresEventLog(pool).append(1, [Row(tagged, None, 1)])
    await wait_for_retry(pool, 1, 4)
    await groups.update(KEY, GroupChange(aggregate_types=frozenset({"User"})))
    assert (await groups.leftovers(KEY)).retries == 2
    await groups.update(KEY, GroupChange(tags=frozenset({"eu"})))
    assert (await groups.leftovers(KEY)).retries == 1
    await groups.update(KEY, GroupChange(filter=GROUP.filter))
    assert (await groups.leftovers(KEY)).retries == 1
    await groups.update(KEY, GroupChange(sources=frozenset({"billing"})))
    assert (await groups.leftovers(KEY)).retries == 0


async def test_leftovers_tell_since_when_the_oldest_waits(groups: PostgresGroupStore, pool: Pool) -> None:
    await groups.create(GROUP, {})
    await wait_for_retry(pool, 2, 3)
    assert await groups.leftovers(KEY) == Leftovers(2, await PostgresEventLog(pool).record_time(1, 2), 0)


async def test_a_seek_back_is_a_new_generation_that_replays_up_to_the_head(
    groups: PostgresGroupStore, pool: Pool
) -> None:
    await groups.create(GROUP, {1: 2})
    await groups.next_generation(KEY, 1, 0)
    await wait_for_retry(pool, 1)
    assert await groups.seek(KEY, {1: 1})
    assert await memberships(groups) == [Membership(0, 0), Membership(1, 2, 3, paced_to=3)]
    assert (await groups.leftovers(KEY)).retries == 0
    assert await groups.save_checkpoint(KEY, 1, 1, 3) is None  # of a broker that does not know yet
    assert await groups.next_generation(KEY, 1, 2) == Membership(1, 3, 3, paced_to=3)


async def test_a_seek_keeps_its_pace_until_the_next(groups: PostgresGroupStore) -> None:
    await groups.create(GROUP, {1: 2})
    await groups.seek(KEY, {1: 1}, 0.5)
    assert await groups.next_generation(KEY, 1, 1) == Membership(1, 2, 3, 0.5, 3)
    await groups.seek(KEY, {1: 0})
    assert await groups.membership(KEY, 1) == Membership(0, 3, 3, 0.0, 3)


async def test_a_seek_forward_replays_nothing(groups: PostgresGroupStore) -> None:
    await groups.create(GROUP, {})
    assert await groups.seek(KEY, {0: 0, 1: 3})
    assert await memberships(groups) == [Membership(0, 1), Membership(3, 1, paced_to=3)]


async def test_a_group_that_is_not_there_cannot_be_moved_or_deleted(groups: PostgresGroupStore) -> None:
    assert not await groups.seek(KEY, {1: 1})
    assert not await groups.delete(KEY)


async def test_a_deleted_group_takes_all_that_is_kept_for_it_along(groups: PostgresGroupStore, pool: Pool) -> None:
    await groups.create(GROUP, {1: 2})
    await wait_for_retry(pool, 1)
    assert await groups.delete(KEY)
    assert await groups.find(KEY) is None
    assert (await groups.leftovers(KEY)).retries == 0
    assert await groups.create(GROUP, {})
    assert await memberships(groups) == [Membership(0, 0), Membership(0, 0)]


async def test_the_log_tells_the_position_before_a_time_and_what_a_group_wants(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    event_log = PostgresEventLog(pool)
    await event_log.append(1, [Row(domain_event(event_type="role.granted"), None, 1)])
    await event_log.append(1, [Row(domain_event(event_type="other", tenant_id="other"), None, 1)])
    times = [await event_log.record_time(1, position) for position in range(1, 6)]
    assert [await event_log.position_before(1, time) for time in times if time] == [0, 0, 0, 3, 4]
    assert times[4]
    assert await event_log.position_before(1, times[4] + timedelta(microseconds=1)) == 5
    assert await event_log.position_before(0, times[4]) == 0
    everything = Group(GroupKey(ALL_TENANTS, "g"), TypeFilter.of("*"), 1.0)
    for page in (100, 5, 4, 2, 1):
        monkeypatch.setattr(postgres_log, "_PAGE_POSITIONS", page)
        assert [await event_log.count_for(group, 1, 0, 5) for group in (GROUP, everything)] == [4, 5]
        assert await event_log.count_for(everything, 1, 1, 3) == 2
        assert [await event_log.count_for(everything, 1, 3, upto) for upto in (3, 2)] == [0, 0]


async def test_a_group_of_a_deleted_name_has_later_generations(groups: PostgresGroupStore, pool: Pool) -> None:
    async with pool.connection() as connection:
        await connection.execute("DROP TRIGGER from_zero ON eventbroker.group_shards")
    generations = []
    for make in (lambda: groups.create(GROUP, {}), lambda: groups.ensure(GROUP, from_latest=False)):
        await make()
        for _ in range(3):
            before = (await groups.membership(KEY, 0)).generation
            assert await groups.next_generation(KEY, 0, before)
            generations.append((await groups.membership(KEY, 0)).generation)
        await groups.delete(KEY)
    assert generations == sorted(set(generations))
