"""Consume: deliveries and their settling on one stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1 import subscriber_service_pb2 as pb
from google.protobuf.duration_pb2 import Duration

from tests.acceptance.dialog import Dialog
from tests.acceptance.refused import refused
from tests.client import ALREADY_SETTLED, DONE, OUTDATED, UNKNOWN, ack_ids, event, ids, publish
from tests.faults.proxy import Proxy
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.client import Client, Stream
    from tests.conftest import Stores

    MakeBroker = Callable[..., Awaitable[Client]]

LONG = 600.0


async def drained(dialog: Dialog) -> None:
    """Read until the server ends the stream, because it is drained."""
    while await dialog.read() is not None:
        pass
    assert dialog.closing is not None
    assert dialog.closing.reason == pb.CLOSING_REASON_DRAINED
    assert await dialog.consume.code() == grpc.StatusCode.OK


async def test_a_stream_says_what_subscribe_says(broker: Client) -> None:
    published = event()
    async with await Dialog.begin(broker, "g", consumer_id="c", event_types=["user.*"], ack_deadline=20) as dialog:
        await broker.publish(published)
        (delivery,) = await dialog.take(1)
        assert await broker.get_event(published.event_id) == delivery.event
        assert (dialog.opened.group, dialog.opened.consumer_id, delivery.attempt) == ("g", "c", 1)
        assert dialog.opened.ack_deadline.seconds == 20
        await dialog.nothing_but_heartbeats(2)
        assert dialog.caught_up == 1


async def test_each_settling_is_answered_in_order_with_its_correlation(broker: Client) -> None:
    async with await Dialog.begin(broker, "g") as dialog:
        await publish(broker, 4)
        one, two, three, four = ack_ids(await dialog.take(4))
        await dialog.say(-7, ack=pb.AckRequest(ack_ids=[two, "nonsense", one]))
        await dialog.say(1 << 62, ack=pb.AckRequest(ack_ids=[one, three]))
        await dialog.say(ack=pb.AckRequest(ack_ids=[four]))
        assert await dialog.outcome(0) == [DONE]
        assert list(dialog.outcomes) == [-7, 1 << 62]
        assert [result.ack_id for result in dialog.outcomes[-7]] == [two, "nonsense", one]
        assert await dialog.outcome(-7) == [DONE, UNKNOWN, DONE]
        assert await dialog.outcome(1 << 62) == [ALREADY_SETTLED, DONE]


async def test_acks_on_the_stream_reopen_its_credit(broker: Client) -> None:
    published = await publish(broker, 20)
    flow = pb.FlowControl(max_unsettled_events=3)
    got: list[str] = []
    async with await Dialog.begin(broker, "g", flow_control=flow) as dialog:
        while len(got) < 18:
            taken = await dialog.take(3)
            assert await dialog.ack(ack_ids(taken)) == [DONE] * 3
            got += ids(taken)
        got += ids(await dialog.take(2))
    assert got == published


async def test_a_nack_on_the_stream_brings_the_event_again(broker: Client) -> None:
    async with await Dialog.begin(broker, "g") as dialog:
        await publish(broker)
        (first,) = await dialog.take(1)
        await dialog.say(3, nack=pb.NackRequest(ack_ids=[first.ack_id], delay=Duration(), reason="no luck"))
        assert await dialog.outcome(3) == [DONE]
        (again,) = await dialog.take(1)
        assert (again.event, again.attempt) == (first.event, 2)
        assert await dialog.ack(ack_ids([first, again])) == [ALREADY_SETTLED, DONE]


async def test_an_extension_on_the_stream_keeps_the_event(broker: Client) -> None:
    async with await Dialog.begin(broker, "g", ack_deadline=1) as dialog:
        await publish(broker, 2)
        kept, lost = await dialog.take(2)
        await dialog.say(5, extend=pb.ExtendDeadlineRequest(ack_ids=[kept.ack_id], deadline=Duration(seconds=600)))
        assert await dialog.outcome(5) == [DONE]
        (again,) = await dialog.take(1)
        assert (again.event, again.attempt) == (lost.event, 2)
        assert await dialog.ack([kept.ack_id]) == [DONE]


async def test_a_stream_settles_what_another_was_handed(broker: Client) -> None:
    async with await broker.subscribe("g") as stream, await Dialog.begin(broker, "other") as dialog:
        await publish(broker)
        (delivery,) = await stream.take(1)
        assert await dialog.ack([delivery.ack_id]) == [DONE]


async def test_a_drained_stream_gets_no_more_and_ends_when_all_is_settled(broker: Client) -> None:
    flow = pb.FlowControl(max_unsettled_events=4)
    async with await Dialog.begin(broker, "g", ack_deadline=LONG, flow_control=flow) as dialog:
        await publish(broker, 2)
        held = await dialog.take(2)
        await dialog.say(drain=pb.Drain())
        assert await dialog.ack(ack_ids(held[:1])) == [DONE]  # in order: the drain was heeded
        published = await publish(broker, 3)
        await dialog.nothing_but_heartbeats(2)
        assert await dialog.ack(ack_ids(held[1:])) == [DONE]
        await drained(dialog)
    async with await broker.subscribe("g") as stream:
        assert [each.event_id for each in await stream.take_and_ack(3)] == published


async def test_a_drained_stream_ends_when_the_deadline_of_what_is_out_passes(broker: Client) -> None:
    async with await Dialog.begin(broker, "g", ack_deadline=1) as dialog:
        await publish(broker)
        await dialog.take(1)
        await dialog.say(drain=pb.Drain())
        await drained(dialog)


async def test_what_was_read_for_a_drained_stream_and_not_handed_out_goes_to_others(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    flow = pb.FlowControl(max_batch_events=1)
    async with await Dialog.begin(broker, "g", ack_deadline=LONG, flow_control=flow) as dialog:
        large = [event(json=f'"{"x" * 900_000}"') for _ in range(16)]
        for at in range(0, len(large), 4):
            await broker.publish(*large[at : at + 4])
        first = await dialog.take(1)
        # All are read for it, and few fit into the connection.
        await eventually(lambda: _pending(redis, f"{stores.prefix}:{{0}}:events:user.created", len(large)))
        await dialog.say(drain=pb.Drain())
        async with await broker.subscribe("g") as stream:
            (other,) = await stream.take(1)
            while other.event.event_id != large[-1].event_id:
                (other,) = await stream.take(1)
            assert other.attempt == 1
        assert await broker.ack(ack_ids(first)) == [DONE]


async def _pending(redis: Redis, stream: str, count: int) -> bool:
    (group,) = await redis.xinfo_groups(stream)
    return bool(group["pending"] == count)


async def test_a_half_closed_stream_is_drained(broker: Client) -> None:
    async with await Dialog.begin(broker, "g", ack_deadline=LONG) as dialog:
        await publish(broker)
        held = await dialog.take(1)
        await dialog.consume.done_writing()
        await dialog.nothing_but_heartbeats(2)
        assert await broker.ack(ack_ids(held)) == [DONE]
        await drained(dialog)


async def test_what_a_stream_holds_that_breaks_off_goes_to_another_consumer_at_once(broker: Client) -> None:
    async with await broker.subscribe("g", ack_deadline=LONG, consumer_id="other") as other:
        async with await Dialog.begin(broker, "g") as dialog:
            published = await publish(broker, 100)
            mine, theirs = await asyncio.gather(dialog.take(1), other.take(1))
        rest = await other.take(99, timeout=5)
    assert sorted(ids(theirs + rest)) == sorted(published)
    assert {delivery.attempt for delivery in rest} == {1}
    assert await broker.ack(ack_ids(mine)) == [OUTDATED]


OPEN: dict[str, Any] = {"open": pb.SubscribeRequest(group="g")}
BAD: dict[str, tuple[list[dict[str, Any]], set[str]]] = {
    "nothing first": ([{}], {"open"}),
    "an ack first": ([{"ack": pb.AckRequest(ack_ids=["x"])}], {"open"}),
    "a drain first": ([{"drain": pb.Drain()}], {"open"}),
    "a bad open": (
        [{"open": pb.SubscribeRequest(group="a b", flow_control=pb.FlowControl(max_batch_events=-1))}],
        {"open.group", "open.flow_control.max_batch_events"},
    ),
    "a second open": ([OPEN, OPEN], {"open"}),
    "nothing": ([OPEN, {}], {"request"}),
    "an ack of nothing": ([OPEN, {"ack": pb.AckRequest()}], {"ack.ack_ids"}),
    "a bad nack": (
        [OPEN, {"nack": pb.NackRequest(action=pb.NACK_ACTION_DEAD_LETTER)}],
        {"nack.ack_ids", "nack.reason"},
    ),
    "a bad extension": ([OPEN, {"extend": pb.ExtendDeadlineRequest()}], {"extend.ack_ids", "extend.deadline"}),
}


@pytest.mark.parametrize("case", BAD)
async def test_a_bad_message_ends_the_stream_and_names_each_field(broker: Client, case: str) -> None:
    messages, fields = BAD[case]
    async with Dialog(broker) as dialog:
        for message in messages:
            await dialog.say(**message)
        found = await refused(end(dialog), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert found.violations.keys() == fields


async def end(stream: Stream) -> None:
    while await stream.read() is not None:
        pass


async def test_a_stream_that_is_half_closed_before_it_opens_is_refused(broker: Client) -> None:
    async with Dialog(broker) as dialog:
        await dialog.consume.done_writing()
        await refused(end(dialog), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")


async def test_a_wish_that_does_not_fit_the_group_is_refused(broker: Client) -> None:
    async with await Dialog.begin(broker, "g", event_types=["user.*"]), Dialog(broker) as dialog:
        await dialog.say(open=pb.SubscribeRequest(group="g", event_types=["role.*"]))
        await refused(end(dialog), grpc.StatusCode.FAILED_PRECONDITION, "GROUP_MISMATCH")


async def test_streams_of_both_kinds_are_counted_together(make_broker: MakeBroker) -> None:
    broker = await make_broker(max_streams=1)
    async with await broker.subscribe("g"), Dialog(broker) as dialog:
        await dialog.say(**OPEN)
        await refused(end(dialog), grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")


async def test_a_settling_without_redis_ends_the_stream(make_broker: MakeBroker, stores: Stores) -> None:
    async with Proxy(stores.redis) as to_redis:
        broker = await make_broker(redis_url=to_redis.url, redis_timeout=1.0)
        async with await Dialog.begin(broker, "g") as dialog:
            await publish(broker)
            (delivery,) = await dialog.take(1)
            to_redis.cut()
            await dialog.say(ack=pb.AckRequest(ack_ids=[delivery.ack_id]))
            await refused(end(dialog), grpc.StatusCode.UNAVAILABLE, "STREAMS_UNAVAILABLE")
            to_redis.restore()


async def test_a_stream_is_closed_when_another_opens_with_its_consumer_id(broker: Client) -> None:
    async with (
        await Dialog.begin(broker, "g", consumer_id="c") as dialog,
        await broker.subscribe("g", consumer_id="c"),
    ):
        await end(dialog)
    assert dialog.closing is not None
    assert dialog.closing.reason == pb.CLOSING_REASON_REPLACED
