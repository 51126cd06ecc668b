"""Valkey (or Redis), embedded: over a Unix socket only, with an append-only file.

A crash of the engine loses nothing, a crash of the machine at most a second, which the broker makes up for from
PostgreSQL. It never evicts: full memory is an error for the writer.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote

from eventbroker_server.engines.cache import reachable_valkey
from eventbroker_server.engines.locate import find_valkey
from eventbroker_server.engines.process import EmbeddedEngine, Health, Program, running

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from eventbroker_server.engines.data_dir import DataDir

ANSWERS_WITHIN = 1.0


@asynccontextmanager
async def run_valkey(home: DataDir, binary: str) -> AsyncIterator[EmbeddedEngine]:
    """Run Valkey in the data directory. Raises EngineError."""
    found = await asyncio.to_thread(find_valkey, binary)
    server = await asyncio.to_thread(reachable_valkey, found.server, home)
    data = home.owned("valkey")
    with home.socket("valkey.sock") as socket:
        settings = {
            "dir": str(data),
            "port": "0",
            "unixsocket": str(socket),
            "unixsocketperm": "700",
            "appendonly": "yes",
            "appendfsync": "everysec",
            "auto-aof-rewrite-min-size": "256mb",  # a rewrite takes a CPU, and at 64mb comes every 50,000 events
            "save": "",
            "stream-node-max-bytes": "16384",  # as comes, a node holds six events: a tenth more CPU to add and ack one
            "maxmemory-policy": "noeviction",
            "logfile": "",  # standard output, which is the log
        }
        program = Program(
            name=found.name,
            version=found.version,
            url=f"unix://{quote(str(socket))}?db=0",
            argv=(str(server), *(word for name, value in settings.items() for word in (f"--{name}", value))),
            cwd=data,
            log=home.log("valkey"),
            health=partial(_health, socket),
            before_start=partial(socket.unlink, missing_ok=True),
            stop=signal.SIGTERM,
            kill=signal.SIGKILL,
        )
        async with running(program, home) as engine:
            yield engine


async def _health(socket: Path, _pid: int) -> Health:
    with suppress(OSError, TimeoutError):
        async with asyncio.timeout(ANSWERS_WITHIN):
            reader, writer = await asyncio.open_unix_connection(str(socket))
            try:
                writer.write(b"PING\r\n")
                answer = await reader.readline()
            finally:
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
            return Health.READY if answer == b"+PONG\r\n" else Health.RECOVERING
    return Health.SILENT
