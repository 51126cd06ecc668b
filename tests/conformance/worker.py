"""A handler that does as a conformance case says, and what it saw."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from eventbroker_client import Reject, Retry

from tests.conformance.client import told

if TYPE_CHECKING:
    from eventbroker_client import Consumer, Event


class Worker:
    """`acts` are, by event id, what to do the first time, the second, ...; after them it succeeds."""

    def __init__(self, consumer: Consumer, acts: dict[str, list[dict[str, Any]]]) -> None:
        self._acts = acts
        self._counts: dict[str, Counter[str]] = {"begun": Counter(), "done": Counter()}
        self.finished = {event_id: asyncio.Event() for event_id in acts}
        self.drain = asyncio.Event()
        consumer.on("*")(self._handle)
        self.task = asyncio.create_task(self._consume(consumer))

    async def _consume(self, consumer: Consumer) -> None:
        """Until it is to drain, or has ended."""
        with told():
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(consumer.run(signals=()))
                asked = tasks.create_task(self.drain.wait())
                await asyncio.wait([running, asked], return_when=asyncio.FIRST_COMPLETED)
                asked.cancel()
                if self.drain.is_set():
                    await consumer.drain()

    def count(self, state: str, event_id: str) -> int:
        if self.task.done():
            self.task.result()  # raises what ended it
        return self._counts[state][event_id]

    async def _handle(self, event: Event) -> None:
        event_id = event.id
        acts = self._acts.get(event_id, [])[self._counts["begun"][event_id] :]
        act = acts[0] if acts else {}
        self._counts["begun"][event_id] += 1
        if act.get("hold"):
            await self.finished[event_id].wait()
        self._counts["done"][event_id] += 1
        if "reject" in act:
            raise Reject(act["reject"])
        if "retry_after" in act:
            raise Retry(act["fail"], delay=act["retry_after"])
        if "fail" in act:
            raise RuntimeError(act["fail"])
