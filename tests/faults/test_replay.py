"""A group that goes back to the beginning while events are published and a broker is killed."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from eventbroker.v1.group_service_pb2 import LogPoint, RetryPolicy, SeekGroupRequest
from eventbroker.v1.subscriber_service_pb2 import START_POINT_EARLIEST
from google.protobuf.duration_pb2 import Duration

from tests.client import DONE, TIMEOUT, Client, ack_ids, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker.v1 import event_pb2

    from tests.conftest import BrokerProcess, Stores

HISTORY, MORE, BATCH = 3000, 400, 20
PAUSE = 0.02  # seconds between two batches of the publisher
TYPES = ("user.created", "user.renamed", "role.granted")
TROUBLE = (grpc.aio.AioRpcError, TimeoutError)


class Publisher:
    """Publishes through the first of its targets that answers."""

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        self.last = 0  # the position of what was published last

    async def publish(self, count: int) -> None:
        for _ in range(0, count, BATCH):
            events = [event(event_type=TYPES[n % 3], aggregate_id=f"u-{n}") for n in range(BATCH)]
            while not await self._published(events):
                self._targets.append(self._targets.pop(0))

    async def _published(self, events: list[event_pb2.Event]) -> bool:
        with suppress(*TROUBLE):
            async with Client(self._targets[0]) as client:
                self.last = (await client.publish(*events))[-1].position
                return True
        return False

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Publish while the block runs."""
        stopping = asyncio.Event()

        async def go_on() -> None:
            while not stopping.is_set():
                await self.publish(BATCH)
                with suppress(TimeoutError):
                    async with asyncio.timeout(PAUSE):
                        await stopping.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(go_on())
            yield
            stopping.set()


class Follower:
    """Takes and acks all that a group gets, through the first of its targets that answers."""

    def __init__(self, targets: list[str]) -> None:
        self._targets = targets
        self.streams: list[
            list[tuple[int, int]]
        ] = []  # of each: positions and attempts, in the order in which they came
        self.seen: set[int] = set()
        self.acked: set[int] = set()
        self.again: list[int] = []  # came though acked

    @property
    def last(self) -> int:
        return max(self.seen, default=0)

    async def _follow(self) -> None:
        while True:
            with suppress(*TROUBLE):
                async with Client(self._targets[0]) as client:
                    await self._take(client)
            self._targets.append(self._targets.pop(0))

    async def _take(self, client: Client) -> None:
        async with await client.subscribe("g") as stream:
            came: list[tuple[int, int]] = []
            self.streams.append(came)
            while message := await stream.read():
                if deliveries := message.deliveries.deliveries:
                    positions = [one.event.position for one in deliveries]
                    came += zip(positions, (one.attempt for one in deliveries), strict=True)
                    self.again += self.acked.intersection(positions)
                    self.seen.update(positions)
                    outcomes = await client.ack(ack_ids(deliveries))
                    self.acked |= {p for p, outcome in zip(positions, outcomes, strict=True) if outcome == DONE}

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """Take and ack while the block runs."""
        task = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def comes_to(self, position: int) -> None:
        await eventually(lambda: self.last >= position, timeout=30)


async def rewind(client: Client) -> None:
    request = SeekGroupRequest(name="g", to=LogPoint(edge=START_POINT_EARLIEST))
    await client.groups.SeekGroup(request, timeout=TIMEOUT)


async def published(stores: Stores) -> dict[int, str]:
    """The types of all events by their positions, but for those by which the broker tells of a seek."""
    connection = await asyncpg.connect(stores.postgres)
    try:
        asked = "SELECT position, event_type FROM eventbroker.events WHERE tenant_id <> '_broker' ORDER BY position"
        return dict(await connection.fetch(asked))
    finally:
        await connection.close()


async def settled(client: Client, position: int) -> None:
    """Wait until the group is done with all up to there."""

    async def is_settled() -> bool:
        status = (await client.get_group("g")).status
        return status.shards[0].settled_position >= position and not status.waiting_retries

    await eventually(is_settled, timeout=30)


@pytest.mark.parametrize("engines", ["wheel"], indirect=True)
@pytest.mark.parametrize("killed_at", [HISTORY // 3, HISTORY + MORE], ids=["in the history", "behind the seam"])
async def test_a_replay_with_a_broker_killed_under_it_misses_nothing_and_the_next_one_is_the_log_in_order(
    broker: Client, stores: Stores, spawn_broker: Callable[..., Awaitable[BrokerProcess]], killed_at: int
) -> None:
    soon = RetryPolicy(initial_backoff=Duration(nanos=100_000_000))
    await broker.create_group("g", ack_deadline=Duration(seconds=4), retry_policy=soon)
    doomed = await spawn_broker()
    publisher = Publisher([doomed.target, broker.target])
    await publisher.publish(HISTORY)

    follower = Follower([doomed.target, broker.target])
    await rewind(broker)
    async with follower.following():
        async with publisher.going_on():
            await follower.comes_to(killed_at)
            await doomed.kill()
            await follower.comes_to(publisher.last + MORE)
        await settled(broker, publisher.last)
    types = await published(stores)
    assert follower.seen == types.keys()
    assert follower.again == []
    assert len(follower.streams) > 1, "nobody noticed the kill"
    for came in follower.streams:
        in_order([position for position, attempt in came if attempt == 1], types)

    replay = Follower([broker.target])
    await rewind(broker)
    async with replay.following():
        async with publisher.going_on():
            await replay.comes_to(publisher.last + MORE)
        await settled(broker, publisher.last)
    (came,) = replay.streams
    types = await published(stores)
    assert sorted(came) == [(position, 1) for position in types]
    in_order([position for position, _ in came], types)


def in_order(positions: list[int], types: dict[int, str]) -> None:
    """History is in the order of the log, and what is live in that of its type."""
    history = [position for position in positions if position <= HISTORY]
    assert history == sorted(history) == positions[: len(history)]
    for kind in TYPES:
        of_kind = [position for position in positions if types[position] == kind]
        assert of_kind == sorted(of_kind)
