"""Jobs side by side, so many at once; those of one lane one after the other, in the order in which they came."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Hashable
from contextvars import copy_context
from typing import Generic, TypeVar

J = TypeVar("J")


class Lanes(Generic[J]):
    """`run` must not raise."""

    def __init__(self, concurrency: int, run: Callable[[J], Awaitable[None]]) -> None:
        self._concurrency = concurrency
        self._run = run
        self._context = copy_context()  # each job starts with a copy, so that none inherits from another
        self._lanes: dict[Hashable, deque[J]] = {}  # of the lanes that run or wait; what runs is in none
        self._ready: deque[Hashable] = deque()  # lanes that wait for their turn
        self._running: set[asyncio.Task[None]] = set()

    def put(self, lane: Hashable, job: J) -> None:
        if lane in self._lanes:
            self._lanes[lane].append(job)
        else:
            self._lanes[lane] = deque([job])
            self._ready.append(lane)
            self._start()

    def clear(self) -> list[J]:
        """Takes out what does not run yet."""
        waiting = [job for lane in self._lanes.values() for job in lane]
        for lane in self._lanes.values():
            lane.clear()
        return waiting

    async def idle(self, timeout: float) -> None:
        """Returns when nothing runs any more; what still does after so many seconds is cancelled."""
        end = asyncio.get_running_loop().time() + timeout
        while self._running and (left := end - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._running, timeout=left)
        await self.cancel()

    async def cancel(self) -> None:
        while running := set(self._running):
            for task in running:
                task.cancel()
            await asyncio.wait(running)

    def _start(self) -> None:
        while self._ready and len(self._running) < self._concurrency:
            lane = self._ready.popleft()
            if not (jobs := self._lanes[lane]):
                del self._lanes[lane]
                continue
            task = asyncio.create_task(
                self._run_one(lane, jobs.popleft()), name=f"eventbroker handler {lane}", context=self._context.copy()
            )
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run_one(self, lane: Hashable, job: J) -> None:
        try:
            await self._run(job)
        finally:
            if (task := asyncio.current_task()) is not None:
                self._running.discard(task)
            self._ready.append(lane)
            self._start()
