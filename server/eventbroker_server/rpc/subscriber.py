"""SubscriberService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceServicer

from eventbroker_server.broker.consumer import FlowControl
from eventbroker_server.broker.settle import Nack, NackAction
from eventbroker_server.broker.subscription import CaughtUp, Farewell, HandedOver
from eventbroker_server.broker.subscriptions import Wish
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.domain.names import (
    NAME_RULE,
    PATTERN_RULE,
    has_control_characters,
    is_name,
    is_type_pattern,
)
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import raise_if_any, seconds_of, set_time
from eventbroker_server.rpc.wire import field_tag, sized, varint

if TYPE_CHECKING:
    from collections.abc import Sequence

    import grpc

    from eventbroker_server.broker.settle import Settling
    from eventbroker_server.broker.subscription import SignOfLife, Subscription
    from eventbroker_server.broker.subscriptions import Subscriptions
    from eventbroker_server.domain.principal import Principal
    from eventbroker_server.ports import Outcome

MIN_DEADLINE, MAX_DEADLINE = 1.0, 12 * 3600.0
MAX_PATTERNS = 100
MAX_ACK_IDS = 10_000
MAX_DELAY = 24 * 3600.0
MAX_REASON = 1024  # characters
_BOUNDS = {
    "max_unsettled_events": (1, 10_000),
    "max_unsettled_bytes": (1, 1 << 40),
    "max_batch_events": (1, 1_000),
}


class SubscriberServicer(SubscriberServiceServicer):
    """`defaults` stand for the zeros of a request's flow control."""

    def __init__(self, subscriptions: Subscriptions, settling: Settling, defaults: FlowControl) -> None:
        self._subscriptions = subscriptions
        self._settling = settling
        self._defaults = defaults

    async def Subscribe(  # type: ignore[override] # noqa: N802 - writes to the context, which cleans up at once
        self,
        request: pb.SubscribeRequest,
        context: grpc.aio.ServicerContext[pb.SubscribeRequest, pb.SubscribeResponse],
    ) -> None:
        wish = self._wish(request, PRINCIPAL.get())
        async with self._subscriptions.open(wish) as subscription:
            await context.write(_opened(subscription))
            while True:
                said = await subscription.next()
                if isinstance(said, HandedOver):
                    await context.write(_deliveries(said))  # type: ignore[arg-type] # the door takes bytes as they are
                elif isinstance(said, Farewell):
                    await context.write(_closing(said))
                    return
                elif isinstance(said, CaughtUp):
                    await context.write(pb.SubscribeResponse(caught_up=pb.CaughtUp()))
                else:
                    await context.write(_heartbeat(said))

    async def Ack(  # noqa: N802 - the name of the RPC
        self, request: pb.AckRequest, context: grpc.aio.ServicerContext[pb.AckRequest, pb.AckResponse]
    ) -> pb.AckResponse:
        _check_ack_ids(request.ack_ids)
        outcomes = await self._settling.ack(PRINCIPAL.get(), request.ack_ids)
        return pb.AckResponse(results=_results(request.ack_ids, outcomes))

    async def Nack(  # noqa: N802 - the name of the RPC
        self, request: pb.NackRequest, context: grpc.aio.ServicerContext[pb.NackRequest, pb.NackResponse]
    ) -> pb.NackResponse:
        nack = _nack(request)
        outcomes = await self._settling.nack(PRINCIPAL.get(), request.ack_ids, nack)
        return pb.NackResponse(results=_results(request.ack_ids, outcomes))

    async def ExtendDeadline(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ExtendDeadlineRequest,
        context: grpc.aio.ServicerContext[pb.ExtendDeadlineRequest, pb.ExtendDeadlineResponse],
    ) -> pb.ExtendDeadlineResponse:
        _check_ack_ids(request.ack_ids)
        violations: list[Violation] = []
        seconds = seconds_of(request.deadline, "deadline", MIN_DEADLINE, MAX_DEADLINE, violations)
        raise_if_any(violations)
        outcomes = await self._settling.extend(PRINCIPAL.get(), request.ack_ids, seconds)
        return pb.ExtendDeadlineResponse(results=_results(request.ack_ids, outcomes))

    def _wish(self, request: pb.SubscribeRequest, principal: Principal) -> Wish:
        violations = [
            Violation(field, f"{NAME_RULE}, or be empty")
            for field in ("group", "consumer_id", "tenant_id")
            if getattr(request, field) and not is_name(getattr(request, field))
        ]
        if len(request.event_types) > MAX_PATTERNS:
            violations.append(Violation("event_types", f"must be at most {MAX_PATTERNS}"))
        violations += [
            Violation(f"event_types[{number}]", PATTERN_RULE)
            for number, pattern in enumerate(request.event_types[:MAX_PATTERNS])
            if not is_type_pattern(pattern)
        ]
        if request.start not in pb.StartPoint.values():
            violations.append(Violation("start", "is not a StartPoint"))
        deadline = None
        if request.HasField("ack_deadline"):
            deadline = seconds_of(request.ack_deadline, "ack_deadline", MIN_DEADLINE, MAX_DEADLINE, violations)
        flow = {}
        for field, (low, high) in _BOUNDS.items():
            value = getattr(request.flow_control, field)
            if value and not low <= value <= high:
                violations.append(Violation(f"flow_control.{field}", f"must be from {low} to {high}, or 0"))
            flow[field] = value or getattr(self._defaults, field)
        raise_if_any(violations)
        latest = {pb.START_POINT_EARLIEST: False, pb.START_POINT_LATEST: True}
        return Wish(
            tenant=principal.tenant_for(request.tenant_id),
            group=request.group,
            consumer_id=request.consumer_id,
            patterns=tuple(request.event_types),
            ack_deadline=deadline,
            from_latest=latest.get(request.start),
            flow=FlowControl(**flow),
        )


