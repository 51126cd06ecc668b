"""How fast history is fed after a seek that sets a pace.

Time is cut into turns, which brokers take through Redis, one after the other: so all of them together keep to the rate.
"""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from eventbroker_server.ports import GroupState, Streams

_TURN = 0.1  # seconds that a turn lasts at least; more, if that is not an event's time


class Pace:
    """That of one group in one shard, as this broker keeps it."""

    def __init__(self, streams: Streams, shard: int, group: str) -> None:
        self._streams = streams
        self._shard = shard
        self._group = group
        self._left = 0  # events of this turn
        self._next = 0.0  # when the turn is over, by the loop's clock
        self._alarm: float | None = None

    async def share(self, state: GroupState, rate: float) -> int:
        """How many events may be fed now, at so many a second. Raises Stale."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._next:
            if self._left <= 0:
                self._alarm = self._next  # a timer may go off a moment early
            return self._left
        events = math.ceil(rate * _TURN)
        taken, wait = await self._streams.turn(self._shard, self._group, state, events / rate)
        self._left = events if taken else 0
        self._next = self._alarm = loop.time() + wait
        return self._left

    def fed(self, events: int) -> None:
        self._left -= events

    def alarm(self) -> float | None:
        """When to look at it again, told once."""
        at, self._alarm = self._alarm, None
        return at
