"""How much a group lets each of its consumers have out, checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.limits import Limits
from eventbroker_server.rpc.wish import FLOW_BOUNDS

if TYPE_CHECKING:
    from eventbroker.v1 import group_service_pb2 as pb


def limits_of(request: pb.CreateGroupRequest | pb.UpdateGroupRequest, violations: list[Violation]) -> Limits:
    said = {}
    for field, (low, high) in FLOW_BOUNDS.items():
        said[field] = value = getattr(request.limits, field)
        if value and not low <= value <= high:
            violations.append(Violation(f"limits.{field}", f"must be from {low} to {high}, or 0"))
    return Limits(**said)
