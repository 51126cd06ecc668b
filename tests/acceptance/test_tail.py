"""The tail in Redis is bounded whatever the groups do, and nobody loses an event by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from eventbroker.v1.subscriber_service_pb2 import FlowControl

from tests.client import DONE, ack_ids, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.client import Client, Stream
    from tests.conftest import Stores

    MakeBroker = Callable[..., Awaitable[Client]]

SMALL = {"tail_bytes": 20_000, "sweep_interval": 0.2}
COUNT = 200


@pytest.fixture
async def broker(make_broker: MakeBroker) -> Client:
    """A broker that keeps a dozen events in Redis."""
    return await make_broker(**SMALL)


async def publish(broker: Client) -> list[str]:
    events = [event(event_type=f"user.{kind}", json=f'"{"x" * 1500}"') for kind in ("created", "gone") * (COUNT // 2)]
    for first in range(0, COUNT, 20):
        await broker.publish(*events[first : first + 20])
    return [one.event_id for one in events]


async def trimmed(redis: Redis, stores: Stores) -> bool:
    kept = [await redis.xlen(f"{stores.prefix}:{{0}}:events:user.{kind}") for kind in ("created", "gone")]
    return sum(kept) <= 20


async def test_a_group_that_slept_while_its_events_were_trimmed_gets_them_all_in_order(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    async with await broker.subscribe("g", "user.*"):
        pass
    published = await publish(broker)
    await eventually(lambda: trimmed(redis, stores))
    async with await broker.subscribe("g") as stream:
        assert [got.event_id for got in await stream.take_and_ack(COUNT)] == published
        published = await publish(broker)
        assert [got.event_id for got in await stream.take_and_ack(COUNT)] == published


async def test_a_group_that_is_made_after_the_trim_gets_history_and_live(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    published = await publish(broker)
    await eventually(lambda: trimmed(redis, stores))
    async with await broker.subscribe("g", "user.*") as stream:
        published += await publish(broker)
        assert [got.event_id for got in await stream.take_and_ack(2 * COUNT)] == published


async def test_a_consumer_that_is_overtaken_while_it_works_misses_nothing(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    async with await broker.subscribe("g", "user.*", flow_control=FlowControl(max_unsettled_events=5)) as stream:
        published = await publish(broker)
        await eventually(lambda: trimmed(redis, stores))
        seen: set[str] = set()
        async with asyncio.timeout(30):
            while len(seen) < COUNT:
                seen |= await _handled(broker, stream)
        assert seen == set(published)


async def _handled(broker: Client, stream: Stream) -> set[str]:
    """What could be acked: what was out when the group was made anew comes again."""
    (delivery,) = await stream.take(1)
    return {delivery.event.event_id} if await broker.ack([delivery.ack_id]) == [DONE] else set()


async def test_what_is_out_with_a_consumer_when_it_is_trimmed_can_be_acked(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    flow = FlowControl(max_unsettled_events=COUNT, max_batch_events=COUNT)
    async with await broker.subscribe("g", "user.*", flow_control=flow) as stream:
        await publish(broker)
        deliveries = await stream.take(COUNT)
        await eventually(lambda: trimmed(redis, stores))
        assert set(await broker.ack(ack_ids(deliveries))) == {DONE}
        await stream.nothing_but_heartbeats(2)
