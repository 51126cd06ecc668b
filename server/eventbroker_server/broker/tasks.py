"""Ending tasks for good, and waiting with a bound."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

log = logging.getLogger(__name__)

_LULL = 0.001  # seconds in which nothing comes: what is on its way together comes closer than that


async def end(tasks: Iterable[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended.

    Once may not do: before Python 3.12 `asyncio.wait_for`, with which the library speaks to Redis, can lose a
    cancellation that comes together with a reply.
    """
    pending = set(tasks)
    for _ in range(100):
        if not pending:
            return
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=0.1)
    log.error("tasks do not end", extra={"tasks": [task.get_name() for task in pending]})


async def wait_for(event: asyncio.Event, seconds: float) -> bool:
    """Wait until an event is set, but not for longer than this; answer whether it was."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def lull(here: Callable[[], int], wanted: int, seconds: float) -> None:
    """Wait while more keep coming, until as many are here as wanted, but not for longer than this."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + seconds
    before = -1
    while before < (now := here()) < wanted and loop.time() < ends:
        before = now
        await asyncio.sleep(_LULL)
