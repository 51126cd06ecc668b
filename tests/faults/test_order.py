"""Order by aggregate while consumers come, go, freeze and nack, and brokers die: 200 hand-overs, no violation."""

from __future__ import annotations

import asyncio
import random
import time
from collections import defaultdict
from typing import TYPE_CHECKING

import grpc
import pytest
from eventbroker.v1 import group_service_pb2 as groups
from eventbroker.v1.subscriber_service_pb2 import FlowControl

from tests.client import DONE, Client, event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Stream
    from tests.conftest import BrokerProcess

AGGREGATES, EVENTS = 20, 3_000
HAND_OVERS = 200
ACK_DEADLINE = 2.0  # seconds


class Ledger:
    """What was handed out and settled, by aggregate: the next event may come only when the one before is settled."""

    def __init__(self) -> None:
        self.order: dict[str, list[str]] = defaultdict(list)  # as published
        self.settled: set[str] = set()
        self.unsure: set[str] = set()  # an ack was sent whose answer was lost
        self.violations: list[str] = []
        self.deliveries = 0

    def faults_of(self, aggregate: str, name: str) -> list[str]:
        """What speaks against handing this event out now."""
        line = self.order[aggregate]
        at = line.index(name)
        too_early = [before for before in line[:at] if before not in self.settled and before not in self.unsure]
        too_late = [after for after in line[at + 1 :] if after in self.settled]
        return [f"{name} came while {before} was not settled" for before in too_early] + [
            f"{name} came again after {after} was settled" for after in too_late
        ]

    @property
    def lost(self) -> set[str]:
        return {name for line in self.order.values() for name in line} - self.settled - self.unsure


async def is_done(client: Client) -> bool:
    """Whether the group has settled all."""
    status = (await client.get_group("g")).status
    return status.complete and not status.waiting_retries and not any(shard.lag for shard in status.shards)


class Worker:
    """Consumes through one broker until it is stopped; it nacks a tenth, and freezes now and then."""

    def __init__(self, client: Client, ledger: Ledger, dice: random.Random) -> None:
        self.client = client
        self.ledger = ledger
        self.dice = dice
        self.stopping = False

    async def run(self) -> None:
        stream: Stream | None = None
        try:
            stream = await self.client.subscribe("g", flow_control=FlowControl(max_unsettled_events=8))
            while not self.stopping:
                message = await stream.read(1.0)
                if message is None:
                    return
                for delivery in message.deliveries.deliveries:
                    self.ledger.deliveries += 1
                    faults = self.ledger.faults_of(delivery.event.aggregate_id, delivery.event.event_id)
                    overdue = time.time() > message.deliveries.ack_deadline.ToNanoseconds() / 1e9
                    if not overdue:
                        self.ledger.violations += faults
                    settled = await self._handle(delivery.ack_id, delivery.event.event_id)
                    if overdue and settled:  # what lay here too long may come to another, but then is not settled here
                        self.ledger.violations += faults
        except (grpc.aio.AioRpcError, TimeoutError, AssertionError):
            pass  # the broker died: another worker goes on
        finally:
            if stream is not None:
                stream.close()

    async def _handle(self, ack_id: str, name: str) -> bool:
        """Whether this very delivery settled the event."""
        chance = self.dice.random()
        if chance < 0.1:
            await self.client.nack([ack_id], seconds=0)
        elif chance > 0.998:
            await asyncio.sleep(ACK_DEADLINE * 1.2)  # frozen: what it holds expires
        if chance >= 0.1:
            self.ledger.unsure.add(name)
            (outcome,) = await self.client.ack([ack_id])
            self.ledger.unsure.discard(name)
            if outcome == DONE:
                self.ledger.settled.add(name)
                return True
        return False


@pytest.mark.timeout(280)
async def test_no_event_comes_before_the_one_it_follows_in_200_hand_overs(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> None:
    dice = random.Random(7)
    ledger = Ledger()
    brokers = [await spawn_broker(ACK_DEADLINE=str(ACK_DEADLINE)) for _ in range(2)]
    clients = [Client(broker.target) for broker in brokers]
    policy = groups.RetryPolicy(max_attempts=1_000)
    policy.initial_backoff.FromMilliseconds(100)
    await clients[0].create_group("g", ordering=groups.ORDERING_BY_AGGREGATE, retry_policy=policy)
    published = [event(aggregate_id=f"u{dice.randrange(AGGREGATES)}", event_id=f"{n:05}") for n in range(EVENTS)]
    for one in published:
        ledger.order[one.aggregate_id].append(one.event_id)
    workers: list[tuple[Worker, asyncio.Task[None]]] = []
    hand_overs = 0
    position = 0
    async with asyncio.timeout(240):
        while position < EVENTS or not await is_done(clients[0]):
            if position < EVENTS:
                batch = published[position : position + max(1, EVENTS // HAND_OVERS)]
                position += len(batch)
                await clients[0].publish(*batch)
            workers = [(worker, task) for worker, task in workers if not task.done()]
            while len(workers) < 3:
                worker = Worker(dice.choice(clients), ledger, dice)
                workers.append((worker, asyncio.create_task(worker.run())))
            await asyncio.sleep(0.1)
            leaving, task = dice.choice(workers)
            if dice.random() < 0.5:
                task.cancel()  # in the middle of whatever it does
            leaving.stopping = True
            hand_overs += 1
            if hand_overs % 60 == 0:  # the second broker dies, and comes again
                await brokers[1].kill()
                await clients[1].channel.close()
                brokers[1] = await spawn_broker(ACK_DEADLINE=str(ACK_DEADLINE))
                clients[1] = Client(brokers[1].target)
    for worker, task in workers:
        worker.stopping = True
        task.cancel()
    await asyncio.gather(*(task for _, task in workers), return_exceptions=True)
    for client in clients:
        await client.channel.close()
    assert (ledger.violations, ledger.lost) == ([], set())
    assert hand_overs >= HAND_OVERS
    assert ledger.deliveries > EVENTS * 1.05
