"""Publishers: a few that work side by side, each with a connection of its own, until the day is stored.

Events go out in batches of one tenant. A tenant's batches go one after another, whichever publisher takes them, so that
its events are stored in their order. Few batches wait at a time, so that memory does not grow with the day.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from eventbroker.v1.publisher_service_pb2 import PUBLISH_OUTCOME_DUPLICATE, PUBLISH_OUTCOME_STORED, PublishRequest
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventbroker.v1.event_pb2 import Event

    from eventbroker_cli.demo.broker import Broker
    from eventbroker_cli.demo.ledger import Ledger


class Publishers:
    """So many publishers, which note in the books what they send and what they are answered."""

    def __init__(self, broker: Broker, ledger: Ledger, *, count: int, batch: int) -> None:
        self._broker, self._ledger, self._count, self._batch = broker, ledger, count, batch
        self._lanes = Lanes(4 * count)

    async def publish(self, day: Iterable[Event]) -> None:
        """Publishes all events, and returns when all are stored. Raises an ExceptionGroup of Refused."""
        async with asyncio.TaskGroup() as tasks:
            publishers = [tasks.create_task(self._work(), name=f"publisher {n}") for n in range(1, self._count + 1)]
            held: dict[str, list[Event]] = {}
            for number, event in enumerate(day):
                batch = held.setdefault(event.tenant_id, [])
                batch.append(event)
                if len(batch) == self._batch:
                    await self._lanes.put(held.pop(event.tenant_id))
                if number % 100 == 0:
                    await asyncio.sleep(0)  # making events must not hold up the streams
            for batch in held.values():
                await self._lanes.put(batch)
            await self._lanes.drained()
            for publisher in publishers:
                publisher.cancel()

    async def _work(self) -> None:
        async with self._broker.connect() as channel:
            stub = PublisherServiceStub(channel)
            while True:
                batch = await self._lanes.take()
                for event in batch:
                    self._ledger.note_published(event.event_id, event.event_type)
                answer = await self._broker.insist(stub.Publish, PublishRequest(events=batch))
                for result in answer.results:
                    if result.outcome in (PUBLISH_OUTCOME_STORED, PUBLISH_OUTCOME_DUPLICATE):
                        duplicate = result.outcome == PUBLISH_OUTCOME_DUPLICATE
                        self._ledger.note_stored(result.event_id, result.position, duplicate=duplicate)
                self._lanes.done(batch)


class Lanes:
    """Batches on their way to the publishers, a lane for each tenant; at most `room` of them wait or are under way."""

    def __init__(self, room: int) -> None:
        self._size, self._room = room, asyncio.Semaphore(room)
        self._lanes: dict[str, deque[list[Event]]] = {}  # of the tenants that wait or are under way
        self._free: asyncio.Queue[deque[list[Event]]] = asyncio.Queue()  # those that wait

    async def put(self, batch: list[Event]) -> None:
        await self._room.acquire()
        tenant = batch[0].tenant_id
        if tenant in self._lanes:
            self._lanes[tenant].append(batch)
        else:
            self._lanes[tenant] = deque([batch])
            self._free.put_nowait(self._lanes[tenant])

    async def take(self) -> list[Event]:
        return (await self._free.get()).popleft()

    def done(self, batch: list[Event]) -> None:
        """The batch that was taken is stored."""
        self._room.release()
        tenant = batch[0].tenant_id
        if self._lanes[tenant]:
            self._free.put_nowait(self._lanes[tenant])
        else:
            del self._lanes[tenant]

    async def drained(self) -> None:
        """All batches are stored. Nothing may be put after this."""
        for _ in range(self._size):
            await self._room.acquire()
