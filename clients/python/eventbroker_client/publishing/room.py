"""Room for what waits to be sent: bounded in number and bytes; who finds none waits, in order."""

from __future__ import annotations

import asyncio
from collections import deque


class Room:
    """Something larger than all the bytes there are is let in alone."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._free_count, self._free_size = count, size
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, size: int) -> None:
        """Waits until there is room for one more of so many bytes."""
        size = min(size, self._size)
        if not self._waiting and self._fits(size):
            self._take(size)
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(size)  # it was let in, and nobody comes
            else:
                self._admit()
            raise

    def leave(self, size: int) -> None:
        """One of so many bytes is gone."""
        self._free_count += 1
        self._free_size += min(size, self._size)
        self._admit()

    def _admit(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if turn.done():  # cancelled
                self._waiting.popleft()
            elif self._fits(size):
                self._waiting.popleft()
                self._take(size)
                turn.set_result(None)
            else:
                return

    def _fits(self, size: int) -> bool:
        return self._free_count > 0 and self._free_size >= size

    def _take(self, size: int) -> None:
        self._free_count -= 1
        self._free_size -= size
