"""How far each shard of the log has come, for those who follow it.

What this broker stores it knows at once. Of what others store it hears through Redis, or finds out by looking every so
often; one look serves all who follow.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventbroker_server.ports import EventLog

log = logging.getLogger(__name__)

_GATHER = 0.005  # seconds between two looks, at least


class Head:
    """That of one shard. `run` looks while somebody follows."""

    def __init__(self, event_log: EventLog, shard: int, every: float) -> None:
        self.position = 0  # as far as is known
        self._log = event_log
        self._shard = shard
        self._every = every
        self._followers: set[asyncio.Event] = set()
        self._rumor = asyncio.Event()

    async def ask(self) -> int:
        """The newest position. Raises StoreUnavailable."""
        self.moved(await self._log.head(self._shard))
        return self.position

    def moved(self, position: int) -> None:
        """All up to this position is committed."""
        if position > self.position:
            self.position = position
            for follower in self._followers:
                follower.set()

    def look(self) -> None:
        """Another broker may have stored something."""
        self._rumor.set()

    @contextmanager
    def followed(self, moved: asyncio.Event) -> Iterator[None]:
        """Have an event set whenever the position moves."""
        self._followers.add(moved)
        self.look()  # what was told before, nobody heeded
        try:
            yield
        finally:
            self._followers.discard(moved)

    async def run(self) -> None:
        while True:
            await wait_for(self._rumor, self._every)
            self._rumor.clear()
            if self._followers:
                try:
                    await self.ask()
                except StoreUnavailable as exc:  # who reads is told by the next page
                    log.info("cannot look for new events: %s", exc, extra={"shard": self._shard})
            await asyncio.sleep(_GATHER)
