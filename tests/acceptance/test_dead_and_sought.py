"""An event that was dead-lettered, and that a seek brought back: its dead letter stays, and is history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1.group_service_pb2 import (
    DELIVERY_STATE_DEAD,
    DELIVERY_STATE_SETTLED,
    ExplainDeliveryRequest,
    LogPoint,
    SeekGroupRequest,
)
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, START_POINT_EARLIEST

from tests.client import ALREADY_SETTLED, DONE, OUTDATED, TIMEOUT, event

if TYPE_CHECKING:
    from tests.client import Client


async def test_an_ack_that_is_repeated_after_a_seek_brought_a_dead_letter_back_was_settled_before(
    broker: Client,
) -> None:
    async with await broker.subscribe("billing") as stream:
        await broker.publish(event())
        (dead,) = await stream.take(1)
        assert await broker.nack([dead.ack_id], NACK_ACTION_DEAD_LETTER, reason="malformed") == [DONE]
        assert await broker.ack([dead.ack_id]) == [OUTDATED]

        request = SeekGroupRequest(name="billing", to=LogPoint(edge=START_POINT_EARLIEST))
        await broker.groups.SeekGroup(request, timeout=TIMEOUT)
        (again,) = await stream.take(1)
        assert await broker.ack([again.ack_id]) == [DONE]
        assert await broker.ack([again.ack_id]) == [ALREADY_SETTLED]
        assert await explained(broker, dead.event.event_id) == DELIVERY_STATE_SETTLED

        await broker.groups.SeekGroup(request, timeout=TIMEOUT)
        (last,) = await stream.take(1)
        assert await broker.nack([last.ack_id], NACK_ACTION_DEAD_LETTER, reason="malformed") == [DONE]
        assert await broker.ack([last.ack_id]) == [OUTDATED]
        assert await explained(broker, dead.event.event_id) == DELIVERY_STATE_DEAD


async def explained(broker: Client, event_id: str) -> int:
    request = ExplainDeliveryRequest(name="billing", event_tenant_id="acme", event_id=event_id)
    return (await broker.groups.ExplainDelivery(request, timeout=TIMEOUT)).state
