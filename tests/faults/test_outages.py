"""A store or a client that is away: what can go on does, what cannot says so in time, and all comes back by itself."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1.publisher_service_pb2 import AggregateExpectation, PublishRequest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_RELEASE
from eventbroker_server.redis.keys import Keys
from redis.asyncio import Redis

from tests.client import DONE, DUPLICATE, STORED, Client, ack_ids, error_info, event
from tests.conftest import ROOT
from tests.faults.proxy import Proxy
from tests.faults.workload import stored_rows
from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from eventbroker.v1 import event_pb2
    from eventbroker_server.engines import Engines

    from tests.client import Stream
    from tests.conftest import Stores

    Outage = Callable[[Proxy, Engines], AbstractAsyncContextManager[None]]

NOTICED_WITHIN = 20.0  # a frozen client


@pytest.fixture
async def to_postgres(stores: Stores) -> AsyncIterator[Proxy]:
    async with Proxy(stores.postgres) as proxy:
        yield proxy


@pytest.fixture
async def to_redis(stores: Stores) -> AsyncIterator[Proxy]:
    async with Proxy(stores.redis) as proxy:
        yield proxy


@pytest.fixture
async def broker(make_broker: Callable[..., Awaitable[Client]], to_postgres: Proxy, to_redis: Proxy) -> Client:
    """A broker that reaches its stores by way of the proxies."""
    return await make_broker(
        postgres_url=to_postgres.url, redis_url=to_redis.url, postgres_timeout=1.0, redis_timeout=2.0
    )


@pytest.fixture
async def redis(stores: Stores) -> AsyncIterator[Redis]:
    """Straight to Redis."""
    async with Redis.from_url(stores.redis) as redis:
        yield redis


@pytest.fixture
def keys(stores: Stores) -> Keys:
    return Keys(stores.prefix, 0)


# PostgreSQL away.


@asynccontextmanager
async def cut(to_postgres: Proxy, _: Engines) -> AsyncIterator[None]:
    to_postgres.cut()
    yield
    to_postgres.restore()


@asynccontextmanager
async def frozen_on_the_way(to_postgres: Proxy, _: Engines) -> AsyncIterator[None]:
    to_postgres.freeze()
    yield
    to_postgres.restore()


@asynccontextmanager
async def stopped(_: Proxy, engines: Engines) -> AsyncIterator[None]:
    assert engines.postgres
    processes = with_children(engines.postgres.pid)
    for pid in processes:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in processes:
            os.kill(pid, signal.SIGCONT)


def with_children(pid: int) -> list[int]:
    return [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())]


@pytest.mark.parametrize("outage", [cut, frozen_on_the_way, stopped])
async def test_without_postgres_publish_is_unavailable_at_once_and_what_is_relayed_keeps_flowing(
    broker: Client, to_postgres: Proxy, engines: Engines, stores: Stores, redis: Redis, keys: Keys, outage: Outage
) -> None:
    async with await broker.subscribe("billing", "*", flow_control={"max_unsettled_events": 5}) as stream:
        await broker.publish(*(event() for _ in range(20)))
        held = await stream.take(5)
        await eventually(lambda: relayed(redis, keys, 20))
        events = [event() for _ in range(6)]
        async with outage(to_postgres, engines):
            for some in (events[:3], events[3:]):
                errors = await asyncio.gather(*(refused(broker, one) for one in some))
                assert {error.code() for error in errors} == {grpc.StatusCode.UNAVAILABLE}
                assert {error_info(error)["ErrorInfo"].reason for error in errors} == {"STORE_UNAVAILABLE"}
            assert await broker.ack(ack_ids(held)) == [DONE] * 5
            await stream.take_and_ack(15)

        async def stored() -> list[int]:
            try:
                return [result.outcome for result in await broker.publish(*events)]
            except grpc.aio.AioRpcError:
                return []

        assert set(await eventually(stored)) <= {STORED, DUPLICATE}  # a frozen request may have gone on in the end
        assert sorted(row.event_id for row in await stored_rows(stores.postgres) if row.position > 20) == sorted(
            one.event_id for one in events
        )
        assert {one.event_id for one in await stream.take_and_ack(6)} == {one.event_id for one in events}


async def test_without_postgres_what_was_trimmed_waits_and_what_is_relayed_keeps_flowing(
    broker: Client, to_postgres: Proxy, redis: Redis, keys: Keys
) -> None:
    async with await broker.subscribe("billing", "*", flow_control={"max_unsettled_events": 5}) as stream:
        await broker.publish(*(event() for _ in range(20)))
        first, *held = await stream.take(5)
        await eventually(lambda: relayed(redis, keys, 20))
        await redis.xtrim(keys.events("user.created"), minid="6-0", approximate=False)
        to_postgres.cut()
        assert await broker.nack([first.ack_id], NACK_ACTION_RELEASE) == [DONE]
        assert await broker.ack(ack_ids(held)) == [DONE] * 4
        assert [each.position for each in await stream.take_and_ack(15)] == list(range(6, 21))
        await stream.nothing_but_heartbeats(2)
        to_postgres.restore()
        (again,) = await stream.take(1)
        assert (again.event, again.attempt) == (first.event, 1)
        assert await broker.ack([again.ack_id]) == [DONE]


async def test_a_frozen_postgres_is_waited_for_once(
    make_broker: Callable[..., Awaitable[Client]], to_postgres: Proxy
) -> None:
    broker = await make_broker(postgres_url=to_postgres.url, postgres_timeout=3.0)
    await broker.publish(event())
    to_postgres.freeze()
    try:
        with pytest.raises(grpc.aio.AioRpcError) as caught:  # for the statement, and not for its end as well
            await broker.publisher.Publish(PublishRequest(events=[event()]), timeout=5.5)
    finally:
        to_postgres.restore()
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def refused(broker: Client, one: event_pb2.Event) -> grpc.aio.AioRpcError:
    """Publish it, which must fail in a few times the timeout of PostgreSQL."""
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.publish(one)
    assert time.monotonic() - began < 5.0
    return caught.value


async def relayed(redis: Redis, keys: Keys, position: int) -> bool:
    return int(await redis.get(keys.head) or 0) >= position


# Redis away.


@pytest.mark.parametrize("comes_back", ["full", "empty"])
async def test_without_redis_publishing_goes_on_and_streams_resume_by_themselves(
    broker: Client, to_redis: Proxy, redis: Redis, comes_back: str
) -> None:
    events = [event() for _ in range(50)]
    async with await broker.subscribe("before", "*") as before:
        await broker.publish(event())
        await before.take_and_ack(1)
        to_redis.cut()
        for at in range(0, 50, 10):
            assert {result.outcome for result in await broker.publish(*events[at : at + 10])} == {STORED}
        async with await broker.subscribe("meanwhile", "*") as meanwhile:
            if comes_back == "empty":
                await redis.flushall()
            to_redis.restore()
            await all_come(before, events)
            await all_come(meanwhile, events)


async def all_come(stream: Stream, events: list[event_pb2.Event]) -> None:
    """Whatever else comes: an ack that Redis lost comes again."""
    missing = {one.event_id for one in events}
    while missing:
        missing -= {one.event_id for one in await stream.take_and_ack(1)}


async def test_what_a_consumer_held_that_left_without_redis_is_given_back_long_before_its_deadline(
    broker: Client, to_redis: Proxy
) -> None:
    await broker.publish(*(event() for _ in range(3)))
    async with await broker.subscribe("billing", "*", ack_deadline=60) as stream:
        held = await stream.take(3)
        to_redis.cut()
        with pytest.raises(grpc.aio.AioRpcError):
            await broker.ack(ack_ids(held))
    async with await broker.subscribe("billing") as stream:
        to_redis.restore()
        assert [delivery.attempt for delivery in await stream.take(3)] == [1, 1, 1]


# One reply lost.


@pytest.mark.parametrize("way", ["at once", "decided under the lock"])
async def test_a_publish_whose_commit_was_not_answered_is_a_duplicate_when_it_is_repeated(
    broker: Client, to_postgres: Proxy, stores: Stores, way: str
) -> None:
    await broker.publish(event())
    one = event()
    fields = {}
    if way == "at once":
        lost = to_postgres.swallow(one.event_id.encode())
    else:  # an aggregate that is not written has to be looked at
        fields["expectations"] = [AggregateExpectation(aggregate_type="User", aggregate_id="nobody", exists=False)]
        lost = to_postgres.swallow(b"COMMIT")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.publish(one, **fields)
    assert lost.is_set()
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    (result,) = await broker.publish(one, **fields)
    assert (result.outcome, result.position) == (DUPLICATE, 2)
    assert [row.position for row in await stored_rows(stores.postgres) if row.event_id == one.event_id] == [2]
    async with await broker.subscribe("billing", "*") as stream:
        assert [got.position for got in await stream.take_and_ack(2)] == [1, 2]


async def test_an_event_whose_reading_was_not_answered_comes_long_before_its_deadline(
    broker: Client, to_redis: Proxy, redis: Redis, keys: Keys
) -> None:
    async with await broker.subscribe("billing", "*", consumer_id="c1", ack_deadline=60) as stream:
        await broker.publish(event())
        await stream.take_and_ack(1)
        await stream.nothing_but_heartbeats(1)
        lost = to_redis.swallow(b"XREADGROUP", b"c1@")
        one = event()
        await broker.publish(one)
        async with asyncio.timeout(5):
            await lost.wait()
        pending = await redis.xpending(keys.events(one.event_type), "*:billing")
        assert pending["pending"] == 1, "the reply that was lost was another one"
        (delivery,) = await stream.take(1, timeout=10)
        assert (delivery.event.event_id, delivery.attempt) == (one.event_id, 1)
        assert await broker.ack([delivery.ack_id]) == [DONE]


async def test_a_relay_that_was_not_answered_adds_no_event_twice(
    broker: Client, to_redis: Proxy, redis: Redis, keys: Keys
) -> None:
    async with await broker.subscribe("billing", "*") as stream:
        events = [event() for _ in range(3)]
        await broker.publish(events[0])
        await eventually(lambda: relayed(redis, keys, 1))
        lost = to_redis.swallow(events[1].event_id.encode())
        await broker.publish(events[1])
        async with asyncio.timeout(5):
            await lost.wait()
        await broker.publish(events[2])
        got = await stream.take_and_ack(3)
        assert [one.event_id for one in got] == [one.event_id for one in events]
        entries: Any = await redis.xrange(keys.events("user.created"))
        assert [entry_id for entry_id, _ in entries] == [b"1-0", b"2-0", b"3-0"]
        await stream.nothing_but_heartbeats(2)


# A client away.


@pytest.mark.parametrize("engines", ["wheel"], indirect=True)
async def test_what_a_frozen_client_holds_goes_to_another_consumer_within_20_s(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    client = await make_broker()
    published = {result.event_id for result in await client.publish(*(event() for _ in range(3)))}
    async with consumer_process(client.target, "billing") as process:
        assert process.stdout
        assert {(await process.stdout.readline()).decode().strip() for _ in range(4)} == {"open", *published}
        process.send_signal(signal.SIGSTOP)
        async with await client.subscribe("billing") as stream:
            deliveries = await stream.take(3, timeout=NOTICED_WITHIN)
    assert {delivery.event.event_id for delivery in deliveries} == published
    assert {delivery.attempt for delivery in deliveries} == {1}


@asynccontextmanager
async def consumer_process(target: str, group: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A consumer in a process of its own: it prints what it is handed, and acks nothing."""
    async with spawned(
        sys.executable, "-m", "tests.faults.workload", target, group,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/clients/python:{ROOT}/server"},
    ) as process:  # fmt: skip
        yield process
