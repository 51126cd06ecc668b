"""All subscriptions of this broker: which groups are delivered here, and what other brokers tell about them."""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbroker_server.broker.consumer import ClosingReason
from eventbroker_server.broker.delivery import Delivery
from eventbroker_server.broker.follow import Follower
from eventbroker_server.broker.membership import ShardMembership
from eventbroker_server.broker.subscription import Subscription
from eventbroker_server.broker.tasks import end, wait_for
from eventbroker_server.domain.errors import (
    GroupMismatch,
    GroupNotFound,
    Overloaded,
    ShuttingDown,
    StoreUnavailable,
    StreamsUnavailable,
)
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey, shards_of
from eventbroker_server.ports import Stale

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.broker.consumer import Consumer, FlowControl
    from eventbroker_server.broker.delivery import Rhythm
    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.broker.heads import Head
    from eventbroker_server.broker.ordering import Ordering
    from eventbroker_server.broker.retry import Retries
    from eventbroker_server.broker.subscription import StreamTimes
    from eventbroker_server.domain.ack_id import Signer
    from eventbroker_server.ports import Codec, EventLog, GroupStore, Signal, Streams

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a caller wants to be handed. Empty texts, no patterns and None stand for what the group has, or defaults."""

    tenant: str  # empty: all tenants
    group: str  # empty: an ephemeral one
    consumer_id: str
    patterns: tuple[str, ...]
    ack_deadline: float | None
    from_latest: bool | None
    flow: FlowControl
    asks: bool = False  # for so many events at a time: has no credit until it does


class Subscriptions:
    """`open` gives a Subscription. `spawn` starts a task that must not die."""

    def __init__(
        self,
        event_log: EventLog,
        groups: GroupStore,
        streams: Streams,
        codec: Codec,
        signer: Signer,
        retries: Retries,
        ordering: Ordering,
        announcer: Announcer,
        figures: Figures,
        *,
        shards: int,
        rhythm: Rhythm,
        times: StreamTimes,
        heads: Sequence[Head],
        default_ack_deadline: float,
        create_groups: bool,
        most: int,
        spawn: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
    ) -> None:
        self._log = event_log
        self._groups = groups
        self._streams = streams
        self._codec = codec
        self._signer = signer
        self._retries = retries
        self._ordering = ordering
        self._announcer = announcer
        self._figures = figures
        self._shards = shards
        self._rhythm = rhythm
        self._times = times
        self._heads = heads
        self._default_ack_deadline = default_ack_deadline
        self._create_groups = create_groups
        self._most = most
        self._spawn = spawn
        self._deliveries: dict[str, Delivery] = {}
        self._tasks: dict[str, list[asyncio.Task[None]]] = {}
        self._followers: dict[str, Follower] = {}
        self._count = 0
        self._leaving: set[asyncio.Task[None]] = set()
        self._none_open = asyncio.Event()
        self._none_open.set()
        self._closed = False

    @asynccontextmanager
    async def open(self, wish: Wish) -> AsyncIterator[Subscription]:
        """A stream to a consumer of a group, which is made if it does not exist.

        Raises GroupMismatch, GroupNotFound (if groups are not made here), Overloaded, ShuttingDown, StoreUnavailable.
        What the consumer holds at the end is given back at once.
        """
        if self._count >= self._most:
            raise Overloaded("open streams", self._most)
        self._count += 1
        self._none_open.clear()
        try:
            group = await self.group_for(wish)
            if self._closed:
                raise ShuttingDown
            delivery = self._delivery(group, from_latest=wish.from_latest is not False)
            consumer = delivery.attach(wish.consumer_id or f"consumer-{uuid.uuid4().hex[:12]}", wish.flow)
            if wish.asks:
                consumer.ask(0)
            try:
                await self._ready(delivery, consumer.id)
                yield Subscription(delivery, consumer, self._signer, self._times, self._figures)
            finally:
                await self._see_off(delivery, consumer)
        finally:
            self._count -= 1
            self._look_around()

    async def group_for(self, wish: Wish) -> Group:
        """The group that is wished for, made if it does not exist. Raises GroupMismatch, GroupNotFound (if groups are
        not made here), StoreUnavailable."""
        if not wish.group:
            key = GroupKey.of(wish.tenant, f"~{uuid.uuid4().hex}")
            deadline = wish.ack_deadline or self._default_ack_deadline
            return Group(key, TypeFilter.of(*wish.patterns), deadline, ephemeral=True)
        key = GroupKey.of(wish.tenant, wish.group)
        wanted = Group(key, TypeFilter.of(*wish.patterns), wish.ack_deadline or self._default_ack_deadline)
        group = await self.group(key)
        if group is None:
            if not self._create_groups:
                raise GroupNotFound(key.name, key.tenant_id)
            group = await self._groups.ensure(wanted, from_latest=bool(wish.from_latest))
        if (wish.patterns and group.filter != wanted.filter) or (
            wish.ack_deadline is not None and group.ack_deadline != wish.ack_deadline
        ):
            raise GroupMismatch(
                group=key.name, event_types=str(group.filter), ack_deadline_seconds=f"{group.ack_deadline:g}"
            )
        return group

    async def group(self, key: GroupKey) -> Group | None:
        """A group as it is stored; of an ephemeral one that it is one."""
        if (delivery := self._deliveries.get(str(key))) is not None:
            return delivery.group
        if key.name.startswith("~"):
            return Group(key, TypeFilter.of(), self._default_ack_deadline, ephemeral=True)
        return await self._groups.find(key)

    def _delivery(self, group: Group, *, from_latest: bool) -> Delivery:
        name = str(group.key)
        if name not in self._deliveries:
            memberships = [
                ShardMembership(
                    group,
                    shard,
                    self._groups,
                    self._log,
                    self._streams,
                    self._codec,
                    self._ordering,
                    from_latest=from_latest,
                )
                for shard in shards_of(group.key, self._shards)
            ]
            delivery = Delivery(group, memberships, self._streams, self._retries, self._announcer, self._rhythm)
            self._deliveries[name] = delivery
            self._tasks[name] = [
                self._spawn(delivery.pump(), f"pump {name}"),
                self._spawn(delivery.keeper.run(), f"keeper {name}"),
                self._spawn(delivery.note(), f"checkpoints {name}"),
            ]
            if not group.ephemeral:
                follower = self._followers[name] = Follower(delivery, self._groups, self._rhythm.sweep)
                self._tasks[name].append(self._spawn(follower.run(), f"follower {name}"))
        return self._deliveries[name]

    async def _ready(self, delivery: Delivery, consumer_id: str) -> None:
        """Join the group's streams before the stream counts as open, so that an event published from then on reaches a
        group that starts at the latest. Without Redis the stream opens all the same, and joins when it is back."""
        try:
            for membership in delivery.memberships:
                await membership.open()
                await self._streams.tell_opened(membership.shard, delivery.name, consumer_id)
        except (Stale, StreamsUnavailable, StoreUnavailable):
            delivery.wake()

    async def _see_off(self, delivery: Delivery, consumer: Consumer) -> None:
        """Detach a consumer, also when who waits for it is cancelled: the drain waits for it then."""
        leaving = asyncio.create_task(self._detach(delivery, consumer))
        self._leaving.add(leaving)

        def left(task: asyncio.Task[None]) -> None:
            self._leaving.discard(task)
            self._look_around()

        leaving.add_done_callback(left)
        await asyncio.shield(leaving)

    def _look_around(self) -> None:
        if not self._count and not self._leaving:
            self._none_open.set()

    async def _detach(self, delivery: Delivery, consumer: Consumer) -> None:
        try:
            async with asyncio.timeout(5):
                await delivery.detach(consumer)
                if delivery.idle:
                    await self._end(delivery)
        except TimeoutError:
            log.warning("could not give back in time", extra={"group": delivery.name})

    async def _end(self, delivery: Delivery) -> None:
        """Stop delivering a group of which no consumer is left here."""
        if self._deliveries.get(delivery.name) is not delivery:
            return
        del self._deliveries[delivery.name]
        self._followers.pop(delivery.name, None)
        tasks = self._tasks.pop(delivery.name)
        try:
            async with delivery.at_work:
                pass  # what is being read comes to somebody, or goes back
        finally:
            await end(tasks)
        try:
            if delivery.group.ephemeral:
                for membership in delivery.memberships:
                    await membership.delete()
            else:
                await delivery.checkpoint()
        except (Stale, StreamsUnavailable, StoreUnavailable) as exc:
            log.info("ended without a last checkpoint: %r", exc, extra={"group": delivery.name})

    def close(self) -> None:
        """Open no more, and end all streams with a farewell."""
        self._closed = True
        for delivery in self._deliveries.values():
            for consumer in delivery.consumers.values():
                consumer.close(ClosingReason.SHUTDOWN)

    async def drained(self, timeout: float) -> None:
        """Wait until no stream is open and each has given back what it held, but not for longer than this."""
        await wait_for(self._none_open, timeout)

    @property
    def count(self) -> int:
        """How many streams are open."""
        return self._count

    # What happens elsewhere.

    def relayed(self, shard: int, types: Iterable[str]) -> None:
        """Events of these types were relayed; of any, if none is named."""
        types = tuple(types)
        for delivery in self._deliveries.values():
            if types:
                delivery.relayed(shard, types)
            else:
                delivery.look_again()

    def settled(self, group: str, consumer: str, shard: int, positions: Iterable[int]) -> None:
        if (delivery := self._deliveries.get(group)) is not None:
            delivery.settled(consumer, shard, positions)

    def types_of(self, group: str, consumer: str, shard: int, positions: Iterable[int]) -> dict[int, str]:
        """The types of what a consumer holds of the group's own streams, as far as they are known here."""
        delivery = self._deliveries.get(group)
        return delivery.types_of(consumer, shard, positions) if delivery is not None else {}

    def extended(self, group: str, consumer: str, shard: int, positions: Iterable[int], seconds: float) -> None:
        if (delivery := self._deliveries.get(group)) is not None:
            delivery.extended(consumer, shard, positions, seconds)

    def memberships(self) -> list[ShardMembership]:
        """Those of the named groups that are delivered here."""
        named = (delivery for delivery in self._deliveries.values() if not delivery.group.ephemeral)
        return [membership for delivery in named for membership in delivery.memberships]

    async def changed(self, key: GroupKey) -> None:
        """The group was changed through this broker: go on as it is now. Raises StoreUnavailable."""
        if (follower := self._followers.get(str(key))) is not None:
            await follower.follow()

    def consumers_of(self, key: GroupKey) -> list[str]:
        """The names of the group's consumers that are connected here."""
        delivery = self._deliveries.get(str(key))
        return list(delivery.consumers) if delivery is not None else []

    async def listen(self, shard: int) -> None:
        """Heed what other brokers tell."""
        async for signal in self._streams.signals(shard):
            if signal is None:
                self._heads[shard].look()
                self.relayed(shard, ())
            else:
                self._heed(shard, signal)

    def _heed(self, shard: int, signal: Signal) -> None:
        own = signal.process == self._streams.process
        delivery = self._deliveries.get(signal.group)
        if signal.kind == "relayed" and not own:
            self._heads[shard].look()
            self.relayed(shard, signal.types)
        elif signal.kind == "settled" and own:
            self.settled(signal.group, signal.consumer, shard, signal.positions)
        elif signal.kind == "extended" and own:
            self.extended(signal.group, signal.consumer, shard, signal.positions, signal.seconds)
        elif signal.kind == "returned" and delivery is not None:
            delivery.wake()
        elif signal.kind == "changed" and signal.group in self._followers:
            self._followers[signal.group].look()
        elif signal.kind == "opened" and not own and delivery is not None:
            delivery.replace(signal.consumer)

    async def beat(self, shard: int, ttl: float) -> None:
        """Tell other brokers that this one lives, and see to what those left that do not."""
        while True:
            try:
                await self._streams.beat(shard, ttl)
                await self._reap(shard)
            except StreamsUnavailable as exc:
                log.warning("no heartbeat to Redis: %s", exc)
            for delivery in list(self._deliveries.values()):
                if delivery.idle:  # its last consumer left while Redis was away
                    await self._end(delivery)
            await asyncio.sleep(ttl / 4)

    async def _reap(self, shard: int) -> None:
        """Forget ephemeral groups whose broker is gone, and those whose stream ended here while Redis was away."""
        owned = await self._streams.owned(shard)
        living = await self._streams.living(shard, {each.process for each in owned})
        for group, generation, process in owned:
            if group not in self._deliveries if process == self._streams.process else process not in living:
                log.info("forgetting what a stream left behind", extra={"group": group, "shard": shard})
                await self._streams.delete_group(shard, group, generation, await self._streams.types(shard))
