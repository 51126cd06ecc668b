"""A consumer that acks only when it is told to: `python -m tests.faults.late_consumer TARGET GROUP`.

It prints "open", then the id of each event that it is handed. At a line on its input it acks all that it was handed in
one call, and prints of each event its id and the number of the outcome.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from tests.client import TIMEOUT, Client, ack_ids
from tests.conftest import ROOT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker.v1.subscriber_service_pb2 import Delivery

    from tests.client import Stream


class LateConsumer:
    """Such a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout
        async with asyncio.timeout(TIMEOUT):
            return (await self.process.stdout.readline()).decode().strip()

    async def held(self, count: int) -> set[str]:
        """The ids of the next events that it is handed."""
        return {await self.line() for _ in range(count)}

    async def tell_to_ack(self) -> None:
        """Also a process that is stopped: it does so when it goes on."""
        assert self.process.stdin
        self.process.stdin.write(b"ack\n")
        await self.process.stdin.drain()

    async def outcomes(self, count: int) -> dict[str, int]:
        """Of an ack of so many events, by their ids; what it is handed meanwhile is passed over."""
        found: dict[str, int] = {}
        while len(found) < count:
            event_id, _, outcome = (await self.line()).partition(" ")
            if outcome:
                found[event_id] = int(outcome)
        return found


@asynccontextmanager
async def late_consumer(target: str, group: str) -> AsyncIterator[LateConsumer]:
    """One that is open."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.faults.late_consumer", target, group,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}/clients/python:{ROOT}/server"},
    )  # fmt: skip
    try:
        consumer = LateConsumer(process)
        assert await consumer.line() == "open"
        yield consumer
    finally:
        process.kill()
        await process.wait()


async def _print_what_comes(stream: Stream, handed: list[Delivery]) -> None:
    while (message := await stream.read(600)) is not None:
        for delivery in message.deliveries.deliveries:
            handed.append(delivery)
            print(delivery.event.event_id, flush=True)  # noqa: T201


async def _main(target: str, group: str) -> None:
    handed: list[Delivery] = []
    async with Client(target) as client, await client.subscribe(group) as stream:
        print("open", flush=True)  # noqa: T201
        reading = asyncio.create_task(_print_what_comes(stream, handed))
        while await asyncio.to_thread(sys.stdin.readline):
            chosen = list(handed)
            for delivery, outcome in zip(chosen, await client.ack(ack_ids(chosen)), strict=True):
                print(delivery.event.event_id, outcome, flush=True)  # noqa: T201
        reading.cancel()


if __name__ == "__main__":
    asyncio.run(_main(*sys.argv[1:]))
