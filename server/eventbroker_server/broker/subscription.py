"""A subscription: one stream to one consumer, from its opening to its closing."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.consumer import ClosingReason
from eventbroker_server.broker.figures import label
from eventbroker_server.domain.ack_id import Lane, head_of

if TYPE_CHECKING:
    from eventbroker_server.broker.consumer import Consumer, Hold
    from eventbroker_server.broker.delivery import Delivery
    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.domain.ack_id import Signer


@dataclass(frozen=True, slots=True)
class StreamTimes:
    """Seconds between signs of life, and the age of a stream, give or take 10 %."""

    heartbeat: float
    max_age: float


class Handed(NamedTuple):
    """An event that is handed over: serialized, with its ack id and the number of the attempt."""

    body: bytes
    ack_id: str
    attempt: int
    replayed: bool


class HandedOver(NamedTuple):
    """Events that are handed over now, to be settled until the deadline."""

    events: list[Handed]
    deadline: datetime


class ShardProgress(NamedTuple):
    """How far the group has come in a shard: relayed up to head, settled up to settled."""

    shard: int
    head: int
    settled: int


class SignOfLife(NamedTuple):
    """How the group stands. The age is that of the oldest event that is not settled, if there is one."""

    now: datetime
    shards: list[ShardProgress]
    oldest_unsettled_age: timedelta | None


class CaughtUp(NamedTuple):
    """All history of the group was handed out, to this consumer or others: what comes now is new."""


class Farewell(NamedTuple):
    """The stream ends; come back after so many seconds."""

    reason: ClosingReason
    retry_after: float


class Subscription:
    """What a stream says: call `next` until it answers a Farewell."""

    def __init__(
        self, delivery: Delivery, consumer: Consumer, signer: Signer, times: StreamTimes, figures: Figures
    ) -> None:
        self.group = delivery.group
        self.consumer = consumer
        self._delivery = delivery
        self._signer = signer
        self._times = times
        self._figures = figures
        self._label = label(delivery.group.key)
        now = asyncio.get_running_loop().time()
        self._caught_up = False  # and said so
        self._heartbeat_at = now + times.heartbeat
        self._ends_at = now + times.max_age * random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, hides nothing

    async def next(self) -> HandedOver | SignOfLife | CaughtUp | Farewell:
        loop = asyncio.get_running_loop()
        while True:
            if self.consumer.closing is None and loop.time() >= self._ends_at:
                self.consumer.close(ClosingReason.MAX_AGE)
            if self.consumer.drained:
                self.consumer.close(ClosingReason.DRAINED)
            if self.consumer.closing is not None:
                return Farewell(self.consumer.closing, random.uniform(0.0, 1.0))  # noqa: S311 - spreads load
            if loop.time() >= self._heartbeat_at:
                self._heartbeat_at = loop.time() + self._times.heartbeat
                return self._sign_of_life()
            wait = min(self._heartbeat_at, self._ends_at) - loop.time()
            if self.consumer.caught_up != self._caught_up:
                wait = 0.0  # to be told as soon as nothing is left to hand over
            if batch := await self.consumer.next(max(0.0, wait)):
                return self.hand_over(batch)
            if self.consumer.caught_up != self._caught_up and self.consumer.closing is None:
                self._caught_up = self.consumer.caught_up
                if self._caught_up:
                    return CaughtUp()

    def drain(self) -> None:
        """Hand out no more. The Farewell comes when all that is out was settled or ran out of time; what was read and
        not handed out goes to others before."""
        self.consumer.ask(0)

    def hand_over(self, batch: list[Hold]) -> HandedOver:
        """Holds that the consumer took, as they go out."""
        self._figures.handed_out(self._label, batch)
        group, name = self._delivery.name, self.consumer.name
        events = []
        heads: dict[tuple[int, int, str], bytes] = {}
        for hold in batch:
            if (head := heads.get(of := (hold.shard, hold.generation, hold.stream))) is None:
                head = heads[of] = head_of(Lane(group, *of, name))
            ack_id = self._signer.sign(head, hold.position, hold.number, hold.retry)
            events.append(Handed(hold.body or b"", ack_id, hold.attempt, hold.replayed))
            hold.body = None
        self._delivery.keeper.mind(batch[0].deadline)
        return HandedOver(events, datetime.now(UTC) + timedelta(seconds=self.consumer.ack_deadline))

    def _sign_of_life(self) -> SignOfLife:
        now = datetime.now(UTC)
        shards = [
            ShardProgress(membership.shard, progress.head, progress.settled)
            for membership in self._delivery.memberships
            if (progress := membership.progress) is not None
        ]
        oldest = min(filter(None, (membership.oldest_at for membership in self._delivery.memberships)), default=None)
        return SignOfLife(now, shards, max(now - oldest, timedelta()) if oldest else None)
