"""Groups that are fed in turn.

In an ordered group the next event of an aggregate is handed out when the one before it is settled or given up. In a
fair group a tenant has so many events out or to be read at most, so that those of another tenant wait for few.

The lines are in Redis, and change in the same steps that feed and settle; so all brokers serve such a group at once,
and none holds a lease. What waits for another attempt, or was given up, is in PostgreSQL: before an event goes that had
to wait for its turn, PostgreSQL is asked whether another goes before it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.ports import Bring, Bringing, Entry, InLine, Line, Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.domain.event import AggregateKey, StoredEvent
    from eventbroker_server.domain.group import Group, GroupKey
    from eventbroker_server.ports import Codec, Due, GroupState, Holding, RetryStore, Streams, Turn

_PAGE, _PAGE_BYTES = 200, 4 << 20  # events, and bytes of them, brought in one step


class Ordering:
    """Each method is safe to repeat, by any broker. All raise StoreUnavailable, StreamsUnavailable and Stale."""

    def __init__(self, store: RetryStore, streams: Streams, codec: Codec, announcer: Announcer) -> None:
        self._store = store
        self._streams = streams
        self._codec = codec
        self._announcer = announcer

    async def look(self, group: Group, shard: int, state: GroupState) -> GroupState:
        """The state as it is now."""
        return await self._streams.feed_lines(shard, str(group.key), state, state.fed, [], group.filter_text)

    async def feed(
        self, group: Group, shard: int, state: GroupState, upto: int, events: Sequence[StoredEvent]
    ) -> GroupState:
        """Put events, which are all of the group between state.fed and `upto`, into their lines."""
        aggregates = {stored.event.aggregate for stored in events} if group.ordered else set()
        blocked = await self._store.blocked(group, shard, aggregates) if aggregates else set()
        entries = [
            InLine(
                Entry.of(stored, self._codec),
                _line(group, stored.event.aggregate),
                stored.event.aggregate in blocked,
            )
            for stored in events
        ]
        return await self._streams.feed_lines(shard, str(group.key), state, upto, entries, group.filter_text)

    async def feed_places(
        self, group: Group, shard: int, state: GroupState, upto: int, places: Sequence[tuple[int, AggregateKey]]
    ) -> GroupState:
        """As `feed`, of events that are not at hand: those that may go are released."""
        entries = [
            InLine(Entry(position, "", aggregate[0], b""), _line(group, aggregate), ask=True)
            for position, aggregate in places
        ]
        return await self._streams.feed_lines(shard, str(group.key), state, upto, entries, group.filter_text)

    async def line_up(
        self, group: Group, shard: int, generation: int, due: Sequence[tuple[Due, Holding | None]]
    ) -> set[int]:
        """Events whose next attempt is due, each with the delivery that failed, if it may still be set aside. Answers
        which the group is not fed up to, and so were left out."""
        events = [(Waiting(one.position, one.failed), _line(group, one.aggregate), left) for one, left in due]
        return set(await self._streams.line_up(shard, str(group.key), generation, events))

    async def bring(self, group: Group, shard: int, generation: int) -> None:
        """A page of events that had to wait for their turn, and have it now."""
        name = str(group.key)
        released = await self._streams.released(shard, name, _PAGE)
        turns = await self._store.turns(group.key, shard, list(released), _PAGE_BYTES)
        if any(turn.waits for turn in turns):  # maybe for what is settled, and forgotten by another broker just now
            await self.forget_settled(group.key, shard, generation)
            turns = await self._store.turns(group.key, shard, list(released), _PAGE_BYTES)
        unwanted = [turn for turn in turns if turn.dropped or not _wanted(group, turn)]
        dropped = [Waiting(turn.stored.position, turn.failed) for turn in unwanted if turn.failed is not None]
        if dropped:
            await self._store.settled(group.key, shard, generation, dropped)
        over = {turn.stored.position for turn in unwanted}
        behind = {
            turn.stored.position: turn.dead_before
            for turn in turns
            if group.hold and turn.dead_before and turn.stored.position not in over
        }
        if behind:
            buried = await self._store.bury(group, shard, generation, behind)
            over |= buried.dead
            for died in buried.died:
                self._announcer.died(group.key, shard, died)
        decisions = [
            self._decide(group, turn, released[turn.stored.position], over=turn.stored.position in over)
            for turn in turns
            if turn.stored.position in over or turn.stored.position not in behind  # the others ask again
        ]
        if decisions:
            await self._streams.bring(shard, name, generation, decisions, group.filter_text)

    async def forget_settled(self, key: GroupKey, shard: int, generation: int) -> None:
        """Forget what waited for another attempt, and is settled."""
        if settled := await self._streams.retried(shard, str(key)):
            await self._store.settled(key, shard, generation, settled)
            await self._streams.unmark(shard, str(key), [event.position for event in settled])

    def _decide(self, group: Group, turn: Turn, since: float, *, over: bool) -> Bringing:
        if over or (turn.dead and turn.failed is None):
            return Bringing(turn.stored.position, since, Bring.OVER)
        if turn.waits and group.ordered:
            return Bringing(turn.stored.position, since, Bring.LATER)
        entry = Entry.of(turn.stored, self._codec)
        return Bringing(entry.position, since, Bring.GO, turn.failed, entry.tenant_id, entry.body)


def _wanted(group: Group, turn: Turn) -> bool:
    """What was redriven is wanted whatever the filter."""
    return turn.failed is not None or group.wants(turn.stored.event)


def _line(group: Group, aggregate: AggregateKey) -> Line:
    """No id has the character that separates the parts."""
    return Line("\x1f".join(aggregate) if group.ordered else "", aggregate[0] if group.fair else "")
