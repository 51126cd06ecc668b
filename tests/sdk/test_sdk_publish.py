"""Publishing through the SDK."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from eventbroker_client import (
    Binary,
    BlockingPublisher,
    Broker,
    Closed,
    DomainEvent,
    Event,
    EventIdReused,
    EventNotFound,
    Expect,
    InvalidArgument,
    Unavailable,
    UserCreated,
    VersionConflict,
    connect,
    event_type,
)

from tests.sdk.interceptors import Counting, CountingPublishes, LosingFirstAnswer, LosingFirstPublished
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    from tests.client import Client
    from tests.sdk.restarts import Restarts


@event_type("order.placed", aggregate_type="Order", version="v3.1")
@dataclass
class OrderPlaced:
    total: int
    placed_at: datetime


def order(number: int = 1, **fields: Any) -> Event:
    return Event("order.noted", "Order", f"o{number}", {"number": number}, **fields)


async def test_an_event_is_stored_and_comes_back_as_it_was(sdk: Broker, tenant: str) -> None:
    event = Event(
        "user.created",
        "User",
        "u1",
        {"email": "ada@example.com", "big": 2**63, "deep": [1.5, None, {"ß": "\u2028"}]},
        user_id="admin",
        session_id="s1",
        request_id="r1",
        correlation_id="c1",
        source="signup",
        caused_by="a form",
        entity_version=7,
        tags=("eu", "beta"),
        attributes={"k": "v"},
        timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    )
    published = await sdk.publish(event)
    got = await sdk.get_event(event.id)
    assert got == replace(
        event, tenant_id=tenant, aggregate_version=1, position=published.position, record_time=got.record_time
    )
    assert got.record_time is not None
    assert (published.event_id, published.aggregate_version, published.duplicate) == (event.id, 1, False)


@pytest.mark.parametrize(
    "data",
    ["text", b"bytes", Binary(b"\x01", "application/avro"), [1, "two"], 3, None, UserCreated(email="a@example.com")],
)
async def test_data_of_every_kind_comes_back_as_it_was(sdk: Broker, data: object) -> None:
    event = Event("thing.seen", "Thing", "t1", data)
    await sdk.publish(event)
    assert (await sdk.get_event(event.id)).data == data


async def test_a_typed_event_comes_back_typed(sdk: Broker) -> None:
    placed = OrderPlaced(total=3, placed_at=datetime(2026, 1, 2, tzinfo=UTC))
    event = DomainEvent("o1", placed)
    await sdk.publish(event)
    got = await sdk.get_event(event.id)
    assert isinstance(got, DomainEvent)
    assert got.data == placed
    assert (got.type, got.version, got.aggregate_type) == ("order.placed", "v3.1", "Order")


async def test_the_same_event_twice_is_stored_once(sdk: Broker) -> None:
    event = order()
    first = await sdk.publish(event)
    assert await sdk.publish(event) == replace(first, duplicate=True)


async def test_the_same_event_side_by_side_is_stored_once(sdk: Broker) -> None:
    event = order()
    results = await asyncio.gather(*[sdk.publish(event) for _ in range(20)])
    assert len({result.position for result in results}) == 1
    assert [result.duplicate for result in results].count(False) == 1


async def test_an_id_that_is_used_for_another_event_is_refused(sdk: Broker) -> None:
    event = order()
    await sdk.publish(event)
    with pytest.raises(EventIdReused) as caught:
        await sdk.publish(replace(event, data={"other": True}))
    assert (caught.value.reason, caught.value.retryable) == ("EVENT_ID_REUSED", False)


async def test_bad_input_names_each_field_of_the_event(sdk: Broker) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await sdk.publish(replace(order(), type="Not A Type", aggregate_id=""))
    assert {violation.field for violation in caught.value.violations} == {"event_type", "aggregate_id"}
    assert caught.value.reason == "INVALID_ARGUMENT"


async def test_a_bad_event_does_not_harm_those_that_share_its_call(sdk: Broker) -> None:
    events = [replace(order(number), aggregate_id="" if number == 7 else "o") for number in range(20)]
    results = await asyncio.gather(*[sdk.publish(event) for event in events], return_exceptions=True)
    refused = [number for number, result in enumerate(results) if isinstance(result, BaseException)]
    assert refused == [7]
    assert isinstance(results[7], InvalidArgument)
    assert [violation.field for violation in results[7].violations] == ["aggregate_id"]


async def test_bad_input_of_many_names_the_place_in_the_call(sdk: Broker) -> None:
    with pytest.raises(InvalidArgument) as caught:
        await sdk.publish_many([order(1), replace(order(2), aggregate_id="")])
    assert [violation.field for violation in caught.value.violations] == ["events[1].aggregate_id"]


async def test_many_are_stored_next_to_each_other_or_not_at_all(sdk: Broker) -> None:
    first, second = await sdk.publish_many([order(), order()], expect=[Expect("Order", "o1", version=0)])
    assert (second.position, second.aggregate_version) == (first.position + 1, 2)
    late = order()
    with pytest.raises(VersionConflict) as caught:
        await sdk.publish_many([late], expect=[Expect("Order", "o1", version=1)])
    assert [conflict.aggregate for conflict in caught.value.conflicts] == ["Order/o1"]
    assert caught.value.metadata["actual"] == "2"
    with pytest.raises(EventNotFound):
        await sdk.get_event(late.id)


async def test_an_expectation_may_be_that_there_is_nothing(sdk: Broker) -> None:
    await sdk.publish_many([order()], expect=[Expect("Order", "o1", exists=False)])
    with pytest.raises(VersionConflict):
        await sdk.publish_many([order()], expect=[Expect("Order", "o1", exists=False)])


async def test_what_comes_at_once_goes_in_few_calls_and_in_order(broker: Client, tenant: str) -> None:
    counting = CountingPublishes()
    async with connect(broker.target, tenant=tenant, interceptors=[counting]) as sdk:
        results = await asyncio.gather(*[sdk.publish(order()) for _ in range(2_500)])
    assert [result.aggregate_version for result in results] == list(range(1, 2_501))
    assert max(len(request.events) for request in counting.requests) <= 1_000
    assert len(counting.requests) <= 5
    assert counting.streams == 1


async def test_calls_stay_below_the_size_that_the_broker_takes(broker: Client, tenant: str) -> None:
    async with connect(broker.target, tenant=tenant) as sdk:
        results = await asyncio.gather(*[sdk.publish(replace(order(), data=b"x" * 900_000)) for _ in range(10)])
    assert [result.aggregate_version for result in results] == list(range(1, 11))


async def test_a_publish_that_is_cancelled_harms_no_other(sdk: Broker) -> None:
    tasks = [asyncio.create_task(sdk.publish(order())) for _ in range(50)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert not any(isinstance(result, BaseException) for result in results[1::2])


async def test_an_event_whose_answer_got_lost_is_stored_once(broker: Client, tenant: str) -> None:
    losing = LosingFirstPublished()
    async with connect(broker.target, tenant=tenant, interceptors=[losing]) as sdk:
        first = await sdk.publish(order())
        second = await sdk.publish(order())
    assert (first.aggregate_version, first.duplicate, len(losing.requests)) == (1, True, 3)
    assert second.position == first.position + 1


async def test_many_whose_answer_got_lost_are_stored_once_whatever_was_expected(broker: Client, tenant: str) -> None:
    async with connect(broker.target, tenant=tenant, interceptors=[LosingFirstAnswer()]) as sdk:
        (stored,) = await sdk.publish_many([order()], expect=[Expect("Order", "o1", version=0)])
    assert (stored.aggregate_version, stored.duplicate) == (1, True)


async def test_without_a_broker_the_outcome_is_told_to_be_unknown_when_time_is_over(tenant: str) -> None:
    async with connect("127.0.0.1:1", tenant=tenant, timeout=0.5) as sdk:
        for attempt in (sdk.publish(order()), sdk.publish_many([order()]), sdk.get_event("e1")):
            with pytest.raises(Unavailable) as caught:
                await attempt
            assert type(caught.value) is Unavailable
            assert caught.value.retryable


async def test_after_the_end_nothing_is_published(broker: Client, tenant: str) -> None:
    async with connect(broker.target, tenant=tenant) as sdk:
        pass
    for attempt in (sdk.publish(order()), sdk.publish_many([order()]), sdk.get_event("e1")):
        with pytest.raises(Closed):
            await attempt
    with pytest.raises(Closed):
        sdk.subscribe("g")


async def test_events_published_while_the_broker_restarts_are_stored_once(restarts: Restarts, tenant: str) -> None:
    async with connect(restarts.target, tenant=tenant) as sdk:
        await sdk.publish(order(0))
        tasks = [asyncio.create_task(sdk.publish(order(number))) for number in range(1, 101)]
        await tasks[0]
        await restarts.kill()
        tasks += [asyncio.create_task(sdk.publish(order(number))) for number in range(101, 201)]
        await restarts.start()
        results = await asyncio.gather(*tasks)
        many = await sdk.publish_many([order(201)])
    assert [result.aggregate_version for result in results + many] == [1] * 201
    assert sorted(result.position for result in results + many) == list(range(2, 203))


async def test_publishing_goes_on_over_streams_that_come_to_their_age(
    make_broker: Callable[..., Awaitable[Client]], tenant: str
) -> None:
    broker = await make_broker(stream_max_age=0.2)
    counting = CountingPublishes()
    async with connect(broker.target, tenant=tenant, interceptors=[counting]) as sdk:

        async def ended() -> bool:
            results = await asyncio.gather(*[sdk.publish(order(number)) for number in range(10)])
            assert not any(result.duplicate for result in results)
            return counting.streams > 3

        await eventually(ended)


async def test_without_room_for_a_stream_events_go_by_calls(
    make_broker: Callable[..., Awaitable[Client]], tenant: str
) -> None:
    broker = await make_broker(max_streams=0)
    calls = Counting()
    async with connect(broker.target, tenant=tenant, interceptors=[calls]) as sdk:
        results = [await sdk.publish(order()) for _ in range(3)]
    assert [(result.aggregate_version, result.duplicate) for result in results] == [(n, False) for n in (1, 2, 3)]
    assert len(calls.requests) == 3


async def test_the_end_of_the_broker_object_waits_for_what_is_being_published(broker: Client, tenant: str) -> None:
    async with connect(broker.target, tenant=tenant) as sdk:
        tasks = [asyncio.create_task(sdk.publish(order())) for _ in range(200)]
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks)
    assert [result.aggregate_version for result in results] == list(range(1, 201))


async def test_a_blocking_publisher_publishes(broker: Client, sdk: Broker, tenant: str) -> None:
    event = order()

    def publish() -> None:
        with BlockingPublisher.connect(broker.target, tenant=tenant) as publisher:
            assert publisher.publish(event).position == 1
            assert publisher.publish(event).duplicate
            with pytest.raises(InvalidArgument):
                publisher.publish(replace(order(), aggregate_id=""))

    await asyncio.to_thread(publish)
    assert (await sdk.get_event(event.id)).data == event.data