def _nack(request: pb.NackRequest) -> Nack:
    violations = _violations(request.ack_ids)
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


def _check_ack_ids(ack_ids: Sequence[str]) -> None:
    raise_if_any(_violations(ack_ids))


def _violations(ack_ids: Sequence[str]) -> list[Violation]:
    if 1 <= len(ack_ids) <= MAX_ACK_IDS:
        return []
    return [Violation("ack_ids", f"must be 1 to {MAX_ACK_IDS}, not {len(ack_ids)}")]


def _results(ack_ids: Sequence[str], outcomes: Sequence[Outcome]) -> list[pb.SettleResult]:
    return [
        pb.SettleResult(ack_id=ack_id, outcome=outcome.value)  # type: ignore[arg-type] # the numbers are the same
        for ack_id, outcome in zip(ack_ids, outcomes, strict=True)
    ]


def _opened(subscription: Subscription) -> pb.SubscribeResponse:
    group, flow = subscription.group, subscription.consumer.flow
    response = pb.SubscribeResponse()
    opened = response.opened
    opened.group = group.key.name
    opened.consumer_id = subscription.consumer.id
    opened.event_types.extend(sorted(group.filter.patterns))
    opened.tenant_id = "" if group.key.tenant == ALL_TENANTS else group.key.tenant
    opened.ack_deadline.FromMilliseconds(round(group.ack_deadline * 1000))
    opened.flow_control.max_unsettled_events = flow.max_unsettled_events
    opened.flow_control.max_unsettled_bytes = flow.max_unsettled_bytes
    opened.flow_control.max_batch_events = flow.max_batch_events
    return response


_EVENT, _ACK_ID, _ATTEMPT = (field_tag(pb.Delivery, field) for field in ("event", "ack_id", "attempt"))
_REPLAYED = field_tag(pb.Delivery, "is_replay") + varint(True)
_DELIVERY = field_tag(pb.DeliveryBatch, "deliveries")
_BATCH = field_tag(pb.SubscribeResponse, "deliveries")


def _deliveries(handed_over: HandedOver) -> bytes:
    """A SubscribeResponse, serialized."""
    batch = pb.DeliveryBatch()
    set_time(batch.ack_deadline, handed_over.deadline)
    parts = [batch.SerializeToString()]
    for body, ack_id, attempt, replayed in handed_over.events:
        length = varint(len(body))
        name = _ACK_ID + sized(ack_id.encode()) + _ATTEMPT + varint(attempt)
        if replayed:
            name += _REPLAYED
        parts += (_DELIVERY, varint(len(_EVENT) + len(length) + len(body) + len(name)), _EVENT, length, body, name)
    return _BATCH + sized(b"".join(parts))


def _heartbeat(sign: SignOfLife) -> pb.SubscribeResponse:
    response = pb.SubscribeResponse()
    heartbeat = response.heartbeat
    set_time(heartbeat.server_time, sign.now)
    for shard, head, settled in sign.shards:
        lag = max(0, head - settled)
        heartbeat.shards.add(shard=shard, head_position=head, settled_position=settled, lag=lag)
    if sign.oldest_unsettled_age is not None:
        heartbeat.oldest_unsettled_age.FromTimedelta(sign.oldest_unsettled_age)
    return response


def _closing(farewell: Farewell) -> pb.SubscribeResponse:
    response = pb.SubscribeResponse()
    response.closing.reason = farewell.reason.value  # type: ignore[assignment] # the numbers are the same
    response.closing.retry_after.FromMilliseconds(int(farewell.retry_after * 1000))
    return response
