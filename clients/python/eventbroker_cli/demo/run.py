"""One run of the demo: publishers, consumers and faults against a broker, until the books are settled.

Everything goes through the protobuf contract, as any client would: unary Publish and Ack that are tried again with the
same ids, Subscribe streams that are opened again when they end. Groups are opened before the first event is published
and bear the run id, so that runs do not see each other. The run has a deadline; what is open at its end is a mismatch
in the report, never a hang.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol, TypeVar

import grpc
import grpc.aio
from eventbroker.v1.event_store_service_pb2 import GetEventRequest
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub
from eventbroker.v1.publisher_service_pb2 import PUBLISH_OUTCOME_DUPLICATE, PUBLISH_OUTCOME_STORED, PublishRequest
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.subscriber_service_pb2 import (
    CLOSING_REASON_REPLACED,
    SETTLE_OUTCOME_ALREADY_SETTLED,
    SETTLE_OUTCOME_DONE,
    SETTLE_OUTCOME_OUTDATED,
    START_POINT_LATEST,
    AckRequest,
    ClosingReason,
    FlowControl,
    SubscribeRequest,
)
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub
from google.protobuf.duration_pb2 import Duration

from eventbroker_cli.demo.ledger import Group, Ledger, Report
from eventbroker_cli.demo.platform import EVENT_TYPES, Platform

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventbroker.v1.event_pb2 import Event
    from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceAsyncStub
    from eventbroker.v1.subscriber_service_pb2 import Closing, DeliveryBatch
    from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceAsyncStub

T = TypeVar("T")
U = TypeVar("U")

GROUPS = {  # name: event types, consumers
    "audit": (("*",), 3),
    "notifications": (("user.*",), 2),
    "permission-cache": (("role.*", "session.*"), 2),
}
KILL_AT, EMPTY_AT = 0.4, 0.6  # of the deliveries to the audit group

START_TIMEOUT = 10.0  # for a broker to answer, and for all groups to open
CALL_TIMEOUT = 10.0  # one unary call
SILENCE = 60.0  # a stream without even a heartbeat for so long is broken
ACK_DEADLINE = 15  # seconds; how long the events of a consumer that hangs stay with it
ACKERS, ACK_SIZE = 3, 1_000  # Ack calls in flight for one consumer, and ids in one
SAMPLE, SAMPLE_TIMEOUT = 200, 60.0

CHANNEL_OPTIONS = [
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each publisher and consumer
]
AGAIN = {  # the outcome is unknown, or the time was bad: the same call again
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
HOPELESS = {  # a stream that ends so is not opened again
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class CannotStart(Exception):  # noqa: N818  # a fact, as the broker's own errors are
    """The demo cannot begin; the message is for people."""


@dataclass(frozen=True, slots=True)
class Options:
    """What can be chosen. The timeout is in seconds."""

    run_id: str
    target: str = "127.0.0.1:50051"
    events: int = 100_000
    tenants: int = 100
    users: int = 100_000
    seed: int = 1
    publishers: int = 4
    batch: int = 100
    redis_url: str = ""
    faults: bool = True
    timeout: float = 300.0


class Screen(Protocol):
    """Where the run shows itself."""

    interval: float  # seconds between refreshes

    def begin(self, ledger: Ledger) -> None: ...
    def note(self, line: str) -> None: ...
    def refresh(self) -> None: ...


async def run_demo(options: Options, screen: Screen) -> Report:
    """Runs the demo once. CannotStart when there is no broker, or the run id was used before."""
    return await Run(options, screen).run()


def pause(attempt: int) -> float:
    """How long to wait before trying again, in seconds: exponential, at most 2 s, with full jitter."""
    return random.uniform(0, min(2.0, 0.05 * 2 ** min(attempt, 10)))


async def insist(make: Callable[[], grpc.aio.UnaryUnaryCall[T, U]], ledger: Ledger) -> U:
    """Makes a unary call until it is answered. Errors that trying again does not heal are raised."""
    attempt = 0
    while True:
        call = make()
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            if error.code() not in AGAIN:
                raise
        finally:
            call.cancel()
        ledger.retries += 1
        await asyncio.sleep(pause(attempt))
        attempt += 1


class Lanes:
    """Batches on their way to the publishers. A tenant's batches go one after another, whichever publisher takes them,
    so that its events are stored in their order; at most `room` batches wait or are under way."""

    def __init__(self, room: int) -> None:
        self._size, self._room = room, asyncio.Semaphore(room)
        self._lanes: dict[str, deque[list[Event]]] = {}  # the tenants that wait or are under way
        self._free: asyncio.Queue[str] = asyncio.Queue()  # those of them that wait

    async def put(self, tenant: str, batch: list[Event]) -> None:
        await self._room.acquire()
        if tenant in self._lanes:
            self._lanes[tenant].append(batch)
        else:
            self._lanes[tenant] = deque([batch])
            self._free.put_nowait(tenant)

    async def take(self) -> tuple[str, list[Event]]:
        tenant = await self._free.get()
        return tenant, self._lanes[tenant].popleft()

    def done(self, tenant: str) -> None:
        """The batch that was taken is stored."""
        self._room.release()
        if self._lanes[tenant]:
            self._free.put_nowait(tenant)
        else:
            del self._lanes[tenant]

    async def drained(self) -> None:
        """All batches are stored. Nothing may be put after this."""
        for _ in range(self._size):
            await self._room.acquire()


class Faults:
    """What is broken on purpose, and when: counted in the audit group's deliveries."""

    def __init__(self, options: Options, group: Group, screen: Screen) -> None:
        self._options, self._group, self._screen = options, group, screen
        self._delivered = 0
        self._victim_found = not options.faults
        self._redis_due, self._replaced, self._emptied = (asyncio.Event() for _ in range(3))
        self.lines: list[str] = []
        if not options.faults:
            self._tell("no faults, as asked")
            self._replaced.set()
        if not options.faults or not options.redis_url:
            self._emptied.set()
        if options.faults and not options.redis_url:
            self._tell("Redis is not emptied: its URL is not known (--redis-url)")

    def strike(self, group: Group) -> bool:
        """A consumer of the group noted deliveries. Whether it dies now, before it acks them."""
        if group is not self._group:
            return False
        delivered = sum(group.delivered)
        if not self._victim_found and delivered >= KILL_AT * self._options.events:
            self._victim_found = True
            return True
        if delivered >= EMPTY_AT * self._options.events:
            self._redis_due.set()
        return False

    def killed(self, consumer: str, dropped: int) -> None:
        self._tell(f"killed consumer {consumer} with {dropped:,} deliveries unacked")

    def replaced(self, consumer: str) -> None:
        self._screen.note(f"consumer {consumer} took its place")
        self._replaced.set()

    async def empty_redis(self) -> None:
        """Waits until it is time, and empties Redis once."""
        if self._emptied.is_set():
            return
        await self._redis_due.wait()
        try:
            from redis.asyncio import Redis

            async with Redis.from_url(self._options.redis_url, socket_timeout=5, socket_connect_timeout=5) as redis:
                keys = await redis.dbsize()
                await redis.flushall()
        except ImportError:
            self._tell("Redis is not emptied: the package redis is not installed")
        except Exception as error:  # whatever the driver raises: the run goes on without this fault
            self._tell(f"Redis is not emptied: {str(error) or type(error).__name__}")
        else:
            self._tell(f"emptied Redis of {keys:,} keys (FLUSHALL)")
        self._emptied.set()

    async def over(self) -> None:
        await self._replaced.wait()
        await self._emptied.wait()

    def _tell(self, line: str) -> None:
        self.lines.append(line)
        self._screen.note(line)


