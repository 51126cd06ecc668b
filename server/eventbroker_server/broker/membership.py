"""One group in one shard: its place in Redis, as this broker knows it.

A group's state in Redis may vanish (FLUSHALL, a group destroyed by hand) or be older than what PostgreSQL knows. Then
it is made anew at its checkpoint: live from the head on, and what lies between is fed, page by page, from PostgreSQL
into the group's backfill stream. Any broker may do any of these steps; each is a compare-and-append.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.broker.pace import Pace
from eventbroker_server.broker.refilter import refilter
from eventbroker_server.domain.ack_id import RETRY
from eventbroker_server.domain.errors import StoreUnavailable
from eventbroker_server.ports import Entry, Membership, Refiltered, Stale

if TYPE_CHECKING:
    from datetime import datetime

    from eventbroker_server.broker.ordering import Ordering
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.domain.group import Group
    from eventbroker_server.ports import Codec, EventLog, GroupState, GroupStore, Progress, Received, Streams

log = logging.getLogger(__name__)

_PAGE = 500  # positions looked at for one page of the backfill
_FAR = 2_000  # positions; so far from the head events stand in line without being read
_MOST_BEHIND = 200_000  # events that wait for others of their aggregates or tenants; then no more are fed
_MOST_OPEN = 2_000  # events of a stream that are looked at to tell what is settled beyond the oldest that is not
_LOW_WATER = 1_000  # no more is fed while as much as this waits in the backfill


class ShardMembership:
    """`open` first; then `read`. Stale means: `open` again."""

    def __init__(
        self,
        group: Group,
        shard: int,
        groups: GroupStore,
        event_log: EventLog,
        streams: Streams,
        codec: Codec,
        ordering: Ordering,
        *,
        from_latest: bool,
    ) -> None:
        self.group = group
        self.shard = shard
        self.types: list[str] = []  # joined
        self.caught_up = False  # all history was read
        self.progress: Progress | None = None  # as of the last checkpoint
        self.oldest_at: datetime | None = None  # when the oldest event was stored that was not settled then
        self._name = str(group.key)
        self.pace = Pace(streams, shard, self._name)
        self._known_types = 0
        self._joined_by = ""  # the filter
        self._groups = groups
        self._log = event_log
        self._streams = streams
        self._codec = codec
        self._ordering = ordering
        self._from_latest = from_latest
        self._state: GroupState | None = None
        self._opening = asyncio.Lock()
        self._lost = False  # the state is not to be relied on; set at any moment, also while a step is under way
        self._membership: Membership | None = None  # of the state, as PostgreSQL had it
        self._counted = 0  # so far generations were counted up, as is known here

    @property
    def generation(self) -> int:
        return self._state.generation if self._state else 0

    @property
    def replay_to(self) -> int:
        """Up to here a seek brought events back."""
        return self._membership.replay_to if self._membership else 0

    @property
    def is_open(self) -> bool:
        return self._state is not None and not self._lost

    @property
    def head(self) -> int:
        """How far the shard was relayed when the group was last looked at."""
        return self._state.backfill_to if self._state else 0

    def level(self, head: int) -> bool:
        """Whether all up to there was handed out, if the last read left nothing. What waits for another attempt was."""
        state = self._state
        if state is None or not self.caught_up or not self.group.in_turn:
            return self.caught_up
        return not (state.behind or state.released) or state.oldest > head

    @property
    def behind(self) -> bool:
        """Whether events were left to settle at the last checkpoint, through whichever broker."""
        return self.progress is not None and self.progress.settled < self.progress.head

    async def open(self) -> None:
        """Join all streams of the group, unless that is done. Raises Stale while the relay has not begun."""
        async with self._opening:
            if self.is_open:
                return
            self._lost = False
            try:
                await self._open()
            except Refiltered as exc:
                self._lost = True
                await self._refilter()
                raise Stale from exc
            except BaseException:
                self._lost = True
                raise

    async def _open(self) -> None:
        if self._membership is None:  # first: an ephemeral group may start at the latest as of now
            self._membership = await self._ask_membership()
        membership = self._membership
        if membership.generation < self._counted:
            membership = await self._ask_membership()
        types = await self._streams.types(self.shard)
        joining, wanted = self.group.joins(types), self.group.filter_text

        async def open_at(place: Membership, *, make: bool) -> GroupState | None:
            return await self._streams.open_group(
                self.shard, self._name, joining, place, make=make, filter_text=wanted, in_turn=self.group.in_turn
            )

        state = await open_at(membership, make=False)
        if state is None:
            membership = await self._next_generation(membership)
            state = await open_at(membership, make=True)
            if state is None:
                raise Stale
            log.info(
                "group made anew",
                extra={"group": self._name, "shard": self.shard, "after": state.fed, "live_after": state.backfill_to},
            )
        if state.generation != membership.generation:  # somebody else made it anew
            membership = await self._ask_membership()
        if self._state is None or self._state.generation != state.generation:
            self.caught_up = not state.backfilling and state.waiting == 0
        self.types = joining
        self._joined_by = wanted
        self._known_types = len(types)
        self._state, self._membership = state, membership

    def lose(self) -> None:
        """Things in Redis are not as they were: open again."""
        self._lost = True

    async def _ask_membership(self) -> Membership:
        if not self.group.ephemeral:
            return await self._groups.membership(self.group.key, self.shard)
        if self._membership is not None:
            return self._membership
        return Membership(await self._log.head(self.shard) if self._from_latest else 0, 1)

    async def _next_generation(self, last: Membership) -> Membership:
        """Count it up. Raises Stale if somebody else did: who counted one makes it, so that none comes twice."""
        if self.group.ephemeral:
            generation = max(last.generation, self.generation) + 1
            await self._streams.own(self.shard, self._name, generation)
            return last._replace(generation=generation)
        counted = await self._groups.next_generation(self.group.key, self.shard, last.generation)
        self._counted = last.generation + 1
        if counted is None:
            raise Stale
        return counted

    async def read(self, consumer: str, count: int) -> tuple[list[Received], bool, bool]:
        """Take up to `count` entries for a consumer, of which those that the group does not want are settled here;
        whether there may be more; and whether that is all that was taken: without PostgreSQL, what was trimmed
        meanwhile stays with the consumer. Live events come after history. Raises Stale."""
        generation, group = self.generation, self.group
        # Who looks at conditions has to know the present ones: what they leave out is settled for good.
        told = group.filter_text if group.conditions else ""
        received: list[Received] = []
        if not self.caught_up or group.in_turn:
            received = await self._streams.read(self.shard, self._name, generation, consumer, (), count, told)
            self.caught_up = len(received) < count and not (self._state and self._state.backfilling)
        if self.caught_up and not group.in_turn and (left := count - len(received)):
            received += await self._streams.read(self.shard, self._name, generation, consumer, self.types, left, told)
        more = len(received) == count
        taken = len(received)
        received = await self._filled(received)
        whole = len(received) == taken
        if self.group.ephemeral:  # nobody else counts its attempts
            received = [entry._replace(attempt=entry.number) for entry in received]
        if not group.conditions and all(map(group.wants_tenant, {entry.tenant_id for entry in received})):
            return received, more, whole
        wanted: list[Received] = []
        unwanted: list[Received] = []
        for entry in received:
            (wanted if self._wants(group, entry) else unwanted).append(entry)
        if unwanted:
            await self._streams.drop(self.shard, self._name, generation, unwanted)
        return wanted, more, whole

    async def _filled(self, received: list[Received]) -> list[Received]:
        """The same, with the events of those that were trimmed while they were pending; without PostgreSQL, without
        these."""
        trimmed = [entry.position for entry in received if not entry.body]
        if not trimmed:
            return received
        found: dict[int, Entry] = {}
        try:
            for stored in await self._log.at(self.shard, trimmed):
                found[stored.position] = Entry.of(stored, self._codec)
        except StoreUnavailable as exc:
            log.warning("trimmed events have to wait: %s", exc, extra={"group": self._name, "events": len(trimmed)})
        there = [(entry, entry if entry.body else found.get(entry.position)) for entry in received]
        return [entry._replace(tenant_id=event.tenant_id, body=event.body) for entry, event in there if event]

    def _wants(self, group: Group, entry: Received) -> bool:
        if not group.wants_tenant(entry.tenant_id):
            return False
        # A retry is of an event that was wanted, or a dead letter that somebody redrove.
        return not group.conditions or entry.stream == RETRY or group.conditions.met_by(self._codec.facts(entry.body))

    async def feed(self) -> bool:
        """Feed one page of history into the backfill, if there is any and the backfill is low; answer whether it did.
        Raises Stale."""
        state = self._state
        if state is not None and self.group.in_turn:
            return await self._feed_in_turn(state)
        if state is None or not state.backfilling:
            return False
        if state.waiting >= _LOW_WATER:  # as of the last feed: look again
            state = self._state = await self._streams.feed(self.shard, self._name, state, state.fed, [])
            if state.waiting >= _LOW_WATER:
                return False
        if (most := await self._share(state)) <= 0:
            return False
        events, upto = await self._read(state, most)
        entries = [Entry.of(stored, self._codec) for stored in events]
        self._state = await self._streams.feed(self.shard, self._name, state, upto, entries)
        self.pace.fed(len(entries))
        return True

    async def _feed_in_turn(self, state: GroupState) -> bool:
        state = self._state = await self._ordering.look(self.group, self.shard, state)
        if state.waiting >= _LOW_WATER:
            return False
        if state.released:
            await self._ordering.bring(self.group, self.shard, state.generation)
        if not state.backfilling or state.behind >= _MOST_BEHIND or (most := await self._share(state)) <= 0:
            return bool(state.released)
        if state.backfill_to - state.fed > _FAR and not self._pace(state):
            upto = state.fed + _FAR
            places = await self._log.places(self.group, self.shard, state.fed, upto)
            self._state = await self._ordering.feed_places(self.group, self.shard, state, upto, places)
            return True
        events, upto = await self._read(state, most)
        self._state = await self._ordering.feed(self.group, self.shard, state, upto, events)
        self.pace.fed(len(events))
        return True

    def _pace(self, state: GroupState) -> float:
        """How many events a second a seek lets it be fed now; 0 is as fast as it goes."""
        place = self._membership
        return place.pace if place is not None and state.fed < place.paced_to else 0.0

    async def _share(self, state: GroupState) -> int:
        """How many events may be fed now."""
        pace = self._pace(state)
        return await self.pace.share(state, pace) if pace else _PAGE

    async def _read(self, state: GroupState, most: int) -> tuple[list[StoredEvent], int]:
        """A page of history, and up to which position that is all."""
        upto = min(state.backfill_to, state.fed + _PAGE)
        if self._membership is not None and self._pace(state):
            upto = min(upto, self._membership.paced_to)
        return await self._log.read_for(self.group, self.shard, state.fed, upto, most)

    async def checkpoint(self) -> None:
        """Write down how far the group has come. Raises Stale."""
        if self._state is None:
            return
        key, generation = self.group.key, self.generation  # a seek may come between a look and what is said of it
        progress = await self._ask_progress(generation)
        if self.progress is not None and progress.settled < self.progress.head:  # something takes long
            progress = await self._ask_progress(generation, _MOST_OPEN)
        self.progress = progress
        if not self.group.ephemeral:
            settled, beyond = progress.settled, progress.beyond()
            saved = await self._groups.save_checkpoint(key, self.shard, generation, settled, beyond)
            if saved is None:
                self._counted = generation + 1  # by another broker
                raise Stale
            # Another broker may have looked later and saved earlier: only a fresh look tells.
            if saved.is_ahead_of(progress) and saved.is_ahead_of(await self._ask_progress(generation, _MOST_OPEN)):
                # Redis came back older than what PostgreSQL knows: what it holds would be delivered again.
                log.warning("group went back in time", extra={"group": self._name, "shard": self.shard})
                await self._groups.next_generation(key, self.shard, generation)
                self._counted = generation + 1
                raise Stale
        elif self._membership is not None:  # PostgreSQL does not know it
            checkpoint = max(progress.settled, self._membership.checkpoint)
            self._membership = self._membership._replace(checkpoint=checkpoint)
        self.oldest_at = await self._groups.oldest_at(self.group.key, self.shard, progress.unsettled)

    async def _ask_progress(self, generation: int, most: int = 0) -> Progress:
        return await self._streams.progress(
            self.shard, self._name, generation, self.types, self._known_types, self._joined_by, most
        )

    async def sought(self) -> bool:
        """Look whether somebody moved the group, and if so, lose it: it is opened at its new place. Raises
        StoreUnavailable."""
        now = await self._groups.membership(self.group.key, self.shard)
        if self._state is None or now.generation <= self.generation:
            return False
        self._counted = now.generation
        self.lose()
        return True

    async def _refilter(self) -> None:
        """Redis has the group with another filter than is known here: take over the one that PostgreSQL has."""
        if (group := await self._groups.find(self.group.key)) is not None:
            self.group = group
        await refilter(self._groups, self._streams, self.group.key, self.shard)

    async def delete(self) -> None:
        """Forget an ephemeral group."""
        if self._state is not None:
            await self._streams.delete_group(self.shard, self._name, self.generation, self.types)
