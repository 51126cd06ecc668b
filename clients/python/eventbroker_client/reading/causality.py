"""What caused an event and what it caused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbroker_client.events.wire import event_of

if TYPE_CHECKING:
    from eventbroker.v1 import event_store_service_pb2 as pb

    from eventbroker_client.events.event import Event


@dataclass(frozen=True, slots=True)
class CausalEvent:
    """An event in a tree of causes: `parent_event_id` is the id of the one among them that caused it, or empty; `depth`
    is how far it is below its root."""

    event: Event
    parent_event_id: str
    depth: int


@dataclass(frozen=True, slots=True)
class Causality:
    """The events of one chain of causes, by position. `truncated`: there are more."""

    events: tuple[CausalEvent, ...]
    truncated: bool


def causality_of(response: pb.GetCausalityResponse) -> Causality:
    """Raises PayloadMismatch."""
    events = [CausalEvent(event_of(each.event), each.parent_event_id, each.depth) for each in response.events]
    return Causality(tuple(events), response.truncated)
