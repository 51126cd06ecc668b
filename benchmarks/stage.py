"""Where the measures play: engines of their own, an empty database for each scene, and the broker as a process."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import tempfile
import uuid
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import asyncpg
from eventbroker_server.engines import Engines, embedded_engines
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.redis.keys import Keys
from eventbroker_server.settings import Settings
from redis.asyncio import Redis

from benchmarks.cpu import Usage, usage_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence

ROOT = Path(__file__).parent.parent
START_TIMEOUT, STOP_TIMEOUT = 60.0, 30.0
_PREFIX = "bench"


@dataclass(frozen=True)
class Stage:
    """Both engines, and a directory."""

    directory: Path
    postgres_version: str
    postgres_url: str
    postgres_pid: int
    valkey_version: str
    valkey_url: str
    valkey_pid: int

    @asynccontextmanager
    async def database(self) -> AsyncIterator[str]:
        """A new database with the broker's tables, and an empty Valkey."""
        name = f"bench_{uuid.uuid4().hex[:8]}"
        url = self.postgres_url.replace("/eventbroker?", f"/{name}?")
        admin = await asyncpg.connect(self.postgres_url)
        try:
            await admin.execute(f"CREATE DATABASE {name}")
            async with open_pool(Settings(), url) as pool:
                await migrate(pool, shards=1)
            await self.empty_valkey()
            yield url
            await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        finally:
            await admin.close()

    async def empty_valkey(self) -> None:
        """A broker on a database relays to it what it does not have of that: nothing, if it has nothing at all."""
        async with Redis.from_url(self.valkey_url) as valkey:
            await valkey.flushall()

    @asynccontextmanager
    async def broker(self, database: str, profile: Path | None = None) -> AsyncIterator[Broker]:
        """A broker on a database, as it would be run; under cProfile, if there is a file for what it finds."""
        data = Path(tempfile.mkdtemp(prefix="broker-", dir=self.directory))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
        own = {
            "POSTGRES_URL": database,
            "REDIS_URL": self.valkey_url,
            "REDIS_PREFIX": _PREFIX,
            "PORT": "0",
            "HTTP_PORT": "0",
            "DATA_DIR": str(data),
        }
        log = data / "log"
        profiler = ["-m", "cProfile", "-o", str(profile)] if profile else []
        endpoints = data / "endpoints.json"
        argv = (sys.executable, *profiler, "-m", "eventbroker_server")
        environ = inherited | {f"EVENTBROKER_{name}": value for name, value in own.items()}
        async with program(argv, log, endpoints.exists, environ) as pid:
            yield Broker(self, database, pid, json.loads(endpoints.read_text())["target"])


@dataclass(frozen=True)
class Broker:
    """A broker that runs."""

    stage: Stage
    database: str
    pid: int
    target: str

    def usage(self) -> Usage:
        """What was used so far."""
        return usage_of(self.pid, self.stage.postgres_pid, self.stage.valkey_pid)

    async def caught_up(self) -> None:
        """Wait until all that is stored is relayed."""
        connection = await asyncpg.connect(self.database)
        try:
            stored = await connection.fetchval("SELECT position FROM eventbroker.shard_head WHERE shard = 0")
        finally:
            await connection.close()
        async with Redis.from_url(self.stage.valkey_url) as valkey, asyncio.timeout(60):
            while int(await valkey.get(Keys(_PREFIX, 0).head) or 0) < stored:  # noqa: ASYNC110 - in another process
                await asyncio.sleep(0.01)


@asynccontextmanager
async def program(
    argv: Sequence[str], log: Path, is_ready: Callable[[], bool], environ: Mapping[str, str] | None = None
) -> AsyncIterator[int]:
    """A process, by its pid, from when it is ready until the end of the block. What it says goes into the log, and on
    to whoever reads of a failure. Raises RuntimeError if it does not start."""
    with log.open("w") as output:
        process = await asyncio.create_subprocess_exec(
            *argv, env=environ, stdin=asyncio.subprocess.DEVNULL, stdout=output, stderr=output, cwd=ROOT
        )
    try:
        async with asyncio.timeout(START_TIMEOUT):
            while not is_ready():
                if process.returncode is not None:
                    raise RuntimeError(f"{Path(argv[0]).name} did not start")
                await asyncio.sleep(0.02)
        yield process.pid
        process.terminate()
        async with asyncio.timeout(STOP_TIMEOUT):
            await process.wait()
    except Exception as exc:
        exc.add_note(f"It said:\n{_end_of(log)}")
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def _end_of(log: Path) -> str:
    return log.read_text()[-4000:]


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    with _directory() as directory:
        async with embedded_engines(directory / "engines", postgres=True, valkey=True) as engines:
            yield _stage(directory, engines)


def _stage(directory: Path, engines: Engines) -> Stage:
    postgres, valkey = engines.postgres, engines.valkey
    if postgres is None or valkey is None:
        raise RuntimeError("both engines were asked for")
    return Stage(directory, postgres.version, postgres.url, postgres.pid, valkey.version, valkey.url, valkey.pid)


@contextmanager
def _directory() -> Iterator[Path]:
    """A directory that also nobody, whom root's engines run as, can enter."""
    directory = Path(tempfile.mkdtemp(prefix="eventbroker-bench-"))
    directory.chmod(0o755)
    try:
        yield directory
    finally:
        shutil.rmtree(directory)
