"""Reading: history as a stream, in the order of positions, and then what is stored from then on.

All of it comes from PostgreSQL, where positions have no gap and their order is the order of commits: who asks for what
is after the last position misses nothing. The next page is read while the last one is sent, and no more than that.
"""

from __future__ import annotations

import asyncio
import math
import random
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.consumer import ClosingReason
from eventbroker_server.broker.subscription import CaughtUp, Farewell
from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import Overloaded, PositionBeyond, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence

    from eventbroker_server.broker.heads import Head
    from eventbroker_server.broker.subscription import StreamTimes
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.domain.history import EventFilter
    from eventbroker_server.ports import EventReader, Read

_TURN = 0.1  # seconds for which events go out together, when a rate is asked for


@dataclass(frozen=True, slots=True)
class Reading:
    """What is to be read: what is asked for of a tenant, or of all, after a position. Up to a position, which may be 0
    for the head, or on and on. History at so many events a second; 0 is as fast as it goes."""

    tenant: str
    shard: int
    asked: EventFilter
    after: int = 0
    upto: int = 0
    follow: bool = False
    rate: float = 0.0
    most: int = 500  # events at a time


class SignOfLife(NamedTuple):
    """Nothing was asked for of what was looked at."""


class Said(NamedTuple):
    """What a reader says, and that all up to the position was sent with it or before."""

    what: list[StoredEvent] | SignOfLife | CaughtUp | Farewell
    position: int
    head: int


class Readers:
    """Those that are open."""

    def __init__(self, store: EventReader, heads: Sequence[Head], times: StreamTimes, most: int) -> None:
        self._store = store
        self._heads = heads
        self._times = times
        self._most = most
        self._open: set[Reader] = set()
        self._closed = False

    @asynccontextmanager
    async def open(self, reading: Reading) -> AsyncIterator[AsyncGenerator[Said, None]]:
        """What a new reader says, until it has come to its end. Raises Overloaded, ShuttingDown, PositionBeyond, and
        StoreUnavailable, also while it reads."""
        if len(self._open) >= self._most:
            raise Overloaded("open readers", self._most)
        if self._closed:
            raise ShuttingDown
        reader = Reader(self._store, self._heads[reading.shard], self._times, reading)
        self._open.add(reader)
        try:
            async with aclosing(reader.run()) as said:
                yield said
        finally:
            self._open.discard(reader)

    def close(self) -> None:
        """Open no more, and end all with a farewell."""
        self._closed = True
        for reader in self._open:
            reader.close()


class Reader:
    """One stream."""

    def __init__(self, store: EventReader, head: Head, times: StreamTimes, reading: Reading) -> None:
        now = asyncio.get_running_loop().time()
        self._store = store
        self._head = head
        self._heartbeat = times.heartbeat
        self._reading = reading
        self._position = reading.after
        self._told = -1  # of the position
        self._wake = asyncio.Event()
        self._closing = False
        self._ends_at = now + times.max_age * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, hides nothing
        self._beat_at = now + times.heartbeat

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    async def run(self) -> AsyncGenerator[Said, None]:
        reading = self._reading
        head = await self._head.ask()
        if reading.after > head:
            raise PositionBeyond(head_position=str(head))
        goal = min(reading.upto or head, head)
        async with aclosing(self._read(goal, reading.rate)) as history:
            async for said in history:
                yield said
        if reading.follow and not self._over:
            yield self._say(CaughtUp())
            async with aclosing(self._follow()) as live:
                async for said in live:
                    yield said
        if self._over:
            reason = ClosingReason.SHUTDOWN if self._closing else ClosingReason.MAX_AGE
            yield self._say(Farewell(reason, random.uniform(0.0, 1.0)))  # noqa: S311 - spreads load
        elif self._told != self._position:
            yield self._say(SignOfLife())

    async def _follow(self) -> AsyncGenerator[Said, None]:
        with self._head.followed(self._wake):
            while not self._over:
                self._wake.clear()
                if (head := self._head.position) > self._position:
                    async with aclosing(self._read(head)) as news:
                        async for said in news:
                            yield said
                elif self._is_quiet:
                    yield self._say(SignOfLife())
                else:
                    await self._sleep()

    async def _read(self, goal: int, rate: float = 0.0) -> AsyncGenerator[Said, None]:
        """What is asked for up to a position, unless the stream is over before."""
        loop = asyncio.get_running_loop()
        most = min(self._reading.most, math.ceil(rate * _TURN)) if rate else self._reading.most
        next_at = 0.0
        ahead: asyncio.Task[Read] | None = None
        try:
            while self._position < goal and not self._over:
                page = await (ahead or self._page(self._position, goal))
                ahead = asyncio.create_task(self._page(page.reached, goal)) if page.reached < goal else None
                for first in range(0, len(page.events), most):
                    while loop.time() < next_at and not self._over:
                        await self._sleep(next_at)
                        if self._is_quiet:
                            yield self._say(SignOfLife())
                    if self._over:
                        return
                    events = page.events[first : first + most]
                    self._position = events[-1].position if first + most < len(page.events) else page.reached
                    next_at = max(next_at, loop.time()) + (len(events) / rate if rate else 0.0)
                    yield self._say(events)
                self._position = page.reached
                if self._is_quiet:
                    yield self._say(SignOfLife())
        finally:
            if ahead is not None:
                ahead.cancel()
                await asyncio.wait((ahead,))

    async def _page(self, after: int, upto: int) -> Read:
        return await self._store.page(self._reading.shard, self._reading.tenant, self._reading.asked, after, upto)

    async def _sleep(self, until: float = math.inf) -> None:
        """Until then, or the next sign of life, or something happens."""
        until = min(until, self._beat_at, self._ends_at)
        await wait_for(self._wake, max(0.0, until - asyncio.get_running_loop().time()))

    def _say(self, what: list[StoredEvent] | SignOfLife | CaughtUp | Farewell) -> Said:
        self._beat_at = asyncio.get_running_loop().time() + self._heartbeat
        self._told = self._position
        return Said(what, self._position, max(self._position, self._head.position))

    @property
    def _is_quiet(self) -> bool:
        return asyncio.get_running_loop().time() >= self._beat_at

    @property
    def _over(self) -> bool:
        return self._closing or asyncio.get_running_loop().time() >= self._ends_at
