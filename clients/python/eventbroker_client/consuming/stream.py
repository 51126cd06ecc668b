"""One Consume call: deliveries come in, what settles them goes out, and its outcomes come back, on one stream."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub

from eventbroker_client.connection.failure import error_of
from eventbroker_client.errors import Closed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.consuming.settling import Request

SILENCE = 60.0  # seconds; a stream without even a heartbeat for so long is broken
_KINDS = {pb.AckRequest: "ack", pb.NackRequest: "nack", pb.ExtendDeadlineRequest: "extend"}


class Stream:
    """`open`, then `read` from one task until it answers None or raises; `close` in any case."""

    def __init__(self, connection: Connection) -> None:
        """Raises Closed."""
        self._connection = connection
        try:
            stub = SubscriberServiceStub(connection.channel)
            self._call: Any = stub.Consume(metadata=connection.metadata())
        except grpc.aio.UsageError:
            raise Closed from None
        self._writing = asyncio.Lock()
        self._asked: dict[int, asyncio.Future[Sequence[pb.SettleResult]]] = {}
        self._correlation = 0
        self._ended = False

    async def open(self, wish: pb.SubscribeRequest) -> None:
        """Raises EventBrokerError."""
        await self._write(pb.ConsumeRequest(open=wish))

    async def read(self) -> pb.SubscribeResponse | None:
        """What the subscription says next; None at the end of the stream. Raises EventBrokerError."""
        while True:
            try:
                async with asyncio.timeout(SILENCE):
                    response = await self._call.read()
            except TimeoutError:
                raise Unavailable(f"the broker was silent for {SILENCE:g} s") from None
            except grpc.RpcError as failure:
                raise error_of(failure) from None
            except asyncio.CancelledError:
                if self._connection.cancelled_by_close():
                    raise Closed from None
                raise
            if response is grpc.aio.EOF:
                return None
            if response.HasField("subscription"):
                said: pb.SubscribeResponse = response.subscription
                return said
            asked = self._asked.pop(response.outcomes.correlation, None)
            if asked is not None and not asked.done():
                asked.set_result(response.outcomes.results)

    async def settle(self, request: Request) -> Sequence[pb.SettleResult]:
        """Its outcomes, which come while another task reads. Raises Unavailable when the stream ends before."""
        if self._ended:
            raise Unavailable("the stream has ended")
        self._correlation += 1
        asked = self._asked[self._correlation] = asyncio.get_running_loop().create_future()
        settling: Any = {_KINDS[type(request)]: request}
        await self._write(pb.ConsumeRequest(correlation=self._correlation, **settling))
        results: Sequence[pb.SettleResult] = await asked
        return results

    async def drain(self) -> None:
        """No more deliveries; the stream ends when all are settled. Raises EventBrokerError."""
        await self._write(pb.ConsumeRequest(drain=pb.Drain()))

    def close(self) -> None:
        """Ends the stream; what it holds goes to others at once."""
        self._ended = True
        self._call.cancel()
        for asked in self._asked.values():
            if not asked.done():
                asked.set_exception(Unavailable("the stream ended before the outcome came"))
                asked.exception()  # whoever waits gets it; nobody need
        self._asked.clear()

    async def _write(self, request: pb.ConsumeRequest) -> None:
        try:
            async with self._writing:
                await self._call.write(request)
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        except asyncio.InvalidStateError as failure:  # the call is over
            raise Unavailable(str(failure)) from None
