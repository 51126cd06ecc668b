"""Processes killed with SIGKILL in the middle of the work: nothing is lost, and nothing is stored or placed twice."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING

import asyncpg
import pytest
from redis.asyncio import Redis

from tests.conftest import Stores
from tests.engines import fresh_engines
from tests.faults.workload import nothing_is_wrong, working
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_server.engines import EmbeddedEngine, Engines

    from tests.conftest import BrokerProcess

SOME, VOLUME = 400, 1500


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    """Engines of the test's own, which are restarted when they die."""
    async with fresh_engines("wheel") as engines:
        yield engines


@pytest.fixture
def stores(engines: Engines) -> Stores:
    assert engines.postgres
    assert engines.valkey
    return Stores(engines.postgres.url, engines.valkey.url, "kill")


@pytest.fixture
async def two_brokers(spawn_broker: Callable[..., Awaitable[BrokerProcess]]) -> list[BrokerProcess]:
    return [await spawn_broker(), await spawn_broker()]


async def kill_engine(engine: EmbeddedEngine | None) -> None:
    """Kill it, and wait until another process of it is there."""
    assert engine
    killed = engine.pid
    os.kill(killed, signal.SIGKILL)
    await eventually(lambda: engine.pid != killed, timeout=10)


async def test_two_brokers_killed_one_after_the_other_lose_nothing(
    stores: Stores, two_brokers: list[BrokerProcess], spawn_broker: Callable[..., Awaitable[BrokerProcess]]
) -> None:
    targets = [broker.target for broker in two_brokers]
    async with working(targets) as load:
        for number, broker in enumerate(two_brokers):
            await load.goes_on(SOME)
            await load.in_the_middle_of("publish")
            with load.history.fault(f"kill -9 broker {number}"):
                await broker.kill()
            await load.goes_on(SOME)
            targets[number] = (await spawn_broker()).target
        await load.goes_on(SOME)
        await nothing_is_wrong(load, stores.postgres, VOLUME)


async def test_valkey_killed_under_load_loses_nothing(
    engines: Engines, stores: Stores, two_brokers: list[BrokerProcess]
) -> None:
    async with working([broker.target for broker in two_brokers]) as load:
        for _ in range(2):
            await load.goes_on(SOME)
            await load.in_the_middle_of("ack")
            # Its file may lack the last second.
            with load.history.fault("kill -9 Valkey", loses=True):
                await kill_engine(engines.valkey)
        await load.goes_on(2 * SOME)
        await nothing_is_wrong(load, stores.postgres, VOLUME)


async def test_a_backend_of_postgres_killed_under_load_loses_nothing(
    stores: Stores, two_brokers: list[BrokerProcess]
) -> None:
    async with working([broker.target for broker in two_brokers]) as load:
        for _ in range(2):
            await load.goes_on(SOME)
            backend = await busy_backend(stores.postgres)
            await load.in_the_middle_of("publish")
            with load.history.fault("kill -9 a backend of PostgreSQL"):
                os.kill(backend, signal.SIGKILL)
        await load.goes_on(2 * SOME)
        await nothing_is_wrong(load, stores.postgres, VOLUME)


async def busy_backend(postgres_url: str) -> int:
    """The process that serves a broker's connection, the one that was used last."""
    connection = await asyncpg.connect(postgres_url)
    try:
        backends = "SELECT pid FROM pg_stat_activity WHERE application_name = 'eventbroker'"
        pid: int = await connection.fetchval(f"{backends} ORDER BY query_start DESC LIMIT 1")
        return pid
    finally:
        await connection.close()


async def test_postgres_killed_under_load_loses_nothing(
    engines: Engines, stores: Stores, two_brokers: list[BrokerProcess]
) -> None:
    async with working([broker.target for broker in two_brokers]) as load:
        for _ in range(2):
            await load.goes_on(SOME)
            await load.in_the_middle_of("publish")
            with load.history.fault("kill -9 PostgreSQL"):
                await kill_engine(engines.postgres)
        await load.goes_on(2 * SOME)
        await nothing_is_wrong(load, stores.postgres, VOLUME)


async def test_brokers_postgres_and_valkey_killed_at_once_lose_nothing(
    engines: Engines,
    stores: Stores,
    two_brokers: list[BrokerProcess],
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> None:
    targets = [broker.target for broker in two_brokers]
    async with working(targets) as load:
        await load.goes_on(2 * SOME)
        with load.history.fault("kill -9 all", loses=True):
            for broker in two_brokers:
                broker.signal(signal.SIGKILL)
            await asyncio.gather(kill_engine(engines.postgres), kill_engine(engines.valkey))
        targets[:] = [(await spawn_broker()).target, (await spawn_broker()).target]
        await load.goes_on(2 * SOME)
        await nothing_is_wrong(load, stores.postgres, VOLUME)


async def test_flushall_under_load_loses_nothing(stores: Stores, two_brokers: list[BrokerProcess]) -> None:
    async with working([broker.target for broker in two_brokers]) as load, Redis.from_url(stores.redis) as redis:
        for _ in range(3):
            await load.goes_on(SOME)
            await load.in_the_middle_of("ack")
            with load.history.fault("FLUSHALL", loses=True):
                await redis.flushall()
        await load.goes_on(SOME)
        await nothing_is_wrong(load, stores.postgres, VOLUME)
