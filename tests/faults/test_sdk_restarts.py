"""A publisher and a consumer of the SDK, at work at 1,000 events a second while their broker is restarted ten times, in
half of them after SIGKILL: every event is handled, and again only where a restart explains it.

What a restart explains: the consumer may hold so many deliveries that are not settled, and when the broker goes, nobody
knows which of their acks arrived. So an event is handled again only if there was a restart meanwhile, and after each
restart no more events than that.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from eventbroker_client import Event, connect

from tests.client import Client
from tests.engines import fresh_engines
from tests.sdk.restarts import Restarts
from tests.sdk.settled import settled
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_client import Broker, Published
    from eventbroker_server.engines import Engines

    from tests.conftest import BrokerProcess

RATE = 1_000  # events a second
RESTARTS = 10
RECOVERING, CALM = 1_000, 500  # events that are handled after a restart, until it is over, and before the next
AHEAD = 5_000  # events that the publisher is before the consumer, at most
MAX_UNSETTLED = 256
PATIENCE = 40.0  # seconds for each step


@pytest.fixture
async def engines() -> AsyncIterator[Engines]:
    """Of one flavour: this is about the broker, and takes a minute."""
    async with fresh_engines("wheel") as engines:
        yield engines


class Ledger:
    """When events were handled. Phases count from 0: calm, then a restart until it is over, then calm, ..."""

    def __init__(self) -> None:
        self.phase = 0
        self.handled: defaultdict[int, list[int]] = defaultdict(list)  # by event: the phases

    async def handle(self, event: Event) -> None:
        self.handled[event.data["number"]].append(self.phase)

    async def goes_on(self, count: int) -> None:
        """Waits until so many more events were handled."""
        goal = len(self.handled) + count
        await eventually(lambda: len(self.handled) >= goal, timeout=PATIENCE)

    def again(self) -> list[tuple[int, int, int]]:
        """Each event that was handled again: its number, and the phases of the two times."""
        return [
            (number, first, second) for number, phases in self.handled.items() for first, second in pairwise(phases)
        ]


async def publish(sdk: Broker, ledger: Ledger, stopping: asyncio.Event) -> list[Published]:
    """Publishes numbers from 0 on at the rate, each by a call of its own, until it is to stop."""
    loop = asyncio.get_running_loop()
    begun = loop.time()
    async with asyncio.TaskGroup() as tasks:
        publishing: list[asyncio.Task[Published]] = []
        while not stopping.is_set():
            due = min(int((loop.time() - begun) * RATE), len(ledger.handled) + AHEAD)
            for number in range(len(publishing), due):
                event = Event("order.noted", "Order", f"o{number % 500}", {"number": number})
                publishing.append(tasks.create_task(sdk.publish(event)))
            await asyncio.sleep(0.01)  # the pace
    return [task.result() for task in publishing]


@pytest.mark.timeout(180)
async def test_every_event_is_handled_through_ten_restarts_and_again_only_where_one_explains_it(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> None:
    restarts, ledger, stopping = Restarts(spawn_broker, await spawn_broker()), Ledger(), asyncio.Event()
    async with connect(restarts.target, tenant="acme", timeout=PATIENCE) as sdk:
        consumer = sdk.consumer("g", max_unsettled=MAX_UNSETTLED)
        consumer.on("*")(ledger.handle)
        async with consumer:
            publishing = asyncio.create_task(publish(sdk, ledger, stopping))
            await ledger.goes_on(CALM)
            for number in range(RESTARTS):
                ledger.phase += 1
                await (restarts.stop() if number % 2 else restarts.kill())
                await restarts.start()
                await ledger.goes_on(RECOVERING)
                ledger.phase += 1
                await ledger.goes_on(CALM)
            stopping.set()
            published = await publishing
            await eventually(lambda: len(ledger.handled) == len(published), timeout=PATIENCE)
            async with Client(restarts.target) as client:
                await settled(client, "g", "acme")

    assert sorted(one.position for one in published) == list(range(1, len(published) + 1))  # each stored once
    assert sorted(ledger.handled) == list(range(len(published)))
    again = ledger.again()
    unexplained = [one for one in again if one[1] == one[2] and one[1] % 2 == 0]
    assert not unexplained, f"{len(unexplained)} of {len(again)}: {unexplained[:20]}"
    after_restart = Counter((second + 1) // 2 for _, _, second in again)
    assert max(after_restart.values(), default=0) <= MAX_UNSETTLED, after_restart
