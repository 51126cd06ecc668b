"""Delivery of one group through this broker: from its streams to the consumers that are connected here.

The pump reads for each consumer in turn, never more than it has credit for. The keeper takes away what was not settled
in time, and what brokers that died left pending: that has failed once more. A third task writes checkpoints. All go on
through the loss of Redis: the group is opened again, and a consumer for whom a read failed half-way is not read for
until what that read may have taken is handed back.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from eventbroker_server.broker.consumer import ClosingReason, Consumer
from eventbroker_server.broker.keeper import Keeper
from eventbroker_server.domain.ack_id import BACKFILL, RETRY
from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable
from eventbroker_server.domain.group import consumer_name
from eventbroker_server.ports import Holding, Stale

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.broker.consumer import FlowControl
    from eventbroker_server.broker.membership import ShardMembership
    from eventbroker_server.broker.retry import Retries
    from eventbroker_server.domain.group import Group
    from eventbroker_server.ports import Streams

log = logging.getLogger(__name__)

_FEW = 10  # entries; a read that found more may linger before the next: more are on their way
_AGAIN = 0.5  # seconds until PostgreSQL is asked again that was away
_AWAY = (StreamsUnavailable, StoreUnavailable)


@dataclass(frozen=True, slots=True)
class Rhythm:
    """How often to look for what others left behind, and to write checkpoints; and how long to wait for company under
    load. In seconds."""

    sweep: float
    checkpoint: float
    linger: float


class Delivery:
    """A group with at least one consumer here. `pump` and `note` do the work, and the keeper's `run`."""

    def __init__(
        self,
        group: Group,
        memberships: Sequence[ShardMembership],
        streams: Streams,
        retries: Retries,
        announcer: Announcer,
        rhythm: Rhythm,
    ) -> None:
        self.group = group
        self.name = str(group.key)
        self.memberships = memberships
        self.consumers: dict[str, Consumer] = {}  # by their names in Redis
        self._streams = streams
        self.keeper = Keeper(self, streams, retries, announcer, rhythm.sweep)
        self._rhythm = rhythm
        self._leaving: dict[str, Consumer] = {}
        self._wake = asyncio.Event()
        self.at_work = asyncio.Lock()
        """Held while something is read. Who ends the pump takes it before: a read that is cut off may take events for a
        consumer that has left, and nobody would give them back."""
        self._stirred = True  # something happened since the last checkpoint
        self._away: set[str] = set()
        self._generations: dict[int, int] = {}  # by shard: of what was handed out
        self._order = count()
        self._turn = 0
        self._busy = False

    # Consumers.

    def attach(self, consumer_id: str, flow: FlowControl) -> Consumer:
        """A new consumer; one with the same id is told that it is replaced."""
        self.replace(consumer_id)
        name = consumer_name(consumer_id, self._streams.process)
        if name in self.consumers or name in self._leaving:
            # The one that is replaced still has to give back what it holds, under its own name.
            name = consumer_name(f"{consumer_id}+{next(self._order)}", self._streams.process)
        consumer = Consumer(consumer_id, name, flow, self.group.ack_deadline, self.wake)
        consumer.limit(self.group.limits)
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
        with suppress(*_AWAY):  # the next sweep tries again
            await self._leave(consumer)

    async def leave_again(self) -> None:
        """For consumers that could not give back what they hold."""
        for consumer in list(self._leaving.values()):
            await self._leave(consumer)

    @property
    def idle(self) -> bool:
        return not self.consumers and not self._leaving

    def wake(self) -> None:
        """There may be something to read."""
        self._stirred = True
        self._wake.set()

    # What other brokers, or other calls to this one, tell.

    def relayed(self, shard: int, types: Iterable[str]) -> None:
        self._stirred = True
        for membership in self.memberships:
            if membership.shard == shard:
                for event_type in types:
                    if event_type in membership.types:
                        self.wake()
                    elif self.group.filter.matches(event_type):
                        if not self.group.in_turn:
                            membership.lose()  # a new type: join it
                        self.wake()

    def look_again(self) -> None:
        """Anything may have happened: a new type, the loss of the group, events that nobody told of."""
        for membership in self.memberships:
            membership.lose()
        self.wake()

    def settled(self, consumer_name: str, shard: int, positions: Iterable[int]) -> None:
        if (consumer := self.consumers.get(consumer_name)) is not None:
            consumer.take_back([(shard, position) for position in positions])

    def types_of(self, consumer_name: str, shard: int, positions: Iterable[int]) -> dict[int, str]:
        """The types of what a consumer here holds of the group's own streams."""
        consumer = self.consumers.get(consumer_name)
        holds = consumer.holds if consumer is not None else {}
        held = {position: holds.get((shard, position)) for position in positions}
        return {position: hold.event_type for position, hold in held.items() if hold is not None}

    def extended(self, consumer_name: str, shard: int, positions: Iterable[int], seconds: float) -> None:
        if (consumer := self.consumers.get(consumer_name)) is not None:
            deadline = asyncio.get_running_loop().time() + seconds
            consumer.extend([(shard, position) for position in positions], deadline)
            self.keeper.mind(deadline)

    # The work.

    async def pump(self) -> None:
        while True:
            await self._wake.wait()
            if self._busy and not self.group.fair:
                await asyncio.sleep(self._rhythm.linger)
                self._busy = False
            self._wake.clear()
            for membership in self.memberships:
                try:
                    async with self.at_work:
                        await self._pump_shard(membership)
                    self.say_away("deliver", None)
                except Stale:
                    membership.lose()
                    self.wake()
                    await asyncio.sleep(0.1)  # the relay may have to begin first
                except _AWAY as exc:
                    self.say_away("deliver", exc)
                    self.wake()
                    await asyncio.sleep(0.2)

    def say_away(self, what: str, exc: Exception | None) -> None:
        """Log a disturbance once, and its end."""
        if exc is not None and what not in self._away:
            log.warning("cannot %s: %s", what, exc, extra={"group": self.name})
            self._away.add(what)
        elif exc is None and what in self._away:
            log.warning("can %s again", what, extra={"group": self.name})
            self._away.discard(what)

    async def _pump_shard(self, membership: ShardMembership) -> None:
        more = True
        while more:
            await membership.open()
            if self._generations.get(membership.shard) != membership.generation:
                self._generations[membership.shard] = membership.generation
                for consumer in self.consumers.values():
                    consumer.begin_again(membership.shard)
                self._outdate(membership)
            await self._enroll(membership)
            if self.group.paused:
                return
            more = False
            fed = await self._feed(membership)
            for consumer in self._in_turn():
                if consumer.must_recover(membership.shard):
                    await self._recover(membership, consumer)
                most = min(consumer.credit(), consumer.flow.max_batch_events)
                if most <= 0:
                    continue
                generation, replay_to = membership.generation, membership.replay_to
                consumer.doubtful.add(membership.shard)
                entries, unread, whole = await membership.read(consumer.name, most)
                consumer.doubtful.discard(membership.shard)
                if not whole:
                    consumer.unfilled_in.add(membership.shard)
                    asyncio.get_running_loop().call_later(_AGAIN, self._take_back_unfilled, consumer)
                if self.consumers.get(consumer.name) is not consumer:  # it left meanwhile
                    if not whole:
                        await self._recover(membership, consumer)
                    await self._hand_back(
                        membership,
                        [Holding(e.position, e.stream, consumer.name, e.number, e.retry) for e in entries],
                        leave=consumer.name,
                    )
                    continue
                self._busy = self._busy or len(entries) > _FEW
                for entry in entries:
                    consumer.give(membership.shard, generation, entry, replay_to)
                more = more or unread
                if not consumer.caught_up and not unread:
                    self._catch_up(consumer, membership)
            more = more or fed

    def _catch_up(self, consumer: Consumer, membership: ShardMembership) -> None:
        """A read for it left nothing: unless something has yet to have its turn, it has caught up with the shard as it
        was then, or as it was when a read first left nothing."""
        if membership.level(consumer.heads.setdefault(membership.shard, membership.head)):
            consumer.level_in.add(membership.shard)
            if len(consumer.level_in) == len(self.memberships):
                consumer.caught_up = True
                consumer.nudge()

    async def _feed(self, membership: ShardMembership) -> bool:
        """Feed a page of history, if it is time to. Without PostgreSQL what is relayed goes on."""
        try:
            fed = await membership.feed()
            if (at := membership.pace.alarm()) is not None:
                asyncio.get_running_loop().call_at(at, self.wake)
            return fed
        except StoreUnavailable as exc:
            log.warning("history has to wait: %s", exc, extra={"group": self.name})
            asyncio.get_running_loop().call_later(_AGAIN, self.wake)
            return False

    def _take_back_unfilled(self, consumer: Consumer) -> None:
        """Have the pump hand back what could not be given to it, to be read again."""
        consumer.untaken_in |= consumer.unfilled_in
        self.wake()

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
        """Hand back what it has in Redis and not here: a read took it whose reply was lost, or nobody took it."""
        consumer.untaken_in.discard(membership.shard)
        consumer.unfilled_in.discard(membership.shard)
        pending = await self._streams.holdings(
            membership.shard, self.name, membership.generation, membership.types, consumer=consumer.name
        )
        lost = [holding for holding in pending if (membership.shard, holding.position) not in consumer.holds]
        await self._hand_back(membership, lost)
        consumer.doubtful.discard(membership.shard)

    async def _hand_back(self, membership: ShardMembership, holdings: Sequence[Holding], *, leave: str = "") -> None:
        shard, generation = membership.shard, membership.generation
        if holdings:
            await self._streams.hand_back(shard, self.name, generation, holdings)
        if leave:
            await self._streams.leave(shard, self.name, generation, membership.types, leave)

    async def _leave(self, consumer: Consumer) -> None:
        for membership in self.memberships:
            if consumer.must_recover(membership.shard) or membership.shard in consumer.unfilled_in:
                with suppress(Stale):  # then there is nothing to give back
                    await self._recover(membership, consumer)
            holds = [hold for hold in consumer.holds.values() if hold.shard == membership.shard]
            held = [consumer.holding(hold) for hold in holds]
            await self._hand_back(membership, held, leave=consumer.name)
        self._leaving.pop(consumer.name, None)
        self.wake()

    async def note(self) -> None:
        """Write checkpoints, apart from the keeper: deadlines do not wait for PostgreSQL."""
        while True:
            try:
                await self.checkpoint()
                self.say_away("note", None)
            except Stale:
                self.look_again()
            except _AWAY as exc:
                self.say_away("note", exc)
            if not all(consumer.caught_up for consumer in self.consumers.values()):
                self.wake()  # the last of what they wait for may have been settled through another broker
            await asyncio.sleep(self._rhythm.checkpoint)

    async def checkpoint(self) -> None:
        """Write down how far the group has come, if anything happened here, or may happen elsewhere."""
        busy = self._stirred or any(membership.behind for membership in self.memberships)
        if busy and all(membership.is_open for membership in self.memberships):
            self._stirred = False
            try:
                for membership in self.memberships:
                    await membership.checkpoint()
            except BaseException:
                self._stirred = True
                raise

    # Changes of the group.

    def adopt(self, group: Group) -> None:
        """Go on as the group is now. What is handed out stays, but for types that it does not want any more."""
        refiltered = group.filter_text != self.group.filter_text
        self.group = group
        for membership in self.memberships:
            membership.group = group
            if refiltered:
                membership.lose()
        for consumer in self.consumers.values():
            consumer.ack_deadline = group.ack_deadline
            consumer.limit(group.limits)
            if refiltered:
                unwanted = [
                    place
                    for place, hold in consumer.holds.items()
                    if hold.stream not in (BACKFILL, RETRY) and not group.filter.matches(hold.stream)
                ]
                consumer.take_back(unwanted)
        self.wake()

    def dissolve(self) -> None:
        """The group is no more: end all streams."""
        for consumer in self.consumers.values():
            consumer.close(ClosingReason.GROUP_DELETED)

    async def _enroll(self, membership: ShardMembership) -> None:
        """Make consumers known that are new to this generation: one that has not got anything yet may not be."""
        shard, generation = membership.shard, membership.generation
        for consumer in list(self.consumers.values()):
            if consumer.enrolled.get(shard) != generation:
                await self._streams.enroll(shard, self.name, generation, consumer.name)
                consumer.enrolled[shard] = generation
