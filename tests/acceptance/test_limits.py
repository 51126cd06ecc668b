"""Groups that bound what each of their consumers may have out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1.group_service_pb2 import ConsumerLimits, UpdateGroupRequest
from eventbroker.v1.subscriber_service_pb2 import FlowControl, PullRequest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.client import TIMEOUT, ack_ids, event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client

WISH = FlowControl(max_unsettled_events=100, max_unsettled_bytes=1 << 20, max_batch_events=50)


async def limit(broker: Client, **limits: Any) -> ConsumerLimits:
    request = UpdateGroupRequest(name="g", limits=ConsumerLimits(**limits), update_mask=FieldMask(paths=["limits"]))
    return (await broker.groups.UpdateGroup(request, timeout=TIMEOUT)).group.limits


async def publish(broker: Client, count: int) -> None:
    await broker.publish(*(event() for _ in range(count)))


@pytest.fixture
async def two(make_broker: Callable[..., Awaitable[Client]]) -> list[Client]:
    return [await make_broker(), await make_broker()]


async def test_a_group_is_found_with_the_limits_it_was_made_with(broker: Client) -> None:
    limits = ConsumerLimits(max_unsettled_events=10_000, max_unsettled_bytes=1 << 40, max_batch_events=1_000)
    assert (await broker.create_group("g", limits=limits)).limits == limits
    assert (await broker.get_group("g")).group.limits == limits
    assert await limit(broker, max_batch_events=3) == ConsumerLimits(max_batch_events=3)
    assert await limit(broker) == ConsumerLimits()


async def test_what_a_stream_asks_for_is_cut_to_the_limits_of_its_group(broker: Client) -> None:
    await broker.create_group("g", limits=ConsumerLimits(max_unsettled_events=3, max_unsettled_bytes=2 << 20))
    async with await broker.subscribe("g", flow_control=WISH) as stream:
        cut = FlowControl(max_unsettled_events=3, max_unsettled_bytes=1 << 20, max_batch_events=50)
        assert stream.opened.flow_control == cut
        await publish(broker, 5)
        held = await stream.take(3)
        await stream.nothing_but_heartbeats(2)
        await broker.ack(ack_ids(held[:2]))
        await stream.take(2)
    async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=2)) as stream:
        assert stream.opened.flow_control.max_unsettled_events == 2


async def test_limits_are_changed_through_another_broker_while_a_stream_is_open(two: list[Client]) -> None:
    one, other = two
    await one.create_group("g", limits=ConsumerLimits(max_unsettled_events=1))
    async with await one.subscribe("g", flow_control=WISH) as stream:
        await publish(one, 9)
        await stream.take(1)
        await stream.nothing_but_heartbeats(1)
        await limit(other, max_unsettled_events=4)
        held = await stream.take(3)
        await stream.nothing_but_heartbeats(1)
        await limit(other, max_unsettled_events=2)
        await stream.nothing_but_heartbeats(2)
        await one.ack(ack_ids(held[:2]))
        await stream.nothing_but_heartbeats(1)
        await one.ack(ack_ids(held[2:]))
        await stream.take(1)
        await limit(other)
        await stream.take(4)


async def test_a_pull_hands_out_no_more_at_a_time_than_the_group_allows(broker: Client) -> None:
    await broker.create_group("g", limits=ConsumerLimits(max_batch_events=2))
    await publish(broker, 5)
    request = PullRequest(group="g", consumer_id="c", max_events=10)
    handed: list[int] = []
    while sum(handed) < 5:
        response = await broker.subscriber.Pull(request, timeout=TIMEOUT)
        handed.append(len(response.deliveries.deliveries))
        assert 0 < handed[-1] <= 2
