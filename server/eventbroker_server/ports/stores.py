"""What the rules need of PostgreSQL: the log, the groups, retries and dead letters."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from eventbroker_server.domain.dead_letter import DeadLetter, DeadLetterFilter, DeadLetterPlace, Redriven
    from eventbroker_server.domain.event import AggregateKey, Event, EventKey, StoredEvent
    from eventbroker_server.domain.group import Group, GroupChange, GroupKey
    from eventbroker_server.ports.streams import Progress


class Collision(Exception):
    """An append met an event id or an aggregate version that is taken. Nothing was stored."""


class Row(NamedTuple):
    """An event to be appended as number base + step of its aggregate. Without a base the store looks it up."""

    event: Event
    base: int | None
    step: int


class Appended(NamedTuple):
    """Events got the positions first, first + 1, ... in the order of their rows."""

    first: int
    versions: list[int]
    record_time: datetime


class Decision(Protocol):
    """A shard that is locked, so that what is read here still holds when rows are inserted."""

    async def find_events(self, keys: Collection[EventKey]) -> dict[EventKey, StoredEvent]: ...

    async def versions(self, aggregates: Collection[AggregateKey]) -> dict[AggregateKey, int]:
        """The latest version of each aggregate that has one."""

    async def insert(self, rows: Sequence[Row]) -> Appended: ...


class EventLog(Protocol):
    """The log: per shard, positions 1, 2, 3, ... without a gap, in the order of commits."""

    async def append(self, shard: int, rows: Sequence[Row]) -> Appended:
        """Store all rows, flushed, or none. Raises Collision when a unique key objects."""

    def deciding(self, shard: int) -> AbstractAsyncContextManager[Decision]:
        """Lock the shard. What is inserted is committed and flushed when the block ends without an exception."""

    async def head(self, shard: int) -> int:
        """The position of the newest committed event; 0 when there is none."""

    async def read(self, shard: int, after: int, upto: int) -> list[StoredEvent]:
        """The events at positions after < p <= upto, in order; fewer, but at least one, if they are many bytes."""

    async def read_for(
        self, group: Group, shard: int, after: int, upto: int, most: int = 1 << 31
    ) -> tuple[list[StoredEvent], int]:
        """The first `most` of those of them that the group wants and that neither wait for another attempt nor were
        given up since the last seek, and up to which position that is all."""

    async def places(self, group: Group, shard: int, after: int, upto: int) -> list[tuple[int, AggregateKey]]:
        """The positions of all of them, and their aggregates."""

    async def find(self, key: EventKey) -> StoredEvent | None: ...

    async def at(self, shard: int, positions: Sequence[int]) -> list[StoredEvent]:
        """The events at these positions, in any order."""

    async def record_time(self, shard: int, position: int) -> datetime | None:
        """When the event at a position was stored."""

    async def position_before(self, shard: int, time: datetime) -> int:
        """The position before the first event that was recorded at or after a time; the head if there is none."""

    async def count_for(self, group: Group, shard: int, after: int, upto: int) -> int:
        """How many events at positions after < p <= upto the group wants. Looks at each of them, in steps: a minute or
        so for a hundred million."""


class Membership(NamedTuple):
    """A group's place in one shard: settled up to the checkpoint, at this generation of its state in Redis. What is up
    to `replay_to` it was given before a seek. What is up to `paced_to` it gets at a pace of so many events a second; 0
    is as fast as it goes."""

    checkpoint: int
    generation: int
    replay_to: int = 0
    pace: float = 0.0
    paced_to: int = 0


class Saved(NamedTuple):
    """What PostgreSQL knows to be settled of a group in a shard: all up to the checkpoint, and beyond it ranges, each
    from its first position to the one after its last."""

    checkpoint: int
    beyond: Sequence[tuple[int, int]]

    def is_ahead_of(self, progress: Progress) -> bool:
        """Whether it has something settled that is not so there."""
        return self.checkpoint > progress.settled or any(
            first <= position < after for position in progress.but for first, after in self.beyond
        )


class Leftovers(NamedTuple):
    """What of a group waits for its next attempt, since when the oldest of it is stored, and what is given up."""

    retries: int
    oldest_retry_at: datetime | None
    dead_letters: int


class Place(NamedTuple):
    """Where a group stands in a shard: up to where events are stored, up to where they are settled or wait for another
    attempt, and when the first was stored that waits or is after that, if there is one."""

    group: GroupKey
    shard: int
    head: int
    checkpoint: int
    stored_at: datetime | None


class GroupStore(Protocol):
    """Groups and how far each has come."""

    async def ensure(self, group: Group, *, from_latest: bool) -> Group:
        """Make the group unless it exists; answer the one that is stored. A new group starts at the head, or at 0."""

    async def find(self, key: GroupKey) -> Group | None: ...

    async def membership(self, key: GroupKey, shard: int) -> Membership: ...

    async def next_generation(self, key: GroupKey, shard: int, after: int) -> Membership | None:
        """Count the generation up to after + 1, and answer the membership as it is then; None if somebody did."""

    async def save_checkpoint(
        self, key: GroupKey, shard: int, generation: int, position: int, beyond: Sequence[tuple[int, int]] = ()
    ) -> Saved | None:
        """Move the checkpoint forward, never back, add to what is settled beyond it, and answer both; None if the
        generation is not the present one."""

    async def is_settled(self, key: GroupKey, shard: int, position: int) -> bool:
        """Whether an event is among what was settled beyond the checkpoint."""

    async def create(self, group: Group, checkpoints: Mapping[int, int]) -> bool:
        """Make the group with these checkpoints by shard, 0 in the others. False if it exists: nothing is changed."""

    async def list_groups(self, tenant: str, after: str, count: int) -> list[Group]:
        """The groups of a scope whose names come after this one, by name (bytewise), so many at most."""

    async def leftovers(self, key: GroupKey) -> Leftovers: ...

    async def count_retries(self, key: GroupKey, shard: int, upto: int) -> int:
        """Events up to there that wait for another attempt, or are out for it."""

    async def oldest_at(self, key: GroupKey, shard: int, unsettled: int | None) -> datetime | None:
        """When the event at this position was stored, or an older one that waits for another attempt, if any."""

    async def places(self, tenant: str, count: int) -> list[Place]:
        """Where the groups of a tenant (empty: all groups) stand in every shard that is kept for each, by tenant and
        name (bytewise), of so many groups at most."""

    async def update(self, key: GroupKey, change: GroupChange) -> Group | None:
        """Change the group and answer it; None if there is none. With another filter, retries that it does not want are
        forgotten."""

    async def seek(self, key: GroupKey, checkpoints: Mapping[int, int], pace: float = 0.0) -> bool:
        """Move the group in these shards, all or none: a new generation at the checkpoint, without retries, which gets
        what is stored so far at so many events a second (0: as fast as it goes). False if there is no such group."""

    async def delete(self, key: GroupKey) -> bool:
        """Forget the group and all that is kept for it; False if there is none."""


class Failure(NamedTuple):
    """A delivery that failed. `delivery` names it within the group: recording it twice counts it once."""

    position: int
    delivery: str
    consumer: str
    error: str
    delay: float | None = None  # seconds until the next attempt; None: by the group's policy
    rejected: bool = False  # no further attempt


class Died(NamedTuple):
    """An event that was given up, and the delivery that was the last."""

    position: int
    event_tenant_id: str
    event_id: str
    event_type: str
    attempts: int
    reason: str
    delivery: str


class Waiting(NamedTuple):
    """An event of which so many attempts have failed."""

    position: int
    failed: int


class Due(NamedTuple):
    """An event whose next attempt is due, the delivery that failed last, and the event's aggregate."""

    position: int
    failed: int
    delivery: str
    aggregate: AggregateKey


