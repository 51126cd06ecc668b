"""Where all groups stand, as the group store tells it on true PostgreSQL servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupKey
from eventbroker_server.ports import Place, Row
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

EVERYBODY, UPPER, LOWER, OTHER = (
    GroupKey(tenant, name)
    for tenant, name in [(ALL_TENANTS, "billing"), ("acme", "Z"), ("acme", "a"), ("globex", "billing")]
)


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    """A database with two events in shard 1, each of a flush of its own, and four groups."""
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 2)
        for _ in range(2):
            await PostgresEventLog(pool).append(1, [Row(domain_event(), None, 1)])
        for key in (OTHER, LOWER, UPPER, EVERYBODY):
            await PostgresGroupStore(pool).create(Group(key, TypeFilter.of("*"), 30.0), {0: 0, 1: 1})
        yield pool


async def stored_at(pool: Pool, position: int) -> datetime | None:
    return await PostgresEventLog(pool).record_time(1, position)


async def test_all_groups_are_told_with_each_shard_by_tenant_and_name(pool: Pool) -> None:
    places = await PostgresGroupStore(pool).places("", 10)
    second = await stored_at(pool, 2)
    of_each = [(0, 0, 0, None), (1, 2, 1, second)]
    keys = [EVERYBODY, UPPER, LOWER, OTHER]
    assert sorted(places, key=lambda place: (keys.index(place.group), place.shard)) == [
        Place(key, *place) for key in keys for place in of_each
    ]
    assert [place.group for place in places] == [key for key in keys for _ in of_each]


async def test_only_groups_of_the_tenant_are_told(pool: Pool) -> None:
    assert {place.group for place in await PostgresGroupStore(pool).places("acme", 10)} == {UPPER, LOWER}
    assert await PostgresGroupStore(pool).places("nobody", 10) == []


async def test_so_many_groups_are_told_at_most_whatever_the_shards(pool: Pool) -> None:
    assert {place.group for place in await PostgresGroupStore(pool).places("", 2)} == {EVERYBODY, UPPER}


async def test_group_that_is_done_has_no_event_after_its_checkpoint(pool: Pool) -> None:
    await PostgresGroupStore(pool).seek(LOWER, {1: 2})
    (place,) = [each for each in await PostgresGroupStore(pool).places("acme", 10) if each[:2] == (LOWER, 1)]
    assert (place.head, place.checkpoint, place.stored_at) == (2, 2, None)
