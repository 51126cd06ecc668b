"""What may get stuck, or out of order, in groups that are fed in turn."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from eventbroker.v1 import group_service_pb2 as groups
from eventbroker.v1.subscriber_service_pb2 import (
    NACK_ACTION_DEAD_LETTER,
    START_POINT_EARLIEST,
    FlowControl,
)
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from redis.asyncio import Redis

from tests.acceptance.test_ordering import BY_AGGREGATE, _is, comes, names, of, ordered_group, redrive, settle
from tests.client import DONE, TIMEOUT, ack_ids
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client
    from tests.conftest import Stores

BEHIND, RETRY = groups.DELIVERY_STATE_BEHIND, groups.DELIVERY_STATE_RETRY
SLOTS = 16  # that a tenant has


async def seek_to_the_beginning(client: Client) -> None:
    request = groups.SeekGroupRequest(name="g", to=groups.LogPoint(edge=START_POINT_EARLIEST))
    await client.groups.SeekGroup(request, timeout=TIMEOUT)


async def test_an_event_that_fails_lets_a_redriven_one_behind_it_go(broker: Client) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"), of("a", "a3"))
        await broker.nack(ack_ids(await comes(stream, "a1")), NACK_ACTION_DEAD_LETTER, reason="poison")
        second = await comes(stream, "a2")
        assert await redrive(broker) == 1
        await eventually(lambda: _is(broker, "a1", BEHIND))
        assert await broker.nack(ack_ids(second), seconds=0) == [DONE]
        await settle(broker, await comes(stream, "a1"))
        await settle(broker, await comes(stream, "a2"))
        await settle(broker, await comes(stream, "a3"))


async def test_other_conditions_take_the_turn_of_nothing(broker: Client) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=1)) as stream:
        await broker.publish(of("z", "z1"))
        first = await comes(stream, "z1")
        wanted = of("a", "a2")
        wanted.metadata.tags.append("x")
        await broker.publish(of("a", "a1"))  # to be read
        await eventually(lambda: _is(broker, "a1", groups.DELIVERY_STATE_WAITING))
        await broker.publish(wanted)
        await eventually(lambda: _is(broker, "a2", BEHIND))
        change = groups.UpdateGroupRequest(name="g", tags=["x"], update_mask=FieldMask(paths=["tags"]))
        await broker.groups.UpdateGroup(change, timeout=TIMEOUT)
        await settle(broker, first)
        await settle(broker, await comes(stream, "a2"))


async def test_what_waits_for_another_that_is_retried_takes_no_slot_after_the_loss_of_redis(
    broker: Client, redis: Redis
) -> None:
    await broker.create_group("g", ordering=groups.ORDERING_BY_AGGREGATE, fairness=groups.FAIRNESS_BY_TENANT)
    async with await broker.subscribe("g") as stream:
        await broker.publish(*(of(f"u{number}", f"{number}-{step}") for step in (1, 2) for number in range(SLOTS)))
        first = await stream.take(SLOTS)
        assert await broker.nack(ack_ids(first), seconds=3600) == [DONE] * SLOTS
        await broker.publish(of("before", "before"))
        await settle(broker, await comes(stream, "before"))
        await redis.flushall()
        await broker.publish(of("after", "after"))
        while names(taken := await stream.take(1)) != ["after"]:
            await settle(broker, taken)


async def test_a_seek_while_paused_brings_what_is_redriven_in_its_order(broker: Client) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"))
        await settle(broker, await comes(stream, "a1"))
        await broker.nack(ack_ids(await comes(stream, "a2")), NACK_ACTION_DEAD_LETTER, reason="poison")
        await broker.groups.PauseGroup(groups.PauseGroupRequest(name="g"), timeout=TIMEOUT)
        await seek_to_the_beginning(broker)
        assert await redrive(broker) == 1
        await stream.nothing_but_heartbeats(3)  # so that it is lined up
        await broker.groups.ResumeGroup(groups.ResumeGroupRequest(name="g"), timeout=TIMEOUT)
        assert names(await stream.take(1)) == ["a1"]


async def test_what_a_seek_brought_and_is_redriven_too_blocks_no_retry(broker: Client) -> None:
    await ordered_group(broker)
    count = 110
    async with await broker.subscribe("g") as stream:
        await broker.publish(*(of("a", f"a{number:03}") for number in range(count)))
        for number in range(count):
            await broker.nack(ack_ids(await comes(stream, f"a{number:03}")), NACK_ACTION_DEAD_LETTER, reason="poison")
        await seek_to_the_beginning(broker)
        first = await comes(stream, "a000")
        await eventually(lambda: _is(broker, f"a{count - 1:03}", BEHIND))
        assert await redrive(broker) == count
        assert await broker.nack(ack_ids(first), seconds=0.5) == [DONE]
        await comes(stream, "a000")


@pytest.mark.parametrize("ordering", [groups.ORDERING_NONE, BY_AGGREGATE], ids=["as-it-comes", "ordered"])
async def test_a_retry_that_redis_forgot_in_its_last_second_comes_again(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores, ordering: int
) -> None:
    """What an append-only file that is written every second may lose: all since before PostgreSQL noted it."""
    broker = await make_broker(ack_deadline=2.0)
    await broker.create_group("g", ordering=ordering, ack_deadline=Duration(seconds=2))
    few = FlowControl(max_unsettled_events=1)
    async with Redis.from_url(stores.redis) as redis, await broker.subscribe("g", flow_control=few) as one:
        await broker.publish(of("b", "b1"))
        await comes(one, "b1")  # unsettled, so that the checkpoint does not tell
        other = await broker.subscribe("g", flow_control=few)
        await broker.publish(of("a", "a1"))
        first = await comes(other, "a1")
        keys = [key async for key in redis.scan_iter("*") if b":process:" not in key]
        older = {key: await redis.dump(key) or b"" for key in keys}
        assert await broker.nack(ack_ids(first), seconds=0) == [DONE]
        again = await comes(other, "a1")
        assert again[0].attempt == 2
        async with redis.pipeline(transaction=True) as pipe:
            pipe.flushall()
            for key, value in older.items():
                pipe.restore(key, 0, value)
            await pipe.execute()
        names_seen = []
        while "a1" not in names_seen:
            names_seen += names(await other.take(1))
        other.close()


async def test_the_next_event_comes_at_once_when_a_retry_is_settled(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(sweep_interval=2.0)  # as it is by default
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"))
        await broker.nack(ack_ids(await comes(stream, "a1")), seconds=0)
        await settle(broker, await comes(stream, "a1"))
        assert names(await stream.take(1, timeout=1.0)) == ["a2"]
