"""When a stream tells that all history was handed out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from eventbroker.v1.group_service_pb2 import FAIRNESS_BY_TENANT, ORDERING_BY_AGGREGATE
from eventbroker.v1.subscriber_service_pb2 import FlowControl

from tests.client import DONE, ids, publish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from tests.client import Client, Stream


@pytest.mark.parametrize("group", ["", "billing"])
async def test_it_is_told_right_after_the_last_event_and_not_at_the_next_heartbeat(
    make_broker: Callable[..., Awaitable[Client]], group: str
) -> None:
    broker = await make_broker(heartbeat_interval=60.0)  # longer than the client waits
    published = await publish(broker, 200)
    async with await broker.subscribe(group, start="START_POINT_EARLIEST") as stream:
        taken: list[str] = []
        while not stream.caught_up:
            message = await stream.read()
            assert message is not None
            taken += ids(message.deliveries.deliveries)
            await broker.ack([delivery.ack_id for delivery in message.deliveries.deliveries] or ["none"])
    assert sorted(taken) == sorted(published)


async def until_caught_up(client: Client, stream: Stream, *, nack: str = "") -> list[str]:
    """Ack what comes, but nack the first attempt of one event, and answer all ids that came before the end was told."""
    taken: list[str] = []
    while not stream.caught_up:
        message = await stream.read()
        assert message is not None
        for delivery in message.deliveries.deliveries:
            taken.append(delivery.event.event_id)
            if delivery.event.event_id == nack and delivery.attempt == 1:
                assert await client.nack([delivery.ack_id], seconds=0.3) == [DONE]
            else:
                assert await client.ack([delivery.ack_id]) == [DONE]
    return taken


@pytest.mark.parametrize("which", [{}, {"ordering": ORDERING_BY_AGGREGATE}, {"fairness": FAIRNESS_BY_TENANT}])
async def test_it_is_not_told_before_the_last_of_a_backlog_that_is_more_than_the_consumer_may_hold(
    broker: Client, which: dict[str, Any]
) -> None:
    await broker.create_group("billing", **which)
    published = await publish(broker, 30, aggregate_id="one") + await publish(broker, 30)
    async with await broker.subscribe("billing", flow_control=FlowControl(max_unsettled_events=4)) as stream:
        assert sorted(await until_caught_up(broker, stream)) == sorted(published)


async def test_what_waits_for_another_attempt_holds_the_end_back_with_what_follows_it(broker: Client) -> None:
    await broker.create_group("billing", ordering=ORDERING_BY_AGGREGATE)
    first, *others = await publish(broker, 3, aggregate_id="one")
    async with await broker.subscribe("billing") as stream:
        assert await until_caught_up(broker, stream, nack=first) == [first, first, *others]


async def test_what_comes_later_does_not_put_the_end_off(broker: Client) -> None:
    """Otherwise a group with an aggregate of which one event always waits for another would never come to it."""
    await broker.create_group("billing", ordering=ORDERING_BY_AGGREGATE)
    await publish(broker, 3, aggregate_id="one")
    async with await broker.subscribe("billing") as stream:
        for _ in range(100):
            (delivery,) = await stream.take(1)
            await publish(broker, 1, aggregate_id="one")
            await broker.ack([delivery.ack_id])
            if stream.caught_up:
                return
    pytest.fail("it was never told")


async def test_it_is_told_when_the_last_is_settled_through_another_broker(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    here, there = await make_broker(heartbeat_interval=60.0), await make_broker()
    await here.create_group("billing", ordering=ORDERING_BY_AGGREGATE)
    await publish(here, 2, aggregate_id="one")
    async with (
        await here.subscribe("billing", flow_control=FlowControl(max_unsettled_events=1)) as one,
        await there.subscribe("billing", flow_control=FlowControl(max_unsettled_events=1)) as other,
    ):
        await asyncio.gather(until_caught_up(here, one), until_caught_up(there, other))
