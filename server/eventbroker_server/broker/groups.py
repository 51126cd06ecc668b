"""Consumer groups as resources: made, told about, changed, moved, deleted.

PostgreSQL is changed first. Then Redis is brought there, and a signal makes every broker that delivers the group look;
without Redis they find out by themselves, a little later.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.refilter import refilter
from eventbroker_server.broker.subscription import ShardProgress
from eventbroker_server.domain.errors import (
    GroupExists,
    GroupInUse,
    GroupNotFound,
    InvalidArgument,
    StreamsUnavailable,
    Violation,
)
from eventbroker_server.domain.group import GroupChange, GroupKey, consumer_id_of, process_of, shards_of
from eventbroker_server.domain.point import AfterPosition, AtTime, Edge
from eventbroker_server.ports import Stale

if TYPE_CHECKING:
    from collections.abc import Mapping

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.broker.subscriptions import Subscriptions
    from eventbroker_server.domain.group import Group
    from eventbroker_server.domain.point import LogPoint
    from eventbroker_server.ports import EventLog, GroupStore, Membership, Progress, Streams

log = logging.getLogger(__name__)

_MOST_COUNTED = 1_000_000  # positions that a seek looks at, to tell what it did
_TRIES = 5  # of a compare-and-set that another broker may win


class ConsumerStanding(NamedTuple):
    """A consumer of a group, through whichever broker process."""

    consumer_id: str
    process: str
    pending: int
    connected: bool


class Standing(NamedTuple):
    """How a group stands. `complete` if Redis told its part, too."""

    shards: list[ShardProgress]
    retries: int
    dead_letters: int
    oldest_unsettled_age: timedelta | None
    consumers: list[ConsumerStanding]
    complete: bool


class Sought(NamedTuple):
    """How many events a seek brings again, or passes over; -1 if they are too many positions to look at."""

    again: int
    skipped: int


class Groups:
    """All methods may raise StoreUnavailable; those that take a key of a group that there must be, GroupNotFound."""

    def __init__(
        self,
        event_log: EventLog,
        store: GroupStore,
        streams: Streams,
        subscriptions: Subscriptions,
        announcer: Announcer,
        shards: int,
    ) -> None:
        self._announcer = announcer
        self._log = event_log
        self._store = store
        self._streams = streams
        self._subscriptions = subscriptions
        self._shards = shards

    async def create(self, group: Group, start: LogPoint) -> Group:
        """Raises GroupExists, and InvalidArgument for a position beyond the head."""
        places = await self._places(group.key, start, "start.position")
        if not await self._store.create(group, places):
            raise GroupExists(group=group.key.name, tenant_id=group.key.tenant_id)
        return group

    async def get(self, key: GroupKey) -> Group:
        if (group := await self._store.find(key)) is None:
            raise _not_found(key)
        return group

    async def list_groups(self, tenant: str, after: str, count: int) -> list[Group]:
        """The groups of a tenant (empty: of all) whose names come after this one, ordered by name."""
        return await self._store.list_groups(*GroupKey.of(tenant, after), count)

    async def update(self, key: GroupKey, change: GroupChange) -> Group:
        """Change a group, also while consumers are connected."""
        if (group := await self._store.update(key, change)) is None:
            raise _not_found(key)
        if change.refilters:
            try:
                for shard in shards_of(key, self._shards):
                    await self._refilter(key, shard)
            except StreamsUnavailable as exc:  # whoever opens the group next does it
                log.warning("the filter has to wait: %s", exc, extra={"group": str(key)})
        await self._tell(key)
        return group

    async def _refilter(self, key: GroupKey, shard: int) -> None:
        for _ in range(_TRIES):
            with suppress(Stale):
                await refilter(self._store, self._streams, key, shard)
                return

    async def pause(self, key: GroupKey, *, paused: bool) -> Group:
        """Stop delivery of a group, or let it go on."""
        group = await self.update(key, GroupChange(paused=paused))
        self._announcer.tell("paused" if paused else "resumed", key)
        return group

    async def seek(self, key: GroupKey, to: LogPoint, pace: float = 0.0, *, dry_run: bool) -> Sought:
        """Move a group, unless it is only to be counted what that would do, which takes as long as it takes. What is
        stored so far comes at a pace of so many events a second and shard; 0 is as fast as it goes. Raises
        InvalidArgument for a position beyond the head."""
        group = await self.get(key)
        places = await self._places(key, to, "to.position")
        checkpoints = {shard: place.checkpoint for shard, place in (await self._memberships(key)).items()}
        most = None if dry_run else _MOST_COUNTED
        again = await self._count(group, places, checkpoints, most)
        skipped = await self._count(group, checkpoints, places, most)
        if skipped >= 0:  # what waits for another attempt before both places is passed over, too
            for shard, place in places.items():
                skipped += await self._store.count_retries(key, shard, min(place, checkpoints[shard]))
        if not dry_run:
            if not await self._store.seek(key, places, pace):
                raise _not_found(key)
            await self._tell(key)
            self._announcer.tell("sought", key, again=again, skipped=skipped)
        return Sought(again, skipped)

    async def _count(self, group: Group, after: Mapping[int, int], upto: Mapping[int, int], most: int | None) -> int:
        """The events of the group between places by shard, or -1 if these are more than `most` positions apart."""
        if most is not None and sum(max(0, upto[shard] - after[shard]) for shard in upto) > most:
            return -1
        return sum([await self._log.count_for(group, shard, after[shard], upto[shard]) for shard in upto])

    async def delete(self, key: GroupKey, *, force: bool) -> None:
        """Forget a group. Raises GroupInUse, unless forced, and StreamsUnavailable: without Redis it is not known
        whether consumers are connected, and what Redis has of the group could not be forgotten."""
        group = await self.get(key)
        memberships = await self._memberships(key)
        consumers = await self._consumers(group, memberships)
        connected = {consumer.consumer_id for consumer in consumers if consumer.connected}
        connected |= {consumer_id_of(name) for name in self._subscriptions.consumers_of(key)}
        if connected and not force:
            raise GroupInUse(group=key.name, tenant_id=key.tenant_id, consumers=",".join(sorted(connected)))
        if not await self._store.delete(key):
            raise _not_found(key)
        await self._tell(key)
        self._announcer.tell("deleted", key)
        for shard, membership in memberships.items():
            types = await self._streams.types(shard)
            await self._streams.delete_group(shard, str(key), membership.generation, types)

    async def standing(self, group: Group) -> Standing:
        """How the group stands; without Redis, what PostgreSQL knows."""
        shards, oldest = [], []
        memberships = await self._memberships(group.key)
        complete = True
        for shard, membership in memberships.items():
            head, settled = await self._log.head(shard), membership.checkpoint
            try:
                if (progress := await self.progress(group, shard, membership.generation)) is not None:
                    settled = max(settled, progress.settled)
                    if progress.unsettled is not None:
                        oldest.append(await self._log.record_time(shard, progress.unsettled))
            except StreamsUnavailable:
                complete = False
            shards.append(ShardProgress(shard, head, settled))
        consumers: list[ConsumerStanding] = []
        if complete:
            try:
                consumers = await self._consumers(group, memberships)
            except StreamsUnavailable:
                complete = False
        leftovers = await self._store.leftovers(group.key)  # last: what fails is in Redis until it is there
        since = min(filter(None, (*oldest, leftovers.oldest_retry_at)), default=None)
        age = max(datetime.now(UTC) - since, timedelta()) if since else None
        return Standing(shards, leftovers.retries, leftovers.dead_letters, age, consumers, complete)

    async def is_attended(self, group: Group) -> bool:
        """Whether a consumer is connected to it, through whichever broker. Raises StreamsUnavailable."""
        consumers = await self._consumers(group, await self._memberships(group.key))
        return any(consumer.connected for consumer in consumers)

    async def _memberships(self, key: GroupKey) -> dict[int, Membership]:
        """Of all shards that the group reads."""
        return {shard: await self._store.membership(key, shard) for shard in shards_of(key, self._shards)}

    async def progress(self, group: Group, shard: int, generation: int) -> Progress | None:
        """How far Redis has brought the group in a shard; None if it is not there, or about to be made anew. Raises
        StreamsUnavailable."""
        types = await self._streams.types(shard)
        wanted = group.joins(types)
        with suppress(Stale):
            return await self._streams.progress(
                shard, str(group.key), generation, wanted, len(types), group.filter_text
            )
        return None

    async def _consumers(self, group: Group, memberships: dict[int, Membership]) -> list[ConsumerStanding]:
        """The consumers of all shards, ordered by id. Raises StreamsUnavailable."""
        held: dict[tuple[str, str], int] = {}
        living: set[str] = set()
        for shard, membership in memberships.items():
            types = await self._streams.types(shard)
            name, generation = str(group.key), membership.generation
            pending = await self._streams.consumers(shard, name, generation, types)
            living |= await self._streams.living(shard, {process_of(consumer) for consumer, _ in pending})
            for consumer, events in pending:
                who = (consumer_id_of(consumer), process_of(consumer))
                held[who] = held.get(who, 0) + events
        return [
            ConsumerStanding(consumer_id, process, held[consumer_id, process], process in living)
            for consumer_id, process in sorted(held)
            if process in living or held[consumer_id, process]
        ]

    async def _places(self, key: GroupKey, point: LogPoint, field: str) -> dict[int, int]:
        """After which position of each shard a point is."""
        shards = shards_of(key, self._shards)
        if point is Edge.EARLIEST:
            return dict.fromkeys(shards, 0)
        if isinstance(point, AtTime):
            return {shard: await self._log.position_before(shard, point.time) for shard in shards}
        heads = {shard: await self._log.head(shard) for shard in shards}
        if isinstance(point, AfterPosition):
            if point.position > max(heads.values()):
                rule = f"must be from 0 to {max(heads.values())}, the position of the newest event"
                raise InvalidArgument([Violation(field, rule)])
            return {shard: min(point.position, head) for shard, head in heads.items()}
        return heads

    async def _tell(self, key: GroupKey) -> None:
        """Make every broker look at the group."""
        try:
            for shard in shards_of(key, self._shards):
                await self._streams.tell_changed(shard, str(key))
        except StreamsUnavailable as exc:  # they look every few seconds
            log.info("cannot tell of a change: %s", exc, extra={"group": str(key)})
        await self._subscriptions.changed(key)


def _not_found(key: GroupKey) -> GroupNotFound:
    return GroupNotFound(key.name, key.tenant_id)
