"""Two brokers over the same stores: together they are one, whatever happens to one of them or to its keys in Redis."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.errors import StreamsUnavailable
from eventbroker_server.redis.keys import Keys
from eventbroker_server.redis.streams import RedisStreams
from redis.asyncio import Redis

from tests.client import DONE, Client, ack_ids, event
from tests.faults.workload import GROUPS, nothing_is_wrong, working
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Stream
    from tests.conftest import BrokerProcess, Stores

AUDIT = "*:audit"  # as Redis knows the group


@pytest.fixture
async def two(make_broker: Callable[..., Awaitable[Client]]) -> list[Client]:
    return [await make_broker(), await make_broker()]


async def test_events_published_to_both_at_once_are_gapless_and_reach_each_group_once(two: list[Client]) -> None:
    seen: dict[str, Counter[str]] = {group: Counter() for group in GROUPS}
    async with asyncio.TaskGroup() as tasks:
        for client in two:
            for group, counter in seen.items():
                stream = await client.subscribe(group, "*")
                tasks.create_task(ack_until_settled(client, stream, 1000, counter))
        published = [tasks.create_task(publish(client, 500)) for client in two]
    results = [result for task in published for result in task.result()]
    assert sorted(result.position for result in results) == list(range(1, 1001))
    for counter in seen.values():
        assert counter == Counter(result.event_id for result in results)


async def publish(client: Client, count: int) -> list[Any]:
    """One small request after the other."""
    return [
        result
        for _ in range(0, count, 10)
        for result in await client.publish(*(event(aggregate_id=f"u-{number}") for number in range(10)))
    ]


async def ack_until_settled(client: Client, stream: Stream, position: int, seen: Counter[str]) -> None:
    """Count what comes and ack it, until a heartbeat tells that the group has settled all up to the position."""
    async with stream:
        while not stream.heartbeats or stream.heartbeats[-1].shards[0].settled_position < position:
            message = await stream.read()
            assert message
            if deliveries := message.deliveries.deliveries:
                seen.update(delivery.event.event_id for delivery in deliveries)
                assert set(await client.ack(ack_ids(deliveries))) == {DONE}


class ByHand:
    """Somebody with redis-cli. Each of these does damage, and waits until it is repaired."""

    def __init__(self, redis: Redis, keys: Keys) -> None:
        self._redis = redis
        self._keys = keys

    async def _generation(self) -> int:
        return int(await self._redis.hget(self._keys.state(AUDIT), "generation") or 0)

    async def _made_anew_after(self, damage: Awaitable[int]) -> None:
        before = await self._generation()
        assert await damage == 1

        async def made_anew() -> bool:
            return await self._generation() > before

        await eventually(made_anew)

    async def destroy_a_group(self) -> None:
        await self._made_anew_after(self._redis.xgroup_destroy(self._keys.events("user.created"), AUDIT))

    async def delete_the_state(self) -> None:
        await self._made_anew_after(self._redis.delete(self._keys.state(AUDIT)))

    async def delete_the_backfill(self) -> None:
        await self._made_anew_after(self._redis.delete(self._keys.backfill(AUDIT, await self._generation())))

    async def delete_the_head(self) -> None:
        assert await self._redis.delete(self._keys.head) == 1
        await eventually(lambda: self._redis.exists(self._keys.head))


@pytest.mark.parametrize(
    "damage",
    [ByHand.destroy_a_group, ByHand.delete_the_state, ByHand.delete_the_backfill, ByHand.delete_the_head],
)
async def test_damage_done_to_redis_by_hand_under_load_loses_nothing(
    two: list[Client], stores: Stores, damage: Callable[[ByHand], Awaitable[None]]
) -> None:
    async with working([client.target for client in two]) as load, Redis.from_url(stores.redis) as redis:
        for _ in range(5):
            await load.goes_on(150)
            await load.in_the_middle_of("publish")
            with load.history.fault(damage.__name__, loses=True):
                await damage(ByHand(redis, Keys(stores.prefix, 0)))
            load.history.hurt("it was there, and had to be made anew")
        await load.goes_on(150)
        await nothing_is_wrong(load, stores.postgres, volume=900)


async def test_what_a_killed_broker_left_unsettled_is_delivered_elsewhere_within_deadline_and_5_s(
    broker: Client, spawn_broker: Callable[..., Awaitable[BrokerProcess]]
) -> None:
    doomed = await spawn_broker()
    wish: dict[str, Any] = {"ack_deadline": 3.0, "flow_control": {"max_unsettled_events": 1000}}
    published = {result.event_id for result in await publish(broker, 1000)}
    async with type(broker)(doomed.target) as client, await client.subscribe("billing", "*", **wish) as stream:
        await stream.take(1000)
        await doomed.kill()
    async with await broker.subscribe("billing", **wish) as stream:
        deliveries = await stream.take(1000, timeout=3.0 + 5.0)
        assert {delivery.event.event_id for delivery in deliveries} == published
        assert {delivery.attempt for delivery in deliveries} == {2}
        assert set(await broker.ack(ack_ids(deliveries))) == {DONE}


async def test_the_ephemeral_group_of_a_killed_broker_is_forgotten(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]], broker: Client, redis: Redis, stores: Stores
) -> None:
    doomed = await spawn_broker()
    async with Client(doomed.target) as client, await broker.subscribe("", "*") as other:
        await client.subscribe("", "*")
        await broker.publish(event())
        await other.take_and_ack(1)
        stream = Keys(stores.prefix, 0).events("user.created")
        assert len(await redis.xinfo_groups(stream)) == 2
        await doomed.kill()

        async def one_is_left() -> bool:
            return len(await redis.xinfo_groups(stream)) == len(await groups_in(redis, stores)) == 1

        await eventually(one_is_left)
        await broker.publish(event())
        await other.take_and_ack(1)


async def test_an_ephemeral_group_is_forgotten_though_redis_went_away_as_it_ended(
    broker: Client, redis: Redis, stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    delete = RedisStreams.delete_group
    calls: list[object] = []

    async def away_at_first(*args: Any) -> None:
        calls.append(args)
        if len(calls) == 1:
            raise StreamsUnavailable
        await delete(*args)

    monkeypatch.setattr(RedisStreams, "delete_group", away_at_first)
    (await broker.subscribe("", "*")).close()
    await eventually(lambda: len(calls) > 1)

    async def none_is_left() -> bool:
        return not await groups_in(redis, stores)

    await eventually(none_is_left)


async def groups_in(redis: Redis, stores: Stores) -> list[str]:
    return [key async for key in redis.scan_iter(f"{stores.prefix}:*:group:*")]
