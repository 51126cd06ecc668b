"""PublishStream: requests one after another on one stream, each answered when its outcome is known.

One coroutine reads, as far ahead as the window allows; each request has a task of its own, which starts in the order of
reading, so that requests come into the log in that order. A stream that is to end reads no more, and answers what it
has read.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from eventbroker.v1 import publisher_service_pb2 as pb

from eventbroker_server.domain.errors import (
    BrokerError,
    InvalidArgument,
    Overloaded,
    ShuttingDown,
    VersionConflict,
    Violation,
)
from eventbroker_server.rpc.status import CODES

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Context = grpc.aio.ServicerContext[pb.PublishStreamRequest, pb.PublishStreamResponse]

WINDOW = 16  # requests that may be unanswered


class PublishStreams:
    """Those that are open, and when they are to end."""

    def __init__(self, most: int, max_age: float) -> None:
        self._most = most
        self._max_age = max_age
        self._open: set[asyncio.Event] = set()
        self._closed = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[asyncio.Event]:
        """Set when the stream is to end: at its age, give or take 10 %, or by `close`. Raises Overloaded,
        ShuttingDown."""
        if len(self._open) >= self._most:
            raise Overloaded("streams", self._most)
        if self._closed:  # it would be told by nobody that it is to end
            raise ShuttingDown
        ending = asyncio.Event()
        age = self._max_age * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, hides nothing
        timer = asyncio.get_running_loop().call_later(age, ending.set)
        self._open.add(ending)
        try:
            yield ending
        finally:
            timer.cancel()
            self._open.discard(ending)

    def close(self) -> None:
        """Open no more, and end those that are open."""
        self._closed = True
        for ending in self._open:
            ending.set()


class Pipeline:
    """`run` returns when all that was read is answered, and raises what ends the stream with an error."""

    def __init__(
        self,
        publish: Callable[[pb.PublishRequest], Awaitable[pb.PublishResponse]],
        context: Context,
        ending: asyncio.Event,
    ) -> None:
        self._publish = publish
        self._context = context
        self._ending = ending
        self._window = asyncio.Semaphore(WINDOW)
        self._writing = asyncio.Lock()

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                reading = tasks.create_task(self._read(tasks))
                ending = tasks.create_task(self._ending.wait())
                await asyncio.wait((reading, ending), return_when=asyncio.FIRST_COMPLETED)
                reading.cancel()
                ending.cancel()
        except ExceptionGroup as group:
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise asyncio.CancelledError from None  # the client is gone: what failed by that is no news
            raise group.exceptions[0] from None  # the door knows each by its class

    async def _read(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            await self._window.acquire()
            request: Any = await self._context.read()
            if request is grpc.aio.EOF:
                return
            tasks.create_task(self._answer(request))

    async def _answer(self, request: pb.PublishStreamRequest) -> None:
        answer = pb.PublishStreamResponse(correlation=request.correlation, window=WINDOW)
        try:
            answer.response.CopyFrom(await self._publish(request.request))
        except InvalidArgument as exc:
            within = [Violation(f"request.{violation.field}", violation.rule) for violation in exc.violations]
            answer.error.CopyFrom(publish_error(InvalidArgument(within)))
        except BrokerError as exc:
            answer.error.CopyFrom(publish_error(exc))
        async with self._writing:
            await self._context.write(answer)
        self._window.release()


def publish_error(error: BrokerError) -> pb.PublishError:
    told = pb.PublishError(reason=error.reason, message=error.message(), code=CODES[type(error)])
    if isinstance(error, InvalidArgument):
        for violation in error.violations:
            told.violations.add(field=violation.field, description=violation.rule)
    elif isinstance(error, VersionConflict):
        for conflict in error.conflicts:
            told.conflicts.add(
                aggregate_type=conflict.aggregate_type,
                aggregate_id=conflict.aggregate_id,
                expected=conflict.expected,
                actual=conflict.actual,
            )
    return told
