"""Redis killed, and back with nothing, or with what it had a while ago."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from eventbroker.v1 import group_service_pb2 as groups
from eventbroker_server.engines.locate import find_valkey
from google.protobuf.duration_pb2 import Duration
from redis.asyncio import Redis
from redis.exceptions import RedisError

from tests.client import DONE, TIMEOUT, event, publish
from tests.engines import BINARIES, engine_directory
from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from tests.client import Client
    from tests.conftest import Stores

EVENTS = 60
ORDERINGS = [groups.ORDERING_NONE, groups.ORDERING_BY_AGGREGATE]


class Server:
    """Writes to disk only when it is told to, and is killed without a word."""

    def __init__(self, binary: str, directory: Path) -> None:
        self._binary = str(find_valkey(binary).server)
        self._directory = directory
        self._running = AsyncExitStack()
        self.url = f"unix://{directory}/socket?db=0"

    async def start(self) -> None:
        settings = {"dir": self._directory, "unixsocket": "socket", "port": 0, "save": "", "appendonly": "no"}
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        devnull = asyncio.subprocess.DEVNULL
        await self._running.enter_async_context(
            spawned(self._binary, *words, stdout=devnull, stderr=devnull, cwd=self._directory)
        )
        await eventually(self._answers)

    async def kill(self) -> None:
        await self._running.aclose()

    async def write(self) -> None:
        async with Redis.from_url(self.url) as redis:
            await redis.save()

    async def _answers(self) -> bool:
        async with Redis.from_url(self.url) as redis:
            try:
                return bool(await redis.ping())
            except (RedisError, OSError):
                return False


@pytest.fixture
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    with engine_directory() as directory:
        server = Server(BINARIES[request.node.callspec.params["engines"]]["valkey_bin"], directory)
        await server.start()
        yield server
        await server.kill()


async def nothing_waits(broker: Client) -> bool:
    """The group has settled everything."""
    status = (await broker.get_group("billing")).status
    (shard,) = status.shards
    return status.waiting_retries == 0 and shard.settled_position == shard.head_position


@pytest.mark.parametrize("ordering", ORDERINGS, ids=["as-it-comes", "ordered"])
async def test_a_retry_that_was_in_its_stream_when_redis_was_killed_comes(
    make_broker: Callable[..., Awaitable[Client]], server: Server, stores: Stores, ordering: groups.Ordering
) -> None:
    broker = await make_broker(redis_url=server.url)
    await broker.create_group("billing", ordering=ordering)
    async with await broker.subscribe("billing") as stream:
        await broker.publish(event())
        (first,) = await stream.take(1)
        assert await broker.nack([first.ack_id], seconds=2.0) == [DONE]
        await server.write()
        (second,) = await stream.take(1)
    sql = await asyncpg.connect(stores.postgres)
    await eventually(lambda: sql.fetchval("SELECT queued > 0 FROM eventbroker.retries"))  # after it is in Redis
    await sql.close()
    await server.kill()
    await server.start()
    async with await broker.subscribe("billing") as stream:
        (third,) = await stream.take(1)
        assert (third.event, third.attempt) == (second.event, 2)
        assert await broker.ack([third.ack_id]) == [DONE]
        await eventually(lambda: nothing_waits(broker))


@pytest.mark.parametrize("written", [False, True], ids=["empty", "older"])
@pytest.mark.parametrize("ordering", ORDERINGS, ids=["as-it-comes", "ordered"])
async def test_every_event_comes_when_redis_is_back_with_less(
    make_broker: Callable[..., Awaitable[Client]], server: Server, ordering: groups.Ordering, written: bool
) -> None:
    brokers = [await make_broker(redis_url=server.url) for _ in range(2)]
    # What consumers settled since the older state comes after its deadline: it was out to them then.
    await brokers[0].create_group("billing", ordering=ordering, ack_deadline=Duration(seconds=2))
    acked: set[str] = set()

    async def consume(broker: Client) -> None:
        """Fails every third event once."""
        async with await broker.subscribe("billing") as stream:
            while True:
                (one,) = await stream.take(1, TIMEOUT * 2)
                with suppress(grpc.aio.AioRpcError):  # Redis is away: the event comes again
                    if one.attempt == 1 and one.event.position % 3 == 0:
                        await broker.nack([one.ack_id], seconds=0.3)
                    elif await broker.ack([one.ack_id]) == [DONE]:
                        acked.add(one.event.event_id)

    consumers = [asyncio.create_task(consume(broker)) for broker in brokers]
    sent = []
    for number in range(EVENTS):
        sent += await publish(brokers[0], aggregate_id=f"u{number % 7}")
        if number == EVENTS // 3 and written:
            await server.write()
    await server.kill()
    sent += await publish(brokers[1], 20)
    await server.start()
    sent += await publish(brokers[0], 20)
    await eventually(lambda: set(sent) <= acked, timeout=TIMEOUT * 2)
    await eventually(lambda: nothing_waits(brokers[1]))
    for task in consumers:
        assert not task.done()
        task.cancel()
    await asyncio.gather(*consumers, return_exceptions=True)
