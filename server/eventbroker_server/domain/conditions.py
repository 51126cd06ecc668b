"""What a group may ask of an event beside its type."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import NamedTuple


class Facts(NamedTuple):
    """What conditions look at in an event."""

    source: str
    aggregate_type: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Conditions:
    """An event meets them if its source and the type of its aggregate are among those that are named, and it has every
    tag that is named. Where nothing is named, anything does: without any name the conditions are false.

    The SQL function eventbroker.meets says the same.
    """

    sources: frozenset[str] = frozenset()
    aggregate_types: frozenset[str] = frozenset()
    tags: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.sources or self.aggregate_types or self.tags)

    def met_by(self, facts: Facts) -> bool:
        return (
            (not self.sources or facts.source in self.sources)
            and (not self.aggregate_types or facts.aggregate_type in self.aggregate_types)
            and self.tags.issubset(facts.tags)
        )

    @property
    def mark(self) -> str:
        """Tells them from any others, in few characters; empty for none."""
        if not self:
            return ""
        named = json.dumps([sorted(self.sources), sorted(self.aggregate_types), sorted(self.tags)])
        return hashlib.sha256(named.encode()).hexdigest()[:32]

    def __str__(self) -> str:
        """As part of a sentence: "events of source a or b with tag t"."""
        parts = ["events"]
        if self.sources:
            parts.append(f"of source {' or '.join(sorted(self.sources))}")
        if self.aggregate_types:
            parts.append(f"of aggregate type {' or '.join(sorted(self.aggregate_types))}")
        if self.tags:
            parts.append(f"with tag {' and '.join(sorted(self.tags))}")
        return " ".join(parts)
