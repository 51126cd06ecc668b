"""Where an event is on its way to a group, and waiting for a group, through real ports."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker.v1 import group_service_pb2 as pb
from eventbroker.v1 import subscriber_service_pb2
from eventbroker.v1.dead_letter_service_pb2 import DeadLetterFilter, RedriveDeadLettersRequest
from eventbroker.v1.subscriber_service_pb2 import FlowControl
from eventbroker_server.redis.streams import RedisStreams

from tests.client import DONE, TIMEOUT, ack_ids, error_info, event, violations
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.client import Client, Stream
    from tests.conftest import Stores

    MakeBroker = Callable[..., Awaitable[Client]]


async def explain(broker: Client, event_id: str, group: str = "g", **fields: Any) -> pb.ExplainDeliveryResponse:
    asked = {"event_tenant_id": "acme"} | fields
    request = pb.ExplainDeliveryRequest(name=group, event_id=event_id, **asked)
    return await broker.groups.ExplainDelivery(request, timeout=TIMEOUT)


async def is_in(broker: Client, event_id: str, state: int) -> bool:
    return bool((await explain(broker, event_id)).state == state)


@pytest.fixture
async def stream(broker: Client) -> Stream:
    return await broker.subscribe("g", "user.*", consumer_id="c1", flow_control=FlowControl(max_unsettled_events=1))


async def test_an_event_is_told_to_be_out_and_then_settled(broker: Client, stream: Stream) -> None:
    await broker.publish(one := event())
    (delivery,) = await stream.take(1)
    told = await explain(broker, one.event_id)
    assert (told.state, told.consumer_id, told.position, told.failed_attempts) == (pb.DELIVERY_STATE_OUT, "c1", 1, 0)
    assert "c1" in told.explanation
    left = told.until.ToDatetime() - delivery.event.record_time.ToDatetime()
    assert 25 < left.total_seconds() < 35
    await broker.extend([delivery.ack_id], 600)
    longer = (await explain(broker, one.event_id)).until.ToDatetime() - told.until.ToDatetime()
    assert 500 < longer.total_seconds() < 600
    await broker.ack([delivery.ack_id])
    assert (await explain(broker, one.event_id)).state == pb.DELIVERY_STATE_SETTLED


async def test_an_event_for_which_no_consumer_has_credit_waits(broker: Client, stream: Stream) -> None:
    await broker.publish(event(), second := event())
    await stream.take(1)
    await eventually(lambda: is_in(broker, second.event_id, pb.DELIVERY_STATE_WAITING))


async def test_an_event_is_told_to_wait_for_a_consumer_where_none_is_connected(broker: Client, stream: Stream) -> None:
    await broker.publish(one := event())
    await stream.take(1)
    await broker.publish(two := event())
    await eventually(lambda: is_in(broker, two.event_id, pb.DELIVERY_STATE_WAITING))
    assert "No consumer" not in (await explain(broker, two.event_id)).explanation
    stream.close()

    async def alone() -> bool:
        told = [await explain(broker, each.event_id) for each in (one, two)]
        return all(each.explanation.endswith("No consumer is connected.") for each in told)

    await eventually(alone)


async def test_a_filtered_event_is_told_with_what_the_group_wants(broker: Client, stream: Stream) -> None:
    await broker.publish(other := event(event_type="role.assigned"))
    told = await explain(broker, other.event_id)
    assert told.state == pb.DELIVERY_STATE_FILTERED
    assert "user.*" in told.explanation
    async with await broker.subscribe("acmes", tenant_id="acme"):
        await broker.publish(foreign := event(tenant_id="globex"))
        told = await explain(broker, foreign.event_id, "acmes", tenant_id="acme", event_tenant_id="globex")
    assert told.state == pb.DELIVERY_STATE_FILTERED
    assert "tenant acme" in told.explanation


async def test_a_retry_is_told_with_its_error_and_when_it_is_due(broker: Client, stream: Stream) -> None:
    await broker.publish(one := event())
    (delivery,) = await stream.take(1)
    await broker.nack([delivery.ack_id], reason="the mail server is down", seconds=600)
    told = await explain(broker, one.event_id)
    assert (told.state, told.failed_attempts, told.last_error) == (
        pb.DELIVERY_STATE_RETRY,
        1,
        "the mail server is down",
    )
    assert told.until.ToDatetime() > delivery.event.record_time.ToDatetime()
    assert "mail server" in told.explanation


async def test_an_event_that_fails_while_it_is_asked_for_is_not_told_to_be_settled(
    broker: Client, stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    await broker.publish(one := event())
    (delivery,) = await stream.take(1)
    whereabouts = RedisStreams.whereabouts

    async def failing(*args: Any) -> Any:
        assert await broker.nack([delivery.ack_id], seconds=600) == [DONE]
        return await whereabouts(*args)

    monkeypatch.setattr(RedisStreams, "whereabouts", failing)
    told = await explain(broker, one.event_id)
    assert (told.state, told.failed_attempts) == (pb.DELIVERY_STATE_RETRY, 1)


async def test_a_retry_that_is_out_is_told_to_be_out_with_what_failed_before(broker: Client, stream: Stream) -> None:
    await broker.publish(one := event())
    await broker.nack(ack_ids(await stream.take(1)), reason="once", seconds=0)
    await stream.take(1)
    told = await explain(broker, one.event_id)
    assert (told.state, told.failed_attempts, told.last_error) == (pb.DELIVERY_STATE_OUT, 1, "once")


async def test_a_retry_is_told_to_be_settled_as_soon_as_it_was_acked(broker: Client, stream: Stream) -> None:
    await broker.publish(one := event())
    await broker.nack(ack_ids(await stream.take(1)), reason="once", seconds=0)
    assert await broker.ack(ack_ids(await stream.take(1))) == [DONE]
    assert (await explain(broker, one.event_id)).state == pb.DELIVERY_STATE_SETTLED


async def test_a_dead_letter_is_told_to_be_dead(broker: Client, stream: Stream) -> None:
    await broker.publish(one := event())
    await broker.nack(ack_ids(await stream.take(1)), subscriber_service_pb2.NACK_ACTION_DEAD_LETTER, reason="malformed")
    told = await explain(broker, one.event_id)
    assert (told.state, told.last_error) == (pb.DELIVERY_STATE_DEAD, "malformed")


async def test_a_redriven_dead_letter_is_told_to_be_one(broker: Client) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(*(events := [event(), event()]))
        ids = ack_ids(await stream.take(2))
        await broker.nack(ids, subscriber_service_pb2.NACK_ACTION_DEAD_LETTER, reason="malformed")
        every = DeadLetterFilter(all=True)
        request = RedriveDeadLettersRequest(group="g", filter=every, events_per_second=0.1)
        await broker.dead_letters.RedriveDeadLetters(request)
        told = [await explain(broker, one.event_id) for one in events]
        last = max(told, key=lambda one: one.until.ToDatetime())
        assert (last.state, last.failed_attempts) == (pb.DELIVERY_STATE_RETRY, 0)
        assert "redriven" in last.explanation


async def test_an_event_of_a_group_that_redis_lost_is_history(broker: Client, redis: Redis, stores: Stores) -> None:
    stream = await broker.subscribe("g")
    stream.close()
    await broker.publish(one := event())
    await eventually(lambda: redis.exists(f"{stores.prefix}:{{0}}:events:{one.event_type}"))
    await redis.delete(f"{stores.prefix}:{{0}}:group:*:g")
    assert (await explain(broker, one.event_id)).state == pb.DELIVERY_STATE_HISTORY


async def test_what_was_settled_beyond_the_checkpoint_is_told_so_though_redis_lost_it(
    make_broker: MakeBroker, redis: Redis, stores: Stores
) -> None:
    broker = await make_broker(checkpoint_interval=0.1)
    async with await broker.subscribe("g") as stream:
        await broker.publish(first := event(), second := event())
        assert await broker.ack(ack_ids(await stream.take(2))[1:]) == [DONE]
        await eventually(lambda: is_noted(stores))
    await redis.delete(f"{stores.prefix}:{{0}}:group:*:g")
    told = [(await explain(broker, one.event_id)).state for one in (first, second)]
    assert told == [pb.DELIVERY_STATE_HISTORY, pb.DELIVERY_STATE_SETTLED]


async def is_noted(stores: Stores) -> bool:
    connection: Any = await asyncpg.connect(stores.postgres)
    try:
        return bool(await connection.fetchval("SELECT settled @> 2::bigint FROM eventbroker.group_shards"))
    finally:
        await connection.close()


async def test_an_event_that_is_not_relayed_is_told_so(broker: Client, redis: Redis, stores: Stores) -> None:
    async with await broker.subscribe("g"):
        await broker.publish(one := event())
        await eventually(lambda: is_in(broker, one.event_id, pb.DELIVERY_STATE_OUT))
        await redis.set(f"{stores.prefix}:{{0}}:head", 0)
        told = await explain(broker, one.event_id)
        await redis.set(f"{stores.prefix}:{{0}}:head", 1)
    assert told.state == pb.DELIVERY_STATE_NOT_RELAYED


async def test_a_paused_group_is_told_to_be_paused(broker: Client, stream: Stream) -> None:
    await broker.groups.PauseGroup(pb.PauseGroupRequest(name="g"))
    await broker.publish(one := event())
    told = await explain(broker, one.event_id)
    assert told.paused
    assert "paused" in told.explanation


async def test_who_asks_for_what_is_not_there_is_told(broker: Client, stream: Stream) -> None:
    for group, reason in (("g", "EVENT_NOT_FOUND"), ("nobodys", "GROUP_NOT_FOUND")):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await explain(broker, "nothing", group)
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND
        assert error_info(caught.value)["ErrorInfo"].reason == reason
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await explain(broker, "", "\0", event_tenant_id="")
    assert set(violations(caught.value)) == {"name", "event_id", "event_tenant_id"}


# Waiting.


async def wait(broker: Client, position: int, seconds: float, **fields: Any) -> pb.WaitForGroupResponse:
    asked: dict[str, Any] = {"name": "g", "event_tenant_id": "acme", "position": position}
    request = pb.WaitForGroupRequest(**asked | fields)
    request.timeout.FromMilliseconds(round(seconds * 1000))
    return await broker.groups.WaitForGroup(request, timeout=TIMEOUT)


async def test_who_waits_for_a_group_is_answered_when_it_has_settled_everything(
    make_broker: MakeBroker,
) -> None:
    broker, other = await make_broker(), await make_broker()
    async with await broker.subscribe("g") as stream:
        results = await broker.publish(event(), event())
        last = results[-1].position
        first, second = await stream.take(2)
        waiting = asyncio.create_task(wait(other, last, 10))
        assert await broker.ack([second.ack_id]) == [DONE]
        assert not (await wait(other, last, 0.5)).reached
        assert await broker.ack([first.ack_id]) == [DONE]
        assert await waiting == pb.WaitForGroupResponse(reached=True, settled_position=last)


async def test_a_retry_is_waited_for_and_a_dead_letter_is_not(broker: Client) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(event())
        await broker.nack(ack_ids(await stream.take(1)), seconds=0)
        again = await stream.take(1)
        assert await wait(broker, 1, 0.5) == pb.WaitForGroupResponse(reached=False, settled_position=0)
        await broker.nack(ack_ids(again), subscriber_service_pb2.NACK_ACTION_DEAD_LETTER, reason="malformed")
        assert (await wait(broker, 1, 10)).reached


async def test_a_position_that_nothing_was_published_at_is_not_waited_for(broker: Client) -> None:
    await broker.create_group("g")
    await broker.publish(event())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait(broker, 2, 60)
    assert violations(caught.value) == {"position": "must be from 1 to 1, the position of the newest event"}


@pytest.mark.parametrize(
    ("seconds", "fields", "named"),
    [
        (61, {}, {"timeout"}),
        (-1, {"position": 0}, {"timeout", "position"}),
        (1, {"name": "", "event_tenant_id": ""}, {"name", "event_tenant_id"}),
    ],
)
async def test_a_bad_wait_names_each_field(
    broker: Client, seconds: float, fields: dict[str, Any], named: set[str]
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await wait(broker, **{"position": 1, "seconds": seconds} | fields)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(caught.value)) == named
