"""Redis lost, or back older, while two events take long: what was acked behind them stays acked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker.v1 import group_service_pb2 as groups

from tests.client import DONE, ack_ids, event, ids
from tests.faults.test_older_redis import Server, server
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client
    from tests.conftest import Stores

__all__ = ["server"]
EVENTS = 40
SLOW = [0, 20]


@pytest.mark.parametrize("written", [False, True], ids=["empty", "older"])
@pytest.mark.parametrize("ordering", [groups.ORDERING_NONE, groups.ORDERING_BY_AGGREGATE], ids=["free", "ordered"])
async def test_acks_behind_a_slow_event_outlive_redis(
    make_broker: Callable[..., Awaitable[Client]],
    server: Server,
    stores: Stores,
    ordering: groups.Ordering,
    written: bool,
) -> None:
    broker = await make_broker(redis_url=server.url, checkpoint_interval=0.1, heartbeat_interval=0.5)
    await broker.create_group("billing", ordering=ordering)
    async with await broker.subscribe("billing") as stream:
        await broker.publish(*(event() for _ in range(EVENTS)))
        taken = await stream.take(EVENTS)
        if written:
            await server.write()
        slow = [taken[at] for at in SLOW]
        done = [delivery for delivery in taken if delivery not in slow]
        assert await broker.ack(ack_ids(done)) == [DONE] * len(done)
        await eventually(lambda: is_saved(stores.postgres))
        await server.kill()
        await server.start()
        again = await stream.take(len(SLOW))
        assert ids(again) == ids(slow)
        last = event()
        await broker.publish(last)
        again += await stream.take(1)
        assert ids(again[2:]) == [last.event_id]
        assert await broker.ack(ack_ids(again)) == [DONE] * len(again)
        await stream.nothing_but_heartbeats(2)


async def is_saved(url: str) -> bool:
    """Whether PostgreSQL knows all acks. Positions count from 1."""
    connection: Any = await asyncpg.connect(url)
    try:
        place = await connection.fetchrow("SELECT checkpoint, settled FROM eventbroker.group_shards")
    finally:
        await connection.close()
    first, second = SLOW
    beyond = [(told.lower, told.upper) for told in place["settled"]]
    return (place["checkpoint"], beyond) == (first, [(first + 2, second + 1), (second + 2, EVENTS + 1)])
