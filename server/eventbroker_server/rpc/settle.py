"""Requests to settle deliveries: checked, done, and answered id by id. The same for calls and for streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_server.broker.settle import Nack, NackAction
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.names import has_control_characters
from eventbroker_server.rpc.rules import raise_if_any, seconds_of
from eventbroker_server.rpc.wish import MAX_DEADLINE, MIN_DEADLINE

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.broker.settle import Settling
    from eventbroker_server.domain.principal import Principal

MAX_ACK_IDS = 10_000
MAX_DELAY = 24 * 3600.0
MAX_REASON = 1024  # characters

Request = pb.AckRequest | pb.NackRequest | pb.ExtendDeadlineRequest
Answer = TypeVar("Answer", pb.AckResponse, pb.NackResponse, pb.ExtendDeadlineResponse, pb.Outcomes)


async def settle(settling: Settling, principal: Principal, request: Request, answer: Answer) -> Answer:
    """The answer, with a result for each ack id, in the order of the request. Raises InvalidArgument, and what Settling
    does."""
    violations = _violations(request.ack_ids)
    if isinstance(request, pb.AckRequest):
        raise_if_any(violations)
        outcomes = await settling.ack(principal, request.ack_ids)
    elif isinstance(request, pb.NackRequest):
        outcomes = await settling.nack(principal, request.ack_ids, _nack(request, violations))
    else:
        seconds = seconds_of(request.deadline, "deadline", MIN_DEADLINE, MAX_DEADLINE, violations)
        raise_if_any(violations)
        outcomes = await settling.extend(principal, request.ack_ids, seconds)
    add = answer.results.add  # half of what messages cost that are made first, and then copied into the answer
    for ack_id, outcome in zip(request.ack_ids, outcomes, strict=True):
        add(ack_id=ack_id, outcome=outcome.value)  # the numbers are the same
    return answer


def _nack(request: pb.NackRequest, violations: list[Violation]) -> Nack:
    action = request.action or pb.NACK_ACTION_RETRY
    if action not in pb.NackAction.values():
        violations.append(Violation("action", "is not a NackAction"))
    delay = None
    if request.HasField("delay"):
        if action != pb.NACK_ACTION_RETRY:
            violations.append(Violation("delay", "is for NACK_ACTION_RETRY only"))
        delay = seconds_of(request.delay, "delay", 0, MAX_DELAY, violations)
    if len(request.reason) > MAX_REASON or has_control_characters(request.reason):
        violations.append(Violation("reason", f"must be at most {MAX_REASON} characters without control characters"))
    if action == pb.NACK_ACTION_DEAD_LETTER and not request.reason:
        violations.append(Violation("reason", "is required for NACK_ACTION_DEAD_LETTER"))
    raise_if_any(violations)
    return Nack(NackAction(action), request.reason or "nacked without a reason", delay)


def _violations(ack_ids: Sequence[str]) -> list[Violation]:
    if 1 <= len(ack_ids) <= MAX_ACK_IDS:
        return []
    return [Violation("ack_ids", f"must be 1 to {MAX_ACK_IDS}, not {len(ack_ids)}")]
