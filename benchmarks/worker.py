"""A process of its own for each load, so that it shares no interpreter with the broker, nor with another load.

A load is an async function `load(line, ...)`: it says when it is ready, waits for the word, works, and returns what it
found. Every wait has a bound, and a worker never outlives the benchmark.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import traceback
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import uvloop

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from multiprocessing.connection import Connection

LIMIT = 60.0  # seconds that a load may take, from its start
_CONTEXT = multiprocessing.get_context("spawn")


class _Failed(NamedTuple):
    how: str


class Line:
    """One end of the line between the benchmark and a worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def say(self, word: Any) -> None:
        self._connection.send(word)

    async def hear(self) -> Any:
        """The next word. Raises RuntimeError when the other end failed or is silent for LIMIT seconds."""
        word = await asyncio.to_thread(self._receive)
        if isinstance(word, _Failed):
            raise RuntimeError(f"a load failed: {word.how}")
        return word

    def _receive(self) -> Any:
        if not self._connection.poll(LIMIT):
            return _Failed(f"no word within {LIMIT:.0f} s")
        try:
            return self._connection.recv()
        except EOFError:
            return _Failed("the process ended")


@asynccontextmanager
async def worker(load: Callable[..., Awaitable[Any]], *args: Any) -> AsyncIterator[Line]:
    """Run a load in a new process; the line is handed out when it is ready. Killed at the end if it still runs."""
    ours, theirs = _CONTEXT.Pipe()
    process = _CONTEXT.Process(target=_work, args=(theirs, load, args), daemon=True)
    process.start()
    theirs.close()
    line = Line(ours)
    try:
        await line.hear()
        yield line
    finally:
        process.kill()
        process.join()
        ours.close()


def _work(connection: Connection, load: Callable[..., Awaitable[Any]], args: tuple[Any, ...]) -> None:
    async def bounded() -> Any:
        async with asyncio.timeout(LIMIT):
            return await load(Line(connection), *args)

    try:
        connection.send(uvloop.run(bounded()))
    except BaseException:  # whatever it is, the benchmark is to show it
        connection.send(_Failed(traceback.format_exc()))
