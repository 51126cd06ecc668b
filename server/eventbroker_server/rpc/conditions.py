"""What a group asks of an event beside its type, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, is_id, is_name
from eventbroker_server.rpc.convert import MAX_TAGS

if TYPE_CHECKING:
    from eventbroker.v1 import group_service_pb2 as pb
    from eventbroker.v1.event_store_service_pb2 import EventFilter

_MOST = 100
_RULES = {  # how many there may be, and what each is
    "sources": (_MOST, is_id, ID_RULE),
    "aggregate_types": (_MOST, is_name, NAME_RULE),
    "tags": (MAX_TAGS, is_id, ID_RULE),
}
CONDITIONS = tuple(_RULES)


def condition(
    request: pb.CreateGroupRequest | pb.UpdateGroupRequest | EventFilter,
    field: str,
    violations: list[Violation],
    within: str = "",
) -> frozenset[str]:
    """What one field of the conditions names. A request is `within` another by the path of a field, with its dot."""
    most, is_right, rule = _RULES[field]
    named = getattr(request, field)
    if len(named) > most:
        violations.append(Violation(f"{within}{field}", f"must be at most {most}"))
    violations += [
        Violation(f"{within}{field}[{number}]", rule) for number, name in enumerate(named[:most]) if not is_right(name)
    ]
    return frozenset(named)


def conditions_of(request: pb.CreateGroupRequest, violations: list[Violation]) -> Conditions:
    return Conditions(**{field: condition(request, field, violations) for field in CONDITIONS})
