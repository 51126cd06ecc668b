"""A group that is moved again and again while two brokers serve it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1.group_service_pb2 import LogPoint, SeekGroupRequest
from eventbroker.v1.subscriber_service_pb2 import START_POINT_EARLIEST

from tests.client import TIMEOUT, ids, publish

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client

SEEKS = 300


async def test_brokers_live_through_many_seeks(make_broker: Callable[..., Awaitable[Client]]) -> None:
    """A seek may come at any moment of an opening, and checkpoints notice it besides."""
    here, there = await make_broker(checkpoint_interval=0.001), await make_broker(checkpoint_interval=0.001)
    await here.create_group("g")
    async with await here.subscribe("g"):
        published = await publish(here, 1)
        for number in range(SEEKS):
            request = SeekGroupRequest(name="g", to=LogPoint(edge=START_POINT_EARLIEST))
            await (here, there)[number % 2].groups.SeekGroup(request, timeout=TIMEOUT)
    async with await here.subscribe("g") as stream:
        assert ids(await stream.take(1)) == published
