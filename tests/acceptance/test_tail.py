"""The tail in Redis is bounded whatever the groups do, and nobody loses an event by it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from eventbroker.v1.dead_letter_service_pb2 import ListDeadLettersRequest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, NACK_ACTION_RELEASE, FlowControl
from eventbroker_server.ports import Row
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.pool import open_pool

from tests.client import DONE, OUTDATED, TIMEOUT, ack_ids, event
from tests.domain_events import domain_event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1 import event_pb2
    from eventbroker.v1.subscriber_service_pb2 import Delivery
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


def events_of(count: int, *event_types: str) -> list[event_pb2.Event]:
    """Events of these types in turn, a dozen of which fill the tail."""
    return [event(event_type=event_types[at % len(event_types)], json=f'"{"x" * 1500}"') for at in range(count)]


async def publish(broker: Client) -> list[str]:
    events = events_of(COUNT, "user.created", "user.gone")
    for first in range(0, COUNT, 20):
        await broker.publish(*events[first : first + 20])
    return [one.event_id for one in events]


async def trimmed(redis: Redis, stores: Stores, left: int = 20) -> bool:
    kept = [await redis.xlen(f"{stores.prefix}:{{0}}:events:user.{kind}") for kind in ("created", "gone")]
    return sum(kept) <= left


async def take_and_trim(broker: Client, stream: Stream, redis: Redis, stores: Stores) -> list[Delivery]:
    """Ten deliveries that are out while nothing of their events is left in the tail."""
    await broker.publish(*events_of(10, "user.created", "user.gone"))
    deliveries = await stream.take(10)
    await broker.publish(*events_of(30, "role.granted"))
    await eventually(lambda: trimmed(redis, stores, left=0))
    return deliveries


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
    async with await broker.subscribe("g", "user.*") as stream:
        deliveries = await take_and_trim(broker, stream, redis, stores)
        assert set(await broker.ack(ack_ids(deliveries))) == {DONE}
        await stream.nothing_but_heartbeats(2)


@pytest.mark.parametrize("group", ["g", ""], ids=["named", "ephemeral"])
async def test_of_what_was_trimmed_while_it_was_out_only_what_was_not_acked_comes_again(
    broker: Client, redis: Redis, stores: Stores, group: str
) -> None:
    async with await broker.subscribe(group, "user.*") as stream:
        released, failed, rejected, *rest = await take_and_trim(broker, stream, redis, stores)
        assert await broker.nack([released.ack_id], NACK_ACTION_RELEASE) == [DONE]
        assert await broker.nack([failed.ack_id], seconds=0) == [DONE]
        assert await broker.nack([rejected.ack_id], NACK_ACTION_DEAD_LETTER, reason="malformed") == [DONE]
        assert set(await broker.ack(ack_ids(rest))) == {DONE}
        assert await broker.ack(ack_ids([released, failed])) == [OUTDATED] * 2
        deliveries = await stream.take(2)
        again = {delivery.event.event_id: delivery for delivery in deliveries}
        assert [again[one.event.event_id].event for one in (released, failed)] == [released.event, failed.event]
        assert again[failed.event.event_id].attempt == 2
        assert await broker.ack(ack_ids(deliveries)) == [DONE] * 2
        await stream.nothing_but_heartbeats(2)
    if group:
        letters = await broker.dead_letters.ListDeadLetters(ListDeadLettersRequest(group=group), timeout=TIMEOUT)
        told = [(letter.event_id, letter.attempts, letter.reason) for letter in letters.dead_letters]
        assert told == [(rejected.event.event_id, 1, "malformed")]
        assert again[released.event.event_id].attempt == 1
        (shard,) = (await broker.get_group(group)).status.shards
        assert shard.lag == 0


async def test_what_was_trimmed_while_it_was_out_fails_at_its_deadline_and_comes_again(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    async with await broker.subscribe("g", "user.*", ack_deadline=3) as stream:
        late, *rest = await take_and_trim(broker, stream, redis, stores)
        assert set(await broker.ack(ack_ids(rest))) == {DONE}
        (again,) = await stream.take(1)
        assert (again.event, again.attempt) == (late.event, 2)
        assert await broker.ack([late.ack_id]) == [OUTDATED]
        assert await broker.ack([again.ack_id]) == [DONE]
        await stream.nothing_but_heartbeats(2)


async def test_of_many_events_that_come_at_once_the_tail_holds_the_last(
    make_broker: MakeBroker, redis: Redis, stores: Stores
) -> None:
    await make_broker(tail_bytes=300_000)
    rows = [Row(domain_event(content=f'"{"x" * 200}"'.encode()), None, 1) for _ in range(2000)]
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await PostgresEventLog(pool).append(0, rows)  # as an import does: no broker has them in memory

    async def relayed_and_trimmed() -> bool:
        head = await redis.get(f"{stores.prefix}:{{0}}:head")
        return head == "2000" and 0 < await redis.xlen(f"{stores.prefix}:{{0}}:events:user.created") <= 1000

    await eventually(relayed_and_trimmed)
