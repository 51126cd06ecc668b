"""What a consumer or a broker that stopped was handed goes to others, and its late acks change nothing."""

from __future__ import annotations

import asyncio
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1.group_service_pb2 import RetryPolicy, WaitForGroupRequest
from google.protobuf.duration_pb2 import Duration

from tests.client import ALREADY_SETTLED, DONE, OUTDATED, TIMEOUT, Client, ack_ids, event
from tests.faults.late_consumer import late_consumer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1.subscriber_service_pb2 import Delivery

    from tests.client import Stream
    from tests.conftest import BrokerProcess

DEADLINE = 2
REDELIVERY = DEADLINE + 5.0
NOTICED_WITHIN = 20.0  # until then a consumer that has stopped is handed events, too, and again


@pytest.fixture
async def two(make_broker: Callable[..., Awaitable[Client]]) -> list[Client]:
    return [await make_broker(), await make_broker()]


async def publish(broker: Client, count: int) -> set[str]:
    return {result.event_id for result in await broker.publish(*(event() for _ in range(count)))}


def ids(deliveries: list[Delivery]) -> set[str]:
    return {delivery.event.event_id for delivery in deliveries}


async def all_settled(broker: Client, group: str, position: int) -> bool:
    request = WaitForGroupRequest(name=group, event_tenant_id="acme", position=position)
    return (await broker.groups.WaitForGroup(request, timeout=TIMEOUT)).reached


@pytest.mark.parametrize("engines", ["wheel"], indirect=True)
async def test_what_a_stopped_consumer_holds_goes_to_another_and_its_late_acks_change_nothing(
    two: list[Client],
) -> None:
    here, there = two
    soon = RetryPolicy(initial_backoff=Duration(nanos=100_000_000), multiplier=1)
    await here.create_group("billing", ack_deadline=Duration(seconds=DEADLINE), retry_policy=soon)
    async with late_consumer(here.target, "billing") as stopped:
        held = await publish(here, 20)
        assert await stopped.held(20) == held
        stopped.process.send_signal(signal.SIGSTOP)
        await stopped.tell_to_ack()
        async with await there.subscribe("billing") as stream:
            meanwhile = await publish(here, 20)  # for both: nobody knows yet that one has stopped
            again: list[Delivery] = []
            others: set[str] = set()
            async with asyncio.timeout(NOTICED_WITHIN + REDELIVERY):
                while len(again) < 20 or others != meanwhile:
                    (delivery,) = await stream.take(1)
                    if delivery.event.event_id in held:
                        again.append(delivery)
                        assert await there.extend([delivery.ack_id], 60) == [DONE]
                    else:
                        others.add(delivery.event.event_id)
                        assert await there.ack([delivery.ack_id]) == [DONE]
            assert ids(again) == held
            assert min(delivery.attempt for delivery in again) >= 2

            acked, kept = again[:10], again[10:]
            assert await there.ack(ack_ids(acked)) == [DONE] * 10
            stopped.process.send_signal(signal.SIGCONT)
            outcomes = await stopped.outcomes(20)
            assert {outcomes[event_id] for event_id in ids(acked)} == {ALREADY_SETTLED}
            assert {outcomes[event_id] for event_id in ids(kept)} == {OUTDATED}
            assert await there.ack(ack_ids(kept)) == [DONE] * 10
            assert await all_settled(here, "billing", 40)


@pytest.mark.parametrize("engines", ["wheel"], indirect=True)
async def test_of_what_a_killed_broker_had_out_with_two_groups_the_unsettled_goes_to_their_other_consumers(
    broker: Client, spawn_broker: Callable[..., Awaitable[BrokerProcess]]
) -> None:
    doomed = await spawn_broker()
    wish: dict[str, Any] = {"flow_control": {"max_unsettled_events": 1000}}
    settled: dict[str, set[str]] = {}
    async with Client(doomed.target) as client, AsyncExitStack() as stack:
        others: dict[str, Stream] = {}
        for group in ("audit", "billing"):
            await broker.create_group(group, ack_deadline=Duration(seconds=DEADLINE))
            others[group] = await client.subscribe(group, **wish)
        published = await publish(broker, 1000)
        for group, stream in list(others.items()):
            held = await stream.take(1000)
            assert await broker.ack(ack_ids(held[::10])) == [DONE] * 100
            settled[group] = ids(held[::10])
            others[group] = await stack.enter_async_context(await broker.subscribe(group, **wish))
        await doomed.kill()
        began = time.monotonic()
        for group, stream in others.items():
            deliveries = await stream.take(900, timeout=REDELIVERY)
            assert ids(deliveries) == published - settled[group]
            assert {delivery.attempt for delivery in deliveries} == {2}
            assert await broker.ack(ack_ids(deliveries)) == [DONE] * 900
        assert time.monotonic() - began < REDELIVERY
        for group in others:
            assert await all_settled(broker, group, 1000)
