"""Interceptors that watch the calls that go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable


class Counting(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        self.requests.append(request)
        return await continuation(client_call_details, request)


class LosingFirstAnswer(Counting):
    """The first call is made, and its answer lost."""

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        call = await super().intercept_unary_unary(continuation, client_call_details, request)
        if len(self.requests) > 1:
            return call
        await call
        nothing = grpc.aio.Metadata()
        raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the answer was lost")


class CountingPublishes(grpc.aio.StreamStreamClientInterceptor):
    """Of PublishStream."""

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.streams = 0

    async def intercept_stream_stream(
        self, continuation: Callable[..., Any], client_call_details: Any, request_iterator: Any
    ) -> Any:
        self.streams += 1
        return self.answers(await continuation(client_call_details, self.watched(request_iterator)))

    async def watched(self, requests: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for request in requests:
            self.requests.append(request.request)
            yield request

    async def answers(self, call: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for answer in call:
            yield answer


class LosingFirstPublished(CountingPublishes):
    """The first request is answered, and the answer lost with its stream."""

    async def answers(self, call: AsyncIterator[Any]) -> AsyncIterator[Any]:
        async for answer in call:
            if self.streams == 1:
                nothing = grpc.aio.Metadata()
                raise grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, nothing, nothing, "the answer was lost")
            yield answer
