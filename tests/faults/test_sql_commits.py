"""Services commit and roll back at random while brokers are killed: what was committed is stored and delivered, and
nothing else."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from typing import TYPE_CHECKING

import grpc
from google.protobuf.duration_pb2 import Duration

from tests.client import Client
from tests.sql import publish, service
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import BrokerProcess, Stores

SERVICES, KILLS, SOME = 5, 4, 100  # transactions between two kills
MOST = 6  # events in a transaction


class Service:
    """Publishes in one transaction after the other. Beside an aggregate of its own it writes one that all share."""

    def __init__(self, stores: Stores, number: int) -> None:
        self.name = f"service-{number}"
        self.committed: list[list[str]] = []  # the events of each transaction
        self._stores = stores
        self._lots = random.Random(number)
        self._stopping = False

    async def run(self) -> None:
        async with service(self._stores) as connection:
            await connection.execute("SET synchronous_commit = off")  # they are many, and no power is lost here
            while not self._stopping:
                transaction = connection.transaction()
                await transaction.start()
                events = []
                for _ in range(self._lots.randint(1, MOST)):
                    aggregate = self._lots.choice([self.name, "shared"])
                    events.append(await publish(connection, aggregate_id=aggregate, source=self.name))
                    await asyncio.sleep(self._lots.random() * 0.004)  # others commit meanwhile
                if self._lots.random() < 0.3:
                    await transaction.rollback()
                else:
                    await transaction.commit()
                    self.committed.append(events)

    def stop(self) -> None:
        self._stopping = True


async def delivered(target: Callable[[], str], seen: set[str]) -> None:
    """Ack what comes, through whichever broker lives, for ever."""
    while True:
        with suppress(grpc.aio.AioRpcError, TimeoutError, AssertionError):
            async with Client(target()) as client, await client.subscribe("audit", "*") as stream:
                while True:
                    (delivery,) = await stream.take(1)
                    seen.add(delivery.event.event_id)
                    await client.ack([delivery.ack_id])


async def test_exactly_what_services_committed_is_stored_and_delivered_while_brokers_are_killed(
    stores: Stores, spawn_broker: Callable[..., Awaitable[BrokerProcess]]
) -> None:
    brokers = [await spawn_broker(), await spawn_broker()]
    async with Client(brokers[0].target) as client:
        await client.create_group("audit", "*", ack_deadline=Duration(seconds=2))
    services = [Service(stores, number) for number in range(SERVICES)]
    seen: set[str] = set()
    consuming = asyncio.create_task(delivered(lambda: random.choice(brokers).target, seen))
    async with asyncio.TaskGroup() as tasks:
        for each in services:
            tasks.create_task(each.run())
        for number in range(KILLS):
            goal = sum(len(each.committed) for each in services) + SOME
            await eventually(lambda goal=goal: sum(len(each.committed) for each in services) >= goal, 30)  # type: ignore[misc]
            await brokers[number % 2].kill()
            brokers[number % 2] = await spawn_broker()
        for each in services:
            each.stop()
    committed = {event_id for each in services for events in each.committed for event_id in events}

    async with service(stores) as sql:
        await eventually(lambda: sql.fetchval("SELECT sum(waiting) = 0 FROM eventbroker.outbox_lag"), 30)
        rows = await sql.fetch("SELECT event_id FROM eventbroker.event_store ORDER BY position")
        assert await sql.fetchval("SELECT count(*) FROM eventbroker.refused_events") == 0
    await eventually(lambda: seen >= committed, 30)
    consuming.cancel()
    stored = [row["event_id"] for row in rows]
    assert len(stored) == len(committed)
    assert set(stored) == committed == seen
    places = {event_id: place for place, event_id in enumerate(stored)}
    for each in services:
        ours = [event_id for events in each.committed for event_id in events]
        assert sorted(ours, key=places.__getitem__) == ours  # of one transaction, and of one after the other
