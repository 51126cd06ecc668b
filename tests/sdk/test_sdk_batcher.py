"""The batcher and the room before it, with a transport of the test's own."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from eventbroker.v1.event_pb2 import Event as Message
from eventbroker_client import Closed, EventBrokerError, EventIdReused, Published, Unavailable
from eventbroker_client.publishing.batcher import Batcher
from eventbroker_client.publishing.room import Room

from tests.client import TIMEOUT
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Sequence


class Transport:
    """Notes the ids of each call, fails as told first, and answers when it is let go."""

    def __init__(self, *failures: EventBrokerError) -> None:
        self.calls: list[list[str]] = []
        self.failures = list(failures)
        self.refused: dict[str, EventBrokerError] = {}
        self.go = asyncio.Event()

    async def send(self, messages: Sequence[Message], timeout: float) -> list[Published | EventBrokerError]:
        self.calls.append([message.event_id for message in messages])
        await self.go.wait()
        if self.failures:
            raise self.failures.pop(0)
        return [self.refused.get(message.event_id) or Published(message.event_id, 1, 1, False) for message in messages]


def publishing(batcher: Batcher, *ids: str, size: int = 0) -> list[asyncio.Task[Published]]:
    messages = [Message(event_id=each, json="x" * size) for each in ids]
    return [asyncio.create_task(batcher.publish(message, TIMEOUT)) for message in messages]


async def test_the_first_goes_alone_and_at_once_and_what_comes_meanwhile_goes_together() -> None:
    transport = Transport()
    batcher = Batcher(transport.send)
    tasks = publishing(batcher, "a")
    await eventually(lambda: transport.calls)
    tasks += publishing(batcher, "b", "c", "d")
    await asyncio.sleep(0)
    transport.go.set()
    await asyncio.gather(*tasks)
    assert transport.calls == [["a"], ["b", "c", "d"]]


async def test_what_failed_on_the_way_goes_again_before_what_came_later() -> None:
    transport = Transport(Unavailable("1"), Unavailable("2"))
    batcher = Batcher(transport.send)
    tasks = publishing(batcher, "a")
    await eventually(lambda: transport.calls)
    tasks += publishing(batcher, "b")
    await asyncio.sleep(0)
    transport.go.set()
    assert [published.event_id for published in await asyncio.gather(*tasks)] == ["a", "b"]
    assert transport.calls[0] == ["a"]
    assert transport.calls[1:] == [["a", "b"]] * 2


async def test_one_that_is_refused_fails_alone() -> None:
    transport = Transport()
    transport.go.set()
    transport.refused["b"] = EventIdReused()
    batcher = Batcher(transport.send)
    results = await asyncio.gather(*publishing(batcher, "a", "b", "c"), return_exceptions=True)
    assert [type(result) for result in results] == [Published, EventIdReused, Published]


async def test_an_id_is_once_in_a_call_and_a_call_is_not_too_large() -> None:
    transport = Transport()
    transport.go.set()
    batcher = Batcher(transport.send)
    await asyncio.gather(*publishing(batcher, "a", "a", "b"))
    assert transport.calls == [["a"], ["a", "b"]]
    transport.calls.clear()
    await asyncio.gather(*publishing(batcher, *"abcdef", size=1_500_000))
    assert transport.calls == [["a", "b"], ["c", "d"], ["e", "f"]]


async def test_who_publishes_more_than_there_is_room_for_waits() -> None:
    transport = Transport()
    batcher = Batcher(transport.send, room_events=2)
    tasks = publishing(batcher, "a", "b", "c")
    await eventually(lambda: transport.calls)
    with pytest.raises(Unavailable, match="too much waits"):
        await batcher.publish(Message(event_id="d"), 0.05)
    transport.go.set()
    await asyncio.gather(*tasks)
    assert sorted(sum(transport.calls, [])) == ["a", "b", "c"]  # noqa: RUF017 - short


async def test_at_its_end_it_waits_for_what_is_under_way_and_fails_the_rest() -> None:
    transport = Transport()
    batcher = Batcher(transport.send)
    tasks = publishing(batcher, "a")
    await eventually(lambda: transport.calls)
    await batcher.close(0.05)
    results = await asyncio.gather(*tasks, *publishing(batcher, "b"), return_exceptions=True)
    assert [type(result) for result in results] == [Closed, Closed]


async def test_a_fault_of_the_transport_ends_with_its_call() -> None:
    class Faulty(Transport):
        async def send(self, messages: Sequence[Message], timeout: float) -> list[Published | EventBrokerError]:
            if messages[0].event_id == "a":
                raise ZeroDivisionError
            return await super().send(messages, timeout)

    transport = Faulty()
    transport.go.set()
    batcher = Batcher(transport.send)
    with pytest.raises(ZeroDivisionError):
        await publishing(batcher, "a")[0]
    assert (await publishing(batcher, "b")[0]).event_id == "b"


async def test_room_is_given_in_order_also_to_the_large() -> None:
    room = Room(10, 100)
    await room.enter(80)
    order: list[str] = []

    async def enter(name: str, size: int) -> None:
        await room.enter(size)
        order.append(name)

    tasks = [asyncio.create_task(enter("large", 500)), asyncio.create_task(enter("small", 1))]
    await asyncio.sleep(0)
    assert order == []
    room.leave(80)
    await tasks[0]
    assert order == ["large"]
    room.leave(500)
    await tasks[1]


async def test_who_gives_up_waiting_takes_no_room() -> None:
    room = Room(1, 100)
    await room.enter(1)
    first, second = (asyncio.create_task(room.enter(1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    room.leave(1)
    async with asyncio.timeout(TIMEOUT):
        await second
