"""Counts the calls that go out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Callable


class Counting(grpc.aio.UnaryUnaryClientInterceptor):
    def __init__(self) -> None:
        self.requests: list[Any] = []

    async def intercept_unary_unary(
        self, continuation: Callable[..., Any], client_call_details: Any, request: Any
    ) -> Any:
        self.requests.append(request)
        return await continuation(client_call_details, request)
