"""Which events of history are asked for."""

from __future__ import annotations

from dataclasses import dataclass, field

from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.filter import TypeFilter


@dataclass(frozen=True, slots=True)
class EventFilter:
    """An event matches if it does in every field; an empty one asks nothing. With an aggregate's id goes its type."""

    types: TypeFilter = field(default_factory=TypeFilter.of)
    aggregate_type: str = ""
    aggregate_id: str = ""
    correlation_id: str = ""
    caused_by: str = ""
    user_id: str = ""
    conditions: Conditions = field(default_factory=Conditions)  # of sources and tags
