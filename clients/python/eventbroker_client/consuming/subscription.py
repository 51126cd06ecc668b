"""Deliveries by `async for`, for those who settle each themselves."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self

from eventbroker_client.consuming.feed import Feed

if TYPE_CHECKING:
    from eventbroker.v1 import subscriber_service_pb2 as pb

    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.consuming.delivery import Delivery


class Subscription:
    """Iterate over it, in one task; reconnects by itself. Closed by `aclose`, by `async with`, or with its broker:
    what was handed out and is not settled then goes to others at once.

    The iteration ends after `drain`, and raises EventBrokerError for what reconnecting does not mend: bad input,
    GroupMismatch, GroupDeleted, ConsumerReplaced, PermissionDenied.
    """

    def __init__(self, connection: Connection, wish: pb.SubscribeRequest) -> None:
        self._connection = connection
        self._wish = wish
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: dict[tuple[str, str], Delivery] = {}  # in their order
        self._news = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Returns when the broker has opened the stream."""
        await self.opened()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        self._start()
        return self

    async def __anext__(self) -> Delivery:
        self._start()
        while not self._waiting:
            if self._task is None or self._task.cancelled():
                raise StopAsyncIteration
            if self._task.done():
                self._task.result()
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    async def opened(self) -> None:
        """Returns when the broker has opened the stream: the group exists from then on. Raises EventBrokerError."""
        feed = self._start()
        try:
            await asyncio.shield(feed.opened)
        except BaseException:
            await self.aclose()
            raise

    async def drain(self) -> None:
        """Asks for no more. The iteration ends when all that was handed out is settled."""
        await self._start().drain()

    async def aclose(self) -> None:
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait([task])
        if self._feed is not None:
            await self._feed.settler.close()
        self._waiting.clear()

    def _start(self) -> Feed:
        if self._feed is None:
            self._feed = Feed(self._connection, self._wish, self._take)
            self._task = asyncio.create_task(self._feed.run(), name=f"eventbroker subscription {self._wish.group}")
            self._task.add_done_callback(self._done)
        return self._feed

    def _done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled():
            task.exception()  # raised by the iteration, if there is one
        self._news.set()

    def _take(self, delivery: Delivery) -> None:
        if (waiting := self._waiting.get(delivery.key)) is not None:
            waiting.renew(delivery)  # it was handed out anew before anybody saw it
        else:
            self._waiting[delivery.key] = delivery
            self._news.set()
