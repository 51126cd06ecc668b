"""Deliveries that fail, through real ports: retries, dead letters, releases."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.dead_letter_service_pb2 import DeadLetterFilter, RedriveDeadLettersRequest
from eventbroker.v1.subscriber_service_pb2 import FlowControl

from tests.client import ALREADY_SETTLED, DONE, OUTDATED, UNKNOWN, ack_ids, event, violations
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1.subscriber_service_pb2 import Delivery
    from redis.asyncio import Redis

    from tests.client import Client, Stream
    from tests.conftest import Stores

    MakeBroker = Callable[..., Awaitable[Client]]


QUERIES = {
    "retries": "SELECT * FROM eventbroker.retries ORDER BY position",
    "dead_letters": "SELECT * FROM eventbroker.dead_letters ORDER BY position",
}


async def rows(stores: Stores, table: str) -> list[dict[str, Any]]:
    connection = await asyncpg.connect(stores.postgres)
    try:
        return [dict(row) for row in await connection.fetch(QUERIES[table])]
    finally:
        await connection.close()


async def one_more(stream: Stream, timeout: float = 15.0) -> Delivery:
    (delivery,) = await stream.take(1, timeout)
    return delivery


async def test_a_nacked_event_comes_again_after_the_back_off_as_the_next_attempt(broker: Client) -> None:
    loop = asyncio.get_running_loop()
    async with await broker.subscribe("g") as stream:
        await broker.publish(event())
        first = await one_more(stream)
        began = loop.time()
        assert await broker.nack([first.ack_id], reason="no luck") == [DONE]
        second = await one_more(stream)
        assert loop.time() - began >= 0.8
        assert (second.event, first.attempt, second.attempt) == (first.event, 1, 2)
        assert await broker.ack([first.ack_id]) == [OUTDATED]
        assert await broker.ack([second.ack_id]) == [DONE]
        assert await broker.ack(ack_ids([first, second])) == [ALREADY_SETTLED, ALREADY_SETTLED]


async def test_the_delay_of_a_nack_is_the_callers(broker: Client) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(event(), event())
        soon, late = await stream.take(2)
        assert await broker.nack([late.ack_id], seconds=3600) == [DONE]
        assert await broker.nack([soon.ack_id], seconds=0) == [DONE]
        assert (await one_more(stream)).event == soon.event
        await stream.nothing_but_heartbeats(2)


async def test_what_waits_for_its_next_attempt_uses_no_credit(broker: Client) -> None:
    async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=1)) as stream:
        await broker.publish(*(event() for _ in range(20)))
        for _ in range(20):
            assert await broker.nack([(await one_more(stream)).ack_id], seconds=3600) == [DONE]


async def test_after_the_last_attempt_an_event_is_a_dead_letter_with_all_errors(broker: Client, stores: Stores) -> None:
    async with await broker.subscribe("g") as stream:
        poison, good = event(), event()
        await broker.publish(poison)
        for attempt in range(1, 11):
            delivery = await one_more(stream)
            assert delivery.attempt == attempt
            await broker.nack([delivery.ack_id], seconds=0, reason=f"error {attempt}")
        await broker.publish(good)
        assert (await one_more(stream)).event.event_id == good.event_id
    (letter,) = await rows(stores, "dead_letters")
    assert (letter["event_id"], letter["attempts"], letter["reason"]) == (poison.event_id, 10, "error 10")
    assert [one["error"] for one in json.loads(letter["history"])] == [f"error {n}" for n in range(1, 11)]
    assert await rows(stores, "retries") == []


async def test_a_rejected_event_is_a_dead_letter_at_once(broker: Client, stores: Stores) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(event(), event())
        first, second = await stream.take(2)
        assert await broker.nack([first.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason="malformed") == [DONE]
        assert await broker.nack([first.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason="again") == [OUTDATED]
        assert await broker.ack([second.ack_id]) == [DONE]
        await stream.nothing_but_heartbeats(2)
    (letter,) = await rows(stores, "dead_letters")
    assert (letter["event_id"], letter["reason"], letter["rejected"]) == (first.event.event_id, "malformed", True)


async def test_a_released_event_goes_to_another_consumer_at_once_and_counts_nothing(
    broker: Client, stores: Stores
) -> None:
    async with await broker.subscribe("g", consumer_id="c1") as first:
        await broker.publish(event())
        delivery = await one_more(first)
        async with await broker.subscribe("g", consumer_id="c2") as second:
            takers = [asyncio.create_task(one_more(stream)) for stream in (first, second)]
            assert await broker.nack([delivery.ack_id], pb.NACK_ACTION_RELEASE) == [DONE]
            done, rest = await asyncio.wait(takers, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            (again,) = (task.result() for task in done)
            assert (again.event, again.attempt) == (delivery.event, 1)
            assert await broker.ack([delivery.ack_id, again.ack_id]) == [OUTDATED, DONE]
            for task in rest:
                task.cancel()
    assert await rows(stores, "retries") == []


async def test_a_nack_through_another_broker_reopens_the_credit(make_broker: MakeBroker) -> None:
    ours, other = await make_broker(), await make_broker()
    async with await ours.subscribe("g", flow_control=FlowControl(max_unsettled_events=1)) as stream:
        await ours.publish(*(event() for _ in range(5)))
        for action in (pb.NACK_ACTION_RETRY, pb.NACK_ACTION_DEAD_LETTER) * 2:
            delivery = await one_more(stream)
            assert await other.nack([delivery.ack_id], action, reason="elsewhere") == [DONE]
        assert await other.ack([(await one_more(stream)).ack_id]) == [DONE]


async def test_a_settled_retry_leaves_no_trace_and_does_not_come_again(
    broker: Client, stores: Stores, redis: Redis
) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(event())
        await broker.nack([(await one_more(stream)).ack_id], seconds=0)
        assert await broker.ack([(await one_more(stream)).ack_id]) == [DONE]
        await eventually(lambda: _empty(stores, "retries"))
        await eventually(lambda: _gone(redis, f"{stores.prefix}:{{0}}:done:*:g"))
        await stream.nothing_but_heartbeats(2)


async def _empty(stores: Stores, table: str) -> bool:
    return not await rows(stores, table)


async def _gone(redis: Redis, key: str) -> bool:
    return not await redis.exists(key)


async def test_retries_outlive_redis_and_a_dead_letter_stays_dead(broker: Client, redis: Redis, stores: Stores) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(event(), event(), event())
        waiting, dead, out = await stream.take(3)
        await broker.nack([waiting.ack_id], seconds=3)
        await broker.nack([dead.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason="malformed")
        await redis.flushall()
        again = await stream.take(2)
        assert {one.event.event_id for one in again} == {out.event.event_id, waiting.event.event_id}
        assert {one.event.event_id: one.attempt for one in again} == {
            out.event.event_id: 1,
            waiting.event.event_id: 2,
        }
        assert await broker.ack(ack_ids(again)) == [DONE, DONE]
        await stream.nothing_but_heartbeats(2)
    assert [letter["event_id"] for letter in await rows(stores, "dead_letters")] == [dead.event.event_id]


async def test_retries_outlive_the_broker(make_broker: MakeBroker) -> None:
    published = event()
    async with await make_broker() as first, await first.subscribe("g") as stream:
        await first.publish(published)
        await first.nack([(await one_more(stream)).ack_id], seconds=1)
    second = await make_broker()
    async with await second.subscribe("g") as stream:
        again = await one_more(stream)
        assert (again.event.event_id, again.attempt) == (published.event_id, 2)


async def test_an_expired_deadline_is_a_failed_attempt_with_its_reason(broker: Client, stores: Stores) -> None:
    async with await broker.subscribe("g", consumer_id="slow", ack_deadline=1) as stream:
        await broker.publish(event())
        await one_more(stream)
        await eventually(lambda: _recorded(stores))
        (retry,) = await rows(stores, "retries")
        (entry,) = json.loads(retry["history"])
        assert (entry["attempt"], entry["consumer"], entry["error"]) == (1, "slow", "not settled before its deadline")
        assert (await one_more(stream)).attempt == 2


async def _recorded(stores: Stores) -> bool:
    return bool(await rows(stores, "retries"))


async def test_an_ephemeral_group_tries_again_at_once_and_drops_what_is_rejected(
    broker: Client, stores: Stores
) -> None:
    async with await broker.subscribe() as stream:
        await broker.publish(event())
        first = await one_more(stream)
        assert await broker.nack([first.ack_id]) == [DONE]
        again = await one_more(stream)
        assert (again.event, again.attempt) == (first.event, 2)
        assert await broker.nack([again.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason="bad") == [DONE]
        await stream.nothing_but_heartbeats(2)
    assert await rows(stores, "dead_letters") == []


async def test_unknown_and_outdated_ids_get_their_outcome_and_change_nothing(broker: Client) -> None:
    async with await broker.subscribe("g") as stream:
        await broker.publish(event())
        delivery = await one_more(stream)
        assert await broker.nack(["nonsense", delivery.ack_id, delivery.ack_id]) == [UNKNOWN, DONE, OUTDATED]


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (pb.NackRequest(), {"ack_ids"}),
        (pb.NackRequest(ack_ids=["x"] * 10_001), {"ack_ids"}),
        (pb.NackRequest(ack_ids=["x"], action=99), {"action"}),  # type: ignore[arg-type]
        (pb.NackRequest(ack_ids=["x"], action=pb.NACK_ACTION_DEAD_LETTER), {"reason"}),
        (pb.NackRequest(ack_ids=["x"], reason="x" * 1025), {"reason"}),
        (pb.NackRequest(reason="\0", action=99), {"ack_ids", "reason", "action"}),  # type: ignore[arg-type]
    ],
    ids=["no ids", "too many ids", "no action", "dead without a reason", "long reason", "several"],
)
async def test_a_bad_nack_names_each_field(broker: Client, request_: pb.NackRequest, fields: set[str]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.subscriber.Nack(request_)
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert set(violations(caught.value)) == fields


@pytest.mark.parametrize(("seconds", "action"), [(-1, 1), (86_401, 1), (1, 3), (1, 2)])
async def test_a_bad_delay_is_refused(broker: Client, seconds: int, action: int) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.nack(["x"], action, seconds=seconds, reason="r")
    assert set(violations(caught.value)) == {"delay"}


async def test_a_redriven_dead_letter_comes_to_its_group_alone_as_a_first_attempt_and_can_die_again(
    broker: Client, stores: Stores
) -> None:
    filter_ = DeadLetterFilter(all=True)
    async with await broker.subscribe("g") as stream, await broker.subscribe("other") as other:
        await broker.publish(event())
        first = await one_more(stream)
        await other.take_and_ack(1)
        for _ in range(2):
            await broker.nack([first.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason="the fault")
            await broker.dead_letters.RedriveDeadLetters(RedriveDeadLettersRequest(group="g", filter=filter_))
            again = await one_more(stream)
            assert (again.event, again.attempt) == (first.event, 1)
            first = again
        assert await broker.nack([first.ack_id], pb.NACK_ACTION_DEAD_LETTER, reason="still there") == [DONE]
        await other.nothing_but_heartbeats(1)
    (letter,) = await rows(stores, "dead_letters")
    assert [one["error"] for one in json.loads(letter["history"])] == ["the fault", "the fault", "still there"]
