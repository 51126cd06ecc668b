"""The loads, each run in a process of its own by worker.py. Times are of CLOCK_MONOTONIC, which processes share."""

from __future__ import annotations

import asyncio
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

import asyncpg
import grpc
from eventbroker.v1 import group_service_pb2 as managing
from eventbroker.v1 import publisher_service_pb2 as publishing
from eventbroker.v1 import subscriber_service_pb2 as subscribing
from eventbroker.v1.group_service_pb2_grpc import GroupServiceStub
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub
from google.protobuf.duration_pb2 import Duration

from benchmarks.events import GROUP_TYPES, INSERT, TENANT, requests, rows

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Sequence

    from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceAsyncStub

    from benchmarks.worker import Line

CALL_TIMEOUT = 30.0


class Work(NamedTuple):
    """So many events between two moments, at so many seconds of CPU of the load's own."""

    events: int
    began: float
    ended: float
    cpu: float


class Latencies(NamedTuple):
    """Seconds from the moment an event was due to its arrival, and to the answer of its Publish."""

    delivery: list[float]
    publish: list[float]


async def insert(line: Line, url: str, events: int, batch: int) -> Work:
    """Bare PostgreSQL: one connection, one INSERT after the other."""
    connection = await asyncpg.connect(url)
    try:
        statement = await connection.prepare(INSERT)
        supply = rows(batch)
        line.say("ready")
        await line.hear()
        began, cpu = time.monotonic(), time.process_time()
        for _ in range(events // batch):
            await statement.fetch(*next(supply))
        work = Work(events, began, time.monotonic(), time.process_time() - cpu)
        await connection.execute("UPDATE eventbroker.shard_head SET position = $1 WHERE shard = 0", events)
        return work
    finally:
        await connection.close()


async def publish(line: Line, target: str, batch: int, in_flight: int, events: int, seconds: float) -> Work:
    """Unary Publish of `batch` events a call, so many calls in flight, until that many events or seconds."""
    async with channel_to(target) as channel:
        stub = PublisherServiceStub(channel)
        supply = requests(batch)
        started = 0
        stored = 0

        async def caller() -> None:
            nonlocal started, stored
            while started < events and time.monotonic() - began < seconds:
                started += batch
                answer = await stub.Publish(next(supply), timeout=CALL_TIMEOUT)
                stored += sum(result.outcome == publishing.PUBLISH_OUTCOME_STORED for result in answer.results)

        line.say("ready")
        await line.hear()
        began, cpu = time.monotonic(), time.process_time()
        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller())
        ended = time.monotonic()
        if stored != started:
            raise RuntimeError(f"{started} events were published, {stored} stored")
        return Work(stored, began, ended, time.process_time() - cpu)


async def consume(
    line: Line, target: str, request: subscribing.SubscribeRequest, streams: int, nack_one_in: int = 0
) -> Work:
    """Take events on so many streams, until as many are acked as the line says after it was told that the streams are
    open. Acks go out one call at a time, each with all that has come meanwhile. One event in so many is nacked when it
    comes first, to be tried again at once."""
    async with channel_to(target) as channel:
        stub = SubscriberServiceStub(channel)
        seen: set[str] = set()
        to_ack: list[str] = []
        to_nack: list[str] = []
        acked = 0
        came, progress = asyncio.Event(), asyncio.Event()

        async def handle(deliveries: list[subscribing.Delivery]) -> None:
            for delivery in deliveries:
                seen.add(delivery.event.event_id)
                nacked = nack_one_in and delivery.attempt == 1 and delivery.event.position % nack_one_in == 0
                (to_nack if nacked else to_ack).append(delivery.ack_id)
            came.set()

        async def ack() -> None:
            nonlocal acked
            while await came.wait():
                came.clear()
                if to_nack:
                    refusal = subscribing.NackRequest(ack_ids=to_nack, delay=Duration())
                    to_nack.clear()
                    await stub.Nack(refusal, timeout=CALL_TIMEOUT)
                if not to_ack:
                    continue
                call = subscribing.AckRequest(ack_ids=to_ack)
                to_ack.clear()
                answer = await stub.Ack(call, timeout=CALL_TIMEOUT)
                acked += sum(result.outcome == subscribing.SETTLE_OUTCOME_DONE for result in answer.results)
                progress.set()

        line.say("ready")
        await line.hear()
        began, cpu = time.monotonic(), time.process_time()
        async with subscribed(stub, request, streams, handle), asyncio.TaskGroup() as tasks:
            acking = tasks.create_task(ack())
            line.say("open")
            total = await line.hear()
            while acked != total:
                progress.clear()
                await progress.wait()
            work = Work(acked, began, time.monotonic(), time.process_time() - cpu)
            acking.cancel()
        if len(seen) != total:
            raise RuntimeError(f"{total} events were acked, but {len(seen)} different ones")
        return work


