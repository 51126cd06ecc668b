"""What the rules need of Redis: who has what."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence
    from datetime import datetime

    from eventbroker_server.domain.ack_id import AckId
    from eventbroker_server.domain.conditions import Facts
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.ports.stores import Membership, Waiting


class Entry(NamedTuple):
    """What is relayed of an event: its place, what filters look at, and the event itself, serialized."""

    position: int
    event_type: str
    tenant_id: str
    body: bytes

    @classmethod
    def of(cls, stored: StoredEvent, codec: Codec) -> Entry:
        return cls(stored.position, stored.event.event_type, stored.event.tenant_id, codec.encode(stored))


class Received(NamedTuple):
    """An entry that was read for a consumer. `number` counts hand-overs of the entry, `attempt` those that failed, and
    this one. `retry` is the number of an entry in the retry stream, elsewhere 0. Tenant and body are empty of what
    was trimmed while it was pending, and is read again: the log has the event."""

    position: int
    stream: str  # an event type, BACKFILL or RETRY
    retry: int
    number: int
    attempt: int
    tenant_id: str
    body: bytes


class GroupState(NamedTuple):
    """A group's state in one shard of Redis: live streams are read after `joined_at`, history up to `backfill_to` is
    fed into its backfill stream, so far up to `fed`; `waiting` entries of it are not read. A group may be fed in turn,
    which is all that it gets: there `backfill_to` is how far the shard is relayed, so many events are `behind` others
    of their aggregates or tenants, and so many `released` are to be brought. Its `oldest` event that was
    fed, is not settled and does not wait for another attempt is at that position (0: there is none)."""

    generation: int
    joined_at: int
    backfill_to: int
    fed: int
    waiting: int
    behind: int = 0
    released: int = 0
    oldest: int = 0

    @property
    def backfilling(self) -> bool:
        return self.fed < self.backfill_to


class Progress(NamedTuple):
    """Every event of the group up to `settled` is settled; the relay has come to `head`. If it was asked for, also: up
    to `through` (if that is beyond), all are settled but these, whose positions grow."""

    head: int
    settled: int
    unsettled: int | None  # the position of the oldest event that is relayed and not settled
    through: int = 0
    but: tuple[int, ...] = ()

    def beyond(self) -> list[tuple[int, int]]:
        """What is settled beyond `settled`: ranges, each from its first position to the one after its last."""
        seams = [self.settled, *(position for position in self.but if self.settled < position <= self.through)]
        seams.append(self.through + 1)
        return [(low + 1, high) for low, high in pairwise(seams) if low + 1 < high]


class Owned(NamedTuple):
    """A group, as it was made last, that is to go with a process."""

    group: str
    generation: int
    process: str


class Holding(NamedTuple):
    """A delivery as the pending list has it."""

    position: int
    stream: str
    consumer: str
    number: int
    retry: int = 0


class Line(NamedTuple):
    """Where an event stands in a group that is fed in turn: behind those of its aggregate, if the group is ordered, and
    those of its tenant, if it is fair. Empty where not."""

    aggregate: str
    tenant: str


class InLine(NamedTuple):
    """An entry for such a group, its line, and whether PostgreSQL is to be asked before it goes. An entry without a
    body is brought later."""

    entry: Entry
    line: Line
    ask: bool


class Bring(Enum):
    """What is to become of an event that has the turn: it goes to the consumers, nobody gets it any more, or it waits
    for another of its aggregate that waits in PostgreSQL."""

    GO = "go"
    OVER = "over"
    LATER = "later"


class Bringing(NamedTuple):
    """An event that was released at some moment, and what is to become of it; `failed` counts its attempts, if it has a
    row of them."""

    position: int
    since: float
    what: Bring
    failed: int | None = None
    tenant_id: str = ""
    body: bytes = b""


class Where(Enum):
    """Where an event is on its way to the consumers of a group."""

    NOT_IN_REDIS = 0  # the group is not there
    NOT_RELAYED = 1
    NOT_FED = 2
    TO_BE_READ = 3
    PENDING = 4
    OVER = 5
    BEHIND = 6


class Whereabouts(NamedTuple):
    """Of what is pending: with whom, for how many seconds, and until when it was extended. Of what is behind: which
    event of its aggregate has the turn."""

    where: Where
    consumer: str = ""
    idle: float = 0.0
    extended_to: datetime | None = None
    before: int = 0


class Outcome(Enum):
    """What became of an ack id."""

    DONE = 1
    ALREADY_SETTLED = 2
    OUTDATED = 3
    UNKNOWN = 4


class Stale(Exception):
    """What the caller knows of a group or of the types in Redis is no longer so: look again. Nothing was changed."""


class Refiltered(Stale):
    """Redis has the group with another filter, `told`. Nothing was changed."""

    def __init__(self, told: str) -> None:
        self.told = told
        super().__init__(told)


class Pending(NamedTuple):
    """A consumer, by its name in Redis, and how many entries it holds."""

    consumer: str
    events: int


@dataclass(frozen=True, slots=True)
class Signal:
    """Something that happened at another broker, told through Redis. Losing one costs time, never an event."""

    kind: str  # relayed, returned, settled, extended, opened, changed
    process: str  # settled, extended: the process that is meant; otherwise the one that tells
    group: str = ""
    consumer: str = ""
    types: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    seconds: float = 0.0


class Streams(Protocol):
    """Who has what. Every method is one atomic step of one shard, and safe to repeat. What was trimmed while it was
    pending takes more steps to be taken away, each of which leaves it pending."""

    process: str
    aside: str  # whom deliveries belong to that were set aside

    # The relay.
    async def head(self, shard: int) -> int | None:
        """The position up to which the shard is relayed; None when Redis knows nothing of it."""

    async def start_at(self, shard: int, position: int) -> int:
        """Set the head unless there is one, or streams tell how far they were relayed; answer it."""

    async def relay(self, shard: int, entries: Sequence[Entry]) -> int | None:
        """Add entries at consecutive positions if the head is right before them; answer the head as it is then."""

    async def trim(self, shard: int, age: float, size: int) -> int:
        """Forget what was relayed more than `age` seconds ago, and the oldest as long as the rest is more than `size`
        bytes, give or take what comes in a second. A group that has not read all of it is missing then. Answers the
        position of the newest that was forgotten, or 0."""

    async def types(self, shard: int) -> set[str]:
        """The event types that have a stream."""

    def signals(self, shard: int) -> AsyncIterator[Signal | None]:
        """What other brokers tell, as it comes; None after a disturbance in which signals may have been lost."""

    # Groups.
    async def open_group(
        self,
        shard: int,
        group: str,
        types: Collection[str],
        membership: Membership,
        *,
        make: bool,
        filter_text: str = "",
        in_turn: bool = False,
    ) -> GroupState | None:
        """Join the streams of `types`, which are those of the filter. None if the group is missing, of an earlier
        generation than the membership's, or has lost a stream; with `make` it is made anew at that generation instead,
        unless somebody did: live after the head, history from the checkpoint. Raises Stale while the shard has no head,
        and Refiltered if the group is there with another filter; an empty text is any."""

    async def feed(self, shard: int, group: str, state: GroupState, upto: int, entries: Sequence[Entry]) -> GroupState:
        """Add history between state.fed and `upto` to the backfill if nobody else did. Raises Stale."""

    async def turn(self, shard: int, group: str, state: GroupState, seconds: float) -> tuple[bool, float]:
        """Take the next turn at feeding, which lasts so long: turns follow each other, whichever process takes them.
        Answers whether it was taken, and in how many seconds the next begins. Raises Stale, as `feed` would."""

    # Groups that are fed in turn.
    async def feed_lines(
        self, shard: int, group: str, state: GroupState, upto: int, entries: Sequence[InLine], filter_text: str
    ) -> GroupState:
        """As `feed`: the events stand in their lines, and go as they have the turn. Raises Stale, also if the filter is
        another."""

    async def line_up(
        self, shard: int, group: str, generation: int, events: Sequence[tuple[Waiting, Line, Holding | None]]
    ) -> list[int]:
        """Events whose next attempt is due, each with its line and the delivery that failed, if it may still be set
        aside: they are released as they have the turn. What is on its way anyway is not brought twice. Answers which
        the group is not fed up to, and so were left out. Raises Stale."""

    async def released(self, shard: int, group: str, most: int) -> dict[int, float]:
        """Positions that have the turn, and are to be brought: those that are released the longest. With each comes
        since when, which tells it from another release of the same."""

    async def bring(
        self, shard: int, group: str, generation: int, decisions: Sequence[Bringing], filter_text: str
    ) -> None:
        """Do what was decided of events that are still released since then. Raises Stale, also if the filter is
        another."""

    async def read(
        self,
        shard: int,
        group: str,
        generation: int,
        consumer: str,
        types: Sequence[str],
        count: int,
        filter_text: str = "",
    ) -> list[Received]:
        """Take up to `count` entries for a consumer, of each stream its share. What was handed back goes before new
        ones as soon as this process has heard of it. Raises Stale, also if the group's filter is another (an empty text
        is any); then what was taken is among the holdings."""

    async def drop(self, shard: int, group: str, generation: int, received: Sequence[Received]) -> None:
        """Settle entries that the group does not want."""

    async def settle(self, deliveries: Sequence[AckId]) -> list[Outcome]:
        """Settle deliveries of one consumer and generation. Each is done only if it is the latest of its event."""

    async def extend(self, deliveries: Sequence[AckId], seconds: float) -> list[Outcome]:
        """Give the same more time, fenced alike."""

    async def hand_back(
        self, shard: int, group: str, generation: int, holdings: Sequence[Holding], *, tell: bool = False
    ) -> list[Outcome]:
        """Make deliveries free for any consumer, fenced alike. With `tell` the process that has the consumer is told
        that it lost them; they are of one consumer then."""

    async def set_aside(
        self,
        shard: int,
        group: str,
        generation: int,
        holdings: Sequence[Holding],
        *,
        note: str,
        spare_extended: bool,
        tell: bool = False,
    ) -> tuple[list[Outcome], list[Holding]]:
        """Take deliveries that failed from their consumers, fenced alike; each is with nobody until `forget`, and the
        note is kept with it. Answers also what was set aside, as it is named from then on: what was trimmed has moved
        to the retry stream."""

    async def forget(
        self,
        shard: int,
        group: str,
        generation: int,
        holdings: Sequence[Holding],
        *,
        dead: Collection[int] = (),
        hold: bool = False,
    ) -> None:
        """Settle what was set aside. In an ordered group the `dead` of it end their turn; with `hold` PostgreSQL is to
        be asked of what follows."""

    async def leave(self, shard: int, group: str, generation: int, types: Sequence[str], consumer: str) -> None:
        """Forget a consumer, if it has nothing pending."""

    async def holdings(
        self, shard: int, group: str, generation: int, types: Sequence[str], *, consumer: str = "", idle: float = 0.0
    ) -> list[Holding]:
        """What is pending for at least `idle` seconds: with a consumer, or with any and past every extension."""

    async def set_aside_before(
        self, shard: int, group: str, generation: int, types: Sequence[str], idle: float
    ) -> list[tuple[Holding, str]]:
        """What was set aside so many seconds ago that whoever did it will not go on, each with its note."""

    async def whereabouts(self, shard: int, group: str, generation: int, event_type: str, position: int) -> Whereabouts:
        """Where an event of the group's filter is."""

    async def requeue(
        self, shard: int, group: str, generation: int, entries: Sequence[tuple[Entry, int, Holding | None]]
    ) -> bool:
        """Put entries, each with how many of its attempts failed, into the retry stream, unless that is done or the
        attempt is settled; and forget the delivery that failed, if it is still set aside. False, with nothing changed,
        while much is to be read there. Raises Stale."""

    async def retried(self, shard: int, group: str) -> list[Waiting]:
        """What was settled out of the retry stream and not `unmark`ed since."""

    async def unmark(self, shard: int, group: str, positions: Sequence[int]) -> None: ...

    async def progress(
        self,
        shard: int,
        group: str,
        generation: int,
        types: Collection[str],
        known: int,
        filter_text: str = "",
        most: int = 0,
    ) -> Progress:
        """How far the group has come; with `most`, also what is settled beyond the oldest event that is not, by a look
        at so many events of each stream. Raises Stale also if there are not `known` types in all, or the group's filter
        is another."""

    async def delete_group(self, shard: int, group: str, generation: int, types: Collection[str]) -> None:
        """Forget the group."""

    async def own(self, shard: int, group: str, generation: int) -> None:
        """Note that the group, which is about to be made, is to go with this process."""

    async def owned(self, shard: int) -> list[Owned]:
        """The groups that processes noted as their own, and that were not deleted."""

    # The server.
    async def another_run(self) -> str:
        """Which run of the server this is, if `note_run` was not told of it: it may have come back older than it was.
        Empty, if it is known."""

    async def note_run(self, run: str) -> None: ...

    # Processes.
    async def beat(self, shard: int, ttl: float) -> None:
        """Tell that this process lives, good for `ttl` seconds."""

    async def living(self, shard: int, processes: Iterable[str]) -> set[str]: ...

    async def tell_opened(self, shard: int, group: str, consumer: str) -> None:
        """Tell other brokers that this one has the consumer now."""

    # Management.
    async def tell_changed(self, shard: int, group: str) -> None:
        """Tell other brokers that the group is not as it was in PostgreSQL."""

    async def filter_of(self, shard: int, group: str) -> str | None:
        """The filter that the group has in Redis; None if it is not there."""

    async def refilter(
        self, shard: int, group: str, told: str, wanted: str, known: int, join: Sequence[str], leave: Sequence[str]
    ) -> None:
        """Change the group's filter from `told` to `wanted`: it joins types at the head, and leaves others with all
        that is pending of them. Raises Stale if the filter is not `told`, or there are not `known` types in all."""

    async def enroll(self, shard: int, group: str, generation: int, consumer: str) -> None:
        """Make a consumer known that does not read. Nothing happens if the group is not there."""

    async def consumers(self, shard: int, group: str, generation: int, types: Collection[str]) -> list[Pending]:
        """All consumers of the group, ordered by name; those of a group that is not there are none."""


class Codec(Protocol):
    """Turns a stored event into what is relayed. Kept by rpc/, which alone knows protobuf."""

    def encode(self, stored: StoredEvent) -> bytes: ...

    def facts(self, body: bytes) -> Facts:
        """What conditions look at, from what `encode` answered. Takes as long as reading the event."""

    def type_of(self, body: bytes) -> str:
        """The event's type, from what `encode` answered. Quick."""

    def record_time(self, body: bytes) -> float:
        """When the event was stored, in seconds since 1970, from what `encode` answered. Quick."""