class DuePage(NamedTuple):
    """Events whose next attempt is due, and those of them that are to be due once more."""

    due: list[Due]
    later: list[Due]


class Recorded(NamedTuple):
    """What died by failures that were recorded now, and all of them that are dead, also those that were before."""

    died: list[Died]
    dead: set[int]


class Turn(NamedTuple):
    """An event that has the turn: how many of its attempts failed, if it has a row of them; whether it was dropped, as
    the group does not want it any more; whether it was given up since the last seek; whether an earlier one of its
    aggregate `waits` for another attempt; and the last before it that was given up."""

    stored: StoredEvent
    failed: int | None
    dropped: bool
    dead: bool
    waits: bool
    dead_before: int | None


class WaitingGroup(NamedTuple):
    """A group with events that wait for their next attempt or are out for it. The next of those that are not in the
    retry stream is due in so many seconds."""

    key: GroupKey
    shard: int
    due_in: float | None


class Trouble(NamedTuple):
    """What failed with an event of a group: it is due again, or dead since then. The error is the last one."""

    failed: int
    error: str
    due_at: datetime | None
    dead_at: datetime | None


class RetryStore(Protocol):
    """Which events wait for another attempt, and which were given up."""

    async def trouble(self, key: GroupKey, shard: int, position: int) -> Trouble | None: ...

    async def oldest(self, key: GroupKey, shard: int) -> int | None:
        """The lowest position that waits for another attempt, or is out for it."""

    async def record(self, group: Group, shard: int, generation: int, failures: Sequence[Failure]) -> Recorded:
        """Count the attempts, and note when each event is due again, or that it is dead.
        Nothing, if the group is of another generation by now, or gone. Safe to repeat."""

    async def blocked(self, group: Group, shard: int, aggregates: Collection[AggregateKey]) -> set[AggregateKey]:
        """Of which of these something waits for another attempt, or, if the group holds back what follows a dead event,
        was given up since the last seek."""

    async def turns(self, key: GroupKey, shard: int, positions: Sequence[int], size: int) -> list[Turn]:
        """Of the events at these positions the first; fewer, but at least one, if they are more than `size` bytes."""

    async def bury(self, group: Group, shard: int, generation: int, behind: Mapping[int, int]) -> Recorded:
        """Give up events (by position) since another of their aggregate (its position) was given up before, and was not
        redriven meanwhile. Nothing, if the group is of another generation. Safe to repeat."""

    async def waiting_groups(self, asked: Collection[tuple[GroupKey, int]]) -> list[WaitingGroup]:
        """Those of these groups and shards that have any."""

    def due(self, key: GroupKey, shard: int, generation: int, most: int) -> AbstractAsyncContextManager[DuePage]:
        """What is due and not in the retry stream of this generation, the longest due first, for nobody else meanwhile.
        What is left in the list when the block ends without an exception is noted as being there; what was moved to
        `later` is due again in two seconds."""

    async def queue_all_again(self) -> None:
        """What was noted as being in a retry stream, of any group, is not noted so any more, whoever was about to."""

    async def settled(self, key: GroupKey, shard: int, generation: int, events: Sequence[Waiting]) -> None:
        """Forget these, if the group is of this generation."""

    async def unsettled(self, key: GroupKey, shard: int, positions: Sequence[int]) -> list[Waiting]:
        """Which of these wait for another attempt or are out for it, and which are dead (with -1)."""


class DeadLetterStore(Protocol):
    """What groups have given up. Each method looks at one group only, which need not exist, but for `purge`."""

    async def page(
        self, key: GroupKey, wanted: DeadLetterFilter, before: DeadLetterPlace | None, count: int
    ) -> list[DeadLetter]:
        """The newest `count` of those that are wanted, or the newest before a place. Without their history."""

    async def find(self, key: GroupKey, event: EventKey) -> DeadLetter | None: ...

    async def redrive(
        self, key: GroupKey, wanted: DeadLetterFilter, most: int, rate: float, *, dry_run: bool
    ) -> Redriven:
        """Turn the oldest `most` of those that are wanted into retries with no attempt so far, `rate` of them due in a
        second, or all at once if that is 0: all in one step, or none. Of two who do it at once each gets others.

        Raises DeadLetterNotFound, with nothing changed, for event ids of the filter that are no dead letters."""

    async def delete(self, key: GroupKey, wanted: DeadLetterFilter, *, dry_run: bool) -> int:
        """Forget those that are wanted, in steps, and answer how many they were."""

    async def purge(self) -> int:
        """Forget what is past the retention of its group, in steps, and answer how many they were."""
