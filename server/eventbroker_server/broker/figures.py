"""What went through this broker since it started, counted by event type and group.

Counting has to cost next to nothing: plain numbers in dicts, which whoever asks reads as they are. Names come from
callers, so the dicts are bounded: what is beyond them is counted under OTHER.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from eventbroker_server.broker.histogram import Histogram
from eventbroker_server.domain.ack_id import BACKFILL, RETRY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from eventbroker_server.broker.consumer import Hold
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.domain.group import GroupKey
    from eventbroker_server.ports import Codec

OTHER = "other"
MOST_TYPES = MOST_GROUPS = 1_000
MOST_PAIRS = 10_000  # of a type and a group; beyond them a type is counted with the group OTHER

_OF_A_GROUP = (BACKFILL, RETRY)


@dataclass(slots=True)
class OfType:
    """Events of one type: how many were stored, and how long after that each was first handed out."""

    published: int = 0
    latency: Histogram = field(default_factory=Histogram)


@dataclass(slots=True)
class Deliveries:
    """Deliveries of events of one type to one group: all that were handed out, those after the first attempt, and what
    became of them."""

    delivered: int = 0
    redelivered: int = 0
    acked: int = 0
    failed: int = 0
    dead_lettered: int = 0


class Figures:
    """`types` by event type; `deliveries` by event type and group, as `label` names it."""

    def __init__(self, codec: Codec) -> None:
        self.since = time.time()
        self.types: dict[str, OfType] = {}
        self.deliveries: dict[tuple[str, str], Deliveries] = {}
        self._groups: set[str] = set()
        self._codec = codec

    def published(self, events: Iterable[StoredEvent]) -> None:
        for event_type, count in Counter([stored.event.event_type for stored in events]).items():
            self._of_type(event_type).published += count

    def handed_out(self, group: str, batch: Sequence[Hold]) -> None:
        """Holds that a group, by its label, is handed; their bodies are there. Those of the group's own streams learn
        their types.

        For how long an event waited, the first of each type in the batch, which is the oldest, stands for all of that
        type in it that are new; what is repeated or of history says nothing of that, and is left out.
        """
        counts: dict[str, list[int]] = {}  # all, again, new
        waited: dict[str, float] = {}
        for hold in batch:
            event_type = hold.stream
            is_new = False
            if event_type in _OF_A_GROUP:
                event_type = hold.event_type = self._codec.type_of(hold.body or b"")
            else:
                is_new = hold.attempt == 1 and not hold.replayed
            if (count := counts.get(event_type)) is None:
                count = counts[event_type] = [0, 0, 0]
            count[0] += 1
            count[1] += hold.attempt > 1
            count[2] += is_new
            if is_new and event_type not in waited:
                waited[event_type] = time.time() - self._codec.record_time(hold.body or b"")
        for event_type, (every, again, new) in counts.items():
            deliveries = self.of(event_type, group)
            deliveries.delivered += every
            deliveries.redelivered += again
            if new:
                self._of_type(event_type).latency.add(waited[event_type], new)

    def of(self, event_type: str, group: str) -> Deliveries:
        """The figures of a type, empty if it is not known, and of a group, by its label."""
        if (found := self.deliveries.get((event_type, group))) is not None:
            return found
        event_type = self._bounded(event_type)
        if group not in self._groups:
            if len(self._groups) < MOST_GROUPS:
                self._groups.add(group)
            else:
                group = OTHER
        if (event_type, group) not in self.deliveries and len(self.deliveries) >= MOST_PAIRS:
            group = OTHER
        return self.deliveries.setdefault((event_type, group), Deliveries())

    def _of_type(self, event_type: str) -> OfType:
        return self.types.get(event_type) or self.types.setdefault(self._bounded(event_type), OfType())

    def _bounded(self, event_type: str) -> str:
        """The type, met from now on; OTHER, if there are as many already, or it is empty."""
        if event_type not in self.types:
            if not event_type or len(self.types) >= MOST_TYPES:
                event_type = OTHER
            self.types.setdefault(event_type, OfType())
        return event_type


def label(key: GroupKey) -> str:
    """A group in figures: its tenant, a colon, its name. Ephemeral ones, whose names come and go, are `~` together."""
    return f"{key.tenant}:~" if key.name.startswith("~") else str(key)