class Consumer:
    """One consumer of a group, with a connection of its own: notes what comes, acks it, and opens its stream again when
    it ends, until it is cancelled or killed."""

    def __init__(self, run: Run, group: Group, event_types: tuple[str, ...], consumer_id: str) -> None:
        self.opened = asyncio.Event()
        self.consumer_id = consumer_id
        self._run, self._group = run, group
        self._attempt = 0
        self._unsent: asyncio.Queue[list[tuple[str, str]] | None] = asyncio.Queue()
        self._request = SubscribeRequest(
            group=f"{group.name}-{run.options.run_id}",
            consumer_id=consumer_id,
            event_types=event_types,
            start=START_POINT_LATEST,
            ack_deadline=Duration(seconds=ACK_DEADLINE),
            flow_control=FlowControl(max_unsettled_events=2_000, max_batch_events=250),
        )

    async def run(self) -> int:
        """Ends only when killed: then its stream is cut and what it had not begun to ack is dropped. Returns how many
        those are. Acks in flight are answered all the same, or the books could not know what became of them."""
        async with grpc.aio.insecure_channel(self._run.options.target, options=CHANNEL_OPTIONS) as channel:
            stub = SubscriberServiceStub(channel)
            async with asyncio.TaskGroup() as ackers:
                for number in range(ACKERS):
                    ackers.create_task(self._ack(stub), name=f"{self.consumer_id} ack {number}")
                await self._read(stub)
                dropped = 0
                while not self._unsent.empty():
                    dropped += len(self._unsent.get_nowait() or ())
                for _ in range(ACKERS):
                    self._unsent.put_nowait(None)
        return dropped

    async def _read(self, stub: SubscriberServiceAsyncStub) -> None:
        while True:
            try:
                if await self._stream(stub):
                    return
            except TimeoutError:
                self._tell(f"nothing came for {SILENCE:.0f} s")
            except grpc.aio.AioRpcError as error:
                if error.code() in HOPELESS:
                    raise
                self._tell(f"{error.code().name}: {error.details()}")
            await asyncio.sleep(pause(self._attempt))
            self._attempt += 1

    async def _stream(self, stub: SubscriberServiceAsyncStub) -> bool:
        """Reads one stream to its end. Whether this consumer was killed."""
        clock = asyncio.get_running_loop()
        closing: Closing | None = None
        call = stub.Subscribe(self._request)
        try:
            async with asyncio.timeout(SILENCE) as bound:
                async for response in call:
                    bound.reschedule(clock.time() + SILENCE)
                    what = response.WhichOneof("response")
                    if what == "opened":
                        self.opened.set()
                        self._attempt = 0
                    elif what == "deliveries":
                        self._note(response.deliveries)
                        if self._run.faults.strike(self._group):
                            return True
                    elif what == "closing":
                        closing = response.closing
                        break
        finally:
            call.cancel()
        if closing:
            reason = ClosingReason.Name(closing.reason).removeprefix("CLOSING_REASON_").lower()
            self._tell(f"the broker closes its stream ({reason})")
            if closing.reason == CLOSING_REASON_REPLACED:  # not to come back under this name
                self._request.consumer_id = self.consumer_id = f"{self.consumer_id}+"
            await asyncio.sleep(closing.retry_after.ToTimedelta().total_seconds())
        else:
            self._tell("its stream ended")
        return False

    def _tell(self, why: str) -> None:
        if self._attempt in (0, 5):  # not every attempt of many
            self._run.screen.note(f"consumer {self.consumer_id} reconnects: {why}")

    def _note(self, batch: DeliveryBatch) -> None:
        ids = []
        for delivery in batch.deliveries:
            event = delivery.event
            self._group.note_delivery(event.event_id, event.event_type, event.position)
            ids.append((event.event_id, delivery.ack_id))
        self._unsent.put_nowait(ids)

    async def _ack(self, stub: SubscriberServiceAsyncStub) -> None:
        while (batch := await self._unsent.get()) is not None:
            while len(batch) < ACK_SIZE and not self._unsent.empty():
                more = self._unsent.get_nowait()
                if more is None:
                    self._unsent.put_nowait(None)
                    break
                batch += more
            request = AckRequest(ack_ids=[ack_id for _, ack_id in batch])
            answer = await insist(partial(stub.Ack, request, timeout=CALL_TIMEOUT), self._run.ledger)
            for (event_id, _), result in zip(batch, answer.results, strict=False):  # one that is missing is not acked
                if result.outcome == SETTLE_OUTCOME_OUTDATED:
                    self._group.outdated += 1
                elif result.outcome in (SETTLE_OUTCOME_DONE, SETTLE_OUTCOME_ALREADY_SETTLED):
                    self._group.note_settled(event_id)
            self._run.look()


