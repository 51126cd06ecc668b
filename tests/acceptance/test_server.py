"""The server around the services: health, reflection, limits, start and stop, and clients that are not ours."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import asyncpg
import grpc
import pytest
from eventbroker.v1.event_store_service_pb2 import GetEventResponse
from eventbroker.v1.publisher_service_pb2 import PublishResponse
from eventbroker.v1.subscriber_service_pb2 import (
    CLOSING_REASON_SHUTDOWN,
    AckResponse,
    FlowControl,
    SubscribeResponse,
)
from google.protobuf.json_format import MessageToDict, Parse, ParseDict
from google.protobuf.message import Message
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest
from grpc_reflection.v1alpha.reflection_pb2_grpc import ServerReflectionStub

from tests.acceptance.refused import refused
from tests.client import DONE, STORED, TIMEOUT, Client, ack_ids, event
from tests.conftest import broker_process
from tests.engines import engine_directory
from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.conftest import BrokerProcess, Stores

SERVICES = [f"eventbroker.v1.{name}" for name in ("EventStoreService", "PublisherService", "SubscriberService")]
M = TypeVar("M", bound=Message)
SERVING, NOT_SERVING = HealthCheckResponse.SERVING, HealthCheckResponse.NOT_SERVING


async def health(client: Client, service: str = "") -> int:
    answer = await HealthStub(client.channel).Check(HealthCheckRequest(service=service), timeout=TIMEOUT)
    return int(answer.status)


# Health and reflection.


async def test_health_tells_of_the_server_and_of_each_service(broker: Client) -> None:
    assert [await health(broker, service) for service in ("", *SERVICES)] == [SERVING] * 4
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await health(broker, "eventbroker.v1.Nothing")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_services(broker: Client) -> None:
    call = ServerReflectionStub(broker.channel).ServerReflectionInfo(timeout=TIMEOUT)
    await call.write(ServerReflectionRequest(list_services=""))
    listed = (await call.read()).list_services_response.service
    await call.done_writing()
    assert {*SERVICES, "grpc.health.v1.Health"} <= {service.name for service in listed}


@pytest.mark.parametrize("method", ["/eventbroker.v1.PublisherService/Nothing", "/no.Service/Method"])
async def test_a_method_that_does_not_exist_is_unimplemented(broker: Client, method: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.channel.unary_unary(method, request_serializer=bytes)(b"", timeout=TIMEOUT)
    assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED


# Limits.


async def overloaded(call: Awaitable[object]) -> None:
    refusal_ = await refused(call, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED")
    assert refusal_.details["RetryInfo"].retry_delay.ToMilliseconds() > 0


async def test_one_stream_too_many_is_told_when_to_come_back(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(max_streams=2)
    streams = [await broker.subscribe("g"), await broker.subscribe()]
    await overloaded(broker.subscribe("g"))
    assert await health(broker) == SERVING
    await broker.publish(event())  # streams do not count as calls
    streams[0].close()

    async def open_again() -> bool:
        (opened,) = await asyncio.gather(broker.subscribe("g"), return_exceptions=True)
        if isinstance(opened, grpc.aio.AioRpcError) and opened.code() == grpc.StatusCode.RESOURCE_EXHAUSTED:
            return False  # the one that was closed is still leaving
        assert not isinstance(opened, BaseException), opened
        opened.close()
        return True

    await eventually(open_again)


async def test_one_call_too_many_is_told_when_to_come_back(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores
) -> None:
    broker = await make_broker(max_calls=1, postgres_timeout=30.0)
    late = event()
    postgres, watching = await asyncpg.connect(stores.postgres), await asyncpg.connect(stores.postgres)
    try:
        async with postgres.transaction():
            await postgres.execute("SELECT FROM eventbroker.shard_head FOR UPDATE")  # nobody can append meanwhile
            stuck = asyncio.create_task(broker.publish(event()))
            waiting = "SELECT true FROM pg_stat_activity WHERE datname = $1 AND wait_event_type = 'Lock'"
            await eventually(lambda: watching.fetchval(waiting, stores.prefix))
            await overloaded(broker.publish(late))
            await overloaded(broker.ack(["a"]))
            assert await health(broker) == SERVING
            assert not stuck.done()
        assert [result.position for result in await stuck] == [1]
    finally:
        await postgres.close()
        await watching.close()
    (result,) = await broker.publish(late)
    assert result.position == 2


async def test_a_subscriber_that_does_not_read_slows_nobody(broker: Client) -> None:
    stalled = [await broker.subscribe(group) for group in ("stalled", "stalled", "")]
    async with await broker.subscribe("brisk") as brisk:
        published: list[str] = []
        got: list[str] = []
        for _ in range(15):
            events = [event(json=f'"{"x" * 300_000}"') for _ in range(4)]
            await broker.publish(*events)
            published += [each.event_id for each in events]
            got += [each.event_id for each in await brisk.take_and_ack(4, timeout=5)]
    assert got == published
    for stream in stalled:
        assert await broker.ack(ack_ids(await stream.take(1))) == [DONE]
        stream.close()


# Start and stop.


async def stopped(process: BrokerProcess) -> None:
    """Stop a broker in an orderly way, and its engines with it."""
    process.signal(signal.SIGTERM)
    assert await process.ended(timeout=30) == 0, process.log.read_text()


async def test_sigterm_closes_streams_with_a_word_and_hands_back_what_they_hold(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]], make_broker: Callable[..., Awaitable[Client]]
) -> None:
    process, other = await spawn_broker(), await make_broker()
    async with Client(process.target) as client:
        flow = FlowControl(max_unsettled_events=4, max_batch_events=1)
        streams = [await client.subscribe("g", ack_deadline=600, flow_control=flow) for _ in range(50)]
        published = [event() for _ in range(200)]
        await client.publish(*published)
        await asyncio.gather(*(stream.take(4) for stream in streams))
        watch = HealthStub(client.channel).Watch(HealthCheckRequest())
        assert (await watch.read()).status == SERVING

        process.signal(signal.SIGTERM)
        async with asyncio.timeout(10):
            assert (await watch.read()).status == NOT_SERVING
        watch.cancel()
        for stream in streams:
            while await stream.read() is not None:
                pass
            assert stream.closing is not None
            assert stream.closing.reason == CLOSING_REASON_SHUTDOWN
            assert stream.closing.HasField("retry_after")
            assert await stream.call.code() == grpc.StatusCode.OK
        async with await other.subscribe("g") as stream:
            again = await stream.take(200, timeout=5)
        assert {delivery.attempt for delivery in again} == {1}
        assert {delivery.event.event_id for delivery in again} == {each.event_id for each in published}
    assert await process.ended(timeout=30) == 0, process.log.read_text()


async def test_a_broker_with_its_own_engines_finds_its_events_after_a_restart() -> None:
    published = event()
    with engine_directory() as directory:
        data = str(directory / "data")
        async with broker_process(DATA_DIR=data) as process, Client(process.target) as client:
            await client.publish(published)
            (await client.subscribe("g")).close()
            await stopped(process)
        async with broker_process(DATA_DIR=data) as process, Client(process.target) as client:
            assert (await client.get_event(published.event_id)).position == 1
            async with await client.subscribe("g") as stream:
                assert [each.event_id for each in await stream.take_and_ack(1)] == [published.event_id]
            (result,) = await client.publish(event())
            assert result.position == 2
            await stopped(process)


async def test_a_second_broker_on_a_data_directory_is_told_who_has_it() -> None:
    with engine_directory() as directory:
        data = str(directory / "data")
        async with broker_process(DATA_DIR=data) as process, Client(process.target) as client:
            with pytest.raises(AssertionError, match=f"is in use by the broker with the pid {process.process.pid}"):
                async with broker_process(DATA_DIR=data):
                    pass
            await client.publish(event())
            await stopped(process)


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])  # noqa: S104 - refused
async def test_a_broker_that_knows_nobody_does_not_listen_to_strangers(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]], host: str
) -> None:
    with pytest.raises(AssertionError, match="without authentication the server listens on loopback only"):
        await spawn_broker(HOST=host)


# Clients that are not ours, and know the services by reflection alone.

BUF = shutil.which("buf") or str(Path(sys.executable).parent / "buf")
GRPCURL = shutil.which("grpcurl")


def buf(target: str, method: str, data: str) -> list[str]:
    return [BUF, "curl", "--http2-prior-knowledge", "--protocol", "grpc", "-d", data, f"http://{target}/{method}"]


def grpcurl(target: str, method: str, data: str) -> list[str]:
    return [GRPCURL or "grpcurl", "-plaintext", "-d", data, target, method]


class Foreign(NamedTuple):
    """A command line client on a broker."""

    target: str
    command: Callable[[str, str, str], list[str]]

    @asynccontextmanager
    async def run(self, method: str, data: dict[str, Any]) -> AsyncIterator[asyncio.subprocess.Process]:
        async with spawned(
            *self.command(self.target, f"eventbroker.v1.{method}", json.dumps(data)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        ) as process:
            yield process

    async def call(self, method: str, data: dict[str, Any], answer: M) -> M:
        async with self.run(method, data) as process, asyncio.timeout(30):
            out, err = await process.communicate()
            assert process.returncode == 0, err.decode()
            return Parse(out, answer)


@pytest.fixture(params=[buf, *([grpcurl] if GRPCURL else [])])
def foreign(request: pytest.FixtureRequest, broker: Client) -> Foreign:
    return Foreign(broker.target, request.param)


async def next_response(stdout: asyncio.StreamReader) -> SubscribeResponse:
    """The next of several JSON documents, each of which may be spread over lines."""
    text = ""
    while True:
        line = await stdout.readline()
        assert line, f"the output ended after {text!r}"
        text += line.decode()
        try:
            return ParseDict(json.loads(text), SubscribeResponse())
        except json.JSONDecodeError:
            continue


async def test_a_foreign_client_publishes_gets_and_subscribes(foreign: Foreign) -> None:
    published = event(json='{"n": 9007199254740993}', event_version="v1.0")
    said = {"events": [MessageToDict(published)]}
    (result,) = (await foreign.call("PublisherService/Publish", said, PublishResponse())).results
    assert (result.event_id, result.outcome) == (published.event_id, STORED)
    assert (result.position, result.aggregate_version) == (1, 1)

    key = {"tenantId": "acme", "eventId": published.event_id}
    stored = (await foreign.call("EventStoreService/GetEvent", key, GetEventResponse())).event
    assert (stored.json, stored.position) == (published.json, 1)

    wish = {"group": "billing", "eventTypes": ["user.*"]}
    async with foreign.run("SubscriberService/Subscribe", wish) as process, asyncio.timeout(30):
        assert process.stdout
        assert (await next_response(process.stdout)).opened.group == "billing"
        while not (response := await next_response(process.stdout)).HasField("deliveries"):
            pass
        (delivery,) = response.deliveries.deliveries
        assert delivery.event == stored
        acked = await foreign.call("SubscriberService/Ack", {"ackIds": [delivery.ack_id]}, AckResponse())
        assert [(each.ack_id, each.outcome) for each in acked.results] == [(delivery.ack_id, DONE)]
