"""One broker a data directory, by flock.

The descriptor is handed on to the engines, so that the lock is free only when the broker and all of its engines are
gone: after a kill -9 of the broker the next start waits for them here, and never meets them in their data. The
file holds the broker's pid, for people and for the message.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import EngineError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LEFTOVERS_END_WITHIN = 15.0  # seconds for the engines of a broker that was killed
POLL = 0.05


@asynccontextmanager
async def lock(directory: Path) -> AsyncIterator[int]:
    """Hold the directory; the value is the descriptor to hand on. Raises EngineError if a living broker holds it."""
    fd = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        await _acquire(fd, directory)
        _write(fd, f"{os.getpid()}\n")
        try:
            yield fd
        finally:
            _write(fd, "")
    finally:
        os.close(fd)


async def _acquire(fd: int, directory: Path) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + LEFTOVERS_END_WITHIN
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(fd, 32, 0).decode().strip()
        else:
            return
        if pid and alive(int(pid)):
            raise EngineError(
                f"The data directory {directory} is in use by the broker with the pid {pid}",
                "Stop that one first, or set EVENTBROKER_DATA_DIR to another directory.",
            )
        if loop.time() > deadline:
            raise EngineError(
                f"The data directory {directory} is still in use by engines of a broker that is gone (pid {pid})",
                f"Find them with `fuser {directory / 'lock'}` and end them.",
            )
        await asyncio.sleep(POLL)


def _write(fd: int, text: str) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, text.encode(), 0)


def alive(pid: int) -> bool:
    """Whether there is such a process. One that ended, but was not waited for yet, is none."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return True  # no /proc here
    return state != "Z"
