"""Consume: a subscription and its settling on one stream.

Two coroutines: one says what the subscription says, the other settles what the client asks, message by message, and
answers. Either may write, one at a time. No stream ends between a settling and its answer, unless it is broken.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_server.broker.subscription import Farewell
from eventbroker_server.domain.errors import InvalidArgument, Violation
from eventbroker_server.rpc.settle import settle
from eventbroker_server.rpc.told import opened, told
from eventbroker_server.rpc.wire import field_tag, sized

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventbroker_server.broker.settle import Settling
    from eventbroker_server.broker.subscription import Subscription
    from eventbroker_server.broker.subscriptions import Wish
    from eventbroker_server.domain.principal import Principal

    Context = grpc.aio.ServicerContext[pb.ConsumeRequest, pb.ConsumeResponse]

OPEN_WITHIN = 10.0  # seconds

_SUBSCRIPTION = field_tag(pb.ConsumeResponse, "subscription")


async def first_of(context: Context, wish_of: Callable[[pb.SubscribeRequest], Wish]) -> Wish:
    """What the first message wishes for. Raises InvalidArgument."""
    try:
        async with asyncio.timeout(OPEN_WITHIN):
            request = await _read(context)
    except TimeoutError:
        request = None
    if request is None or not request.HasField("open"):
        raise InvalidArgument([Violation("open", f"is required first, within {OPEN_WITHIN:g} s")])
    try:
        return wish_of(request.open)
    except InvalidArgument as exc:
        raise _within("open", exc) from None


class Conversation:
    """`run` returns when the subscription is over, and raises what ends the stream with an error."""

    def __init__(self, subscription: Subscription, settling: Settling, principal: Principal, context: Context) -> None:
        self._subscription = subscription
        self._settling = settling
        self._principal = principal
        self._context = context
        self._writing = asyncio.Lock()
        self._answering = asyncio.Lock()  # from the settling to its answer

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                listening = tasks.create_task(self._listen())
                await self._speak()
                listening.cancel()
        except ExceptionGroup as group:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from None  # the client is gone: what failed by that is no news
            raise group.exceptions[0] from None  # the door knows each by its class

    async def _speak(self) -> None:
        await self._write(_wrapped(opened(self._subscription)))
        while True:
            said = await self._subscription.next()
            message = _wrapped(told(said))
            if isinstance(said, Farewell):
                async with self._answering:
                    await self._write(message)
                return
            await self._write(message)

    async def _listen(self) -> None:
        while (request := await _read(self._context)) is not None:
            async with self._answering:
                await self._heed(request)
        self._subscription.drain()

    async def _heed(self, request: pb.ConsumeRequest) -> None:
        kind = request.WhichOneof("request")
        if kind == "drain":
            self._subscription.drain()
        elif kind == "open":
            raise InvalidArgument([Violation("open", "must come once")])
        elif kind is None:
            raise InvalidArgument([Violation("request", "is required: one of ack, nack, extend, drain")])
        else:
            try:
                outcomes = pb.Outcomes(correlation=request.correlation)
                await settle(self._settling, self._principal, getattr(request, kind), outcomes)
            except InvalidArgument as exc:
                raise _within(kind, exc) from None
            await self._write(pb.ConsumeResponse(outcomes=outcomes))

    async def _write(self, message: pb.ConsumeResponse | bytes) -> None:
        async with self._writing:
            await self._context.write(message)  # type: ignore[arg-type] # the door takes bytes as they are


async def _read(context: Context) -> pb.ConsumeRequest | None:
    """None when the client has half-closed."""
    read: Any = await context.read()
    return None if read is grpc.aio.EOF else read


def _wrapped(message: pb.SubscribeResponse | bytes) -> bytes:
    return _SUBSCRIPTION + sized(message if isinstance(message, bytes) else message.SerializeToString())


def _within(field: str, exc: InvalidArgument) -> InvalidArgument:
    """The violations, by their paths in the whole message."""
    return InvalidArgument([Violation(f"{field}.{each.field}", each.rule) for each in exc.violations])
