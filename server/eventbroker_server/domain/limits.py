"""How much a group lets each of its consumers have out."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds for each consumer: events and bytes that it has and has not settled, events that it is handed at a
    time. 0 is none of the group's own."""

    max_unsettled_events: int = 0
    max_unsettled_bytes: int = 0
    max_batch_events: int = 0
