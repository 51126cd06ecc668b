"""A door before a true broker that hands calls on and tampers with an answer, to see who notices."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
from eventbroker.v1.event_store_service_pb2 import GetEventResponse
from eventbroker.v1.publisher_service_pb2 import PublishResponse
from eventbroker.v1.subscriber_service_pb2 import SubscribeResponse

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

Tamper = tuple[str, "Callable[[bytes], bytes]"]  # the method, and what becomes of its answers


def lost_delivery() -> Tamper:
    """The last event of one batch does not arrive."""
    lost: list[object] = []

    def tamper(answer: bytes) -> bytes:
        response = SubscribeResponse.FromString(answer)
        if response.deliveries.deliveries and not lost:
            lost.append(response.deliveries.deliveries.pop())
        return response.SerializeToString() if lost else answer

    return "Subscribe", tamper


def second_position() -> Tamper:
    """One event is said to be stored where it is not delivered from."""
    moved: list[str] = []

    def tamper(answer: bytes) -> bytes:
        response = PublishResponse.FromString(answer)
        if not moved:
            response.results[0].position += 1_000_000
            moved.append(response.results[0].event_id)
        return response.SerializeToString()

    return "Publish", tamper


def altered_event() -> Tamper:
    """Every event is read back as somebody else's."""

    def tamper(answer: bytes) -> bytes:
        response = GetEventResponse.FromString(answer)
        response.event.user_id = "mallory"
        return response.SerializeToString()

    return "GetEvent", tamper


class Door(grpc.GenericRpcHandler):
    """Knows no message but those of the method that it tampers with."""

    def __init__(self, channel: grpc.aio.Channel, tamper: Tamper) -> None:
        self._channel = channel
        self._method, self._tamper = tamper

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        path = details.method
        unary: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(path)
        stream: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = self._channel.unary_stream(path)
        tamper = self._tamper if path.endswith(f"/{self._method}") else bytes

        async def answered(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> bytes:
            try:
                return tamper(await unary(request))
            except grpc.aio.AioRpcError as error:
                await context.abort(error.code(), error.details() or "")

        async def streamed(request: bytes, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[bytes]:
            async for answer in stream(request):
                yield tamper(answer)

        if path.endswith("/Subscribe"):
            return grpc.unary_stream_rpc_method_handler(streamed)
        return grpc.unary_unary_rpc_method_handler(answered)


@asynccontextmanager
async def tampered(target: str, tamper: Tamper) -> AsyncIterator[str]:
    """The address of a door to the broker at `target`."""
    async with grpc.aio.insecure_channel(target) as channel:
        server = grpc.aio.server(handlers=[Door(channel, tamper)])
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            await server.stop(grace=None)