async def keep_pace(
    line: Line,
    target: str,
    rate: float,
    events: int,
    consumer: subscribing.SubscribeRequest,
    tenants: Sequence[str] = (TENANT,),
) -> Latencies:
    """Publish an event a call on a fixed schedule, whatever the answers take, and take and ack each as it comes. What
    else the group gets is acked, too."""
    due: dict[str, float] = {}
    arrived: dict[str, float] = {}
    answered: list[float] = []
    all_here, caught_up = asyncio.Event(), asyncio.Event()
    async with channel_to(target) as channel, channel_to(target) as channel_of_consumer:
        publisher, subscriber = PublisherServiceStub(channel), SubscriberServiceStub(channel_of_consumer)

        async def handle(deliveries: list[subscribing.Delivery]) -> None:
            now = time.monotonic()
            for delivery in deliveries:
                if (event_id := delivery.event.event_id) in due:
                    arrived.setdefault(event_id, now)
            await subscriber.Ack(
                subscribing.AckRequest(ack_ids=[delivery.ack_id for delivery in deliveries]), timeout=CALL_TIMEOUT
            )
            if len(arrived) == events:
                all_here.set()

        async def send(request: publishing.PublishRequest, at: float) -> None:
            await publisher.Publish(request, timeout=CALL_TIMEOUT)
            answered.append(time.monotonic() - at)

        async with subscribed(subscriber, consumer, 1, handle, caught_up), asyncio.TaskGroup() as calls:
            supply = requests(1, tenants)
            await caught_up.wait()
            line.say("ready")
            await line.hear()
            began = time.monotonic()
            for number in range(events):
                request = next(supply)
                at = due[request.events[0].event_id] = began + number / rate
                await asyncio.sleep(at - time.monotonic())
                calls.create_task(send(request, at))
            await all_here.wait()
    return Latencies([arrived[event_id] - at for event_id, at in due.items()], answered)


async def make_group(line: Line, target: str, request: subscribing.SubscribeRequest) -> None:
    """Make a group, and leave it without a consumer."""
    line.say("ready")
    async with channel_to(target) as channel, subscribed(SubscriberServiceStub(channel), request, 1, _ignore):
        pass


async def create_group(line: Line, target: str, group: managing.CreateGroupRequest) -> None:
    """Make a group through GroupService."""
    line.say("ready")
    async with channel_to(target) as channel:
        await GroupServiceStub(channel).CreateGroup(group, timeout=CALL_TIMEOUT)


def in_turn(name: str, *, fair: bool = False) -> managing.CreateGroupRequest:
    """A group that gets the events of an aggregate one after the other, or those of all tenants in turn."""
    return managing.CreateGroupRequest(
        name=name,
        event_types=GROUP_TYPES,
        tenant_id="" if fair else TENANT,
        start=managing.LogPoint(edge=subscribing.START_POINT_LATEST),
        ordering=managing.ORDERING_NONE if fair else managing.ORDERING_BY_AGGREGATE,
        fairness=managing.FAIRNESS_BY_TENANT if fair else managing.FAIRNESS_NONE,
    )


def wish(group: str, *, latest: bool = True, tenant: str = TENANT) -> subscribing.SubscribeRequest:
    """A subscription of a consumer that wants much at a time."""
    return subscribing.SubscribeRequest(
        group=group,
        event_types=GROUP_TYPES,
        tenant_id=tenant,
        start=subscribing.START_POINT_LATEST if latest else subscribing.START_POINT_EARLIEST,
        flow_control=subscribing.FlowControl(max_unsettled_events=5_000, max_batch_events=500),
    )


@asynccontextmanager
async def channel_to(target: str) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_receive_message_length", 64 << 20), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        async with asyncio.timeout(CALL_TIMEOUT):
            await channel.channel_ready()
        yield channel


@asynccontextmanager
async def subscribed(
    stub: SubscriberServiceAsyncStub,
    request: subscribing.SubscribeRequest,
    streams: int,
    handle: Callable[[list[subscribing.Delivery]], Coroutine[None, None, None]],
    caught_up: asyncio.Event | None = None,
) -> AsyncIterator[None]:
    """Open streams, and hand every message to `handle` in a task of its own, while the block runs. Sets `caught_up`
    when a stream says so."""
    calls = [stub.Subscribe(request) for _ in range(streams)]

    async def read(call: grpc.aio.UnaryStreamCall[subscribing.SubscribeRequest, subscribing.SubscribeResponse]) -> None:
        async with asyncio.TaskGroup() as handlers:
            while isinstance(response := await call.read(), subscribing.SubscribeResponse):
                if response.HasField("closing"):
                    raise RuntimeError(f"the broker ended a stream: {response}")
                if caught_up is not None and response.HasField("caught_up"):
                    caught_up.set()
                if response.HasField("deliveries"):
                    handlers.create_task(handle(list(response.deliveries.deliveries)))

    try:
        for call in calls:
            async with asyncio.timeout(CALL_TIMEOUT):
                await call.read()  # opened
        async with asyncio.TaskGroup() as readers:
            tasks = [readers.create_task(read(call)) for call in calls]
            yield
            for task in tasks:
                task.cancel()
    finally:
        for call in calls:
            call.cancel()


async def _ignore(deliveries: list[subscribing.Delivery]) -> None:
    pass
