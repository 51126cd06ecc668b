"""Events as a tree of causes."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventbroker_server.domain.event import StoredEvent


class CausalEvent(NamedTuple):
    """An event, the id of the one that caused it (empty for a root), and how far below its root it is."""

    stored: StoredEvent
    parent: str
    depth: int


def tree(events: Iterable[StoredEvent]) -> list[CausalEvent]:
    """The events of a tenant by position. Of those that cause one another in a circle the first is a root."""
    by_id = {stored.event.event_id: stored for stored in sorted(events, key=lambda stored: stored.position)}
    parents: dict[str, str] = {}
    children: dict[str, list[str]] = defaultdict(list)
    for event_id, stored in by_id.items():
        cause = stored.event.metadata.caused_by
        parents[event_id] = cause if cause in by_id else ""
        children[cause].append(event_id)
    depths: dict[str, int] = {}

    def plant(root: str) -> None:
        parents[root] = ""
        depths[root] = 0
        grown = [root]
        while grown:
            cause = grown.pop()
            for event_id in children[cause]:
                if event_id not in depths:
                    depths[event_id] = depths[cause] + 1
                    grown.append(event_id)

    for event_id in [event_id for event_id, parent in parents.items() if not parent]:
        plant(event_id)
    for event_id in by_id:
        if event_id not in depths:  # in a circle, or below one
            plant(min(_circle(event_id, parents), key=lambda member: by_id[member].position))
    return [CausalEvent(stored, parents[event_id], depths[event_id]) for event_id, stored in by_id.items()]


def _circle(event_id: str, parents: dict[str, str]) -> list[str]:
    """The circle that the way up from an event ends in."""
    passed: dict[str, None] = {}
    while event_id not in passed:
        passed[event_id] = None
        event_id = parents[event_id]
    way = list(passed)
    return way[way.index(event_id) :]
