"""What nobody settles: the keeper of a delivery takes away what passed its deadline, and what brokers that died left
pending. That has failed once more."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.broker.retry import EXPIRED
from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable
from eventbroker_server.domain.group import process_of
from eventbroker_server.ports import Holding, Stale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.broker.consumer import Place
    from eventbroker_server.broker.delivery import Delivery
    from eventbroker_server.broker.membership import ShardMembership
    from eventbroker_server.broker.retry import Retries
    from eventbroker_server.ports import Streams

log = logging.getLogger(__name__)

_AWAY = (StreamsUnavailable, StoreUnavailable)


class Keeper:
    """`run` looks at deadlines as they come, and every so many seconds for what others left behind."""

    def __init__(
        self, delivery: Delivery, streams: Streams, retries: Retries, announcer: Announcer, every: float
    ) -> None:
        self._delivery = delivery
        self._streams = streams
        self._retries = retries
        self._announcer = announcer
        self._every = every
        self._due = asyncio.Event()
        self._next_look = 0.0

    def mind(self, deadline: float | None) -> None:
        """Look at deadlines by then, if not before."""
        if deadline is not None and deadline < self._next_look:
            self._due.set()

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        next_sweep = loop.time()
        while True:
            try:
                await self._expire(loop.time())
                if loop.time() >= next_sweep:
                    next_sweep = loop.time() + self._every
                    await self.sweep()
                self._delivery.say_away("keep", None)
            except Stale:
                self._delivery.look_again()
            except _AWAY as exc:
                self._delivery.say_away("keep", exc)
                await asyncio.sleep(0.2)
            deadlines = filter(None, (consumer.next_deadline() for consumer in self._delivery.consumers.values()))
            self._next_look = min([next_sweep, *deadlines])
            self._due.clear()
            await wait_for(self._due, self._next_look - loop.time())

    async def _expire(self, now: float) -> None:
        """What was not settled by its deadline has failed. What a consumer does not take goes to others."""
        delivery = self._delivery
        for consumer in list(delivery.consumers.values()):
            if stuck := consumer.untaken(now):
                log.info("consumer takes nothing", extra={"group": delivery.name, "consumer": consumer.id})
                if not delivery.group.ephemeral:
                    self._announcer.tell("stalled", delivery.group.key, consumer_id=consumer.id, waiting=len(stuck))
                consumer.forget(stuck)
                consumer.untaken_in.update(hold.shard for hold in stuck)  # the pump hands back what it has there
                delivery.wake()
            if not (late := consumer.overdue(now)):
                continue
            for membership in delivery.memberships:
                mine = [consumer.holding(hold) for hold in late if hold.shard == membership.shard]
                if mine:
                    types = {hold.position: hold.event_type for hold in late if hold.shard == membership.shard}
                    await self._fail(membership, mine, EXPIRED, types)
            consumer.forget(late)

    async def _fail(
        self, membership: ShardMembership, holdings: Sequence[Holding], error: str, types: Mapping[int, str]
    ) -> None:
        group, shard, generation = self._delivery.group, membership.shard, membership.generation
        try:
            await self._retries.fail(group, shard, generation, holdings, error, types, expired=True)
        except StoreUnavailable as exc:  # they are set aside: a sweep goes on
            log.warning(
                "failures wait to be recorded: %s", exc, extra={"group": str(group.key), "events": len(holdings)}
            )

    async def sweep(self) -> None:
        """See to what others left behind: what passed its deadline with a broker that is gone, or that nobody here
        knows of any more, and what was set aside by a broker that did not come to record it."""
        delivery = self._delivery
        await delivery.leave_again()
        for membership in delivery.memberships:
            if not membership.is_open:
                delivery.wake()  # whoever lost it: the pump opens it
                continue
            await self._retries.go_on(delivery.group, membership.shard, membership.generation, membership.types)
            if delivery.group.in_turn:
                delivery.wake()  # some may have waited for their turn long enough to ask again
            if delivery.group.ephemeral:
                continue  # its one consumer is here
            overdue = await self._streams.holdings(
                membership.shard,
                delivery.name,
                membership.generation,
                membership.types,
                idle=delivery.group.ack_deadline,
            )
            others = {process_of(holding.consumer) for holding in overdue} - {self._streams.process}
            living = await self._streams.living(membership.shard, others)
            left = [
                holding
                for holding in overdue
                if process_of(holding.consumer) not in living
                and not self._holds(holding.consumer, (membership.shard, holding.position))
            ]
            if left:
                log.info("taking what was left behind", extra={"group": delivery.name, "events": len(left)})
                await self._fail(membership, left, "its broker was gone at its deadline", {})

    def _holds(self, consumer_name: str, place: Place) -> bool:
        consumer = self._delivery.consumers.get(consumer_name)
        return consumer is not None and place in consumer.holds
