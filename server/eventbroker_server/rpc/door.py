"""What surrounds every call: who calls and whether they may, how many at once, and how errors go out."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Any

import grpc

from eventbroker_server.domain.errors import BrokerError, Overloaded, PermissionDenied
from eventbroker_server.rpc.auth import METHODS, PRINCIPAL, PUBLIC
from eventbroker_server.rpc.status import status_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from google.protobuf.message import Message

    from eventbroker_server.broker.calls import Calls, CallsOf
    from eventbroker_server.domain.principal import Role
    from eventbroker_server.rpc.auth import AuthProvider

log = logging.getLogger(__name__)


class Door(grpc.aio.ServerInterceptor):
    """Wraps each handler once. Open streams are limited where they are opened; unary calls here. Calls of methods that
    are for all, such as those of health, are not in the figures."""

    def __init__(self, provider: AuthProvider, max_calls: int, figures: Calls) -> None:
        self._figures = figures
        self.calls = 0
        self._provider = provider
        self._max_calls = max_calls
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Any]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        method = handler_call_details.method
        if method not in self._wrapped:
            handler = await continuation(handler_call_details)
            if handler is None:
                return None  # UNIMPLEMENTED; not remembered, since anybody can invent names
            self._wrapped[method] = self._wrap(method, handler)
        return self._wrapped[method]

    def _wrap(self, method: str, handler: Any) -> Any:
        role = METHODS.get(method, ...)
        if role is PUBLIC:
            return handler
        if handler.response_streaming:
            streams_in = handler.request_streaming
            figures = self._figures.register(method, "bidi_stream" if streams_in else "server_stream")
            call = self._guarded(method, role, handler.stream_stream if streams_in else handler.unary_stream, figures)
            wrap = grpc.stream_stream_rpc_method_handler if streams_in else grpc.unary_stream_rpc_method_handler
            return wrap(call, request_deserializer=handler.request_deserializer, response_serializer=_serialized)
        figures = self._figures.register(method, "unary")
        call = self._guarded(method, role, self._counted(handler.unary_unary), figures)
        return grpc.unary_unary_rpc_method_handler(
            call, request_deserializer=handler.request_deserializer, response_serializer=_serialized
        )

    def _counted(self, behavior: Any) -> Any:
        async def counted(request: Any, context: Any) -> Any:
            if self.calls >= self._max_calls:
                raise Overloaded("calls under way", self._max_calls)
            self.calls += 1
            try:
                return await behavior(request, context)
            finally:
                self.calls -= 1

        return counted

    def _guarded(self, method: str, role: Role | Any, behavior: Any, figures: CallsOf) -> Any:
        async def guarded(request: Any, context: Any) -> Any:
            figures.started += 1
            began = time.perf_counter()
            code = "OK"
            try:
                metadata = {key: value for key, value in context.invocation_metadata() or () if isinstance(value, str)}
                principal = await self._provider.authenticate(metadata)
                if role not in principal.roles:
                    raise PermissionDenied(method=method)
                PRINCIPAL.set(principal)
                return await behavior(request, context)
            except BrokerError as exc:
                status = status_of(exc)
                code = _name(status.code)
                await context.abort_with_status(status)
            except grpc.aio.AbortError:
                code = _name(context.code())
                raise
            except asyncio.CancelledError:
                code = "CANCELLED"
                raise
            except Exception:
                if context.cancelled():
                    code = "CANCELLED"
                    raise  # a broken connection shows as various errors of the transport
                code = "INTERNAL"
                log.exception("a call failed", extra={"rpc": method})
                await context.abort(grpc.StatusCode.INTERNAL, "the broker failed; the outcome is not known")
            finally:
                figures.ended(code, time.perf_counter() - began)

        return guarded


_NAMES = {code.value[0]: code.name for code in grpc.StatusCode}


def _name(code: grpc.StatusCode | int) -> str:
    """A context tells numbers."""
    return code.name if isinstance(code, grpc.StatusCode) else _NAMES[code]


def _serialized(response: Message | bytes) -> bytes:
    return response if isinstance(response, bytes) else response.SerializeToString()
