"""The deliveries of one consumer, over as many streams as it takes.

A stream that breaks or is closed by the broker is opened again, with full jitter, as the same consumer. What settles
goes out on the stream while there is one, else by unary calls, which reach the delivery through any broker.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub

from eventbroker_client.connection.attempts import Backoff
from eventbroker_client.consuming.delivery import Delivery
from eventbroker_client.consuming.settling import Settler
from eventbroker_client.consuming.stream import Stream
from eventbroker_client.errors import ConsumerReplaced, EventBrokerError, GroupDeleted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.consuming.settling import Request

log = logging.getLogger("eventbroker_client")


STABLE = 10.0  # seconds after which a stream that breaks is no sign of trouble


class Feed:
    """`run` it in a task. `deliver` is called with each delivery, and must not block."""

    def __init__(self, connection: Connection, wish: pb.SubscribeRequest, deliver: Callable[[Delivery], None]) -> None:
        self.settler = Settler(self._send)
        self.opened: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the first stream is open, or failed for good."""
        self.ack_deadline = 30.0
        """How many seconds the group's consumers have, as the broker told last."""
        self._connection = connection
        self._wish = wish
        self._deliver = deliver
        self._stream: Stream | None = None  # that is open
        self._draining = False
        stub = SubscriberServiceStub(connection.channel)
        self._calls: dict[type, Any] = {
            pb.AckRequest: stub.Ack,
            pb.NackRequest: stub.Nack,
            pb.ExtendDeadlineRequest: stub.ExtendDeadline,
        }

    async def run(self) -> None:
        """Returns when it was drained. Raises EventBrokerError for what opening again does not mend."""
        backoff, loop = Backoff(), asyncio.get_running_loop()
        try:
            while not self._draining:
                begun = loop.time()
                try:
                    pause = await self._follow()
                except EventBrokerError as error:
                    if not error.retryable:
                        raise
                    if loop.time() - begun > STABLE:
                        backoff.reset()
                    pause = backoff.next() + getattr(error, "retry_after", 0.0)
                    log.warning("group %s: the stream broke, again in %.2f s (%s)", self._wish.group, pause, error)
                if not self._draining:
                    await asyncio.sleep(pause)
        except Exception as failure:
            if not self.opened.done():
                self.opened.set_exception(failure)
                self.opened.exception()  # whoever waits gets it; nobody need
            raise
        finally:
            self.opened.cancel()  # unless it is done

    async def drain(self) -> None:
        """Asks for no more. `run` returns when all is settled, or at once when no stream is open."""
        self._draining = True
        if self._stream is not None:
            try:
                await self._stream.drain()
            except EventBrokerError:
                self._stream.close()

    async def _follow(self) -> float:
        """One stream to its end; how many seconds to wait before the next."""
        stream = Stream(self._connection)
        try:
            await stream.open(self._wish)
            while (said := await stream.read()) is not None:
                kind = said.WhichOneof("response")
                if kind == "deliveries":
                    for message in said.deliveries.deliveries:
                        self._deliver(Delivery(message, self.settler))
                elif kind == "opened":
                    self._note(said.opened)
                    self._stream = stream
                    if self._draining:
                        await stream.drain()
                elif kind == "closing":
                    return self._closed(said.closing)
            raise Unavailable("the stream ended")
        finally:
            self._stream = None
            stream.close()

    def _note(self, opened: pb.Opened) -> None:
        self.ack_deadline = opened.ack_deadline.ToTimedelta().total_seconds()
        self._wish.consumer_id = opened.consumer_id  # to come back as the same
        if not self.opened.done():
            self.opened.set_result(None)

    def _closed(self, closing: pb.Closing) -> float:
        if closing.reason == pb.CLOSING_REASON_REPLACED:
            raise ConsumerReplaced(metadata={"consumer_id": self._wish.consumer_id})
        if closing.reason == pb.CLOSING_REASON_GROUP_DELETED:
            raise GroupDeleted(metadata={"group": self._wish.group})
        reason = pb.ClosingReason.Name(closing.reason).removeprefix("CLOSING_REASON_").lower()
        log.info("group %s: the broker closed the stream (%s)", self._wish.group, reason)
        return closing.retry_after.ToTimedelta().total_seconds()

    async def _send(self, request: Request) -> Sequence[pb.SettleResult]:
        if (stream := self._stream) is not None:
            try:
                return await stream.settle(request)
            except EventBrokerError:
                pass  # it may or may not be done: to ask again is harmless
        response = await self._connection.call(self._calls[type(request)], request)
        results: Sequence[pb.SettleResult] = response.results
        return results
