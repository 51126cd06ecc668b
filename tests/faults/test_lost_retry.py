"""Redis emptied while an event waits for its next attempt, and nothing else happens that would make anybody look."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.client import DONE, event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.client import Client


async def test_a_retry_that_finds_its_group_lost_has_it_made_anew(
    make_broker: Callable[..., Awaitable[Client]], redis: Redis
) -> None:
    broker = await make_broker(sweep_interval=2.0, checkpoint_interval=60.0)  # its retry is the first to look
    await make_broker(sweep_interval=0.05)  # another one mends the head, and has no word for a broker that knows it
    async with await broker.subscribe("billing") as stream:
        await broker.publish(event())
        (first,) = await stream.take(1)
        assert await broker.nack([first.ack_id], seconds=0.2) == [DONE]
        await redis.flushall()
        (second,) = await stream.take(1)
        assert (second.event, second.attempt) == (first.event, 2)
        assert await broker.ack([second.ack_id]) == [DONE]
