"""ReadEvents: history as a stream, and what comes after it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2 import CLOSING_REASON_MAX_AGE, CLOSING_REASON_SHUTDOWN
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refusal
from tests.client import TIMEOUT, Client, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Awaitable, Callable, Sequence

EVENTS = 1_250


def reading(broker: Client, **fields: Any) -> grpc.aio.UnaryStreamCall[pb.ReadEventsRequest, pb.ReadEventsResponse]:
    return broker.event_store.ReadEvents(pb.ReadEventsRequest(**{"tenant_id": "acme"} | fields), timeout=TIMEOUT)


async def read(broker: Client, **fields: Any) -> list[pb.ReadEventsResponse]:
    return [response async for response in reading(broker, **fields)]


def positions(responses: Sequence[pb.ReadEventsResponse]) -> list[int]:
    return [event.position for response in responses for event in response.events.events]


async def until(call: AsyncIterable[pb.ReadEventsResponse], kind: str) -> list[pb.ReadEventsResponse]:
    """The responses up to one of a kind, that one too."""
    responses = []
    async for response in call:
        responses.append(response)
        if response.WhichOneof("response") == kind:
            return responses
    raise AssertionError(f"the stream ended before {kind}")


@pytest.fixture
async def told(broker: Client) -> Client:
    """A broker with events of two tenants in turn, one in ten of them a role that was granted."""
    for first in range(0, EVENTS, 250):
        events = [
            event(
                event_id=f"e{number}",
                tenant_id=("acme", "other")[number % 2],
                event_type="user.created" if number % 10 else "role.granted",
            )
            for number in range(first, first + 250)
        ]
        await broker.publish(*events, mode=2)
    return broker


async def test_history_is_read_whole_and_in_order_and_then_ends(told: Client) -> None:
    responses = await read(told)
    assert positions(responses) == list(range(1, EVENTS, 2))
    assert (responses[-1].position, responses[-1].head_position) == (EVENTS, EVENTS)
    assert max(len(response.events.events) for response in responses) == 500


async def test_an_event_is_read_as_it_is_stored(broker: Client) -> None:
    sent = event(metadata={"source": "tests", "tags": ["ü"], "attributes": {"a": "b"}}, correlation_id="c")
    await broker.publish(sent)
    (response,) = await read(broker)
    assert list(response.events.events) == [await broker.get_event(sent.event_id)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"after_position": 1_240}, [1_241, 1_243, 1_245, 1_247, 1_249]),
        ({"after_position": 4, "upto_position": 9}, [5, 7, 9]),
        ({"after_position": EVENTS}, []),
        ({"filter": {"event_types": ["role.*"]}, "upto_position": 50}, [1, 11, 21, 31, 41]),
        ({"filter": {"event_types": ["role.*"]}, "tenant_id": "other"}, []),
        ({"tenant_id": "*", "after_position": 5, "upto_position": 8, "max_batch_events": 2}, [6, 7, 8]),
        ({"tenant_id": "nobody"}, []),
    ],
)
async def test_what_is_asked_for_is_read_and_the_position_is_told(
    told: Client, fields: dict[str, Any], expected: list[int]
) -> None:
    responses = await read(told, **fields)
    assert positions(responses) == expected
    assert responses[-1].position == fields.get("upto_position", EVENTS)


async def test_reading_begins_at_a_time(told: Client) -> None:
    at = (await told.get_event("e1000")).record_time
    assert positions(await read(told, recorded_from=at))[0] == 1_001
    assert positions(await read(told, recorded_from=Timestamp(seconds=4_000_000_000))) == []


async def test_who_follows_gets_what_is_stored_later_after_a_marker(told: Client) -> None:
    call = reading(told, after_position=1_246, follow=True)
    assert positions(await until(call, "caught_up")) == [1_247, 1_249]
    for number in range(3):
        await told.publish(event())
        (response,) = await until(call, "events")
        assert (positions([response]), response.position) == ([EVENTS + 1 + number], EVENTS + 1 + number)


async def test_who_follows_hears_what_is_stored_through_another_broker(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    one, other = await make_broker(sweep_interval=60.0), await make_broker()
    call = reading(one, follow=True)
    await until(call, "caught_up")
    await other.publish(event())
    assert positions(await until(call, "events")) == [1]


async def test_a_filter_that_matches_nothing_moves_on(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(heartbeat_interval=0.1)
    call = reading(broker, follow=True, filter={"event_types": ["never"]})
    await until(call, "caught_up")
    await broker.publish(event(), event())
    while (await until(call, "heartbeat"))[-1].position < 2:
        pass


async def test_history_is_read_at_the_rate_that_is_asked_for(told: Client) -> None:
    begun = asyncio.get_running_loop().time()
    responses = await read(told, upto_position=200, max_events_per_second=100)
    assert positions(responses) == list(range(1, 200, 2))
    assert asyncio.get_running_loop().time() - begun > 0.8


async def test_a_slow_reader_still_gets_signs_of_life(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(heartbeat_interval=0.1)
    await broker.publish(event(), event())
    call = reading(broker, max_events_per_second=0.01)
    first = await until(call, "events")
    assert positions(first) == [1]
    assert (await until(call, "heartbeat"))[-1].position == 1


async def test_a_stream_ends_with_a_farewell_at_its_age(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(stream_max_age=0.2)
    responses = await read(broker, follow=True)
    assert responses[-1].closing.reason == CLOSING_REASON_MAX_AGE


async def test_a_broker_that_shuts_down_says_so(spawn_broker: Callable[..., Awaitable[Any]]) -> None:
    process = await spawn_broker()
    async with Client(process.target) as broker:
        await broker.publish(event())
        call = reading(broker, follow=True)
        await until(call, "caught_up")
        process.signal(15)
        (last,) = await until(call, "closing")
        assert (last.closing.reason, last.position) == (CLOSING_REASON_SHUTDOWN, 1)
        assert await call.code() == grpc.StatusCode.OK
    assert await process.ended() == 0


async def test_a_stream_that_nobody_reads_gives_its_place_to_another_after_its_age(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(stream_max_age=0.5, max_streams=1)
    for _ in range(20):
        await broker.publish(event(json='"' + "x" * 900_000 + '"'))
    call = reading(broker, max_batch_events=1)
    await call.read()
    assert (await refusal(read(broker))).code == grpc.StatusCode.RESOURCE_EXHAUSTED

    async def another() -> bool:
        with suppress(grpc.aio.AioRpcError):
            return bool(await read(broker, after_position=20))
        return False

    await eventually(another, timeout=TIMEOUT)
    call.cancel()


ATTRIBUTES = {f"k{number}": "v" * 4096 for number in range(60)}
LARGE: list[tuple[int, dict[str, Any]]] = [
    (6, {"json": '"' + "x" * 1_047_000 + '"'}),
    (20, {"metadata": {"attributes": ATTRIBUTES}}),
]


@pytest.mark.parametrize(("count", "fields"), LARGE, ids=["data", "metadata"])
async def test_no_message_is_more_than_a_client_takes(broker: Client, count: int, fields: dict[str, Any]) -> None:
    for _ in range(count):
        await broker.publish(event(**fields))
    responses = await read(broker)
    assert positions(responses) == list(range(1, count + 1))
    assert [response.position for response in responses] == [
        response.events.events[-1].position for response in responses
    ]
    assert max(response.ByteSize() for response in responses) <= 4 << 20


async def test_readers_beyond_the_most_are_refused(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(max_streams=1)
    call = reading(broker, follow=True)
    await until(call, "caught_up")
    assert (await refusal(read(broker))).code == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_place_beyond_the_head_is_refused_with_the_head(told: Client) -> None:
    beyond = await refusal(read(told, after_position=EVENTS + 1))
    assert (beyond.code, beyond.reason) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_BEYOND")
    assert beyond.details["ErrorInfo"].metadata["head_position"] == str(EVENTS)


async def test_every_bad_field_is_named(broker: Client) -> None:
    bad = pb.ReadEventsRequest(
        tenant_id="a b",
        shard=1,
        filter=pb.EventFilter(event_types=["X"], aggregate_id="u1"),
        after_position=-1,
        upto_position=-1,
        follow=True,
        max_events_per_second=-1,
        max_batch_events=1_001,
    )
    refused = await refusal(broker.event_store.ReadEvents(bad, timeout=TIMEOUT).read())
    assert refused.violations.keys() == {
        "tenant_id",
        "shard",
        "filter.event_types[0]",
        "filter.aggregate_type",
        "after_position",
        "upto_position",
        "max_events_per_second",
        "max_batch_events",
    }
