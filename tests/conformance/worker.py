"""A handler that does as a conformance case says, and what it saw."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.conformance.client import Reject, RetryAfter

if TYPE_CHECKING:
    from eventbroker.v1 import subscriber_service_pb2 as pb

    from tests.conformance.client import Client


class Worker:
    """`acts` are, by event id, what to do the first time, the second, ...; after them it succeeds."""

    def __init__(
        self, client: Client, request: pb.SubscribeRequest, concurrency: int, acts: dict[str, list[dict[str, Any]]]
    ) -> None:
        self._acts = acts
        self._counts: dict[str, Counter[str]] = {"begun": Counter(), "done": Counter()}
        self.finished = {event_id: asyncio.Event() for event_id in acts}
        self.drain = asyncio.Event()
        self.task = asyncio.create_task(client.consume(request, concurrency, self._handle, self.drain))

    def count(self, state: str, event_id: str) -> int:
        if self.task.done():
            self.task.result()  # raises what ended it
        return self._counts[state][event_id]

    async def _handle(self, delivery: pb.Delivery) -> None:
        event_id = delivery.event.event_id
        acts = self._acts.get(event_id, [])[self._counts["begun"][event_id] :]
        act = acts[0] if acts else {}
        self._counts["begun"][event_id] += 1
        if act.get("hold"):
            await self.finished[event_id].wait()
        self._counts["done"][event_id] += 1
        if "reject" in act:
            raise Reject(act["reject"])
        if "retry_after" in act:
            raise RetryAfter(act["fail"], act["retry_after"])
        if "fail" in act:
            raise RuntimeError(act["fail"])
