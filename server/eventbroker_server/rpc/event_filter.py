"""The filter of those who read history, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, is_id, is_name
from eventbroker_server.rpc.conditions import condition
from eventbroker_server.rpc.rules import check_patterns

if TYPE_CHECKING:
    from eventbroker.v1.event_store_service_pb2 import EventFilter as Message

_IDS = ("aggregate_id", "correlation_id", "caused_by", "user_id")


def filter_of(message: Message, violations: list[Violation]) -> EventFilter:
    check_patterns(message.event_types, "filter.event_types", violations)
    if message.aggregate_type and not is_name(message.aggregate_type):
        violations.append(Violation("filter.aggregate_type", f"{NAME_RULE}, or be empty"))
    violations += [
        Violation(f"filter.{field}", f"{ID_RULE}, or be empty")
        for field in _IDS
        if (value := getattr(message, field)) and not is_id(value)
    ]
    if message.aggregate_id and not message.aggregate_type:
        violations.append(Violation("filter.aggregate_type", "must be set where aggregate_id is"))
    return EventFilter(
        types=TypeFilter.of(*message.event_types),
        aggregate_type=message.aggregate_type,
        aggregate_id=message.aggregate_id,
        correlation_id=message.correlation_id,
        caused_by=message.caused_by,
        user_id=message.user_id,
        conditions=Conditions(
            sources=condition(message, "sources", violations, "filter."),
            tags=condition(message, "tags", violations, "filter."),
        ),
    )
