"""Pull: events for those who hold no stream, a call at a time."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.group_service_pb2 import DeleteGroupRequest, LogPoint, SeekGroupRequest
from google.protobuf.duration_pb2 import Duration

from tests.acceptance.refused import refused
from tests.client import DONE, OUTDATED, TIMEOUT, Client, ack_ids, ids, publish
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import BrokerProcess

    MakeBroker = Callable[..., Awaitable[Client]]

LONG = Duration(seconds=600)


async def pull(broker: Client, group: str = "g", wait: float = 10, **fields: Any) -> list[pb.Delivery]:
    request = pb.PullRequest(group=group, **fields)
    request.wait.FromMilliseconds(round(wait * 1000))
    return list((await broker.subscriber.Pull(request, timeout=wait + TIMEOUT)).deliveries.deliveries)


async def pulled(broker: Client, count: int, **fields: Any) -> list[pb.Delivery]:
    """Pull until that many events came."""
    got: list[pb.Delivery] = []
    async with asyncio.timeout(TIMEOUT):
        while len(got) < count:
            got += await pull(broker, max_events=min(count - len(got), 1000), **fields)
    return got


async def test_what_is_there_comes_at_once_with_its_attempt_and_deadline(broker: Client) -> None:
    published = await publish(broker)
    async with asyncio.timeout(5):
        response = await broker.subscriber.Pull(pb.PullRequest(group="g", wait=Duration(seconds=30)))
    assert ids(response.deliveries.deliveries) == published
    assert response.deliveries.deliveries[0].attempt == 1
    assert response.deliveries.HasField("ack_deadline")


@pytest.mark.parametrize("wait", [0, 1.0])
async def test_nothing_comes_when_the_time_is_over(broker: Client, wait: float) -> None:
    loop = asyncio.get_running_loop()
    began = loop.time()
    assert await pull(broker, wait=wait) == []
    assert wait <= loop.time() - began < wait + 3


async def test_a_call_waits_for_the_first_event(broker: Client) -> None:
    assert await pull(broker, wait=0) == []
    waiting = asyncio.create_task(pull(broker, wait=30))
    published = await publish(broker)
    async with asyncio.timeout(5):
        assert ids(await waiting) == published


async def test_no_call_gets_more_than_it_asks_for_and_nothing_more_is_read(broker: Client) -> None:
    published = await publish(broker, 20)
    first = await pulled(broker, 7, consumer_id="c", ack_deadline=LONG)
    async with await broker.subscribe("g") as stream:
        rest = await stream.take(13, timeout=5)
        assert sorted(ids(first + rest)) == sorted(published)
        assert {delivery.attempt for delivery in rest} == {1}


async def test_what_was_pulled_stays_with_its_consumer_after_the_call(make_broker: MakeBroker) -> None:
    broker = await make_broker(pull_idle=0.2)
    await publish(broker, 2)
    held = await pulled(broker, 2, ack_deadline=LONG)
    async with await broker.subscribe("g") as stream:
        await stream.nothing_but_heartbeats(4)
    assert await broker.ack(ack_ids(held)) == [DONE, DONE]
    await eventually(lambda: _gone(broker))


async def _gone(broker: Client) -> bool:
    """Whether the group has no consumer any more."""
    return not (await broker.get_group("g")).status.consumers


async def test_what_was_not_acked_comes_again_after_its_deadline_as_the_next_attempt(broker: Client) -> None:
    await publish(broker)
    (first,) = await pulled(broker, 1, ack_deadline=Duration(seconds=1))
    (again,) = await pull(broker, wait=30)
    assert (again.event, first.attempt, again.attempt) == (first.event, 1, 2)
    assert await broker.ack([again.ack_id]) == [DONE]


async def test_what_was_acked_does_not_come_again(broker: Client) -> None:
    await publish(broker, 5)
    taken = await pulled(broker, 5, ack_deadline=Duration(seconds=1))
    assert await broker.ack(ack_ids(taken)) == [DONE] * 5
    assert await pull(broker, wait=3) == []


async def test_a_released_event_comes_with_the_next_call_as_the_same_attempt(broker: Client) -> None:
    await publish(broker)
    (first,) = await pulled(broker, 1)
    assert await broker.nack([first.ack_id], pb.NACK_ACTION_RELEASE) == [DONE]
    (again,) = await pull(broker)
    assert (again.event, again.attempt) == (first.event, 1)


@pytest.mark.parametrize("names", [("one", "two"), ("same", "same"), ("", "")], ids=["named", "same name", "unnamed"])
async def test_two_pullers_share_the_events_of_a_group(broker: Client, names: tuple[str, str]) -> None:
    published = await publish(broker, 40)
    got: list[list[str]] = [[], []]

    async def consume(consumer_id: str, mine: list[str]) -> None:
        while sum(map(len, got)) < len(published):
            some = await pull(broker, wait=0.5, consumer_id=consumer_id, max_events=3)
            mine += ids(some)
            if some:
                assert await broker.ack(ack_ids(some)) == [DONE] * len(some)

    async with asyncio.timeout(30):
        await asyncio.gather(*(consume(name, mine) for name, mine in zip(names, got, strict=True)))
    assert sorted(got[0] + got[1]) == sorted(published)
    assert all(got)


async def test_one_consumer_can_pull_through_two_brokers(make_broker: MakeBroker) -> None:
    one, two = await make_broker(), await make_broker()
    await publish(one, 2)
    first = await pulled(one, 1, consumer_id="c", ack_deadline=LONG)
    second = await pulled(two, 1, consumer_id="c")
    assert await two.ack(ack_ids(first + second)) == [DONE, DONE]


async def test_a_call_that_is_given_up_takes_nothing_from_others(broker: Client) -> None:
    assert await pull(broker, consumer_id="gone", wait=0, ack_deadline=LONG) == []
    call = broker.subscriber.Pull(pb.PullRequest(group="g", consumer_id="gone", wait=Duration(seconds=30)))
    async with await broker.subscribe("g") as stream:
        await stream.nothing_but_heartbeats(1)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        published = await publish(broker, 10)
        taken = await stream.take(10, timeout=8)
    assert sorted(ids(taken)) == sorted(published)
    assert {delivery.attempt for delivery in taken} == {1}


async def test_a_broker_that_shuts_down_gives_back_what_was_pulled(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]], make_broker: MakeBroker
) -> None:
    process, other = await spawn_broker(), await make_broker()
    async with Client(process.target) as client:
        published = await publish(client, 3)
        old = await pulled(client, 3, ack_deadline=LONG)
        call = asyncio.create_task(pull(client, consumer_id="waiting", wait=30))
        await eventually(lambda: _is_there(other, "waiting"))
        process.signal(signal.SIGTERM)
        await refused(call, grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
        again = await pulled(other, 3)
    assert sorted(ids(again)) == sorted(published)
    assert {delivery.attempt for delivery in again} == {1}
    assert await other.ack(ack_ids(old + again)) == [OUTDATED] * 3 + [DONE] * 3
    assert await process.ended() == 0, process.log.read_text()


async def _is_there(broker: Client, consumer_id: str) -> bool:
    consumers = (await broker.get_group("g")).status.consumers
    return consumer_id in {consumer.consumer_id for consumer in consumers}


async def test_a_call_that_waits_is_told_that_the_group_was_deleted(broker: Client) -> None:
    assert await pull(broker, wait=0) == []
    call = asyncio.create_task(pull(broker, wait=30))
    await broker.groups.DeleteGroup(DeleteGroupRequest(name="g", force=True))
    await refused(call, grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND")


async def test_a_pull_that_does_not_fit_the_group_is_refused_and_the_next_goes_on(broker: Client) -> None:
    assert await pull(broker, wait=0, event_types=["user.*"]) == []
    await refused(pull(broker, event_types=["role.*"]), grpc.StatusCode.FAILED_PRECONDITION, "GROUP_MISMATCH")
    published = await publish(broker)
    assert ids(await pull(broker)) == published


async def test_the_consumers_that_pull_count_as_streams(make_broker: MakeBroker) -> None:
    broker = await make_broker(max_streams=1)
    async with await broker.subscribe("g"):
        await refused(pull(broker), grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")


async def test_a_bad_pull_names_each_field(broker: Client) -> None:
    cases = [
        (pb.PullRequest(), {"group"}),
        (pb.PullRequest(group="g", max_events=1001), {"max_events"}),
        (pb.PullRequest(group="g", max_events=-1), {"max_events"}),
        (pb.PullRequest(group="g", wait=Duration(seconds=31)), {"wait"}),
        (pb.PullRequest(group="g", wait=Duration(seconds=-1)), {"wait"}),
        (pb.PullRequest(group="g", ack_deadline=Duration(nanos=1)), {"ack_deadline"}),
        (
            pb.PullRequest(consumer_id="a b", tenant_id="ü", event_types=["a", "A"], start=9, max_events=1001),  # type: ignore[arg-type]
            {"group", "consumer_id", "tenant_id", "event_types[1]", "start", "max_events"},
        ),
    ]
    for request, fields in cases:
        found = await refused(broker.subscriber.Pull(request), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
        assert found.violations.keys() == fields, request


async def test_a_replay_at_a_pace_comes_without_stalls(broker: Client) -> None:
    await publish(broker, 40)
    assert len(await pulled(broker, 40)) == 40
    request = SeekGroupRequest(name="g", to=LogPoint(edge=pb.START_POINT_EARLIEST), max_events_per_second=20)
    await broker.groups.SeekGroup(request, timeout=TIMEOUT)
    got = 0
    while got < 40:
        deliveries = await pull(broker, wait=2, max_events=64)
        assert deliveries
        await broker.ack(ack_ids(deliveries))
        got += len(deliveries)
