"""What a subscription says, as messages. Deliveries are written by hand: see rpc/wire.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_server.broker.subscription import CaughtUp, Farewell, HandedOver
from eventbroker_server.rpc.convert import set_time
from eventbroker_server.rpc.wire import field_tag, sized, varint

if TYPE_CHECKING:
    from eventbroker_server.broker.subscription import SignOfLife, Subscription


def opened(subscription: Subscription) -> pb.SubscribeResponse:
    group, flow = subscription.group, subscription.consumer.flow
    response = pb.SubscribeResponse()
    said = response.opened
    said.group = group.key.name
    said.consumer_id = subscription.consumer.id
    said.event_types.extend(sorted(group.filter.patterns))
    said.tenant_id = group.key.tenant_id
    said.ack_deadline.FromMilliseconds(round(group.ack_deadline * 1000))
    said.flow_control.max_unsettled_events = flow.max_unsettled_events
    said.flow_control.max_unsettled_bytes = flow.max_unsettled_bytes
    said.flow_control.max_batch_events = flow.max_batch_events
    return response


def told(said: HandedOver | SignOfLife | CaughtUp | Farewell) -> pb.SubscribeResponse | bytes:
    """A SubscribeResponse; serialized, if it holds deliveries."""
    if isinstance(said, HandedOver):
        return _DELIVERIES + sized(batch(said))
    if isinstance(said, Farewell):
        return _closing(said)
    if isinstance(said, CaughtUp):
        return pb.SubscribeResponse(caught_up=pb.CaughtUp())
    return _heartbeat(said)


_EVENT, _ACK_ID, _ATTEMPT = (field_tag(pb.Delivery, field) for field in ("event", "ack_id", "attempt"))
_REPLAYED = field_tag(pb.Delivery, "is_replay") + varint(True)
_DELIVERY = field_tag(pb.DeliveryBatch, "deliveries")
_DELIVERIES = field_tag(pb.SubscribeResponse, "deliveries")


def batch(handed_over: HandedOver) -> bytes:
    """A DeliveryBatch, serialized."""
    head = pb.DeliveryBatch()
    set_time(head.ack_deadline, handed_over.deadline)
    parts = [head.SerializeToString()]
    for body, ack_id, attempt, replayed in handed_over.events:
        length = varint(len(body))
        name = _ACK_ID + sized(ack_id.encode()) + _ATTEMPT + varint(attempt)
        if replayed:
            name += _REPLAYED
        parts += (_DELIVERY, varint(len(_EVENT) + len(length) + len(body) + len(name)), _EVENT, length, body, name)
    return b"".join(parts)


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
