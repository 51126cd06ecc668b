"""How the writer waits for company."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker_server.broker.tasks import lull

if TYPE_CHECKING:
    from collections.abc import Callable

LONG = 3600.0  # seconds: no test lasts as long
PATIENCE = 10.0


class Coming:
    """As many events as each look finds."""

    def __init__(self, found: Callable[[int], int]) -> None:
        self.looks = 0
        self._found = found

    def __call__(self) -> int:
        self.looks += 1
        return self._found(self.looks)


async def _wait(coming: Coming, wanted: int, seconds: float) -> None:
    async with asyncio.timeout(PATIENCE):
        await lull(coming, wanted, seconds)


async def test_it_ends_when_nothing_more_comes() -> None:
    coming = Coming(lambda look: min(look, 4))
    await _wait(coming, 100, LONG)
    assert coming.looks == 5


async def test_it_ends_when_as_many_as_wanted_are_here() -> None:
    coming = Coming(lambda look: look)
    await _wait(coming, 5, LONG)
    assert coming.looks == 5


async def test_it_ends_in_time_although_more_keep_coming() -> None:
    coming = Coming(lambda look: look)
    await _wait(coming, 1 << 31, 0.02)
    assert coming.looks > 1


async def test_nothing_is_waited_for_where_nothing_is_wanted() -> None:
    coming = Coming(lambda _: 1)
    await _wait(coming, 0, LONG)
    assert coming.looks == 1
