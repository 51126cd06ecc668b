"""A client of bare stubs, just good enough for the conformance cases."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self

import grpc
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from eventbroker.v1.group_service_pb2_grpc import GroupServiceStub
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub

from tests.client import error_info
from tests.conformance.client import Ended, Refusal, Reject, RetryAfter

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1 import publisher_service_pb2 as publisher_pb

    from tests.conformance.client import Handler

PATIENCE = 30.0  # seconds, for a call with all its tries
TRY = 5.0
LAST = {pb.CLOSING_REASON_REPLACED: "REPLACED", pb.CLOSING_REASON_GROUP_DELETED: "GROUP_DELETED"}
UNKNOWN_OUTCOME = {
    grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN,
}  # fmt: skip


def refusal(error: grpc.aio.AioRpcError) -> Refusal:
    details = error_info(error)
    info = details.get("ErrorInfo")
    retryable = {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED} if info else UNKNOWN_OUTCOME
    bad, failed = details.get("BadRequest"), details.get("PreconditionFailure")
    return Refusal(
        code=error.code().name,
        reason=info.reason if info else "",
        retryable=error.code() in retryable,
        fields=[violation.field.removeprefix("open.") for violation in bad.field_violations] if bad else [],
        metadata=dict(info.metadata) if info else {},
        conflicts=[violation.subject for violation in failed.violations] if failed else [],
    )


async def pause() -> None:
    await asyncio.sleep(random.uniform(0, 0.3))


class StubClient:
    def __init__(self, target: str) -> None:
        quick = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 1000)]
        self._channel = grpc.aio.insecure_channel(target, options=quick)
        self.subscriber = SubscriberServiceStub(self._channel)
        self._publisher = PublisherServiceStub(self._channel)
        self._services = {
            "GroupService": GroupServiceStub(self._channel),
            "DeadLetterService": DeadLetterServiceStub(self._channel),
        }

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._channel.close()

    async def _repeat(self, call: Callable[..., Awaitable[Any]], request: Any) -> Any:
        async with asyncio.timeout(PATIENCE):
            while True:
                try:
                    return await call(request, timeout=TRY)
                except grpc.aio.AioRpcError as error:
                    if not (why := refusal(error)).retryable:
                        raise why from error
                await pause()

    async def publish(self, request: publisher_pb.PublishRequest) -> list[publisher_pb.PublishResult]:
        return list((await self._repeat(self._publisher.Publish, request)).results)

    async def ack(self, ack_ids: list[str]) -> list[int]:
        return await self._settle(self.subscriber.Ack, pb.AckRequest(ack_ids=ack_ids))

    async def nack(self, request: pb.NackRequest) -> list[int]:
        return await self._settle(self.subscriber.Nack, request)

    async def extend(self, request: pb.ExtendDeadlineRequest) -> list[int]:
        return await self._settle(self.subscriber.ExtendDeadline, request)

    async def _settle(self, call: Any, request: Any) -> list[int]:
        return [result.outcome for result in (await self._repeat(call, request)).results]

    async def administer(self, service: str, method: str, request: Any) -> Any:
        return await self._repeat(getattr(self._services[service], method), request)

    async def subscribe(self, request: pb.SubscribeRequest) -> StubSubscription:
        subscription = StubSubscription(self, request)
        await subscription.start()
        return subscription

    async def consume(
        self, request: pb.SubscribeRequest, concurrency: int, handle: Handler, drain: asyncio.Event
    ) -> None:
        request.flow_control.max_unsettled_events = 2 * concurrency
        subscription = await self.subscribe(request)
        slots = asyncio.Semaphore(concurrency)
        held: set[str] = set()

        async def extending() -> None:
            seconds = subscription.opened.ack_deadline.seconds
            while True:
                await asyncio.sleep(seconds / 3)
                if held:
                    extension = pb.ExtendDeadlineRequest(ack_ids=list(held))
                    extension.deadline.FromSeconds(seconds)
                    await self.extend(extension)

        async def one(delivery: pb.Delivery) -> None:
            waiting = {asyncio.ensure_future(slots.acquire()), asyncio.ensure_future(drain.wait())}
            _, late = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in late:
                task.cancel()
            if drain.is_set():
                await self.nack(pb.NackRequest(ack_ids=[delivery.ack_id], action=pb.NACK_ACTION_RELEASE))
            else:
                await self._handle(delivery, handle)
                slots.release()
            held.discard(delivery.ack_id)

        async def draining() -> None:
            await drain.wait()
            await subscription.drain()

        async with asyncio.TaskGroup() as tasks:
            beside = [tasks.create_task(extending()), tasks.create_task(draining())]
            with suppress(StopAsyncIteration):
                while True:
                    delivery = await subscription.next()
                    held.add(delivery.ack_id)
                    tasks.create_task(one(delivery))
            for task in beside:
                task.cancel()

    async def _handle(self, delivery: pb.Delivery, handle: Handler) -> None:
        nack = pb.NackRequest(ack_ids=[delivery.ack_id])
        try:
            await handle(delivery)
        except Reject as rejected:
            nack.action, nack.reason = pb.NACK_ACTION_DEAD_LETTER, cleaned(rejected)
        except RetryAfter as later:
            nack.reason = cleaned(later.args[0])
            nack.delay.FromMilliseconds(round(later.args[1] * 1000))
        except Exception as failed:  # whatever a handler raises
            nack.reason = cleaned(failed)
        else:
            await self.ack([delivery.ack_id])
            return
        await self.nack(nack)


def cleaned(reason: object) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in str(reason))[:1024]


class StubSubscription:
    """A Consume stream, opened again when it breaks."""

    def __init__(self, client: StubClient, request: pb.SubscribeRequest) -> None:
        self._client = client
        self._request = request
        self._came: asyncio.Queue[pb.Delivery | Exception] = asyncio.Queue()
        self._draining = False

    async def start(self) -> None:
        """Raises Refusal."""
        await self._open()
        self._reading = asyncio.create_task(self._read())

    async def next(self) -> pb.Delivery:
        """Raises Ended, Refusal, and StopAsyncIteration when it was drained."""
        came = await self._came.get()
        if isinstance(came, Exception):
            self._came.put_nowait(came)
            raise came
        return came

    async def drain(self) -> None:
        self._draining = True
        with suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await self._call.write(pb.ConsumeRequest(drain=pb.Drain()))

    def close(self) -> None:
        self._reading.cancel()
        self._call.cancel()

    async def _open(self) -> None:
        while True:
            self._call: Any = self._client.subscriber.Consume()
            first: Any
            try:
                with suppress(asyncio.InvalidStateError):  # the call is over: to read tells why
                    await self._call.write(pb.ConsumeRequest(open=self._request))
                first = await self._call.read()
            except grpc.aio.AioRpcError as error:
                if not (why := refusal(error)).retryable:
                    raise why from error
            else:
                if first is not grpc.aio.EOF:
                    break
            await pause()
        self.opened = first.subscription.opened
        self._request.consumer_id = self.opened.consumer_id

    async def _read(self) -> None:
        """Stream after stream. The end of the last is put behind what it brought."""
        end: Exception | None = None
        while end is None:
            try:
                end = await self._read_one()
                if end is None:
                    while not self._came.empty():
                        self._came.get_nowait()  # it comes again
                    await pause()
                    await self._open()
            except Refusal as refused:
                end = refused
        self._came.put_nowait(end)

    async def _read_one(self) -> Exception | None:
        closing = pb.CLOSING_REASON_UNSPECIFIED
        try:
            while (message := await self._call.read()) is not grpc.aio.EOF:
                closing = message.subscription.closing.reason
                for delivery in message.subscription.deliveries.deliveries:
                    self._came.put_nowait(delivery)
        except grpc.aio.AioRpcError as error:
            if not (why := refusal(error)).retryable:
                return why
        if closing in LAST:
            return Ended(LAST[closing])
        return StopAsyncIteration() if self._draining else None
