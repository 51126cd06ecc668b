"""PostgreSQL, embedded: database and superuser `eventbroker`, over a Unix socket only.

A commit that was answered is on disk (fsync and synchronous_commit are on). Data of one major version is only ever
opened by that version. A data directory appears complete or not at all, whenever the making of it is cut off.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from eventbroker_server.engines.cache import reachable_postgres
from eventbroker_server.engines.child import run_to_end
from eventbroker_server.engines.locate import find_postgres
from eventbroker_server.engines.process import EmbeddedEngine, Health, Program, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.engines.data_dir import DataDir

PORT = 5432  # no port, only a part of the socket's name
SOCKET = f".s.PGSQL.{PORT}"
MADE_WITHIN = 120.0
SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "max_connections": "100",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "wal_compression": "on",
    "cluster_name": "eventbroker",
    "log_line_prefix": "%m [%p] ",
}


def buffers(memory: int) -> str:
    """What PostgreSQL shares, of so many bytes of memory: a sixteenth, from 128 to 512 MiB. It has to hold the ends of
    the indexes that events are added to, an end for each aggregate that is busy; the rest is the system's cache."""
    return f"{min(max(memory // 16 >> 20, 128), 512)}MB"


def _memory() -> int:
    """Of this machine, or of its container."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with suppress(OSError, ValueError):  # "max" is no number
        memory = min(memory, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


@asynccontextmanager
async def run_postgres(home: DataDir, bin_dir: str) -> AsyncIterator[EmbeddedEngine]:
    """Run PostgreSQL in the data directory, made at the first start. Raises EngineError."""
    made = [int(path.name.removeprefix("postgres-")) for path in home.path.glob("postgres-[1-9][0-9]")]
    found = await asyncio.to_thread(find_postgres, bin_dir, made)
    server = await asyncio.to_thread(reachable_postgres, found.server, home)
    log = home.log("postgres")
    data = home.path / f"postgres-{found.major}"
    if found.major not in made:
        await _make(data, server.parent, home, log)
    home.owned(data.name)  # raises if it is another user's
    with home.socket(SOCKET) as socket:
        place = {"unix_socket_directories": str(socket.parent), "port": str(PORT)}
        settings = SETTINGS | {"shared_buffers": buffers(_memory())} | place
        program = Program(
            name=found.name,
            version=found.version,
            url=f"postgresql://eventbroker@/eventbroker?host={quote(str(socket.parent))}&port={PORT}&sslmode=disable",
            argv=(str(server), "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())),
            cwd=data,
            log=log,
            health=partial(_health, data),
            before_start=partial(_clear_stale_locks, data, socket),
            stop=signal.SIGINT,
            kill=signal.SIGQUIT,
        )
        async with running(program, home) as engine:
            yield engine


async def _make(data: Path, bin_dir: Path, home: DataDir, log: Path) -> None:
    unfinished = data.with_name(data.name + ".new")
    if unfinished.exists():
        await asyncio.to_thread(shutil.rmtree, unfinished)
    home.owned(unfinished.name)
    at = ("-D", str(unfinished))
    run = partial(run_to_end, home=home, log=log, timeout=MADE_WITHIN)
    initdb, postgres = str(bin_dir / "initdb"), str(bin_dir / "postgres")
    await run((initdb, *at, "--username=eventbroker", "--encoding=UTF8", "--locale=C", "--data-checksums",
               "--auth-local=trust", "--auth-host=reject", "--no-sync", "--no-instructions"))  # fmt: skip
    # The server's own single-user mode: needs no client, and the directory is complete before anyone can connect.
    await run(
        (postgres, "--single", "-F", "-c", "exit_on_error=on", *at, "template1"),
        stdin=b"CREATE DATABASE eventbroker\n",
    )
    await run((initdb, *at, "--sync-only"))
    unfinished.rename(data)
    directory = os.open(home.path, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


async def _health(data: Path, pid: int) -> Health:
    """As PostgreSQL states it in the file postmaster.pid: its pid in line 1, its status in line 8."""
    with suppress(OSError, IndexError):
        lines = (data / "postmaster.pid").read_text().splitlines()
        if lines[0] == str(pid):
            return Health.READY if lines[7].strip() == "ready" else Health.RECOVERING
    return Health.SILENT


def _clear_stale_locks(data: Path, socket: Path) -> None:
    """Remove the lock files of a server that was killed. PostgreSQL would do so, but refuses to start for ever if the
    pid in them belongs to another process of its user by now, as in a container, where the same few pids come again.
    """
    processes = list(Path("/proc").glob("[0-9]*/cwd"))
    if not processes:
        return  # not Linux
    for process in processes:
        with suppress(OSError):
            if process.readlink() == data:
                return  # it is not dead, or not quite
    (data / "postmaster.pid").unlink(missing_ok=True)
    socket.with_name(socket.name + ".lock").unlink(missing_ok=True)
