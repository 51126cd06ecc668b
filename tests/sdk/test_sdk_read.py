"""Reading through the SDK: lists, history as a stream, and causes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from eventbroker_client import (
    Broker,
    Closed,
    Event,
    EventNotFound,
    InvalidArgument,
    PositionBeyond,
    Unavailable,
    connect,
)
from eventbroker_client.testing import InMemoryBroker

from tests.client import TIMEOUT
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_client import Reading

    from tests.client import Client
    from tests.sdk.restarts import Restarts

EVENTS = 1_200


def noted(number: int) -> Event:
    """Of three users in turn; the tenth is of another type."""
    return Event(
        "order.noted" if number % 10 else "page.seen",
        "Order",
        f"o{number % 100}",
        {"number": number},
        user_id=f"u{number % 3}",
        tags=("even",) if number % 2 == 0 else (),
    )


async def numbers(events: AsyncIterator[Event]) -> list[int]:
    async with asyncio.timeout(TIMEOUT):
        return [event.data["number"] async for event in events]


async def positions(reading: Reading, count: int) -> list[int]:
    async with asyncio.timeout(2 * TIMEOUT):
        return [(await anext(reading)).position for _ in range(count)]


@pytest.fixture(params=["of a server", "in memory"])
async def either(request: pytest.FixtureRequest, sdk: Broker, tenant: str) -> AsyncIterator[Broker]:
    """The real broker, or the one without a server: both read alike."""
    if request.param == "of a server":
        yield sdk
        return
    async with InMemoryBroker(tenant=tenant) as memory:
        yield memory


@pytest.fixture
async def told(either: Broker) -> Broker:
    """A broker with events 1 to 1,200, at these positions."""
    await asyncio.gather(*[either.publish(noted(number)) for number in range(1, EVENTS + 1)])
    return either


async def test_lists_go_over_all_pages_in_either_order_with_any_filter(told: Broker) -> None:
    assert await numbers(told.list_events()) == list(range(1, EVENTS + 1))
    newest = await numbers(told.list_events("page.*", newest_first=True, page_size=7, after=100, upto=1_000))
    assert newest == list(range(1_000, 100, -10))
    assert await numbers(told.list_events(user_id="u1", tags=["even"], upto=20)) == [4, 10, 16]
    versions = [event.aggregate_version async for event in told.list_aggregate_events("Order", "o7", page_size=5)]
    assert versions == list(range(1, 13))
    aggregates = [aggregate async for aggregate in told.list_aggregates("Order", page_size=30)]
    assert {(each.version, each.events) for each in aggregates} == {(12, ())}
    assert len(aggregates) == 100


async def test_history_is_read_to_its_end_with_any_filter_and_from_any_place(told: Broker) -> None:
    assert await numbers(told.read(max_batch=100)) == list(range(1, EVENTS + 1))
    assert await numbers(told.read("page.seen", user_id="u1", upto=100)) == [10, 40, 70, 100]
    assert await numbers(told.read(after=1_190, aggregate_type="Order", aggregate_id="o95")) == [1_195]
    (at,) = [event.record_time async for event in told.read(after=EVENTS - 1)]
    assert at is not None
    assert (await numbers(told.read(recorded_from=at)))[-1] == EVENTS
    assert await numbers(told.read(recorded_from=at + timedelta(days=1))) == []


async def test_the_position_tells_where_to_come_back(told: Broker) -> None:
    reading = told.read("page.*")
    assert reading.position == 0
    assert await positions(reading, 3) == [10, 20, 30]
    assert reading.position == 30
    await reading.aclose()
    assert await numbers(told.read(after=reading.position, upto=40)) == list(range(31, 41))
    reading = told.read("never.*")
    assert (await numbers(reading), reading.position) == ([], EVENTS)


async def test_who_follows_gets_what_comes_and_ends_when_asked(either: Broker) -> None:
    await either.publish(noted(1))
    got: list[int] = []
    reading = either.read(follow=True)

    async def follow() -> None:
        async for event in reading:
            got.append(event.data["number"])  # noqa: PERF401 - seen from outside meanwhile

    async with asyncio.timeout(TIMEOUT), asyncio.TaskGroup() as tasks:
        tasks.create_task(follow())
        await eventually(lambda: reading.caught_up)
        await either.publish(noted(2))
        await eventually(lambda: got == [1, 2])
        await reading.aclose()


async def test_reading_ends_with_its_broker(broker: Client, tenant: str) -> None:
    async with asyncio.TaskGroup() as tasks, connect(broker.target, tenant=tenant) as sdk:
        reading = sdk.read(follow=True)
        following = tasks.create_task(numbers(reading))
        await eventually(lambda: reading.caught_up)
    assert following.result() == []
    with pytest.raises(Closed):
        sdk.read()


async def test_a_reader_that_gives_up_waiting_for_the_next_event_misses_none(either: Broker) -> None:
    async with either.read(follow=True) as reading:
        for number in range(1, 4):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(reading)
            await either.publish(noted(number))
            assert await positions(reading, 1) == [number]


async def test_streams_that_come_to_their_age_follow_each_other_without_gap_or_repeat(
    make_broker: Callable[..., Awaitable[Client]], tenant: str
) -> None:
    broker = await make_broker(stream_max_age=0.1)
    async with connect(broker.target, tenant=tenant) as sdk, sdk.read(follow=True) as reading:
        for number in range(1, 6):
            await sdk.publish(noted(number))
            assert await positions(reading, 1) == [number]
            with pytest.raises(TimeoutError):  # meanwhile streams end
                async with asyncio.timeout(0.2):
                    await anext(reading)


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_a_restart_of_the_broker_leaves_neither_gap_nor_repeat(restarts: Restarts, tenant: str, how: str) -> None:
    async with connect(restarts.target, tenant=tenant) as sdk:
        await sdk.publish_many([noted(number) for number in range(1, 301)])
        async with sdk.read(follow=True, max_batch=1) as live, sdk.read(max_batch=50) as history:
            assert await positions(live, 300) == list(range(1, 301))
            assert await positions(history, 10) == list(range(1, 11))
            waiting = asyncio.create_task(positions(live, 100))
            await getattr(restarts, how)()
            publishing = asyncio.create_task(sdk.publish_many([noted(number) for number in range(301, 401)]))
            await restarts.start()
            await publishing
            assert await waiting == list(range(301, 401))
            assert await numbers(history) == list(range(11, 301))  # and not what came after it began


async def test_without_a_broker_history_fails_in_time(tenant: str) -> None:
    async with connect("127.0.0.1:1", tenant=tenant, timeout=0.3) as sdk:
        with pytest.raises(Unavailable):
            await anext(sdk.read())
        with pytest.raises(Unavailable):
            await anext(sdk.list_events())


async def test_what_cannot_be_read_is_told(either: Broker) -> None:
    await either.publish(noted(1))
    with pytest.raises(PositionBeyond) as caught:
        await anext(either.read(after=2, follow=True))
    assert caught.value.metadata["head_position"] == "1"
    with pytest.raises(InvalidArgument) as refused:
        await anext(either.read(aggregate_id="o1"))
    assert [violation.field for violation in refused.value.violations] == ["filter.aggregate_type"]
    with pytest.raises(ValueError, match="no time zone"):
        either.read(recorded_from=datetime(2026, 1, 2))  # noqa: DTZ001 - the point
    with pytest.raises(ValueError, match="either"):
        either.read(after=1, recorded_from=datetime(2026, 1, 2, tzinfo=UTC))
    with pytest.raises(TypeError, match="colour"):
        either.read(colour="red")  # type: ignore[call-arg]


async def test_causes_are_a_tree(sdk: Broker) -> None:
    root, child, leaf = (
        Event("order.noted", "Order", "o1", {"number": 1}, id=each, caused_by=cause, correlation_id="c")
        for each, cause in (("root", "a form"), ("child", "root"), ("leaf", "child"))
    )
    await sdk.publish_many([root, child, leaf])
    causality = await sdk.get_causality("child")
    told = [(each.event.id, each.parent_event_id, each.depth) for each in causality.events]
    assert told == [("root", "", 0), ("child", "root", 1), ("leaf", "child", 2)]
    assert not causality.truncated
    assert (await sdk.get_causality("child", max_events=1)).truncated
    with pytest.raises(EventNotFound):
        await sdk.get_causality("nobody")
