"""One PublishStream call after another, for requests that follow each other.

A request on a stream that is open costs less than a call of its own. One is unanswered at a time: what failed can so go
again before what came later. A stream that had come to its end (its age, a broker that went away) is replaced at once.
Where the broker has as many streams as it may, requests go by calls of their own for a while.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from eventbroker.v1 import publisher_service_pb2 as pb

from eventbroker_client.connection.failure import error_of, refusal_of
from eventbroker_client.errors import Closed, Overloaded, Unavailable

if TYPE_CHECKING:
    from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub

    from eventbroker_client.connection.connection import Connection

WITHOUT = 60.0  # seconds until a stream is asked for again where there was none


class _Ended(Unavailable):
    """The stream ended before the answer came."""


class PublishStream:
    """`send` from one task; `close` at the end."""

    def __init__(self, connection: Connection, stub: PublisherServiceStub) -> None:
        self._connection = connection
        self._stub = stub
        self._call: Any = None
        self._correlation = 0
        self._without_until = 0.0  # by the loop's clock

    async def send(self, request: pb.PublishRequest, timeout: float) -> pb.PublishResponse:
        """The answer, within so many seconds. Raises EventBrokerError; Unavailable: the outcome is not known."""
        now = asyncio.get_running_loop().time()
        if now < self._without_until:
            return await self._by_call(request, timeout)
        try:
            async with asyncio.timeout(timeout):
                answer = await self._answer(request)
        except TimeoutError:
            raise Unavailable(f"no answer within {timeout:g} s") from None
        except Overloaded:
            self._without_until = now + WITHOUT
            return await self._by_call(request, timeout)
        if answer.HasField("error"):
            raise refusal_of(answer.error)
        return answer.response

    def close(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None

    async def _by_call(self, request: pb.PublishRequest, timeout: float) -> pb.PublishResponse:
        response: pb.PublishResponse = await self._connection.call_once(self._stub.Publish, request, timeout)
        return response

    async def _answer(self, request: pb.PublishRequest) -> pb.PublishStreamResponse:
        if self._call is not None:
            try:
                return await self._ask(request)
            except _Ended:
                pass  # maybe long ago; whatever became of the request, it may go again
        try:
            return await self._ask(request)
        except _Ended as ended:
            raise Unavailable(ended.message, reason=ended.reason) from None

    async def _ask(self, request: pb.PublishRequest) -> pb.PublishStreamResponse:
        """Raises what ended the stream. A stream that failed, or whose answer was not awaited, is done with."""
        self._correlation += 1
        call, self._call = self._call, None
        try:
            if call is None:
                publish_stream: Any = self._stub.PublishStream
                call = publish_stream(metadata=self._connection.metadata())
            await call.write(pb.PublishStreamRequest(correlation=self._correlation, request=request))
            answer = await call.read()
        except grpc.RpcError as failure:
            error = error_of(failure)
            raise _Ended(error.message, reason=error.reason) if isinstance(error, Unavailable) else error from None
        except asyncio.InvalidStateError as failure:  # the call is over
            raise _Ended(str(failure)) from None
        except grpc.aio.UsageError:
            raise Closed from None
        except asyncio.CancelledError:
            if call is not None:
                call.cancel()
            if self._connection.cancelled_by_close():
                raise Closed from None
            raise
        if answer is grpc.aio.EOF:
            raise _Ended
        self._call = call
        said: pb.PublishStreamResponse = answer
        return said
