"""What the group store promises, on true PostgreSQL servers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupKey
from eventbroker_server.ports import Membership, Row
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


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    """A database with three events in shard 1."""
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, SHARDS)
        await PostgresEventLog(pool).append(1, [Row(domain_event(), None, 1) for _ in range(3)])
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
    assert set(answers) == {Membership(0, 1)}


@pytest.mark.parametrize("after", [0, 2, 7])
async def test_who_does_not_know_the_present_generation_learns_it_and_counts_nothing(
    groups: PostgresGroupStore, after: int
) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.next_generation(KEY, 0, 0)
    assert await groups.next_generation(KEY, 0, after) == Membership(0, 1)


async def test_a_checkpoint_moves_forward_and_never_back(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    for saved, then in [(2, 2), (1, 2), (2, 2), (9, 9), (0, 9)]:
        assert await groups.save_checkpoint(KEY, 1, 0, saved) == then
        assert await memberships(groups) == [Membership(0, 0), Membership(then, 0)]


@pytest.mark.parametrize("generation", [0, 2])
async def test_a_checkpoint_of_another_generation_is_not_taken(groups: PostgresGroupStore, generation: int) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.next_generation(KEY, 1, 0)
    assert await groups.save_checkpoint(KEY, 1, generation, 3) is None
    assert await groups.membership(KEY, 1) == Membership(0, 1)
    assert await groups.save_checkpoint(KEY, 1, 1, 3) == 3
    assert await groups.membership(KEY, 1) == Membership(3, 1)


async def test_a_new_generation_begins_at_the_checkpoint_of_the_old(groups: PostgresGroupStore) -> None:
    await groups.ensure(GROUP, from_latest=False)
    await groups.save_checkpoint(KEY, 1, 0, 2)
    assert await groups.next_generation(KEY, 1, 0) == Membership(2, 1)
