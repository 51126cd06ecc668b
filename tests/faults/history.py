"""What clients saw, and the judgement on it.

Publishers, consumers and whoever breaks things write down what they did and what came back, in one order. Afterwards
`judge` holds that history against the rows that are stored, and names everything that a broker must never do. It knows
nothing of how the broker works. A run that proves nothing is not green: `validity` says why.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence


class Fact(StrEnum):
    """What a violation is called."""

    LOST = "answered OK and not stored"
    UNEXPECTED = "nobody published it"
    UNDELIVERED = "never delivered to the group"
    UNACKED = "never acked by the group"
    UNWANTED = "delivered to a group that does not want it"
    MOVED = "one event at two positions"
    SHARED = "one position for two events"
    GAP = "positions are not 1, 2, 3, ..."
    VERSIONS = "versions of an aggregate are not 1, 2, 3, ..."
    RESURRECTED = "delivered after it was acked, and Redis has lost nothing"
    FORGOTTEN = "its ack was done twice, and Redis lost nothing in between"


class Ack(StrEnum):
    """What an ack came to."""

    DONE = "done"
    ALREADY = "done before"
    NOTHING = "outdated"


class Invoked(NamedTuple):
    """A publisher is about to publish an event, for the first time or again."""

    event_id: str


class Answered(NamedTuple):
    """A publish of an event was answered: OK with its place, or nobody knows."""

    event_id: str
    ok: bool
    position: int = 0


class Delivered(NamedTuple):
    """A consumer was handed an event."""

    group: str
    event_id: str
    position: int


class Acked(NamedTuple):
    """An ack was answered. It was asked for after so many records."""

    group: str
    event_id: str
    outcome: Ack
    asked: int


class Fault(NamedTuple):
    """Something is broken on purpose, from here to its Over. If it `loses`, Redis may forget what it was told."""

    name: str
    loses: bool = False


class Over(NamedTuple):
    """The fault has happened; what is done from here on must last."""

    fault: Fault


class Hurt(NamedTuple):
    """A client noticed: a call failed or a stream ended without a farewell."""

    what: str


Record = Invoked | Answered | Delivered | Acked | Fault | Over | Hurt


class Row(NamedTuple):
    """An event as PostgreSQL has it."""

    position: int
    event_id: str
    event_type: str
    aggregate_id: str
    version: int


@dataclass(frozen=True, slots=True)
class Violation:
    fact: Fact
    what: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fact}"


class History:
    """The records in the order in which they were made, and what the run waits for, counted as they come."""

    def __init__(self, groups: Mapping[str, str]) -> None:
        """`groups`: of each group the beginning of the event types that it wants."""
        self.groups = groups
        self.records: list[Record] = []
        self.stored: set[str] = set()
        self.acked: dict[str, set[str]] = {group: set() for group in groups}
        self.types: dict[str, str] = {}

    def invoked(self, event_id: str, event_type: str) -> None:
        self.types[event_id] = event_type
        self.records.append(Invoked(event_id))

    def answered(self, event_id: str, position: int) -> None:
        self.stored.add(event_id)
        self.records.append(Answered(event_id, ok=True, position=position))

    def unknown(self, event_id: str) -> None:
        self.records.append(Answered(event_id, ok=False))

    def delivered(self, group: str, event_id: str, position: int) -> None:
        self.records.append(Delivered(group, event_id, position))

    def settled(self, group: str, event_id: str, outcome: Ack, asked: int) -> None:
        """`asked`: how many records there were when the ack was sent."""
        if outcome is not Ack.NOTHING:
            self.acked[group].add(event_id)
        self.records.append(Acked(group, event_id, outcome, asked))

    @contextmanager
    def fault(self, name: str, *, loses: bool = False) -> Iterator[None]:
        """Break something inside of this."""
        fault = Fault(name, loses)
        self.records.append(fault)
        yield
        self.records.append(Over(fault))

    def hurt(self, what: str) -> None:
        self.records.append(Hurt(what))

    def unacked(self, group: str) -> set[str]:
        """What the group still has to ack of what was answered OK."""
        wanted = {event_id for event_id in self.stored if self.types[event_id].startswith(self.groups[group])}
        return wanted - self.acked[group]

    @property
    def drained(self) -> bool:
        return not any(self.unacked(group) for group in self.groups)

    def judge(self, rows: Sequence[Row]) -> list[Violation]:
        """Everything that must not be, after the run was drained."""
        return [
            *_published(self.records, rows),
            *_places(self.records, rows),
            *_order(rows),
            *_groups(self.records, rows, self.groups),
            *_resurrected(self.records),
            *_forgotten(self.records),
        ]

    def validity(self, volume: int) -> list[str]:
        """Why the run proves nothing; empty if it does."""
        problems = []
        if len(self.stored) < volume:
            problems.append(f"only {len(self.stored)} of {volume} events were stored")
        problems += [f"nobody noticed: {name}" for name in _unfelt(self.records)]
        if not _retries(self.records) and not _redeliveries(self.records):
            problems.append("nothing was published again or delivered again")
        return problems


def _published(records: Iterable[Record], rows: Sequence[Row]) -> Iterable[Violation]:
    invoked = {record.event_id for record in records if isinstance(record, Invoked)}
    stored = {row.event_id for row in rows}
    answered = {record.event_id for record in records if isinstance(record, Answered) and record.ok}
    delivered = {record.event_id for record in records if isinstance(record, Delivered)}
    yield from (Violation(Fact.LOST, event_id) for event_id in sorted(answered - stored))
    yield from (Violation(Fact.UNEXPECTED, event_id) for event_id in sorted((stored | delivered) - invoked))


def _places(records: Iterable[Record], rows: Sequence[Row]) -> Iterable[Violation]:
    """Whoever tells of an event's position must tell the same."""
    told = {(row.event_id, row.position) for row in rows}
    for record in records:
        if isinstance(record, Delivered) or (isinstance(record, Answered) and record.ok):
            told.add((record.event_id, record.position))
    positions, events = Counter(event_id for event_id, _ in told), Counter(position for _, position in told)
    yield from (Violation(Fact.MOVED, event_id) for event_id, count in positions.items() if count > 1)
    yield from (Violation(Fact.SHARED, str(position)) for position, count in events.items() if count > 1)


