"""Pull: what is asked for, and what is answered."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_server.domain.errors import Violation
from eventbroker_server.rpc.rules import seconds_of
from eventbroker_server.rpc.told import batch
from eventbroker_server.rpc.wire import field_tag, sized
from eventbroker_server.rpc.wish import wish_of

if TYPE_CHECKING:
    from eventbroker_server.broker.consumer import FlowControl
    from eventbroker_server.broker.subscription import HandedOver
    from eventbroker_server.broker.subscriptions import Wish
    from eventbroker_server.domain.principal import Principal

MAX_EVENTS, DEFAULT_EVENTS = 1_000, 64
MAX_WAIT, DEFAULT_WAIT = 30.0, 10.0
MAX_UNSETTLED = 10_000

_DELIVERIES = field_tag(pb.PullResponse, "deliveries")


def pull_of(request: pb.PullRequest, principal: Principal, defaults: FlowControl) -> tuple[Wish, int, float]:
    """What a pull wants, how many events at most, and for how many seconds it waits. Raises InvalidArgument."""
    violations: list[Violation] = []
    if not request.group:
        violations.append(Violation("group", "is required"))
    if not 0 <= request.max_events <= MAX_EVENTS:
        violations.append(Violation("max_events", f"must be from 1 to {MAX_EVENTS}, or 0"))
    wait = DEFAULT_WAIT
    if request.HasField("wait"):
        wait = seconds_of(request.wait, "wait", 0, MAX_WAIT, violations)
    most = request.max_events or DEFAULT_EVENTS
    flow = replace(defaults, max_unsettled_events=MAX_UNSETTLED, max_batch_events=MAX_EVENTS)
    return wish_of(request, principal, flow, violations), most, wait


def pulled(handed_over: HandedOver | None) -> bytes:
    """A PullResponse, serialized."""
    return b"" if handed_over is None else _DELIVERIES + sized(batch(handed_over))
