"""The demo's books: what was published, stored, delivered and acknowledged, event by event, and whether it adds up.

Plain counting, without clock or network. An event is known by its number in the run. At-least-once delivery may repeat
an event, which is counted apart; what must not be is an event lost, left unacked, or stored twice, which shows as one
event at two positions of the log. A sum that hides one lost and one doubled event does not pass.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from eventbroker_cli.demo.report import GroupCells, Mismatch, Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Group:
    """The books of one consumer group."""

    def __init__(self, ledger: Ledger, name: str, event_types: Sequence[str]) -> None:
        self.name, self.event_types = name, event_types
        self.full_name = f"{name}-{ledger.run_id}"  # what the broker calls it: runs do not see each other
        self._ledger = ledger
        kinds = range(len(ledger.event_types))
        self.matches = [any(matches(pattern, ledger.event_types[kind]) for pattern in event_types) for kind in kinds]
        self.delivered, self.acked, self.redelivered, self.doubled = ([0 for _ in kinds] for _ in range(4))
        self.strangers = 0  # deliveries of events of this run that were never published
        self.outdated = 0  # acks that came too late
        self._seen, self._settled = bytearray(ledger.events), bytearray(ledger.events)

    def note_delivery(self, event_id: str, event_type: str, position: int) -> None:
        """A delivery came; events of other runs are not counted."""
        number = self._ledger.number_of(event_id)
        if number is None:
            return
        kind = self._ledger.kind_of(number)
        if kind is None or self._ledger.event_types[kind] != event_type:
            self.strangers += 1
        elif not self._ledger.is_at(number, position):
            self.doubled[kind] += 1
        elif self._seen[number]:
            self.redelivered[kind] += 1
        else:
            self._seen[number] = 1
            self.delivered[kind] += 1

    def note_settled(self, event_id: str) -> None:
        """An ack was answered with DONE or ALREADY_SETTLED; events of other runs are not counted."""
        number = self._ledger.number_of(event_id)
        if number is None:
            return
        kind = self._ledger.kind_of(number)
        if kind is not None and not self._settled[number]:
            self._settled[number] = 1
            self.acked[kind] += 1

    def expected(self, kind: int) -> int:
        """How many events of a type the group must get: all that were published, or none."""
        return self._ledger.published[kind] if self.matches[kind] else 0

    @property
    def due(self) -> int:
        """How many events the group must get of what was published so far."""
        return sum(self.expected(kind) for kind in range(len(self.matches)))

    def cells(self, kind: int) -> GroupCells:
        delivered, acked, expected = self.delivered[kind], self.acked[kind], self.expected(kind)
        agrees = delivered == acked == expected and not self.doubled[kind]
        return GroupCells(delivered, acked, self.redelivered[kind], agrees)


class Ledger:
    """The books of one run of `events` events, whose ids are "<run id>-0" and so on."""

    def __init__(
        self, run_id: str, events: int, event_types: Sequence[str], groups: Mapping[str, Sequence[str]]
    ) -> None:
        self.run_id, self.events, self.event_types = run_id, events, event_types
        self.published, self.stored, self.doubled = ([0 for _ in event_types] for _ in range(3))
        self.duplicates = self.retries = 0
        self._prefix = f"{run_id}-"
        self._kinds = bytearray(events)  # 0: not published; otherwise 1 + the place of the type
        self._codes = {event_type: code for code, event_type in enumerate(event_types, 1)}
        self._stored = bytearray(events)
        self._positions = array("q", bytes(8 * events))  # as first told; 0: not yet
        self.groups = {name: Group(self, name, types) for name, types in groups.items()}

    def number_of(self, event_id: str) -> int | None:
        """The number of an event of this run; None for any other."""
        digits = event_id.removeprefix(self._prefix)
        return int(digits) if digits != event_id and digits.isdecimal() else None

    def kind_of(self, number: int) -> int | None:
        """The place of the type of a published event; None when there was none of this number."""
        if number >= self.events or not self._kinds[number]:
            return None
        return self._kinds[number] - 1

    def is_at(self, number: int, position: int) -> bool:
        """Whether an event is where it was the first time that somebody told; the first one who tells is right."""
        if not self._positions[number]:
            self._positions[number] = position
        return self._positions[number] == position

    def note_published(self, event_id: str, event_type: str) -> None:
        """An event of this run is about to be sent, for the first time."""
        number = self.number_of(event_id)
        if number is None or number >= self.events or self._kinds[number]:
            raise ValueError(f"{event_id} is no event of this run, or was published before")
        self._kinds[number] = self._codes[event_type]
        self.published[self._kinds[number] - 1] += 1

    def note_stored(self, event_id: str, position: int, *, duplicate: bool) -> None:
        """Publish was answered with STORED, or with DUPLICATE after a retry."""
        number = self.number_of(event_id)
        kind = None if number is None else self.kind_of(number)
        if number is None or kind is None:
            return  # an answer about something else: the event that was meant stays unstored
        if self._stored[number] or not self.is_at(number, position):
            self.doubled[kind] += 1
            return
        self._stored[number] = 1
        self.stored[kind] += 1
        self.duplicates += duplicate

    @property
    def settled(self) -> bool:
        """Whether all is published and stored, and acked by every group that wants it."""
        return sum(self.stored) >= self.events and all(sum(g.acked) >= g.due for g in self.groups.values())

    def rows(self) -> list[Row]:
        """The table: a row for each event type, then the total."""
        mismatches = self.mismatches()
        rows = [
            Row(
                event_type,
                self.published[kind],
                self.stored[kind],
                not any(wrong.row == event_type and wrong.column == "stored" for wrong in mismatches),
                {name: group.cells(kind) for name, group in self.groups.items()},
            )
            for kind, event_type in enumerate(self.event_types)
        ]
        totals = {
            name: GroupCells(
                sum(group.delivered),
                sum(group.acked),
                sum(group.redelivered),
                agrees=not any(wrong.column.startswith(f"{name} ") for wrong in mismatches),
            )
            for name, group in self.groups.items()
        }
        agrees = not any(wrong.column in ("published", "stored") for wrong in mismatches)
        return [*rows, Row("total", sum(self.published), sum(self.stored), agrees, totals)]

    def mismatches(self) -> list[Mismatch]:
        """Every cell that does not add up, empty when all do."""
        wrong = []

        def check(row: str, column: str, found: int, expected: int, doubled: int = 0) -> None:
            if found != expected or doubled:
                text = f"{found:,} instead of {expected:,}" if found != expected else f"{found:,}"
                wrong.append(Mismatch(row, column, f"{text}, and {doubled:,} twice" if doubled else text))

        for kind, event_type in enumerate(self.event_types):
            check(event_type, "stored", self.stored[kind], self.published[kind], self.doubled[kind])
            for name, group in self.groups.items():
                expected = group.expected(kind)
                check(event_type, f"{name} delivered", group.delivered[kind], expected, group.doubled[kind])
                check(event_type, f"{name} acked", group.acked[kind], expected)
        check("total", "published", sum(self.published), self.events)
        for name, group in self.groups.items():
            if group.strangers:
                text = f"{group.strangers:,} of events that were never published"
                wrong.append(Mismatch("total", f"{name} delivered", text))
        return wrong


def matches(pattern: str, event_type: str) -> bool:
    """Whether a group's pattern, "*", "user.*" or "user.created", takes an event type in."""
    if pattern == "*":
        return True
    return event_type.startswith(pattern[:-1]) if pattern.endswith(".*") else event_type == pattern
