"""A consumer that leaves while events are being read for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from tests.client import ack_ids, publish
from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.client import Client


async def test_it_leaves_nothing_behind(broker: Client) -> None:
    await publish(broker, 50)

    async def come_and_go(number: int) -> str:
        """An ack gives the consumer credit, so that the broker reads on just when it leaves, the last of its group."""
        group = f"group-{number}"
        for _ in range(3):
            stream = await broker.subscribe(group, flow_control=pb.FlowControl(max_unsettled_events=2))
            async with stream:
                await broker.ack(ack_ids(await stream.take(2)))
        return group

    groups = [
        group for first in range(0, 40, 8) for group in await asyncio.gather(*map(come_and_go, range(first, first + 8)))
    ]
    for group in groups:

        async def has_no_consumers(group: str = group) -> bool:
            return not (await broker.get_group(group)).status.consumers

        await eventually(has_no_consumers, timeout=15)  # well before the deadline of what was handed out, 30 s
