"""Delivery of one group through this broker: from its streams to the consumers that are connected here.

The pump reads for each consumer in turn, never more than it has credit for. The keeper hands back what was not settled
in time, and what brokers that died left pending, and writes the checkpoint. Both go on through the loss of Redis: the
group is opened again, and a consumer for whom a read failed half-way is not read for until what that read may have
taken is handed back.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from eventbroker_server.broker.consumer import ClosingReason, Consumer, Hold
from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable
from eventbroker_server.domain.group import consumer_name, process_of
from eventbroker_server.ports import Holding, Stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventbroker_server.broker.consumer import FlowControl
    from eventbroker_server.broker.membership import ShardMembership
    from eventbroker_server.domain.group import Group
    from eventbroker_server.ports import Streams

log = logging.getLogger(__name__)

_AWAY = (StreamsUnavailable, StoreUnavailable)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often to look for what others left behind, and to write checkpoints, in seconds."""

    sweep: float
    checkpoint: float


class Delivery:
    """A group with at least one consumer here. `run` does the work."""

    def __init__(self, group: Group, memberships: Sequence[ShardMembership], streams: Streams, rhythm: Rhythm) -> None:
        self.group = group
        self.name = str(group.key)
        self.memberships = memberships
        self.consumers: dict[str, Consumer] = {}  # by their names in Redis
        self._streams = streams
        self._rhythm = rhythm
        self._leaving: dict[str, Consumer] = {}
        self._wake = asyncio.Event()
        self._due = asyncio.Event()
        self._deadlines: list[tuple[float, int, Consumer, list[Hold]]] = []
        self._generations: dict[int, int] = {}  # by shard: of what was handed out
        self._order = count()
        self._turn = 0

    # Consumers.

    def attach(self, consumer_id: str, flow: FlowControl) -> Consumer:
        """A new consumer; one with the same id is told that it is replaced."""
        self.replace(consumer_id)
        name = consumer_name(consumer_id, self._streams.process)
        if name in self.consumers or name in self._leaving:
            # The one that is replaced still has to give back what it holds, under its own name.
            name = consumer_name(f"{consumer_id}+{next(self._order)}", self._streams.process)
        consumer = Consumer(consumer_id, name, flow, self.group.ack_deadline, self.wake)
        self.consumers[name] = consumer
        self.wake()
        return consumer

    def replace(self, consumer_id: str) -> None:
        for consumer in self.consumers.values():
            if consumer.id == consumer_id:
                consumer.close(ClosingReason.REPLACED)

    async def detach(self, consumer: Consumer) -> None:
        """Give back what the consumer holds, without counting an attempt; if Redis is away, as soon as it is back."""
        self.consumers.pop(consumer.name, None)
        self._leaving[consumer.name] = consumer
        consumer.close(ClosingReason.SHUTDOWN)
        try:
            await self._leave(consumer)
        except _AWAY:
            self._due.set()

    @property
    def idle(self) -> bool:
        return not self.consumers and not self._leaving

    def wake(self) -> None:
        """There may be something to read."""
        self._wake.set()

    def handed_over(self, consumer: Consumer, holds: list[Hold], deadline: float) -> None:
        """Mind the deadline of these."""
        heapq.heappush(self._deadlines, (deadline, next(self._order), consumer, holds))
        if self._deadlines[0][0] >= deadline:
            self._due.set()

    # What other brokers, or other calls to this one, tell.

    def relayed(self, shard: int, types: Iterable[str]) -> None:
        for membership in self.memberships:
            if membership.shard == shard:
                for event_type in types:
                    if event_type in membership.types:
                        self.wake()
                    elif self.group.filter.matches(event_type):
                        membership.lose()  # a new type: join it
                        self.wake()

    def settled(self, consumer_name: str, shard: int, positions: Iterable[int]) -> None:
        if (consumer := self.consumers.get(consumer_name)) is not None:
            consumer.take_back([(shard, position) for position in positions])

    def extended(self, consumer_name: str, shard: int, positions: Iterable[int], seconds: float) -> None:
        if (consumer := self.consumers.get(consumer_name)) is not None:
            deadline = asyncio.get_running_loop().time() + seconds
            holds = [hold for position in positions if (hold := consumer.holds.get((shard, position))) is not None]
            for hold in holds:
                hold.deadline = deadline
            self.handed_over(consumer, holds, deadline)

    # The work.

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._pump(), name=f"pump {self.name}")
            tasks.create_task(self._keep(), name=f"keeper {self.name}")

    async def _pump(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for membership in self.memberships:
                try:
                    await self._pump_shard(membership)
                except Stale:
                    membership.lose()
                    self.wake()
                    await asyncio.sleep(0.02)  # the relay may have to begin first
                except _AWAY as exc:
                    log.warning("cannot read: %s", exc, extra={"group": self.name, "shard": membership.shard})
                    membership.lose()
                    self.wake()
                    await asyncio.sleep(0.2)

    async def _pump_shard(self, membership: ShardMembership) -> None:
        more = True
        while more:
            await membership.open()
            if self._generations.get(membership.shard) != membership.generation:
                self._generations[membership.shard] = membership.generation
                self._outdate(membership)
            more = False
            await membership.feed()
            for consumer in self._in_turn():
                if membership.shard in consumer.doubtful:
                    await self._recover(membership, consumer)
                most = min(consumer.credit(), consumer.flow.max_batch_events)
                if most <= 0:
                    continue
                generation = membership.generation
                consumer.doubtful.add(membership.shard)
                entries = await membership.read(consumer.name, most)
                consumer.doubtful.discard(membership.shard)
                for entry in entries:
                    consumer.give(Hold(membership.shard, generation, entry, len(entry.body or b"")))
                more = more or len(entries) == most or membership.has_history

    def _in_turn(self) -> list[Consumer]:
        """All consumers, beginning with another one each time."""
        consumers = list(self.consumers.values())
        self._turn += 1
        at = self._turn % len(consumers) if consumers else 0
        return consumers[at:] + consumers[:at]

    def _outdate(self, membership: ShardMembership) -> None:
        """The group was made anew: what was handed out before comes again, under other ack ids."""
        for consumer in self.consumers.values():
            consumer.take_back(
                [
                    place
                    for place, hold in consumer.holds.items()
                    if hold.shard == membership.shard and hold.generation != membership.generation
                ]
            )

    async def _recover(self, membership: ShardMembership, consumer: Consumer) -> None:
        """Hand back what a read took whose reply was lost."""
        pending = await self._streams.holdings(
            membership.shard, self.name, membership.generation, membership.types, consumer=consumer.name
        )
        lost = [holding for holding in pending if (membership.shard, holding.position) not in consumer.holds]
        await self._hand_back(membership, lost, failed=False)
        consumer.doubtful.discard(membership.shard)

    async def _hand_back(
        self, membership: ShardMembership, holdings: Sequence[Holding], *, failed: bool, leave: str = ""
    ) -> None:
        if membership.is_open and (holdings or leave):
            types, generation = membership.types, membership.generation
            await self._streams.hand_back(
                membership.shard, self.name, generation, types, holdings, failed=failed, leave=leave
            )

    async def _leave(self, consumer: Consumer) -> None:
        for membership in self.memberships:
            if membership.shard in consumer.doubtful and membership.is_open:
                await self._recover(membership, consumer)
            holds = [hold for hold in consumer.holds.values() if hold.shard == membership.shard]
            held = [_holding(consumer, hold) for hold in holds]
            await self._hand_back(membership, held, failed=False, leave=consumer.name)
        self._leaving.pop(consumer.name, None)
        self.wake()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = next_checkpoint = loop.time()
        while True:
            try:
                await self._expire(loop.time())
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + self._rhythm.sweep
                    await self.sweep()
                if loop.time() >= next_checkpoint:
                    next_checkpoint = loop.time() + self._rhythm.checkpoint
                    await self.checkpoint()
            except Stale:
                self._reopen()
            except _AWAY as exc:
                log.warning("cannot keep: %s", exc, extra={"group": self.name})
                await asyncio.sleep(0.2)
            upcoming = min(next_sweep, next_checkpoint, self._deadlines[0][0] if self._deadlines else next_sweep)
            self._due.clear()
            try:
                async with asyncio.timeout(max(0.0, upcoming - loop.time())):
                    await self._due.wait()
            except TimeoutError:
                pass

    def _reopen(self) -> None:
        for membership in self.memberships:
            membership.lose()
        self.wake()

    async def _expire(self, now: float) -> None:
        """Hand back what was not settled by its deadline, which counts as a failed attempt."""
        while self._deadlines and self._deadlines[0][0] <= now:
            entry = heapq.heappop(self._deadlines)
            _, _, consumer, holds = entry
            late = [
                hold
                for hold in holds
                if consumer.holds.get((hold.shard, hold.entry.position)) is hold
                and hold.deadline is not None
                and hold.deadline <= now  # else it was extended, and comes again
            ]
            try:
                for membership in self.memberships:
                    mine = [_holding(consumer, hold) for hold in late if hold.shard == membership.shard]
                    await self._hand_back(membership, mine, failed=True)
                    if mine and not membership.is_open:
                        consumer.doubtful.add(membership.shard)
            except (*_AWAY, Stale):
                heapq.heappush(self._deadlines, entry)
                raise
            consumer.take_back([(hold.shard, hold.entry.position) for hold in late])

    async def sweep(self) -> None:
        """Hand back what passed its deadline with a broker that is gone, or with a consumer that left this one."""
        for consumer in list(self._leaving.values()):
            await self._leave(consumer)
        for membership in self.memberships:
            if not membership.is_open:
                continue
            overdue = await self._streams.holdings(
                membership.shard, self.name, membership.generation, membership.types, idle=self.group.ack_deadline
            )
            others = {process_of(holding.consumer) for holding in overdue} - {self._streams.process}
            living = await self._streams.living(membership.shard, others)
            left = [
                holding
                for holding in overdue
                if process_of(holding.consumer) not in living and holding.consumer not in self.consumers
            ]
            if left:
                log.info("handing back what was left behind", extra={"group": self.name, "events": len(left)})
                await self._hand_back(membership, left, failed=True)
                self.wake()

    async def checkpoint(self) -> None:
        for membership in self.memberships:
            await membership.checkpoint()


def _holding(consumer: Consumer, hold: Hold) -> Holding:
    return Holding(hold.entry.position, hold.entry.stream, consumer.name, hold.entry.number)
