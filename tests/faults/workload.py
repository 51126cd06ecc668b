"""Load over one broker or two: publishers that try again with the same ids, consumers that ack, all of it written down.

    async with working(targets) as load:
        await load.goes_on(500)     # 500 more events are stored, and 500 more acks are done in each group
        await load.in_the_middle_of("publish")
        with load.history.fault("kill"): ...
        await load.drained()        # no more is published, and every group has acked what is left

`targets` may be changed meanwhile: whoever fails goes on with the next of them after a pause. Run as a program it is a
consumer that prints what it is handed and never acks: `python -m tests.faults.workload TARGET GROUP`.
"""

from __future__ import annotations

import asyncio
import random
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import asyncpg
import grpc

from tests.client import ALREADY_SETTLED, DONE, OUTDATED, Client, ack_ids, event
from tests.faults.history import Ack, History, Row
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker.v1 import event_pb2, subscriber_service_pb2

GROUPS = {"audit": "", "billing": "user."}  # by group: how the types begin that it wants
TYPES = ("user.created", "user.renamed", "role.granted")
ACK_DEADLINE = 4.0
OUTCOMES: dict[int, Ack] = {DONE: Ack.DONE, ALREADY_SETTLED: Ack.ALREADY, OUTDATED: Ack.NOTHING}
PUBLISHERS, CONSUMERS = 3, 2  # consumers of each group
BATCH = 8  # events
PAUSE = 0.03  # seconds between two batches of a publisher, so that a run lasts as long as its faults
BACK_OFF = 0.1
CARELESS = 0.03  # how often a consumer goes away instead of acking
SILENCE = 6.0  # a stream without even a heartbeat for so long is given up

_TROUBLE = (grpc.aio.AioRpcError, TimeoutError)


class Workload:
    def __init__(self, targets: list[str]) -> None:
        self.history = History(GROUPS)
        self._targets = targets
        self._publishing = 0
        self._stopping = False
        self._begun = {"publish": asyncio.Event(), "ack": asyncio.Event()}

    async def in_the_middle_of(self, what: str) -> None:
        """Wait for a call that is just being sent, so that what is broken now hits it."""
        self._begun[what].clear()
        async with asyncio.timeout(SILENCE):
            await self._begun[what].wait()

    async def goes_on(self, count: int, timeout: float = 20.0) -> None:
        """Wait until so many more events are stored, and so many more acks are done in each group."""
        done = [self.history.stored, *self.history.acked.values()]
        goals = [len(events) + count for events in done]
        await eventually(lambda: all(len(now) >= goal for now, goal in zip(done, goals, strict=True)), timeout)

    async def drained(self, timeout: float = 20.0) -> None:
        """Publish no more, and wait until every group has acked all."""
        self._stopping = True
        await eventually(lambda: not self._publishing and self.history.drained, timeout, every=0.1)

    async def publish(self, number: int) -> None:
        batch: list[event_pb2.Event] = []

        async def publish(client: Client) -> None:
            nonlocal batch
            while batch or not self._stopping:
                batch = batch or _events(number)
                for one in batch:
                    self.history.invoked(one.event_id, one.event_type)
                self._begun["publish"].set()
                for result in await client.publish(*batch):
                    self.history.answered(result.event_id, result.position)
                batch = []
                await asyncio.sleep(PAUSE)

        self._publishing += 1
        while batch or not self._stopping:
            await self._with_client(number, "publish", publish)
            number += 1
        self._publishing -= 1

    async def consume(self, group: str, number: int) -> None:
        consumer_id = f"{group}-{number}"
        to_ack: list[subscriber_service_pb2.Delivery] = []

        async def ack(client: Client) -> None:
            """Ask until there is an answer: without one an event may be settled, and never come again."""
            asked = len(self.history.records)
            self._begun["ack"].set()
            outcomes = await client.ack(ack_ids(to_ack))
            for delivery, outcome in zip(to_ack, outcomes, strict=True):
                self.history.settled(group, delivery.event.event_id, OUTCOMES[outcome], asked)
            to_ack.clear()

        async def consume(client: Client) -> None:
            if to_ack:
                await ack(client)
            wish = {"consumer_id": consumer_id, "ack_deadline": ACK_DEADLINE}
            async with await client.subscribe(group, self.history.groups[group] + "*", **wish) as stream:
                while (message := await stream.read(SILENCE)) is not None:
                    for delivery in message.deliveries.deliveries:
                        self.history.delivered(group, delivery.event.event_id, delivery.event.position)
                    if random.random() < CARELESS:
                        return  # what it holds comes again
                    if message.deliveries.deliveries:
                        to_ack.extend(message.deliveries.deliveries)
                        await ack(client)

        while True:
            await self._with_client(number, f"consume {group}", consume)
            number += 1

    async def _with_client(self, number: int, what: str, work: Callable[[Client], Awaitable[None]]) -> None:
        """Work until done or in trouble, which is written down."""
        try:
            async with Client(self._targets[number % len(self._targets)]) as client:
                await work(client)
        except _TROUBLE as exc:
            self.history.hurt(f"{what}: {exc!r:.200}")
            await asyncio.sleep(BACK_OFF)


def _events(number: int) -> list[event_pb2.Event]:
    """A batch of events of aggregates that no other publisher writes."""
    return [
        event(event_type=random.choice(TYPES), aggregate_id=f"{number}-{random.randrange(10)}") for _ in range(BATCH)
    ]


@asynccontextmanager
async def working(targets: list[str]) -> AsyncIterator[Workload]:
    load = Workload(targets)
    async with asyncio.TaskGroup() as tasks:
        workers = [tasks.create_task(load.publish(number)) for number in range(PUBLISHERS)]
        workers += [tasks.create_task(load.consume(group, n)) for group in GROUPS for n in range(CONSUMERS)]
        try:
            yield load
        finally:
            for worker in workers:
                worker.cancel()


async def stored_rows(postgres_url: str) -> list[Row]:
    connection = await asyncpg.connect(postgres_url)
    try:
        columns = "position, event_id, event_type, aggregate_id, aggregate_version"
        return [Row(*row) for row in await connection.fetch(f"SELECT {columns} FROM eventbroker.events")]  # noqa: S608
    finally:
        await connection.close()


async def nothing_is_wrong(load: Workload, postgres_url: str, volume: int) -> None:
    """Drain, then judge."""
    await load.drained()
    history = load.history
    violations = history.judge(await stored_rows(postgres_url))
    assert not violations, "\n".join(map(str, [f"{len(violations)} violations", *violations[:20]]))
    invalid = history.validity(volume)
    assert not invalid, invalid


async def _hold_what_comes(target: str, group: str) -> None:
    async with Client(target) as client, await client.subscribe(group, "*", ack_deadline=600) as stream:
        print("open", flush=True)  # noqa: T201
        while (message := await stream.read(600)) is not None:
            for delivery in message.deliveries.deliveries:
                print(delivery.event.event_id, flush=True)  # noqa: T201


if __name__ == "__main__":
    asyncio.run(_hold_what_comes(*sys.argv[1:]))
