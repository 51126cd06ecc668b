"""How a run ended: the table that reconciles, what in it does not, and what was broken on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True, slots=True)
class Mismatch:
    """A cell of the table that does not add up."""

    row: str
    column: str
    text: str

    def __str__(self) -> str:
        return f"{self.row} / {self.column}: {self.text}"


@dataclass(frozen=True, slots=True)
class GroupCells:
    """What one group got of one event type."""

    delivered: int  # distinct events
    acked: int
    redelivered: int  # repeats
    agrees: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One event type, or the total."""

    event_type: str
    published: int
    stored: int
    agrees: bool  # of these two; each group has its own
    groups: Mapping[str, GroupCells]


@dataclass(frozen=True, slots=True)
class Report:
    """How the demo ended. Times are in seconds."""

    run_id: str
    rows: Sequence[Row]  # the last is the total
    mismatches: Sequence[Mismatch]
    duplicates: int  # of the stored, those that a retry found stored already
    retries: int  # calls that were made again
    duration: float  # from the first Publish until all was acked
    publish_duration: float
    faults: Sequence[str]  # what was broken, and what was left whole as asked
    unproven: Sequence[str]  # what was to be broken and was not, without which a run proves nothing
    sample_checked: int
    sample_wrong: Sequence[str]  # ids of events that are not stored as they were published
    failure: str = ""  # why the demo ended early

    @property
    def total(self) -> Row:
        return self.rows[-1]

    @property
    def adds_up(self) -> bool:
        """Whether the books do; to count, the faults must have bitten too."""
        return not (self.mismatches or self.sample_wrong or self.failure)