class Run:
    """One run, from the first question to the report."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self.options, self.screen = options, screen
        self.ledger = Ledger(
            options.run_id, options.events, EVENT_TYPES, {name: types for name, (types, _) in GROUPS.items()}
        )
        self._settled = asyncio.Event()
        self._began = self._published = self._ended = 0.0
        self._failure = ""
        lots = random.Random(options.seed)
        self._sampled = set(lots.sample(range(options.events), min(SAMPLE, options.events)))
        self._sample: list[Event] = []

    def look(self) -> None:
        """Something changed in the books; perhaps they are settled."""
        if self.ledger.settled:
            self._settled.set()

    async def run(self) -> Report:
        await self._ask()
        self.screen.begin(self.ledger)
        self.faults = Faults(self.options, self.ledger.groups["audit"], self.screen)
        try:
            async with asyncio.timeout(self.options.timeout):
                await self._live()
        except TimeoutError:
            self._failure = f"not all was acked within {self.options.timeout:g} s"
        self._ended = self._ended or time.monotonic()
        self._published = self._published or self._ended
        self.screen.note("asking the store for a sample of the events")
        self.screen.refresh()
        wrong = await self._check_sample()
        return Report(
            run_id=self.options.run_id,
            rows=self.ledger.rows(),
            mismatches=self.ledger.mismatches(),
            duplicates=self.ledger.duplicates,
            retries=self.ledger.retries,
            duration=self._ended - self._began,
            publish_duration=self._published - self._began,
            faults=self.faults.lines,
            sample_checked=len(self._sample),
            sample_wrong=wrong,
            failure=self._failure,
        )

    def _platform(self) -> Platform:
        options = self.options
        return Platform(
            seed=options.seed,
            run_id=options.run_id,
            events=options.events,
            tenants=options.tenants,
            users=options.users,
        )

    async def _ask(self) -> None:
        """Asks for the first event, to learn whether a broker answers and that the run id is new."""
        first, target = next(self._platform().day()), self.options.target
        async with grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS) as channel:
            stub = EventStoreServiceStub(channel)
            request = GetEventRequest(tenant_id=first.tenant_id, event_id=first.event_id)
            make = partial(stub.GetEvent, request, timeout=START_TIMEOUT, wait_for_ready=True)
            try:
                async with asyncio.timeout(START_TIMEOUT):
                    await insist(make, self.ledger)
            except TimeoutError:
                raise CannotStart(f"no broker answers at {target} within {START_TIMEOUT:g} s") from None
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return
                raise CannotStart(f"{target} answers {error.code().name}: {error.details()}") from None
        raise CannotStart(f"the run id {self.options.run_id} was used before; choose another one")

    async def _live(self) -> None:
        """Consumers and publishers side by side, until the books are settled and the faults are over."""
        refused: Exception | None = None
        try:
            async with asyncio.TaskGroup() as tasks:
                around = [tasks.create_task(self._refresh(), name="screen")]
                around.append(tasks.create_task(self.faults.empty_redis(), name="empty Redis"))
                consumers = []
                for name, (types, count) in GROUPS.items():
                    for number in range(1, count + 1):
                        consumer = Consumer(self, self.ledger.groups[name], types, f"{name}-{number}")
                        consumers.append(consumer)
                        around.append(tasks.create_task(self._consume(consumer, types), name=consumer.consumer_id))
                try:
                    async with asyncio.timeout(START_TIMEOUT):
                        for consumer in consumers:
                            await consumer.opened.wait()
                except TimeoutError:
                    raise CannotStart(f"the groups did not open within {START_TIMEOUT:g} s") from None
                self._began = time.monotonic()
                await self._publish_all()
                self._published = time.monotonic()
                await self._settled.wait()
                self._ended = time.monotonic()
                await self.faults.over()
                for task in around:
                    task.cancel()
        except* (CannotStart, grpc.aio.AioRpcError) as group:
            refused = first_of(group)
        if isinstance(refused, grpc.aio.AioRpcError):
            self._failure = f"the broker answered {refused.code().name}: {refused.details()}"
            refused = None if self._began else CannotStart(self._failure)
        if refused:
            raise refused

    async def _refresh(self) -> None:
        while True:
            self.screen.refresh()
            await asyncio.sleep(self.screen.interval)

    async def _consume(self, consumer: Consumer, types: tuple[str, ...]) -> None:
        """Runs a consumer; should it be killed, another one takes its place a second later."""
        dropped = await consumer.run()
        self.faults.killed(consumer.consumer_id, dropped)
        await asyncio.sleep(1)
        heir = Consumer(self, self.ledger.groups["audit"], types, f"{consumer.consumer_id}b")
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(heir.run(), name=heir.consumer_id)
            await heir.opened.wait()
            self.faults.replaced(heir.consumer_id)

    async def _publish_all(self) -> None:
        lanes = Lanes(4 * self.options.publishers)
        async with asyncio.TaskGroup() as tasks:
            publishers = [
                tasks.create_task(self._publish(lanes), name=f"publisher {number}")
                for number in range(1, self.options.publishers + 1)
            ]
            held: dict[str, list[Event]] = {}
            for number, event in enumerate(self._platform().day()):
                if number in self._sampled:
                    self._sample.append(event)
                batch = held.setdefault(event.tenant_id, [])
                batch.append(event)
                if len(batch) == self.options.batch:
                    await lanes.put(event.tenant_id, held.pop(event.tenant_id))
                if number % 100 == 0:
                    await asyncio.sleep(0)  # generating must not hold up the streams
            for tenant, batch in held.items():
                await lanes.put(tenant, batch)
            await lanes.drained()
            for publisher in publishers:
                publisher.cancel()

    async def _publish(self, lanes: Lanes) -> None:
        ledger = self.ledger
        async with grpc.aio.insecure_channel(self.options.target, options=CHANNEL_OPTIONS) as channel:
            stub = PublisherServiceStub(channel)
            while True:
                tenant, batch = await lanes.take()
                for event in batch:
                    ledger.note_published(event.event_id, event.event_type)
                make = partial(stub.Publish, PublishRequest(events=batch), timeout=CALL_TIMEOUT)
                for result in (await insist(make, ledger)).results:
                    if result.outcome in (PUBLISH_OUTCOME_STORED, PUBLISH_OUTCOME_DUPLICATE):
                        duplicate = result.outcome == PUBLISH_OUTCOME_DUPLICATE
                        ledger.note_stored(result.event_id, result.position, duplicate=duplicate)
                lanes.done(tenant)
                self.look()

    async def _check_sample(self) -> list[str]:
        """The ids of sampled events that the store does not give back as they were published."""
        left, right = deque(self._sample), set()

        async def check(stub: EventStoreServiceAsyncStub) -> None:
            while left:
                event = left.popleft()
                request = GetEventRequest(tenant_id=event.tenant_id, event_id=event.event_id)
                try:
                    answer = await insist(partial(stub.GetEvent, request, timeout=CALL_TIMEOUT), self.ledger)
                except grpc.aio.AioRpcError:
                    continue
                for field in ("aggregate_version", "position", "record_time"):
                    answer.event.ClearField(field)  # the broker's own
                if answer.event == event:
                    right.add(event.event_id)

        with suppress(TimeoutError):
            async with (
                asyncio.timeout(SAMPLE_TIMEOUT),
                grpc.aio.insecure_channel(self.options.target, options=CHANNEL_OPTIONS) as channel,
                asyncio.TaskGroup() as tasks,
            ):
                for number in range(8):
                    tasks.create_task(check(EventStoreServiceStub(channel)), name=f"sample {number}")
        return [event.event_id for event in self._sample if event.event_id not in right]


def first_of(group: BaseExceptionGroup[Exception]) -> Exception:
    """The first plain exception of a group of groups."""
    error: Exception | BaseExceptionGroup[Exception] = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
