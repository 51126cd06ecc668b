"""Deliveries by `async for`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from eventbroker.v1 import dead_letter_service_pb2, group_service_pb2
from eventbroker_client import (
    Broker,
    ConsumerReplaced,
    Event,
    GroupDeleted,
    GroupMismatch,
    InvalidArgument,
    Outcome,
    connect,
)

from tests.client import TIMEOUT
from tests.waiting import eventually

if TYPE_CHECKING:
    from eventbroker_client import Delivery, Subscription

    from tests.client import Client
    from tests.sdk.restarts import Restarts


def event(number: int = 1) -> Event:
    return Event("order.noted", "Order", f"o{number}", {"number": number})


async def publish(sdk: Broker, count: int) -> list[str]:
    events = [event(number) for number in range(count)]
    await sdk.publish_many(events)
    return [each.id for each in events]


async def take(deliveries: Subscription, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    async with asyncio.timeout(TIMEOUT):
        while len(taken) < count:
            taken.append(await anext(deliveries))
    return taken


async def test_what_was_published_is_delivered_in_order_and_acked(sdk: Broker) -> None:
    published = await publish(sdk, 100)
    got = []
    async for delivery in sdk.subscribe("g", ["order.*"]):
        got.append(delivery.event.id)
        assert delivery.attempt == 1
        assert await delivery.ack() is Outcome.DONE
        if len(got) == 100:
            break
    assert got == published


async def test_what_is_acked_twice_was_settled_already(sdk: Broker) -> None:
    await publish(sdk, 1)
    async with sdk.subscribe("g") as deliveries:
        (delivery,) = await take(deliveries, 1)
        assert await delivery.ack() is Outcome.DONE
        assert await delivery.ack() is Outcome.ALREADY_SETTLED


async def test_a_nack_brings_the_event_again_after_its_delay(sdk: Broker) -> None:
    (published,) = await publish(sdk, 1)
    async with sdk.subscribe("g") as deliveries:
        (delivery,) = await take(deliveries, 1)
        assert await delivery.nack(delay=0.1, reason="not\nyet") is Outcome.DONE
        (again,) = await take(deliveries, 1)
        assert (again.event_id, again.attempt) == (published, 2)


async def test_what_is_released_comes_again_as_the_same_attempt(sdk: Broker) -> None:
    await publish(sdk, 1)
    async with sdk.subscribe("g") as deliveries:
        (delivery,) = await take(deliveries, 1)
        assert await delivery.release() is Outcome.DONE
        assert (await take(deliveries, 1))[0].attempt == 1


async def test_a_dead_letter_keeps_its_reason(sdk: Broker, broker: Client, tenant: str) -> None:
    await publish(sdk, 1)
    async with sdk.subscribe("g") as deliveries:
        (delivery,) = await take(deliveries, 1)
        with pytest.raises(InvalidArgument):
            await delivery.nack(dead_letter=True)
        assert await delivery.nack(dead_letter=True, reason="x" * 2_000) is Outcome.DONE
    request = dead_letter_service_pb2.ListDeadLettersRequest(group="g", tenant_id=tenant)
    (dead,) = (await broker.dead_letters.ListDeadLetters(request)).dead_letters
    assert dead.reason == "x" * 1_021 + "..."


async def test_what_is_not_settled_in_time_comes_again_and_the_first_is_outdated(sdk: Broker) -> None:
    await publish(sdk, 1)
    async with sdk.subscribe("g", ack_deadline=1) as deliveries:
        (delivery,) = await take(deliveries, 1)
        (again,) = await take(deliveries, 1)
        assert again.attempt == 2
        assert await delivery.ack() is Outcome.OUTDATED
        assert await again.ack() is Outcome.DONE


async def test_an_extended_delivery_stays_with_its_consumer(sdk: Broker) -> None:
    second = (await publish(sdk, 2))[1]
    async with sdk.subscribe("g", ack_deadline=1) as deliveries:
        extended, _ = await take(deliveries, 2)
        assert await extended.extend(60) is Outcome.DONE
        assert (await take(deliveries, 1))[0].event_id == second
        assert await extended.ack() is Outcome.DONE


async def test_no_more_are_out_than_asked_for(sdk: Broker) -> None:
    await publish(sdk, 5)
    async with sdk.subscribe("g", max_unsettled=2) as deliveries:
        one, _ = await take(deliveries, 2)
        third = asyncio.ensure_future(anext(deliveries))
        await one.ack()
        async with asyncio.timeout(TIMEOUT):
            await third


async def test_a_subscription_that_is_closed_gives_back_what_it_holds(sdk: Broker) -> None:
    published = await publish(sdk, 3)
    async with sdk.subscribe("g") as deliveries:
        await take(deliveries, 2)
    async with sdk.subscribe("g") as deliveries:
        assert [delivery.event_id for delivery in await take(deliveries, 3)] == published


async def test_a_drained_subscription_ends_when_all_is_settled(sdk: Broker) -> None:
    await publish(sdk, 10)
    async with sdk.subscribe("g", max_unsettled=4, max_batch=4) as deliveries:
        first = await take(deliveries, 1)
        await deliveries.drain()
        await first[0].ack()
        async with asyncio.timeout(TIMEOUT):
            rest = [await delivery.ack() async for delivery in deliveries]
    assert set(rest) <= {Outcome.DONE}
    assert len(rest) < 9


async def test_what_reconnecting_does_not_mend_is_raised(sdk: Broker) -> None:
    async with sdk.subscribe("g", ["order.*"]):
        with pytest.raises(GroupMismatch):
            await sdk.subscribe("g", ["user.*"]).opened()
    with pytest.raises(InvalidArgument) as caught:
        await anext(sdk.subscribe("no group"))
    assert [violation.field for violation in caught.value.violations] == ["open.group"]


async def test_another_consumer_of_the_same_id_ends_the_first(sdk: Broker) -> None:
    async with sdk.subscribe("g", consumer_id="c") as first, sdk.subscribe("g", consumer_id="c"):
        with pytest.raises(ConsumerReplaced):
            await take(first, 1)


async def test_a_group_that_is_deleted_is_not_made_anew(sdk: Broker, broker: Client, tenant: str) -> None:
    async with sdk.subscribe("g") as deliveries:
        request = group_service_pb2.DeleteGroupRequest(name="g", tenant_id=tenant, force=True)
        await broker.groups.DeleteGroup(request)
        with pytest.raises(GroupDeleted):
            await take(deliveries, 1)


async def test_a_subscription_ends_with_its_broker(broker: Client, tenant: str) -> None:
    async with connect(broker.target, tenant=tenant) as sdk:
        deliveries = sdk.subscribe("g")
        await deliveries.opened()
        waiting = asyncio.ensure_future(anext(deliveries))
        await asyncio.sleep(0)
    async with asyncio.timeout(TIMEOUT):
        with pytest.raises(StopAsyncIteration):
            await waiting


async def test_a_subscription_goes_on_after_the_broker_was_killed(restarts: Restarts, tenant: str) -> None:
    async with connect(restarts.target, tenant=tenant) as sdk, sdk.subscribe("g") as deliveries:
        published = await publish(sdk, 3)
        (first,) = await take(deliveries, 1)
        assert await first.ack() is Outcome.DONE
        await restarts.kill()
        await restarts.start()
        published += await publish(sdk, 3)
        got = {first.event_id}

        async def all_came() -> bool:
            (delivery,) = await take(deliveries, 1)
            got.add(delivery.event_id)
            await delivery.ack()
            return got == set(published)

        await eventually(all_came, timeout=30)
