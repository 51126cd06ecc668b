"""PublishStream: many requests on one stream."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1 import publisher_service_pb2 as pb

from tests.client import DUPLICATE, STORED, TIMEOUT, Client, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.conftest import BrokerProcess

REQUESTS = 200


def request(correlation: int, *events: Any, **fields: Any) -> pb.PublishStreamRequest:
    return pb.PublishStreamRequest(correlation=correlation, request=pb.PublishRequest(events=events, **fields))


class Pipe:
    """A client that keeps to the window."""

    def __init__(self, broker: Client) -> None:
        self._call = broker.publisher.PublishStream(timeout=TIMEOUT)
        self._room = asyncio.Semaphore(1)
        self._window = 1
        self.answers: dict[int, pb.PublishStreamResponse] = {}

    async def send(self, sent: pb.PublishStreamRequest) -> None:
        await self._room.acquire()
        await self._call.write(sent)

    async def half_close(self) -> None:
        await self._call.done_writing()

    async def listen(self) -> None:
        """Until the stream ends."""
        async for answer in self._call:
            self.answers[answer.correlation] = answer
            for _ in range(1 + answer.window - self._window):
                self._room.release()
            self._window = answer.window

    async def code(self) -> grpc.StatusCode:
        return await self._call.code()


async def answered(broker: Client, *requests: pb.PublishStreamRequest) -> dict[int, pb.PublishStreamResponse]:
    pipe = Pipe(broker)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pipe.listen())
        for each in requests:
            await pipe.send(each)
        await pipe.half_close()
    assert await pipe.code() == grpc.StatusCode.OK
    return pipe.answers


async def test_requests_are_stored_in_their_order_and_each_is_answered(broker: Client) -> None:
    answers = await answered(broker, *(request(number, event(), event()) for number in range(REQUESTS)))
    assert sorted(answers) == list(range(REQUESTS))
    positions = [result.position for number in range(REQUESTS) for result in answers[number].response.results]
    assert positions == list(range(1, 2 * REQUESTS + 1))


async def test_what_is_refused_is_told_and_ends_nothing(broker: Client) -> None:
    again = event()
    expected = pb.AggregateExpectation(aggregate_type="User", aggregate_id="nobody", version=3)
    answers = await answered(
        broker,
        request(1, event(tenant_id="", event_id="")),
        request(2),
        request(3, event(), expectations=[expected]),
        request(4, again),
        request(5, again),
        request(6, event(event_id=again.event_id, aggregate_id="other")),
        request(7, event(event_type="X"), mode=pb.PUBLISH_MODE_PER_EVENT),
        pb.PublishStreamRequest(correlation=8),
    )
    codes = {number: answer.error.code for number, answer in answers.items() if answer.HasField("error")}
    invalid, reused, aborted = (
        code.value[0]
        for code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.ABORTED)
    )
    assert codes == {1: invalid, 2: invalid, 3: aborted, 6: reused, 8: invalid}
    fields = {violation.field for violation in answers[1].error.violations}
    assert fields == {"request.events[0].tenant_id", "request.events[0].event_id"}
    assert answers[3].error.reason == "VERSION_CONFLICT"
    conflict = pb.AggregateConflict(aggregate_type="User", aggregate_id="nobody", expected="3", actual=0)
    assert list(answers[3].error.conflicts) == [conflict]
    outcomes = [result.outcome for number in (4, 5) for result in answers[number].response.results]
    assert outcomes == [STORED, DUPLICATE]
    assert answers[7].response.results[0].error.code == invalid


async def test_a_stream_ends_at_its_age_when_all_is_answered(make_broker: Callable[..., Awaitable[Client]]) -> None:
    pipe = Pipe(await make_broker(stream_max_age=0.5))
    await pipe.send(request(1, event()))
    await pipe.listen()
    assert (await pipe.code(), list(pipe.answers)) == (grpc.StatusCode.OK, [1])


async def test_streams_beyond_the_most_are_refused(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(max_streams=1)
    pipe = Pipe(broker)
    await pipe.send(request(1, event()))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(pipe.listen())
        await eventually(lambda: list(pipe.answers) == [1])
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await Pipe(broker).listen()
        assert refused.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        await pipe.half_close()
    assert await pipe.code() == grpc.StatusCode.OK


@pytest.fixture
async def process(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> AsyncIterator[tuple[BrokerProcess, Client]]:
    spawned = await spawn_broker()
    async with Client(spawned.target) as broker:
        yield spawned, broker


async def test_a_broker_that_shuts_down_answers_what_it_has_read(process: tuple[BrokerProcess, Client]) -> None:
    spawned, broker = process
    pipe = Pipe(broker)

    async def publish_on() -> None:
        number = 0
        while True:
            number += 1
            await pipe.send(request(number, event(event_id=f"e{number}")))

    publishing = asyncio.create_task(publish_on())
    listening = asyncio.create_task(pipe.listen())
    await eventually(lambda: len(pipe.answers) >= REQUESTS)
    spawned.signal(signal.SIGTERM)
    with suppress(grpc.aio.AioRpcError):  # a write may meet the end of the stream, or of the connection
        await listening
    publishing.cancel()
    assert await spawned.ended() == 0
    assert all(answer.response.results[0].outcome == STORED for answer in pipe.answers.values())
    assert sorted(pipe.answers) == list(range(1, len(pipe.answers) + 1))
