"""What a caller wants to be handed, checked: the same for a stream and for a pull."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_server.broker.consumer import FlowControl
from eventbroker_server.broker.subscriptions import Wish
from eventbroker_server.domain.errors import Violation
from eventbroker_server.rpc.rules import check_name, check_patterns, raise_if_any, seconds_of

if TYPE_CHECKING:
    from eventbroker_server.domain.principal import Principal

MIN_DEADLINE, MAX_DEADLINE = 1.0, 12 * 3600.0
FLOW_BOUNDS = {
    "max_unsettled_events": (1, 10_000),
    "max_unsettled_bytes": (1, 1 << 40),
    "max_batch_events": (1, 1_000),
}


def flow_of(flow_control: pb.FlowControl, defaults: FlowControl, violations: list[Violation]) -> FlowControl:
    """`defaults` stand for the zeros."""
    flow = {}
    for field, (low, high) in FLOW_BOUNDS.items():
        value = getattr(flow_control, field)
        if value and not low <= value <= high:
            violations.append(Violation(f"flow_control.{field}", f"must be from {low} to {high}, or 0"))
        flow[field] = value or getattr(defaults, field)
    return FlowControl(**flow)


def wish_of(
    request: pb.SubscribeRequest | pb.PullRequest,
    principal: Principal,
    flow: FlowControl,
    violations: list[Violation],
) -> Wish:
    """Raises InvalidArgument with these violations and those of the fields that both requests have; TenantForbidden."""
    for field in ("group", "consumer_id", "tenant_id"):
        check_name(getattr(request, field), field, violations, optional=True)
    check_patterns(request.event_types, "event_types", violations)
    if request.start not in pb.StartPoint.values():
        violations.append(Violation("start", "is not a StartPoint"))
    deadline = None
    if request.HasField("ack_deadline"):
        deadline = seconds_of(request.ack_deadline, "ack_deadline", MIN_DEADLINE, MAX_DEADLINE, violations)
    raise_if_any(violations)
    latest = {pb.START_POINT_EARLIEST: False, pb.START_POINT_LATEST: True}
    return Wish(
        tenant=principal.tenant_for(request.tenant_id),
        group=request.group,
        consumer_id=request.consumer_id,
        patterns=tuple(request.event_types),
        ack_deadline=deadline,
        from_latest=latest.get(request.start),
        flow=flow,
    )
