"""Fixtures: true engines, once a session; a database, a key prefix and brokers of its own for each test."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import uuid
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
import pytest_asyncio
from eventbroker_server.app import running
from eventbroker_server.settings import Settings
from redis.asyncio import Redis

from tests.client import Client
from tests.engines import FLAVORS, engine_directory, fresh_engines
from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_server.engines import Engines

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Stores:
    """A database and a part of Redis that are a test's own."""

    postgres: str
    redis: str
    prefix: str

    def settings(self, **changes: Any) -> Settings:
        """Settings of a broker on these stores, quick enough for tests."""
        quick = Settings(
            postgres_url=self.postgres,
            redis_url=self.redis,
            redis_prefix=self.prefix,
            port=0,
            http_port=0,
            sweep_interval=0.2,
            checkpoint_interval=0.1,
            process_ttl=1.0,
            heartbeat_interval=0.5,
            drain_timeout=5.0,
        )
        return replace(quick, **changes)


@pytest_asyncio.fixture(scope="session", loop_scope="session", params=FLAVORS)
async def engines(request: pytest.FixtureRequest) -> AsyncIterator[Engines]:
    async with fresh_engines(request.param) as engines:
        yield engines


@asynccontextmanager
async def stores_on(engines: Engines) -> AsyncIterator[Stores]:
    assert engines.postgres
    assert engines.valkey
    name = f"test_{uuid.uuid4().hex[:12]}"
    admin = await asyncpg.connect(engines.postgres.url)
    try:
        await admin.execute(f"CREATE DATABASE {name}")
        url = engines.postgres.url.replace("/eventbroker?", f"/{name}?")
        yield Stores(url, engines.valkey.url, name)
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        await admin.close()


@pytest.fixture
async def stores(engines: Engines) -> AsyncIterator[Stores]:
    async with stores_on(engines) as stores:
        yield stores


@pytest.fixture
async def redis(stores: Stores) -> AsyncIterator[Redis]:
    """Straight to Redis; replies are text."""
    async with Redis.from_url(stores.redis, decode_responses=True) as redis:
        yield redis


@pytest.fixture
async def make_broker(stores: Stores) -> AsyncIterator[Callable[..., Awaitable[Client]]]:
    """Starts a broker in this process: `client = await make_broker(ack_deadline=1.0)`. Several share the stores."""
    async with AsyncExitStack() as stack:

        async def make(**changes: Any) -> Client:
            endpoints = await stack.enter_async_context(running(stores.settings(**changes)))
            return await stack.enter_async_context(Client(endpoints.target))

        yield make


@pytest.fixture
async def broker(make_broker: Callable[..., Awaitable[Client]]) -> Client:
    """A client of a broker that runs in this process."""
    return await make_broker()


class BrokerProcess:
    """A broker in a process of its own, to be killed."""

    def __init__(self, process: asyncio.subprocess.Process, endpoints: dict[str, str], log: Path) -> None:
        self.process = process
        self.endpoints = endpoints
        self.log = log

    @property
    def target(self) -> str:
        return self.endpoints["target"]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self, timeout: float = 40.0) -> int:
        async with asyncio.timeout(timeout):
            return await self.process.wait()

    async def kill(self) -> None:
        self.signal(signal.SIGKILL)
        await self.ended()


@asynccontextmanager
async def broker_process(**environ: str) -> AsyncIterator[BrokerProcess]:
    """Run `python -m eventbroker_server` with these EVENTBROKER_ settings; killed at the end if it still runs."""
    with engine_directory() as directory:
        log = directory / "log"
        data = Path(environ.get("DATA_DIR", str(directory / "data")))
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
        own = {"PORT": "0", "HTTP_PORT": "0", "DATA_DIR": str(data)} | environ
        (data / "endpoints.json").unlink(missing_ok=True)
        with log.open("w") as output:
            async with spawned(
                sys.executable,
                "-m",
                "eventbroker_server",
                env=inherited | {f"EVENTBROKER_{name}": value for name, value in own.items()},
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=ROOT,
            ) as process:
                file = data / "endpoints.json"
                await eventually(lambda: file.exists() or process.returncode is not None, timeout=60)
                assert process.returncode is None, log.read_text()
                yield BrokerProcess(process, json.loads(file.read_text()), log)


@pytest.fixture
async def spawn_broker(stores: Stores) -> AsyncIterator[Callable[..., Awaitable[BrokerProcess]]]:
    """Starts brokers as processes on the test's stores: `broker = await spawn_broker(ACK_DEADLINE="1")`."""
    async with AsyncExitStack() as stack:

        async def spawn(**environ: str) -> BrokerProcess:
            settings = stores.settings()
            own = {
                "POSTGRES_URL": stores.postgres,
                "REDIS_URL": stores.redis,
                "REDIS_PREFIX": stores.prefix,
                "SWEEP_INTERVAL": str(settings.sweep_interval),
                "CHECKPOINT_INTERVAL": str(settings.checkpoint_interval),
                "PROCESS_TTL": str(settings.process_ttl),
                "HEARTBEAT_INTERVAL": str(settings.heartbeat_interval),
                "DRAIN_TIMEOUT": str(settings.drain_timeout),
            }
            return await stack.enter_async_context(broker_process(**own | environ))

        yield spawn
