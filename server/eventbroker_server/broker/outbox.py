"""The outbox: what services publish in transactions of their own is brought into the log.

What is appended leaves the outbox in the same transaction, so each event is stored once, whichever broker does it and
whenever one dies. An event that the log does not take is put aside with the reason, and stops no other.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.broker.decide import Request, decide, guess
from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import StoreUnavailable
from eventbroker_server.domain.event import StoredEvent
from eventbroker_server.ports import Collision

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventbroker_server.domain.event import Event, EventKey
    from eventbroker_server.ports import Appended, Outbox, TakenFromOutbox

log = logging.getLogger(__name__)

_MOST = 1_000  # events in one step; the store sees to their bytes


class OutboxDrain:
    """`run` looks at once, after each `wake`, and every `interval` seconds, until `close`. Those who heed
    a shard are told what was appended to it."""

    def __init__(self, outbox: Outbox, heeds: Sequence[Callable[[list[StoredEvent]], None]], interval: float) -> None:
        self._outbox = outbox
        self._heeds = heeds
        self._interval = interval
        self._woken = asyncio.Event()
        self._closed = False
        self._most = _MOST  # fewer after a failure

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        """`run` ends after the step that is under way."""
        self._closed = True
        self._woken.set()

    async def run(self) -> None:
        away = False
        while not self._closed:
            self._woken.clear()
            try:
                for shard in await self._outbox.shards():
                    await self._drain(shard)
                away = False
            except StoreUnavailable as exc:
                if not away:
                    log.warning("cannot drain the outbox: %s", exc)
                away = True
            if not self._closed:
                await wait_for(self._woken, self._interval)

    async def _drain(self, shard: int) -> None:
        """Append until nothing is left, or another broker is at it. Raises StoreUnavailable."""
        while not self._closed:
            numbers: list[int] = []
            try:
                async with self._outbox.taking(shard, self._most) as taken:
                    numbers = taken.numbers
                    if not numbers:
                        return
                    stored = await _append(taken)
            except StoreUnavailable:  # it may have taken too long
                self._most = max(1, self._most // 2)
                raise
            except Exception as exc:
                # Something that no store should be asked: look for the event alone, so that it stops no other.
                if not numbers:
                    raise
                if len(numbers) == 1:
                    log.exception("an event of the outbox cannot be stored", extra={"shard": shard})
                    await self._outbox.refuse(shard, numbers[0], f"{type(exc).__name__}: {exc}")
                self._most = max(1, len(numbers) // 2)
            else:
                if stored:
                    self._heeds[shard](stored)
                self._most = min(_MOST, self._most * 2)


async def _append(taken: TakenFromOutbox) -> list[StoredEvent]:
    """Append what was taken, event by event, as if each had been published; answer what was stored."""
    events: dict[int, Event] = {}
    keys: set[EventKey] = set()
    for number, event in zip(taken.numbers, taken.events(), strict=True):
        if event.key in keys:
            continue  # the next step compares it with what this one stores
        keys.add(event.key)
        events[number] = event
    requests = [Request([event]) for event in events.values()]
    rows, _ = guess(requests, {})
    refused: dict[int, str] = {}
    appended: Appended | None = None
    try:
        appended = await taken.insert(rows)
    except Collision:  # some are known
        found = await taken.find_events(keys)
        versions = await taken.versions({event.aggregate for event in events.values()})
        rows, verdicts = decide(requests, found, versions)
        refused = {n: v.error.message() for n, v in zip(events, verdicts, strict=True) if v.error is not None}
        if refused:
            log.warning("events of the outbox are refused", extra={"events": len(refused)})
            await taken.refuse(refused)
        if rows:
            appended = await taken.insert(rows)
    await taken.forget([number for number in events if number not in refused])
    if appended is None:
        return []
    placed = enumerate(zip(rows, appended.versions, strict=True), appended.first)
    return [StoredEvent(row.event, position, version, appended.record_time) for position, (row, version) in placed]
