"""Seeks that bring events again at a pace."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker.v1 import group_service_pb2 as pb

from tests.client import TIMEOUT, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client, Stream

COUNT = 300


async def publish(broker: Client, count: int = COUNT) -> list[str]:
    events = [event() for _ in range(count)]
    await broker.publish(*events)
    return [each.event_id for each in events]


async def seek(broker: Client, rate: float = 0, position: int = 0) -> None:
    to = pb.LogPoint(position=position)
    request = pb.SeekGroupRequest(name="g", to=to, max_events_per_second=rate)
    await broker.groups.SeekGroup(request, timeout=TIMEOUT)


async def taken(stream: Stream, count: int = COUNT) -> list[str]:
    return [each.event_id for each in await stream.take_and_ack(count)]


async def test_a_seek_brings_events_again_at_its_pace_and_newer_ones_after_them_at_once(broker: Client) -> None:
    loop = asyncio.get_running_loop()
    async with await broker.subscribe("g") as stream:
        ids = await publish(broker)
        assert sorted(await taken(stream)) == sorted(ids)
        begun = loop.time()
        await seek(broker, 100)
        newer = await publish(broker)
        assert await taken(stream) == ids
        replayed = loop.time()
        assert 2.5 < replayed - begun < 8
        assert sorted(await taken(stream)) == sorted(newer)
        assert loop.time() - replayed < 2


async def test_brokers_keep_to_the_pace_together(make_broker: Callable[..., Awaitable[Client]]) -> None:
    one, other = await make_broker(), await make_broker()
    loop = asyncio.get_running_loop()
    ids = await publish(one)
    got: list[str] = []

    async def take(stream: Stream) -> None:
        while True:
            got.extend(await taken(stream, 1))

    async with await one.subscribe("g") as ours, await other.subscribe("g") as theirs, asyncio.TaskGroup() as tasks:
        takers = [tasks.create_task(take(stream)) for stream in (ours, theirs)]
        await eventually(lambda: len(set(got)) == COUNT)
        got.clear()
        begun = loop.time()
        await seek(other, 100)
        await eventually(lambda: len(got) == COUNT, timeout=15)
        assert loop.time() - begun > 2.5
        assert sorted(got) == sorted(ids)
        for taker in takers:
            taker.cancel()


async def test_the_next_seek_replaces_the_pace(broker: Client) -> None:
    ids = await publish(broker)
    async with await broker.subscribe("g") as stream:
        assert sorted(await taken(stream)) == sorted(ids)
        await seek(broker, 0.1)
        assert await taken(stream, 1) == ids[:1]
        await seek(broker, position=10)
        assert await taken(stream, COUNT - 10) == ids[10:]
