"""`eventbroker bench`: how fast a broker is, as this machine sees it."""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from statistics import quantiles
from typing import TYPE_CHECKING, Annotated, Any

import typer
from eventbroker_client import Event, connect

from eventbroker_cli.asking import sure
from eventbroker_cli.command import command
from eventbroker_cli.exits import Code, Failed
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, facts
from eventbroker_cli.readable import counted, duration, number

if TYPE_CHECKING:
    from eventbroker_client import Broker, Delivery

_EXAMPLES = """
eventbroker bench --seconds 5
eventbroker bench --batch 1 --in-flight 64 --yes -o json
"""
_AGGREGATES = 1_000
_DRAINED = 60.0  # seconds that consumers have for the rest


def add_to(app: typer.Typer) -> None:
    command(app, "bench", examples=_EXAMPLES, panel="Look and mend")(bench)


@dataclass
class Load:
    """What was published and acked, and how long each took, in seconds."""

    broker: Broker
    padding: str
    published: int = 0
    acked: int = 0
    calls: list[float] = field(default_factory=list)
    ways: list[float] = field(default_factory=list)
    """From the making of an event to its delivery here."""
    _all_acked: asyncio.Event = field(default_factory=asyncio.Event)

    async def publish(self, until: float, batch: int) -> None:
        while time.monotonic() < until:
            events = [
                Event("bench.measured", "Bench", f"b{(self.published + n) % _AGGREGATES}", {"padding": self.padding})
                for n in range(batch)
            ]
            began = time.perf_counter()
            if batch == 1:
                await self.broker.publish(events[0])
            else:
                await self.broker.publish_many(events)
            self.calls.append(time.perf_counter() - began)
            self.published += batch

    async def consume(self) -> None:
        async with self.broker.subscribe("bench", max_unsettled=2_000) as deliveries, asyncio.TaskGroup() as acks:
            async for delivery in deliveries:
                self.ways.append(time.time() - delivery.message.timestamp.ToNanoseconds() / 1e9)
                acks.create_task(self._ack(delivery))

    async def _ack(self, delivery: Delivery) -> None:
        await delivery.ack()
        self.acked += 1
        if self.acked >= self.published:
            self._all_acked.set()

    async def drained(self, consuming: list[asyncio.Task[None]]) -> None:
        """Everything that was published is acked, or the time for it is over. Raises what ended a consumer."""
        if self.acked < self.published:
            self._all_acked.clear()
            waiting = asyncio.create_task(self._all_acked.wait())
            await asyncio.wait([waiting, *consuming], timeout=_DRAINED, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
        for task in consuming:
            if task.done():
                task.result()


async def bench(
    link: Link,
    out: Output,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to publish.")] = 10.0,
    batch: Annotated[int, typer.Option(min=1, max=1000, help="Events in a call; 1: publish one by one.")] = 100,
    in_flight: Annotated[int, typer.Option(min=1, max=1000, help="Calls under way at a time.")] = 8,
    size: Annotated[int, typer.Option(min=0, max=500_000, help="Bytes of data in an event, about.")] = 300,
    consumers: Annotated[int, typer.Option(min=0, max=100, help="Of one group, which ack everything.")] = 1,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Measure publishing and consuming: rates, and times of calls and from publisher to consumer.

    The load and what takes it are one process of Python: a broker may be faster than that can show. Events stay in the
    store, of a tenant made up for this run.
    """
    tenant = f"bench-{secrets.token_hex(4)}"
    sure(f"Publish to {link.target.url} for {duration(seconds)}? The events of tenant {tenant} stay there.", yes=yes)
    target = link.target
    async with connect(target.url, tls=target.tls(), token=target.token(), tenant=tenant) as broker:
        load = Load(broker, "x" * size)
        consuming = [asyncio.create_task(load.consume()) for _ in range(consumers)]
        began = time.monotonic()
        try:
            async with asyncio.TaskGroup() as publishers:
                for _ in range(in_flight):
                    publishers.create_task(load.publish(began + seconds, batch))
            published_for = time.monotonic() - began
            if consuming:
                await load.drained(consuming)
            acked_for = time.monotonic() - began
        finally:
            for task in consuming:
                task.cancel()
            await asyncio.gather(*consuming, return_exceptions=True)
    found: dict[str, Any] = {
        "tenant": tenant,
        "published": load.published,
        "published_per_second": load.published / published_for,
        "publish_call_seconds": _percentiles(load.calls),
    }
    if consumers:
        found["acked"] = load.acked
        found["published_to_acked_per_second"] = load.acked / acked_for
        found["publisher_to_consumer_seconds"] = _percentiles(load.ways)
    if out.for_people:
        out.show(facts((name.replace("_", " "), _told(value)) for name, value in found.items()))
    else:
        out.json(found, indent=2)
    if consumers and load.acked < load.published:
        raise Failed(f"not acked in time: {counted(load.published - load.acked, 'event')}", Code.PARTLY)


def _percentiles(times: list[float]) -> dict[str, float]:
    cuts = quantiles(times, n=100, method="inclusive") if len(times) > 1 else (times or [0.0]) * 99
    return {"p50": cuts[49], "p99": cuts[98]}


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {duration(seconds)}" for name, seconds in value.items())
    return value if isinstance(value, str) else number(round(value))
