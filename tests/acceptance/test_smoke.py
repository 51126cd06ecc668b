from __future__ import annotations

from typing import TYPE_CHECKING

from tests.client import DONE, STORED, ack_ids, event

if TYPE_CHECKING:
    from tests.client import Client


async def test_a_published_event_is_delivered_and_acked(broker: Client) -> None:
    async with await broker.subscribe("billing", "user.*") as stream:
        published = event()
        results = await broker.publish(published)
        assert [result.outcome for result in results] == [STORED]
        (delivery,) = await stream.take(1)
        assert delivery.event.event_id == published.event_id
        assert await broker.ack(ack_ids([delivery])) == [DONE]
