"""Group commit: one writer per shard gathers the requests that arrive while a flush is under way into the next one.

A flush is one round trip in the common case, one transaction, one fsync. A request alone is flushed at once; after a
flush that several shared, a smaller one lingers while more keep coming, until as many are there again, for a few
milliseconds at most. An answer leaves only after the commit; then the events go to the relay, in order.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.decide import Verdict, decide, guess
from eventbroker_server.broker.tasks import lull
from eventbroker_server.domain.errors import BrokerError, Overloaded, ShuttingDown, StoreUnavailable
from eventbroker_server.domain.event import StoredEvent
from eventbroker_server.ports import Collision

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from eventbroker_server.broker.decide import Request
    from eventbroker_server.domain.event import AggregateKey, EventKey
    from eventbroker_server.ports import Appended, EventLog, Row

log = logging.getLogger(__name__)


_SMALL = 100  # events; with fewer a flush is worth waiting for more


class Stored(NamedTuple):
    """The answer for one event: where it is, and whether it was there before."""

    event: StoredEvent
    duplicate: bool


@dataclass(frozen=True, slots=True)
class AppendLimits:
    """Events in a flush; seconds to linger; events and bytes that may wait; aggregates to remember."""

    flush_events: int
    linger: float
    backlog_events: int
    backlog_bytes: int
    cached_aggregates: int


class _Waiting(NamedTuple):
    request: Request
    answer: asyncio.Future[list[Stored]]
    size: int


class Writer:
    """Appends to one shard. `append` may be called by many at once; `run` does the work."""

    def __init__(
        self, log: EventLog, shard: int, limits: AppendLimits, relay: Callable[[list[StoredEvent]], None]
    ) -> None:
        self._log = log
        self._shard = shard
        self._limits = limits
        self._relay = relay
        self._queue: deque[_Waiting] = deque()
        self._events = 0
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._versions = _Versions(limits.cached_aggregates)
        self._closed = False

    def append(self, request: Request) -> asyncio.Future[list[Stored]]:
        """Store the events of a request, all or none; the answer is committed and flushed, an event each, in order.
        Requests are stored in the order of the calls.

        Raises Overloaded, ShuttingDown; the answer may be EventIdReused, VersionConflict: nothing was stored; or
        StoreUnavailable: not known. Who cancels it while the flush is under way learns nothing, as after a broken
        connection.
        """
        if self._closed:
            raise ShuttingDown
        if self._events + len(request.events) > self._limits.backlog_events:
            raise Overloaded("events waiting to be stored", self._limits.backlog_events)
        size = sum([len(event.wire) or len(event.content) for event in request.events])
        if self._bytes + size > self._limits.backlog_bytes:
            raise Overloaded("bytes waiting to be stored", self._limits.backlog_bytes)
        waiting = _Waiting(request, asyncio.get_running_loop().create_future(), size)
        self._queue.append(waiting)
        self._count(waiting, 1)
        self._arrived.set()
        return waiting.answer

    async def run(self) -> None:
        """Flush until closed and empty."""
        company = 0  # events that came together for the last flush
        while True:
            if not self._queue:
                if self._closed:
                    return
                self._arrived.clear()
                await self._arrived.wait()
            if not self._closed:
                await lull(lambda: self._events, min(company, _SMALL), self._limits.linger)
            batch = self._take()
            company = sum(len(waiting.request.events) for waiting in batch) if len(batch) > 1 else 0
            if batch:
                await self._flush(batch)

    def close(self) -> None:
        """Take no more; `run` ends when what waits is flushed."""
        self._closed = True
        self._arrived.set()

    def _count(self, waiting: _Waiting, sign: int) -> None:
        self._events += sign * len(waiting.request.events)
        self._bytes += sign * waiting.size

    def _take(self) -> list[_Waiting]:
        """The next flush: of callers who still wait, and with no event id twice, so that of two calls with the same
        event the later is answered from what the earlier stored."""
        batch: list[_Waiting] = []
        later: list[_Waiting] = []
        ids: set[EventKey] = set()
        count = 0
        while self._queue and count < self._limits.flush_events:
            waiting = self._queue.popleft()
            if waiting.answer.done():
                self._count(waiting, -1)
                continue
            keys = [event.key for event in waiting.request.events]
            if not ids.isdisjoint(keys):
                later.append(waiting)
                continue
            ids.update(keys)
            self._count(waiting, -1)
            batch.append(waiting)
            count += len(keys)
        self._queue.extendleft(reversed(later))
        return batch

    async def _flush(self, batch: list[_Waiting]) -> None:
        try:
            rows, taken = guess([waiting.request for waiting in batch], self._versions)
            rest = [waiting for waiting, bold in zip(batch, taken, strict=True) if not bold]
            if rows:
                bold = [waiting for waiting, bold in zip(batch, taken, strict=True) if bold]
                try:
                    appended = await self._log.append(self._shard, rows)
                except Collision:
                    rest = batch
                else:
                    verdicts = [Verdict(known=[None] * len(waiting.request.events)) for waiting in bold]
                    self._answer(bold, verdicts, rows, appended)
            if rest:
                await self._decide(rest)
        except StoreUnavailable as exc:
            # Whoever waits behind would wait for the same, one time-out after the other.
            behind = list(self._queue)
            self._queue.clear()
            for waiting in behind:
                self._count(waiting, -1)
            self._fail(batch + behind, exc)
        except BrokerError as exc:
            self._fail(batch, exc)
        except Exception as exc:
            # Something that no store should be asked. Whoever asked it must not fail the others, nor end the writer.
            if len(batch) == 1:
                log.exception("an append failed", extra={"shard": self._shard})
                self._fail(batch, exc)
                return
            for waiting in batch:
                if not waiting.answer.done():
                    await self._flush([waiting])

    def _fail(self, batch: list[_Waiting], exc: Exception) -> None:
        for waiting in batch:
            if not waiting.answer.done():
                waiting.answer.set_exception(exc)

    async def _decide(self, batch: list[_Waiting]) -> None:
        requests = [waiting.request for waiting in batch]
        events = [event for request in requests for event in request.events]
        aggregates = {event.aggregate for event in events}
        aggregates.update(expectation.aggregate for request in requests for expectation in request.expectations)
        appended: Appended | None = None
        async with self._log.deciding(self._shard) as shard:
            found = await shard.find_events([event.key for event in events])
            versions = await shard.versions(aggregates)
            rows, verdicts = decide(requests, found, versions)
            if rows:
                appended = await shard.insert(rows)
        self._versions.update(versions)
        self._answer(batch, verdicts, rows, appended)

    def _answer(
        self, batch: list[_Waiting], verdicts: list[Verdict], rows: Sequence[Row], appended: Appended | None
    ) -> None:
        stored: list[StoredEvent] = []
        if appended is not None:
            at = appended.record_time
            for position, (row, version) in enumerate(zip(rows, appended.versions, strict=True), appended.first):
                stored.append(StoredEvent(row.event, position, version, at))
            self._versions.remember(stored)
            self._relay(stored)
        fresh = iter(stored)
        for waiting, verdict in zip(batch, verdicts, strict=True):
            if verdict.error is not None:
                if not waiting.answer.done():
                    waiting.answer.set_exception(verdict.error)
                continue
            results = [Stored(known, True) if known else Stored(next(fresh), False) for known in verdict.known]
            if not waiting.answer.done():
                waiting.answer.set_result(results)


class _Versions(OrderedDict["AggregateKey", int]):
    """The versions of the aggregates that were written last. Each is true or too low, never too high."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self._most = most

    def remember(self, events: Iterable[StoredEvent]) -> None:
        for event, _, version, _ in events:
            aggregate = event.aggregate
            self[aggregate] = version
            self.move_to_end(aggregate)
        while len(self) > self._most:
            self.popitem(last=False)
