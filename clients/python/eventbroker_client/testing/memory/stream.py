"""A Consume stream of a consumer: what is to be said on it, and what is out with it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_client.testing.memory.group import Item

HEARTBEAT = 15.0  # seconds


class Stream:
    def __init__(self, consumer_id: str, most: int) -> None:
        self.consumer_id = consumer_id
        self.out: dict[Item, None] = {}  # in order
        self._most = most
        self._draining = False
        self._said: asyncio.Queue[pb.ConsumeResponse | Exception | None] = asyncio.Queue()

    def has_room(self) -> bool:
        return not self._draining and len(self.out) < self._most

    def hand_out(self, item: Item) -> None:
        self.out[item] = None
        delivery = pb.Delivery(event=item.event, ack_id=item.ack_id, attempt=item.attempts + 1)
        self.say(pb.SubscribeResponse(deliveries=pb.DeliveryBatch(deliveries=[delivery])))

    def take_back(self, item: Item) -> None:
        del self.out[item]
        self._end_if_drained()

    def drain(self) -> None:
        self._draining = True
        self._end_if_drained()

    def _end_if_drained(self) -> None:
        if self._draining and not self.out:
            self.end(pb.CLOSING_REASON_DRAINED)

    def say(self, said: pb.SubscribeResponse) -> None:
        self._said.put_nowait(pb.ConsumeResponse(subscription=said))

    def answer(self, outcomes: pb.Outcomes) -> None:
        self._said.put_nowait(pb.ConsumeResponse(outcomes=outcomes))

    def end(self, reason: pb.ClosingReason.ValueType) -> None:
        self._draining = True
        self.say(pb.SubscribeResponse(closing=pb.Closing(reason=reason)))
        self._said.put_nowait(None)

    def fail(self, failure: Exception) -> None:
        self._said.put_nowait(failure)

    async def responses(self) -> AsyncIterator[pb.ConsumeResponse]:
        """To the end of the stream. Raises what it failed with."""
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT):
                    said = await self._said.get()
            except TimeoutError:
                said = pb.ConsumeResponse(subscription=pb.SubscribeResponse(heartbeat=pb.Heartbeat()))
            if said is None:
                return
            if isinstance(said, Exception):
                raise said
            yield said
