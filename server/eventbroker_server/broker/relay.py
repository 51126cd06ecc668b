"""The relay: from the log to the streams, by compare-and-append.

The broker that committed events relays them at once, from memory. If the streams are not right before them, it reads
what is missing from PostgreSQL. So any broker may relay at any moment: a late or repeated relay changes nothing, and a
sweep fills what a crash left behind. A Redis that has nothing is told where the log stands; what is older comes to each
group through its backfill.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable, UnsafeStore
from eventbroker_server.ports import Entry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.ports import Codec, EventLog, Streams

log = logging.getLogger(__name__)

_BATCH_EVENTS = 500
_BATCH_BYTES = 1 << 20
_MOST_WAITING = 64 << 20  # bytes; what comes beyond them is dropped here, and read from PostgreSQL in its turn
_GRACE = 0.003  # how long to wait for another broker's relay before reading its events from PostgreSQL


class Tail(NamedTuple):
    """How much of a shard is kept in Redis: seconds, and bytes."""

    age: float
    size: int


class Relay:
    """Relays one shard. `offer` takes what this broker committed; `relayed` is told the types that were added, or none
    when there may be anything new."""

    def __init__(
        self,
        event_log: EventLog,
        streams: Streams,
        codec: Codec,
        shard: int,
        relayed: Callable[[int, Iterable[str]], None],
        sweep_interval: float,
        linger: float,
        tail: Tail,
    ) -> None:
        self.shard = shard
        self.stored_to = self.relayed_to = 0  # as far as this broker knows: at most a sweep behind
        self._log = event_log
        self._streams = streams
        self._codec = codec
        self._relayed = relayed
        self._sweep_interval = sweep_interval
        self._linger = linger
        self._tail = tail
        self._waiting: deque[StoredEvent] = deque()
        self._bytes = 0
        self._arrived = asyncio.Event()
        self._closed = False
        self._in_doubt = False  # a relay failed, after which it may have been done

    def offer(self, events: list[StoredEvent]) -> None:
        """Relay these soon. Positions grow within a call; from call to call they should, as it is quicker."""
        size = sum(map(_size, events))
        self.stored_to = max(self.stored_to, events[-1].position)
        if self._bytes + size <= _MOST_WAITING:
            self._waiting.extend(events)
            self._bytes += size
        self._arrived.set()

    def close(self) -> None:
        """`run` ends when what waits is relayed, or at the first failure."""
        self._closed = True
        self._arrived.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = loop.time()
        away = False
        company = False
        while True:
            try:
                if company and len(self._waiting) < _BATCH_EVENTS and not self._closed:
                    await asyncio.sleep(self._linger)  # as the writer does: more are on their way
                company = len(self._waiting) > 1
                if self._waiting:
                    await self._relay_waiting()
                elif self._closed:
                    return
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + self._sweep_interval
                    await self.sweep()
                if away:
                    log.warning("relaying again", extra={"shard": self.shard})
                    away = False
            except (StreamsUnavailable, StoreUnavailable) as exc:
                self._in_doubt = True
                if self._closed:
                    return
                if not away:
                    log.warning("cannot relay: %s", exc, extra={"shard": self.shard})
                    away = True
                await asyncio.sleep(0.2)
                next_sweep = loop.time()
            if not self._waiting and not self._closed:
                self._arrived.clear()
                await wait_for(self._arrived, next_sweep - loop.time())

    async def sweep(self) -> None:
        """Relay all that is committed and not relayed yet, and trim the tail."""
        committed = await self._log.head(self.shard)
        self.stored_to = max(self.stored_to, committed)
        head = await self._streams.head(self.shard)
        self.relayed_to = head or 0
        if head is None:
            head = await self._begin(committed)
        elif self._in_doubt:
            self._relayed(self.shard, ())
        self._in_doubt = False
        if head > committed and head > (committed := await self._log.head(self.shard)):
            raise UnsafeStore(
                f"Redis has relayed shard {self.shard} up to {head}, but PostgreSQL has events up to {committed}: "
                "these two do not belong together",
                "Empty that Redis, or set another redis_prefix",
            )
        while head < committed:
            head = await self._relay_from_log(head, committed)
            if head < committed:
                await self._trim()  # an import may have brought more than Redis holds
        await self._trim()

    async def _trim(self) -> None:
        if trimmed := await self._streams.trim(self.shard, self._tail.age, self._tail.size):
            log.debug("trimmed", extra={"shard": self.shard, "position": trimmed})

    async def _relay_waiting(self) -> None:
        batch: list[Entry] = []
        size = 0
        expected = self._waiting[0].position
        while self._waiting and len(batch) < _BATCH_EVENTS and size < _BATCH_BYTES:
            if self._waiting[0].position != expected:
                break  # another broker's events lie between
            stored = self._waiting.popleft()
            self._bytes -= _size(stored)
            entry = Entry.of(stored, self._codec)
            batch.append(entry)
            size += len(entry.body)
            expected += 1
        for attempt in range(3):
            head = await self._relay_batch(batch)
            if head >= expected - 1:
                return
            if attempt == 0:
                await asyncio.sleep(_GRACE)
                head = await self._streams.head(self.shard) or head
            while head < batch[0].position - 1:
                head = await self._relay_from_log(head, batch[0].position - 1)
            batch = [entry for entry in batch if entry.position > head]
            if not batch:
                return
        # What is left is found by the next sweep.

    async def _relay_from_log(self, head: int, upto: int) -> int:
        events = await self._log.read(self.shard, head, min(upto, head + _BATCH_EVENTS))
        return await self._relay_batch([Entry.of(stored, self._codec) for stored in events])

    async def _relay_batch(self, batch: list[Entry]) -> int:
        head = await self._streams.relay(self.shard, batch)
        if head is None:
            head = await self._begin(await self._log.head(self.shard))
        elif head == batch[-1].position:
            self._relayed(self.shard, {entry.event_type for entry in batch})
        self.relayed_to = max(self.relayed_to, head)
        return head

    async def _begin(self, committed: int) -> int:
        log.info("these streams begin after what is stored", extra={"shard": self.shard, "position": committed})
        head = self.relayed_to = await self._streams.start_at(self.shard, committed)
        self._relayed(self.shard, ())
        return head


def _size(stored: StoredEvent) -> int:
    return len(stored.event.wire) or len(stored.event.content)
