"""How consumers end, and how they go on when brokers do."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from eventbroker.v1 import group_service_pb2
from eventbroker_client import Broker, Delivery, Event, GroupDeleted, GroupMismatch, connect

from tests.client import TIMEOUT, Client
from tests.sdk.settled import settled
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.sdk.restarts import Restarts


def noted(number: int = 1) -> Event:
    return Event("order.noted", "Order", f"o{number}", {"number": number})


class Slow:
    """A handler that counts, and waits to be let go."""

    def __init__(self) -> None:
        self.begun: Counter[int] = Counter()
        self.ended: Counter[int] = Counter()
        self.go = asyncio.Event()

    async def __call__(self, event: Event) -> None:
        self.begun[event.data["number"]] += 1
        await self.go.wait()
        self.ended[event.data["number"]] += 1


@pytest.fixture
def slow() -> Slow:
    return Slow()


async def the_rest(sdk: Broker, count: int) -> list[tuple[int, int]]:
    """The numbers and attempts of the next events of the group."""
    async with asyncio.timeout(TIMEOUT), sdk.subscribe("g") as deliveries:
        return [(delivery.event.data["number"], delivery.attempt) async for delivery in first(deliveries, count)]


async def first(deliveries: AsyncIterator[Delivery], count: int) -> AsyncIterator[Delivery]:
    for _ in range(count):
        yield await anext(deliveries)


async def test_a_consumer_that_ends_finishes_what_it_began_and_gives_back_the_rest(sdk: Broker, slow: Slow) -> None:
    consumer = sdk.consumer("g", concurrency=2)
    consumer.on("*")(slow)
    await sdk.publish_many([noted(number) for number in range(6)])
    async with consumer:
        await eventually(lambda: len(slow.begun) == 2)
        draining = asyncio.create_task(consumer.drain())
        assert sorted(await the_rest(sdk, 4)) == [(number, 1) for number in range(2, 6)]
        slow.go.set()
        await draining
    assert slow.ended == {0: 1, 1: 1}


async def test_a_handler_that_does_not_end_in_time_is_cancelled_and_its_event_given_back(
    sdk: Broker, slow: Slow
) -> None:
    consumer = sdk.consumer("g", drain_timeout=0.1)
    consumer.on("*")(slow)
    async with consumer:
        await sdk.publish(noted())
        await eventually(lambda: slow.begun)
    assert not slow.ended
    assert await the_rest(sdk, 1) == [(1, 1)]


async def test_a_consumer_that_runs_drains_on_sigterm(sdk: Broker, slow: Slow) -> None:
    consumer = sdk.consumer("g", concurrency=1)
    consumer.on("*")(slow)
    running = asyncio.create_task(consumer.run())
    await sdk.publish_many([noted(1), noted(2)])
    await eventually(lambda: slow.begun)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await the_rest(sdk, 1) == [(2, 1)]
    slow.go.set()
    async with asyncio.timeout(TIMEOUT):
        await running
    assert slow.ended == {1: 1}


async def test_a_consumer_that_finds_no_broker_ends_on_sigterm_too(tenant: str, slow: Slow) -> None:
    async with connect("127.0.0.1:1", tenant=tenant) as sdk:
        consumer = sdk.consumer("g")
        consumer.on("*")(slow)
        running = asyncio.create_task(consumer.run())
        await eventually(lambda: signal.getsignal(signal.SIGTERM) != signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(TIMEOUT):
            await running


async def test_a_consumer_that_cannot_begin_says_why(sdk: Broker, slow: Slow) -> None:
    async with sdk.subscribe("g", ["user.*"]):
        consumer = sdk.consumer("g")
        consumer.on("order.*")(slow)
        with pytest.raises(GroupMismatch):
            await consumer.run()


async def test_a_consumer_whose_token_cannot_be_had_does_not_wait_for_ever(
    broker: Client, tenant: str, slow: Slow
) -> None:
    def no_token() -> str:
        raise LookupError("no token today")

    async with connect(broker.target, tenant=tenant, token=no_token) as sdk:
        consumer = sdk.consumer("g")
        consumer.on("*")(slow)
        with pytest.raises(LookupError, match="no token"):
            await consumer.run()


async def test_a_consumer_whose_group_is_deleted_ends_with_that(sdk: Broker, broker: Client, tenant: str) -> None:
    consumer = sdk.consumer("g")
    consumer.on("*")(Slow())
    running = asyncio.create_task(consumer.run())

    async def connected() -> bool:
        groups = (await broker.groups.ListGroups(group_service_pb2.ListGroupsRequest(tenant_id=tenant))).groups
        return bool(groups) and bool((await broker.get_group("g", tenant)).status.consumers)

    await eventually(connected)
    await broker.groups.DeleteGroup(group_service_pb2.DeleteGroupRequest(name="g", tenant_id=tenant, force=True))
    with pytest.raises(GroupDeleted):
        await running


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_every_event_is_handled_through_a_restart_of_the_broker(
    restarts: Restarts, tenant: str, how: str
) -> None:
    handled: Counter[int] = Counter()
    async with connect(restarts.target, tenant=tenant) as sdk:
        consumer = sdk.consumer("g", ack_deadline=5)

        @consumer.on("*")
        async def handle(event: Event) -> None:
            handled[event.data["number"]] += 1

        async with consumer:
            before = [asyncio.create_task(sdk.publish(noted(number))) for number in range(100)]
            await eventually(lambda: handled)
            await getattr(restarts, how)()
            after = [asyncio.create_task(sdk.publish(noted(number))) for number in range(100, 200)]
            await restarts.start()
            await asyncio.gather(*before, *after)
            await eventually(lambda: len(handled) == 200, timeout=30)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_handler_that_runs_through_a_restart_is_not_called_again(
    restarts: Restarts, tenant: str, slow: Slow, how: str
) -> None:
    async with connect(restarts.target, tenant=tenant) as sdk:
        consumer = sdk.consumer("g", ack_deadline=3, concurrency=1)
        consumer.on("*")(slow)
        async with consumer:
            await sdk.publish_many([noted(1), noted(2)])
            await eventually(lambda: slow.begun)
            await getattr(restarts, how)()
            await restarts.start()
            await sdk.publish(noted(3))
            slow.go.set()
            await eventually(lambda: len(slow.ended) == 3, timeout=30)

            async with Client(restarts.target) as client:
                await settled(client, "g", tenant)
        assert slow.begun == {1: 1, 2: 1, 3: 1}
