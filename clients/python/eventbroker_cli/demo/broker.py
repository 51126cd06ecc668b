"""The broker as the demo reaches it: connections, and unary calls that are made again until they are answered.

Every call may be made again: events keep their ids, acks are harmless twice, and the rest only reads. What trying again
does not heal is Refused. It waits without an end; the run has the deadline.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, TypeVar

import grpc
import grpc.aio

if TYPE_CHECKING:
    from eventbroker_cli.demo.ledger import Ledger

T = TypeVar("T")
U = TypeVar("U")

CALL_TIMEOUT = 10.0  # seconds
CHANNEL_OPTIONS = [
    ("grpc.enable_http_proxy", 0),
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    ("grpc.http2.ping_timeout_ms", 5_000),
    ("grpc.max_receive_message_length", 16 * 1024 * 1024),
    ("grpc.use_local_subchannel_pool", 1),  # a connection of its own for each publisher and consumer
]
DEFINITE = {  # the same call would be answered the same
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
    grpc.StatusCode.UNIMPLEMENTED,
}


class Refused(Exception):
    """The broker gave a definite answer, and it is no."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"the broker answered {code.name}: {details}")
        self.code = code


class Broker:
    """The broker at one address. `trouble` is why the last call failed, empty once another one was answered."""

    def __init__(self, target: str, ledger: Ledger) -> None:
        self.target = target
        self.trouble = ""
        self._ledger = ledger

    def connect(self) -> grpc.aio.Channel:
        return grpc.aio.insecure_channel(self.target, options=CHANNEL_OPTIONS)

    async def insist(self, method: grpc.aio.UnaryUnaryMultiCallable[T, U], request: T) -> U:
        """The answer to a unary call, whatever number of attempts it takes. Raises Refused."""
        attempt = 0
        while True:
            try:
                answer = await method(request, timeout=CALL_TIMEOUT)
            except grpc.aio.AioRpcError as error:
                self.failed(error)
            else:
                self.trouble = ""
                return answer
            self._ledger.retries += 1
            await pause(attempt)
            attempt += 1

    def failed(self, error: grpc.aio.AioRpcError) -> None:
        """A call failed. Raises Refused if there is no use in making it again."""
        if error.code() in DEFINITE:
            raise Refused(error.code(), error.details() or "") from None
        self.trouble = f"{error.code().name}: {error.details()}"


async def pause(attempt: int) -> None:
    """Waits before the next attempt: exponentially longer, at most 2 s, with full jitter."""
    await asyncio.sleep(random.uniform(0, min(2.0, 0.05 * 2 ** min(attempt, 10))))
