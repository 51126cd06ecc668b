"""Whether the broker is ready for calls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from eventbroker_server.ports import EventLog, Streams

    Spawn = Callable[[Coroutine[None, None, None], str], asyncio.Task[None]]

_PATIENCE = 1.0  # seconds that a store has to answer


class Probes:
    """`serving` is set while calls are answered: not before, and not while the broker drains. `spawn` starts a task
    that must not die."""

    def __init__(self, event_log: EventLog, streams: Streams, spawn: Spawn) -> None:
        self.serving = False
        self._postgres = _Store("postgres", lambda: event_log.head(0), spawn)
        self._redis = _Store("redis", lambda: streams.head(0), spawn)

    async def ready(self) -> tuple[bool, dict[str, str]]:
        """Whether it is, and how its parts are. Without Redis it is: it publishes, and streams stay open."""
        postgres, redis = await asyncio.gather(self._postgres.answers(), self._redis.answers())
        return self.serving and postgres, {
            "broker": "serving" if self.serving else "not serving",
            "postgres": "ok" if postgres else "away",
            "redis": "ok" if redis else "away",
        }


class _Store:
    """One look is under way at most, whoever asks: one that hangs holds one connection."""

    def __init__(self, name: str, ask: Callable[[], Awaitable[object]], spawn: Spawn) -> None:
        self._name = name
        self._ask = ask
        self._spawn = spawn
        self._looking: asyncio.Task[None] | None = None
        self._answered = False

    async def answers(self) -> bool:
        if self._looking is None or self._looking.done():
            self._answered = False
            self._looking = self._spawn(self._look(), f"probe {self._name}")
        await asyncio.wait([self._looking], timeout=_PATIENCE)
        return self._answered

    async def _look(self) -> None:
        try:
            await self._ask()
            self._answered = True
        except (StoreUnavailable, StreamsUnavailable):
            pass
