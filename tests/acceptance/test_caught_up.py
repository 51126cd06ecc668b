"""When a stream tells that all history was handed out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.client import ids, publish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client


@pytest.mark.parametrize("group", ["", "billing"])
async def test_it_is_told_right_after_the_last_event_and_not_at_the_next_heartbeat(
    make_broker: Callable[..., Awaitable[Client]], group: str
) -> None:
    broker = await make_broker(heartbeat_interval=60.0)  # longer than the client waits
    published = await publish(broker, 200)
    async with await broker.subscribe(group, start="START_POINT_EARLIEST") as stream:
        taken: list[str] = []
        while not stream.caught_up:
            message = await stream.read()
            assert message is not None
            taken += ids(message.deliveries.deliveries)
            await broker.ack([delivery.ack_id for delivery in message.deliveries.deliveries] or ["none"])
    assert sorted(taken) == sorted(published)
