"""One group in one shard, as two brokers see it, on true engines."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
from eventbroker_server.broker.announce import Announcer
from eventbroker_server.broker.figures import Figures
from eventbroker_server.broker.membership import ShardMembership
from eventbroker_server.broker.ordering import Ordering
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey
from eventbroker_server.ports import Row, Stale
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.group_store import PostgresGroupStore
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.postgres.retry_store import PostgresRetryStore
from eventbroker_server.redis.connection import open_redis
from eventbroker_server.redis.streams import RedisStreams
from eventbroker_server.rpc.convert import EventCodec

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redis.asyncio import Redis

    from tests.conftest import Stores

GROUP = Group(GroupKey("acme", "g"), TypeFilter.of("*"), 30.0)
EVENTS = 300


class Shard:
    """Shard 0 with some events of history, and the group as each of two brokers sees it."""

    def __init__(
        self,
        groups: PostgresGroupStore,
        streams: RedisStreams,
        redis: Redis,
        one: ShardMembership,
        two: ShardMembership,
    ) -> None:
        self.groups = groups
        self.streams = streams
        self.redis = redis
        self.one = one
        self.two = two

    async def lose_redis(self) -> None:
        """Begin anew, as the relay does when all of Redis was lost."""
        if keys := await self.redis.keys("*"):
            await self.redis.unlink(*keys)
        await self.streams.start_at(0, EVENTS)


@pytest.fixture
async def shard(stores: Stores) -> AsyncIterator[Shard]:
    async with AsyncExitStack() as stack:
        pool = await stack.enter_async_context(open_pool(stores.settings(), stores.postgres))
        await migrate(pool, 1)
        redis = await stack.enter_async_context(open_redis(stores.settings(), stores.redis))
        streams, codec = RedisStreams(redis, stores.prefix, "p1"), EventCodec()
        log, groups = PostgresEventLog(pool), PostgresGroupStore(pool)
        ordering = Ordering(PostgresRetryStore(pool), streams, codec, Announcer(Figures(codec)))
        await log.append(0, [Row(domain_event(), None, 1) for _ in range(EVENTS)])
        await groups.ensure(GROUP, from_latest=False)
        one, two = (ShardMembership(GROUP, 0, groups, log, streams, codec, ordering, from_latest=False) for _ in "12")
        shard = Shard(groups, streams, redis, one, two)
        await shard.lose_redis()
        yield shard


async def test_a_broker_that_learns_of_a_seek_through_redis_knows_all_of_it(shard: Shard) -> None:
    """The other made the group anew: here the first that is heard of it is that the streams are not as they were."""
    await shard.one.open()
    await shard.two.open()
    await shard.groups.save_checkpoint(GROUP.key, 0, shard.one.generation, EVENTS)
    await shard.groups.seek(GROUP.key, {0: 0}, 100.0)
    assert await shard.two.sought()
    await shard.two.open()
    with pytest.raises(Stale):
        await shard.one.feed()
    shard.one.lose()
    await shard.one.open()
    assert shard.one.replay_to == EVENTS
    assert shard.one.generation == shard.two.generation
    await shard.one.feed()
    events, _, _ = await shard.one.read("ann@p1", EVENTS)
    assert len(events) == 10


async def test_who_did_not_count_a_generation_does_not_make_it(shard: Shard) -> None:
    """Redis is lost, one broker makes the group anew, and Redis is lost again while the other is about to."""
    await shard.one.open()
    await shard.lose_redis()
    await shard.two.open()
    await shard.lose_redis()
    shard.one.lose()
    with pytest.raises(Stale):
        await shard.one.open()
    await shard.one.open()
    assert shard.one.generation > shard.two.generation