def _order(rows: Sequence[Row]) -> Iterable[Violation]:
    rows = sorted(rows)
    for number, row in enumerate(rows, 1):
        if row.position != number:
            yield Violation(Fact.GAP, f"{row.position} in the place of {number}")
            break
    versions: defaultdict[str, list[int]] = defaultdict(list)
    for row in rows:
        versions[row.aggregate_id].append(row.version)
    for aggregate_id, found in versions.items():
        if found != list(range(1, len(found) + 1)):
            yield Violation(Fact.VERSIONS, f"{aggregate_id} {found[:10]}")


def _groups(records: Iterable[Record], rows: Sequence[Row], groups: Mapping[str, str]) -> Iterable[Violation]:
    delivered: defaultdict[str, set[str]] = defaultdict(set)
    acked: defaultdict[str, set[str]] = defaultdict(set)
    for record in records:
        if isinstance(record, Delivered):
            delivered[record.group].add(record.event_id)
        elif isinstance(record, Acked) and record.outcome is not Ack.NOTHING:
            acked[record.group].add(record.event_id)
    for group, prefix in groups.items():
        for row in rows:
            if not row.event_type.startswith(prefix):
                if row.event_id in delivered[group]:
                    yield Violation(Fact.UNWANTED, f"{row.event_id} {group}")
            elif row.event_id not in delivered[group]:
                yield Violation(Fact.UNDELIVERED, f"{row.event_id} {group}")
            elif row.event_id not in acked[group]:
                yield Violation(Fact.UNACKED, f"{row.event_id} {group}")


def _resurrected(records: Iterable[Record]) -> Iterable[Violation]:
    """Up to the first loss: from then on an old copy may be on its way to a client, while a new one is acked."""
    acked: set[tuple[str, str]] = set()
    for record in records:
        if isinstance(record, Acked) and record.outcome is not Ack.NOTHING:
            acked.add((record.group, record.event_id))
        elif isinstance(record, Delivered) and (record.group, record.event_id) in acked:
            yield Violation(Fact.RESURRECTED, f"{record.event_id} {record.group}")
        elif isinstance(record, Fault) and record.loses:
            return


def _forgotten(records: Iterable[Record]) -> Iterable[Violation]:
    asked: dict[tuple[str, str], int] = {}
    losing, lost_at = False, -1  # what was asked for before this may be forgotten
    for number, record in enumerate(records):
        if isinstance(record, Fault) and record.loses:
            losing = True
        elif isinstance(record, Over) and record.fault.loses:
            losing, lost_at = False, number
        elif isinstance(record, Acked) and record.outcome is Ack.DONE:
            before = asked.get((record.group, record.event_id), -1)
            if before > lost_at and not losing:
                yield Violation(Fact.FORGOTTEN, f"{record.event_id} {record.group}")
            asked[record.group, record.event_id] = record.asked


def _unfelt(records: Iterable[Record]) -> list[str]:
    """Faults after which no client noticed anything up to the next: a call that failed, an ack that came to nothing, an
    acked event that came again."""
    unfelt: list[str] = []
    last: str | None = None
    acked: set[tuple[str, str]] = set()
    for record in records:
        if isinstance(record, Fault):
            unfelt += [last] if last else []
            last = record.name
        elif isinstance(record, Acked) and record.outcome is not Ack.NOTHING:
            acked.add((record.group, record.event_id))
        elif isinstance(record, (Hurt, Acked)) or (
            isinstance(record, Delivered) and (record.group, record.event_id) in acked
        ):
            last = None
    return unfelt + ([last] if last else [])


def _retries(records: Iterable[Record]) -> int:
    published = Counter(record.event_id for record in records if isinstance(record, Invoked))
    return sum(count - 1 for count in published.values())


def _redeliveries(records: Iterable[Record]) -> int:
    handed = Counter((record.group, record.event_id) for record in records if isinstance(record, Delivered))
    return sum(count - 1 for count in handed.values())
