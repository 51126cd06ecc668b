"""Order by aggregate, through real ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from eventbroker.v1 import group_service_pb2 as groups
from eventbroker.v1.dead_letter_service_pb2 import DeadLetterFilter, ListDeadLettersRequest, RedriveDeadLettersRequest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, START_POINT_EARLIEST, FlowControl

from tests.client import DONE, TIMEOUT, ack_ids, event, violations
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1.event_pb2 import Event
    from eventbroker.v1.subscriber_service_pb2 import Delivery
    from redis.asyncio import Redis

    from tests.client import Client, Stream
    from tests.conftest import Stores

BY_AGGREGATE = groups.ORDERING_BY_AGGREGATE


def of(aggregate: str, name: str, event_type: str = "user.created") -> Event:
    return event(aggregate_id=aggregate, event_id=name, event_type=event_type)


def names(deliveries: list[Delivery]) -> list[str]:
    return [delivery.event.event_id for delivery in deliveries]


async def ordered_group(broker: Client, *event_types: str, hold: bool = False, backoff: float = 0.1) -> None:
    policy = groups.RetryPolicy(max_attempts=2)
    policy.initial_backoff.FromMilliseconds(round(backoff * 1000))
    letters = groups.DeadLetterPolicy(hold_aggregate=hold)
    await broker.create_group("g", *event_types, ordering=BY_AGGREGATE, retry_policy=policy, dead_letter_policy=letters)


async def comes(stream: Stream, *expected: str) -> list[Delivery]:
    """The next deliveries, which are these in any order."""
    taken = await stream.take(len(expected))
    assert sorted(names(taken)) == sorted(expected)
    return taken


async def settle(client: Client, deliveries: list[Delivery]) -> None:
    assert await client.ack(ack_ids(deliveries)) == [DONE] * len(deliveries)


async def dead_letters(client: Client) -> list[str]:
    found = await client.dead_letters.ListDeadLetters(ListDeadLettersRequest(group="g"), timeout=TIMEOUT)
    return sorted(letter.event_id for letter in found.dead_letters)


async def redrive(client: Client, *event_ids: str) -> int:
    wanted = DeadLetterFilter(event_ids=event_ids, event_tenant_id="acme") if event_ids else DeadLetterFilter(all=True)
    request = RedriveDeadLettersRequest(group="g", filter=wanted)
    return (await client.dead_letters.RedriveDeadLetters(request, timeout=TIMEOUT)).redriven


async def state(client: Client, event_id: str) -> groups.ExplainDeliveryResponse:
    request = groups.ExplainDeliveryRequest(name="g", event_tenant_id="acme", event_id=event_id)
    return await client.groups.ExplainDelivery(request, timeout=TIMEOUT)


async def test_the_next_event_of_an_aggregate_comes_when_the_one_before_is_settled(broker: Client) -> None:
    await ordered_group(broker)
    single, double = FlowControl(max_unsettled_events=1), FlowControl(max_unsettled_events=2)
    one, other = await broker.subscribe("g", flow_control=single), await broker.subscribe("g", flow_control=double)
    async with one, other:
        await broker.publish(of("a", "a1"), of("a", "a2", "user.updated"), of("a", "a3"))
        await broker.publish(of("b", "b1"), of("c", "c1"))
        first = [*await one.take(1), *await other.take(2)]
        assert sorted(names(first)) == ["a1", "b1", "c1"]
        await settle(broker, [delivery for delivery in first if delivery.event.event_id != "a1"])
        await other.nothing_but_heartbeats(2)
        assert (await state(broker, "a2")).behind_event_id == "a1"
        assert (await state(broker, "a3")).state == groups.DELIVERY_STATE_BEHIND
        await settle(broker, [delivery for delivery in first if delivery.event.event_id == "a1"])
        one.close()
        await settle(broker, await comes(other, "a2"))
        await settle(broker, await comes(other, "a3"))
        assert (await state(broker, "a3")).state == groups.DELIVERY_STATE_SETTLED


async def test_the_history_of_an_aggregate_comes_in_its_order_whatever_its_types(broker: Client) -> None:
    published = [of(f"u{number % 7}", f"{number:03}", f"user.t{number % 5}") for number in range(200)]
    await broker.publish(*published[:100])
    await ordered_group(broker, "user.*")
    seen: dict[str, list[str]] = {}
    async with await broker.subscribe("g") as stream:
        await broker.publish(*published[100:])
        for delivered in await stream.take_and_ack(200):
            seen.setdefault(delivered.aggregate_id, []).append(delivered.event_id)
    assert seen == {f"u{rest}": [f"{number:03}" for number in range(rest, 200, 7)] for rest in range(7)}


async def test_an_event_that_waits_for_its_next_attempt_holds_back_its_aggregate_only(broker: Client) -> None:
    await ordered_group(broker, backoff=1)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"), of("b", "b1"), of("b", "b2"))
        first = {delivery.event.event_id: delivery for delivery in await comes(stream, "a1", "b1")}
        assert await broker.nack([first["a1"].ack_id], reason="not yet") == [DONE]
        await settle(broker, [first["b1"]])
        await settle(broker, await comes(stream, "b2"))
        assert (await state(broker, "a1")).state == groups.DELIVERY_STATE_RETRY
        assert (await state(broker, "a2")).behind_event_id == "a1"
        again = await comes(stream, "a1")
        assert again[0].attempt == 2
        await settle(broker, again)
        await settle(broker, await comes(stream, "a2"))
        assert (await broker.get_group("g")).status.waiting_retries in (0, 1)


async def test_a_dead_event_lets_the_next_of_its_aggregate_go(broker: Client) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"), of("a", "a3"))
        for _ in range(2):
            await broker.nack(ack_ids(await comes(stream, "a1")))
        second = await comes(stream, "a2")
        assert await dead_letters(broker) == ["a1"]
        assert await redrive(broker) == 1
        await eventually(lambda: _is(broker, "a1", groups.DELIVERY_STATE_BEHIND))
        await settle(broker, second)
        await settle(broker, await comes(stream, "a1"))
        await settle(broker, await comes(stream, "a3"))
        assert await dead_letters(broker) == []


@pytest.mark.parametrize("fails_first", [True, False], ids=["which-waits", "which-fails-then"])
async def test_a_redriven_event_goes_before_a_later_one_that_fails(broker: Client, *, fails_first: bool) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"))
        await broker.nack(ack_ids(await comes(stream, "a1")), NACK_ACTION_DEAD_LETTER, reason="poison")
        second = ack_ids(await comes(stream, "a2"))
        if fails_first:
            assert await broker.nack(second, seconds=2) == [DONE]
        assert await redrive(broker) == 1
        if not fails_first:
            await eventually(lambda: _is(broker, "a1", groups.DELIVERY_STATE_BEHIND))
            assert await broker.nack(second, seconds=2) == [DONE]
        await settle(broker, await comes(stream, "a1"))
        await settle(broker, await comes(stream, "a2"))


async def _is(client: Client, event_id: str, wanted: int) -> bool:
    return (await state(client, event_id)).state == wanted


async def test_a_dead_event_holds_back_what_follows_until_all_are_redriven_in_order(broker: Client) -> None:
    await ordered_group(broker, hold=True)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"), of("b", "b1"), of("a", "a3"))
        first = {delivery.event.event_id: delivery for delivery in await comes(stream, "a1", "b1")}
        assert await broker.nack([first["a1"].ack_id], NACK_ACTION_DEAD_LETTER, reason="poison") == [DONE]
        await eventually(lambda: _are_dead(broker, "a1", "a2", "a3"))
        await broker.publish(of("a", "a4"), of("b", "b2"))
        await eventually(lambda: _are_dead(broker, "a1", "a2", "a3", "a4"))
        letter = await state(broker, "a4")
        assert letter.last_error == "behind the event at 4 of its aggregate, which is dead"
        assert letter.failed_attempts == 0
        await settle(broker, [first["b1"]])
        await settle(broker, await comes(stream, "b2"))
        assert await redrive(broker) == 4
        await broker.publish(of("a", "a5"))
        for name in ("a1", "a2", "a3", "a4", "a5"):
            await settle(broker, await comes(stream, name))
        assert await dead_letters(broker) == []


async def test_what_is_redriven_comes_as_soon_as_the_one_before_it_is_settled(broker: Client) -> None:
    await ordered_group(broker, hold=True)
    async with await broker.subscribe("g") as stream:
        line = [f"a{number:02}" for number in range(40)]
        await broker.publish(*(of("a", name) for name in line))
        await broker.nack(ack_ids(await comes(stream, "a00")), NACK_ACTION_DEAD_LETTER, reason="poison")
        await eventually(lambda: _are_dead(broker, *line))
        assert await redrive(broker) == 40
        assert [event.event_id for event in await stream.take_and_ack(40, timeout=10)] == line


async def _are_dead(client: Client, *event_ids: str) -> bool:
    return await dead_letters(client) == sorted(event_ids)


async def test_what_is_redriven_before_the_dead_event_it_follows_is_dead_again(broker: Client) -> None:
    await ordered_group(broker, hold=True)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"))
        await broker.nack(ack_ids(await comes(stream, "a1")), NACK_ACTION_DEAD_LETTER, reason="poison")
        await eventually(lambda: _are_dead(broker, "a1", "a2"))
        assert await redrive(broker, "a2") == 1
        await eventually(lambda: _are_dead(broker, "a1", "a2"))
        assert await redrive(broker) == 2
        await settle(broker, await comes(stream, "a1"))
        await settle(broker, await comes(stream, "a2"))


@pytest.mark.parametrize("hold", [False, True], ids=["skip", "hold"])
async def test_the_order_survives_the_loss_of_redis(broker: Client, redis: Redis, *, hold: bool) -> None:
    await ordered_group(broker, hold=hold, backoff=2)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"), of("b", "b1"), of("b", "b2"))
        first = {delivery.event.event_id: delivery for delivery in await comes(stream, "a1", "b1")}
        await broker.nack([first["a1"].ack_id])
        await redis.flushall()
        again = await comes(stream, "b1")
        await settle(broker, again)
        await settle(broker, await comes(stream, "b2"))
        retried = await comes(stream, "a1")
        assert retried[0].attempt == 2
        await settle(broker, retried)
        await settle(broker, await comes(stream, "a2"))


async def test_what_a_dead_event_holds_back_is_held_back_after_the_loss_of_redis(broker: Client, redis: Redis) -> None:
    await ordered_group(broker, hold=True)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"))
        await broker.nack(ack_ids(await comes(stream, "a1")), NACK_ACTION_DEAD_LETTER, reason="poison")
        await eventually(lambda: _are_dead(broker, "a1"))
        await redis.flushall()
        await broker.publish(of("a", "a2"), of("b", "b1"))
        await settle(broker, await comes(stream, "b1"))
        await eventually(lambda: _are_dead(broker, "a1", "a2"))


async def test_an_event_of_a_consumer_that_leaves_goes_to_another_before_the_next(broker: Client) -> None:
    await ordered_group(broker)
    few = FlowControl(max_unsettled_events=1)
    async with await broker.subscribe("g", flow_control=few) as one:
        await broker.publish(of("a", "a1"), of("a", "a2"))
        await comes(one, "a1")
    async with await broker.subscribe("g") as other:
        taken = await comes(other, "a1")
        assert taken[0].attempt == 1
        await settle(broker, taken)
        await settle(broker, await comes(other, "a2"))


async def test_two_brokers_serve_an_ordered_group_at_once(make_broker: Callable[..., Awaitable[Client]]) -> None:
    here, there = await make_broker(), await make_broker()
    await ordered_group(here)
    few = FlowControl(max_unsettled_events=1)
    async with await here.subscribe("g", flow_control=few) as one, await there.subscribe("g", flow_control=few) as two:
        await here.publish(of("a", "a1"), of("b", "b1"), of("a", "a2"), of("b", "b2"))
        first, second = await one.take(1), await two.take(1)
        assert sorted(names(first + second)) == ["a1", "b1"]
        await settle(there, first)  # through the other broker
        after = await one.take(1)
        assert names(after) == [names(first)[0][0] + "2"]
        await settle(here, second + after)
        one.close()
        await settle(here, await two.take(1))


async def test_a_seek_brings_an_aggregate_back_in_its_order(broker: Client) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1"), of("a", "a2"), of("a", "a3"))
        for name in ("a1", "a2"):
            await settle(broker, await comes(stream, name))
        await comes(stream, "a3")
        request = groups.SeekGroupRequest(name="g", to=groups.LogPoint(edge=START_POINT_EARLIEST))
        await broker.groups.SeekGroup(request, timeout=TIMEOUT)
        for name in ("a1", "a2", "a3"):
            await settle(broker, await comes(stream, name))


async def test_another_filter_takes_effect_for_what_is_not_fed_and_blocks_nothing(broker: Client) -> None:
    await ordered_group(broker, "user.*", backoff=1)
    async with await broker.subscribe("g") as stream:
        await broker.publish(of("a", "a1", "user.x"), of("a", "a2", "user.x"), of("a", "a3", "user.y"))
        await broker.nack(ack_ids(await comes(stream, "a1")))
        change = groups.UpdateGroupRequest(name="g", event_types=["user.y"])
        change.update_mask.paths.append("event_types")
        await broker.groups.UpdateGroup(change, timeout=TIMEOUT)
        await settle(broker, await comes(stream, "a3"))
        await broker.publish(of("a", "a4", "user.x"), of("a", "a5", "user.y"))
        await settle(broker, await comes(stream, "a5"))
        assert (await broker.get_group("g")).status.waiting_retries == 0


async def test_the_checkpoint_comes_to_the_head_when_all_is_settled(broker: Client, stores: Stores) -> None:
    await ordered_group(broker)
    async with await broker.subscribe("g") as stream:
        results = await broker.publish(*(of(f"u{number % 3}", f"{number:03}") for number in range(30)))
        await stream.take_and_ack(30)
        request = groups.WaitForGroupRequest(name="g", event_tenant_id="acme", position=results[-1].position)
        assert (await broker.groups.WaitForGroup(request, timeout=TIMEOUT)).reached
    connection = await asyncpg.connect(stores.postgres)
    try:
        sql = "SELECT checkpoint FROM eventbroker.group_shards WHERE name = 'g'"
        await eventually(lambda: _at(connection, sql, results[-1].position))
    finally:
        await connection.close()


async def _at(connection: asyncpg.Connection, sql: str, position: int) -> bool:
    return bool(await connection.fetchval(sql) == position)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"ordering": 7}, "ordering"),
        ({"dead_letter_policy": groups.DeadLetterPolicy(hold_aggregate=True)}, "dead_letter_policy.hold_aggregate"),
    ],
)
async def test_a_bad_ordering_is_refused_by_name(broker: Client, fields: dict[str, object], field: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await broker.create_group("g", **fields)
    assert list(violations(refused.value)) == [field]


async def test_holding_back_is_refused_for_a_group_without_order(broker: Client) -> None:
    await broker.create_group("g")
    change = groups.UpdateGroupRequest(name="g", dead_letter_policy=groups.DeadLetterPolicy(hold_aggregate=True))
    change.update_mask.paths.append("dead_letter_policy")
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await broker.groups.UpdateGroup(change, timeout=TIMEOUT)
    assert list(violations(refused.value)) == ["dead_letter_policy.hold_aggregate"]
