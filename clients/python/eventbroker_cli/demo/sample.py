"""A sample of the day, to be compared with what the store gives back.

Drawn by the seed before the day begins; the events are kept as they were published. They must come back the same, but
for the fields that are the broker's own.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from typing import TYPE_CHECKING

from eventbroker.v1.event_pb2 import Event
from eventbroker.v1.event_store_service_pb2 import GetEventRequest
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub

from eventbroker_cli.demo.broker import Refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import grpc.aio

    from eventbroker_cli.demo.broker import Broker

SIZE, CALLS = 200, 8


class Sample:
    """The sample of one run. `checked` and `wrong`, the ids of what came back otherwise, are known after `check`."""

    def __init__(self, events: int, seed: int) -> None:
        self.checked = 0
        self.wrong: list[str] = []
        self._numbers = set(random.Random(seed).sample(range(events), min(SIZE, events)))
        self._kept: deque[Event] = deque()

    def of(self, day: Iterable[Event]) -> Iterator[Event]:
        """Hands the day on, and keeps the sample of it."""
        for number, event in enumerate(day):
            if number in self._numbers:
                self._kept.append(event)
            yield event

    async def check(self, broker: Broker) -> None:
        """Asks the store for every event of the sample, however long it takes."""
        async with broker.connect() as channel, asyncio.TaskGroup() as tasks:
            for number in range(CALLS):
                tasks.create_task(self._check(broker, channel), name=f"sample {number}")

    async def _check(self, broker: Broker, channel: grpc.aio.Channel) -> None:
        stub = EventStoreServiceStub(channel)
        while self._kept:
            event = self._kept.popleft()
            try:
                stored = (await broker.insist(stub.GetEvent, request_of(event))).event
            except Refused:
                stored = Event()
            for field in ("aggregate_version", "position", "record_time"):
                stored.ClearField(field)  # the broker's own
            self.checked += 1
            if stored != event:
                self.wrong.append(event.event_id)


def request_of(event: Event) -> GetEventRequest:
    """What asks the store for an event."""
    return GetEventRequest(tenant_id=event.tenant_id, event_id=event.event_id)
