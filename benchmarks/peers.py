"""`python -m benchmarks.peers`: the Python SDK beside nats.py, in turns within one run.

Publish: tasks that each wait until their event is stored before they publish the next. Handle: what was published is
taken by a handler that reads its data, and acked. The values are the same on both sides, as Python has them: the SDK
makes an event of them, nats.py gets JSON of the same fields, with the id for its own check for duplicates. NATS runs
twice: flushed before each answer, as the broker is, and as it comes, flushed every two minutes. Needs `pip install
nats-py`, and nats-server.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
import uuid
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from importlib import import_module
from itertools import count
from statistics import median, quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

from eventbroker_client import Event, connect

from benchmarks.cpu import usage_of
from benchmarks.events import AGGREGATES, DATA, FACTS, TENANT, TYPES
from benchmarks.nats_server import Nats, find, nats_server
from benchmarks.stage import Broker, open_stage
from benchmarks.worker import worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from benchmarks.worker import Line

TASKS = 64
STREAM, SUBJECTS = "events", "events.>"
FETCH = 256  # messages that nats.py asks for at once
SIDES = ("eventbroker", "NATS, flushed", "NATS, as it comes")


class Took(NamedTuple):
    """What a load did: how many events in how many seconds, with CPU seconds of its own, and latencies in seconds."""

    events: int
    seconds: float
    cpu: float
    latencies: list[float]


async def _by_tasks(line: Line, publish: Callable[[int], Awaitable[Any]], seconds: float) -> Took:
    numbers = count()
    latencies: list[float] = []

    async def task() -> None:
        while time.monotonic() - began < seconds:
            at = time.monotonic()
            await publish(next(numbers))
            latencies.append(time.monotonic() - at)

    await publish(next(numbers))  # connected
    line.say("ready")
    await line.hear()
    began, cpu = time.monotonic(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for _ in range(TASKS):
            tasks.create_task(task())
    return Took(len(latencies), time.monotonic() - began, time.process_time() - cpu, latencies)


async def publish_events(line: Line, target: str, seconds: float) -> Took:
    async with connect(target, tenant=TENANT) as broker:

        async def publish(number: int) -> None:
            aggregate = f"user-{number % AGGREGATES:05}"
            await broker.publish(Event(TYPES[number % len(TYPES)], "User", aggregate, DATA, **FACTS))

        return await _by_tasks(line, publish, seconds)


async def _nats_client(url: str) -> Any:
    return await import_module("nats").connect(url)  # a package that nothing else here needs


async def publish_messages(line: Line, url: str, seconds: float) -> Took:
    client = await _nats_client(url)
    stream = client.jetstream(timeout=30)
    await stream.add_stream(name=STREAM, subjects=[SUBJECTS])

    async def publish(number: int) -> None:
        kind, event_id = TYPES[number % len(TYPES)], str(uuid.uuid4())
        said: dict[str, Any] = {
            "id": event_id,
            "type": kind,
            "aggregate_type": "User",
            "aggregate_id": f"user-{number % AGGREGATES:05}",
        }
        said |= {"timestamp": datetime.now(UTC).isoformat(), "tenant_id": TENANT, "data": DATA, **FACTS}
        await stream.publish(f"events.{kind}", json.dumps(said).encode(), headers={"Nats-Msg-Id": event_id})

    took = await _by_tasks(line, publish, seconds)
    await client.close()
    return took


class _Handled:
    """Counts, and tells when all are there."""

    def __init__(self, wanted: int) -> None:
        self.done = asyncio.Event()
        self._left = wanted

    def one(self, data: Any) -> None:
        if data["email"]:
            self._left -= 1
        if self._left <= 0:
            self.done.set()


async def handle_events(line: Line, target: str, wanted: int) -> Took:
    async with connect(target, tenant=TENANT) as broker:
        line.say("ready")
        await line.hear()
        began, cpu = time.monotonic(), time.process_time()
        handled = _Handled(wanted)
        consumer = broker.consumer("handlers", concurrency=TASKS)

        @consumer.on("*")
        async def handle(event: Event) -> None:
            handled.one(event.data)

        async with consumer:
            await handled.done.wait()
        return Took(wanted, time.monotonic() - began, time.process_time() - cpu, [])


async def handle_messages(line: Line, url: str, wanted: int) -> Took:
    client = await _nats_client(url)
    line.say("ready")
    await line.hear()
    began, cpu = time.monotonic(), time.process_time()
    handled = _Handled(wanted)
    subscription = await client.jetstream().pull_subscribe(SUBJECTS, "handlers", stream=STREAM)
    while not handled.done.is_set():
        for message in await subscription.fetch(FETCH, timeout=5):
            handled.one(json.loads(message.data)["data"])
            await message.ack()
    await client.drain()
    return Took(wanted, time.monotonic() - began, time.process_time() - cpu, [])


class Figures(NamedTuple):
    """Of one measure on one side in one round: events, and how many a second, CPU us an event of the load and of all
    behind it, and latencies in ms."""

    events: int
    rate: float
    own_us: float
    served_us: float
    p50: float
    p99: float


async def _measured(used: Callable[[], float], load: Callable[..., Awaitable[Took]], *args: Any) -> Figures:
    """Run a load; `used` tells the CPU seconds of what serves it."""
    before = used()
    async with worker(load, *args) as line:
        line.say("go")
        took: Took = await line.hear()
    cuts = quantiles(took.latencies, n=100, method="inclusive") if took.latencies else [0.0] * 99
    rate, each = took.events / took.seconds, 1e6 / took.events
    return Figures(took.events, rate, took.cpu * each, (used() - before) * each, cuts[49] * 1e3, cuts[98] * 1e3)


async def _eventbroker(broker: Broker, seconds: float) -> dict[str, Figures]:
    def used() -> float:
        usage = broker.usage()
        return usage.broker + usage.postgres + usage.valkey

    published = await _measured(used, publish_events, broker.target, seconds)
    await broker.caught_up()
    handled = await _measured(used, handle_events, broker.target, published.events)
    return {"publish": published, "handle": handled}


async def _nats(server: Nats, seconds: float) -> dict[str, Figures]:
    def used() -> float:
        return usage_of(server.pid, server.pid, server.pid).broker

    published = await _measured(used, publish_messages, server.url, seconds)
    handled = await _measured(used, handle_messages, server.url, published.events)
    return {"publish": published, "handle": handled}


async def main(rounds: int, seconds: float) -> None:
    found: dict[tuple[str, str], list[Figures]] = {}
    find()
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(open_stage())
        for _ in range(rounds):
            for side in SIDES:
                if side == "eventbroker":
                    async with stage.database() as database, stage.broker(database) as broker:
                        figures = await _eventbroker(broker, seconds)
                else:
                    async with nats_server(stage.directory, flushed="flushed" in side) as server:
                        figures = await _nats(server, seconds)
                for measure, one in figures.items():
                    found.setdefault((measure, side), []).append(one)
                    print(f"{measure}, {side}: {one.rate:,.0f}/s", flush=True)
    print(f"\n{rounds} rounds of {seconds:g} s on {os.cpu_count()} CPUs, {TASKS} tasks; medians, least and most:")
    for (measure, side), ours in found.items():
        rates = [one.rate for one in ours]
        ratios = [mine.rate / one.rate for mine, one in zip(found[measure, SIDES[0]], ours, strict=True)]
        told = f"{measure}, {side}: {median(rates):,.0f}/s ({min(rates):,.0f} - {max(rates):,.0f})"
        if measure == "publish":
            told += f", p50 {median(one.p50 for one in ours):.1f} ms, p99 {median(one.p99 for one in ours):.1f} ms"
        told += f"; CPU us {median(one.own_us for one in ours):.0f} + {median(one.served_us for one in ours):.0f}"
        if side != SIDES[0]:
            told += f"; the broker is {median(ratios):.2f} times that ({min(ratios):.2f} - {max(ratios):.2f})"
        print(told)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(default 5)")
    parser.add_argument("--seconds", type=float, default=4.0, help="of publishing in each (default 4)")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.rounds, arguments.seconds))
