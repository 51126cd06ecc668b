"""The measures: which loads run against what, and what is read off them. A round plays two scenes, each on a new
database, and yields each measure once."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING

from benchmarks.events import LIGHT_TENANTS, TENANT
from benchmarks.loads import (
    Latencies,
    Work,
    consume,
    create_group,
    in_turn,
    insert,
    keep_pace,
    make_group,
    publish,
    wish,
)
from benchmarks.neighbors import beside_a_stalled_one
from benchmarks.worker import worker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from eventbroker.v1.group_service_pb2 import CreateGroupRequest
    from eventbroker.v1.subscriber_service_pb2 import SubscribeRequest

    from benchmarks.cpu import Usage
    from benchmarks.stage import Broker, Stage

BATCH, BATCHES_IN_FLIGHT, CALLS_IN_FLIGHT = 100, 8, 64
BACKLOG = 100_000
PACE = 100.0  # events per second
NO_END = 10**9
NACK_ONE_IN = 10
MEASURES = (
    "bare",
    "end-to-end",
    "publish",
    "unary",
    "latency",
    "history",
    "backlog",
    "ordered",
    "ordered-backlog",
    "fair",
    "nacks",
    "stalled",
)


@dataclass(frozen=True)
class Found:
    """Figures of one measure in one round, by name."""

    measure: str
    figures: dict[str, float]


async def play(stage: Stage, only: set[str], seconds: float) -> AsyncIterator[Found]:
    """One round. Bare PostgreSQL is always measured, as the yardstick of the others."""
    async with stage.database() as database:
        async with worker(insert, database, BACKLOG, BATCH) as line:
            line.say("go")
            work = await line.hear()
        yield Found("bare", _rate(work))
        if "history" in only:
            async with stage.broker(database) as broker:
                yield Found("history", await _drain(broker, wish("history", latest=False)))
    if only <= {"bare", "history"}:
        return
    if "fair" in only:
        async with stage.database() as database, stage.broker(database) as broker:
            yield Found("fair", await _fair(broker, round(2 * seconds * PACE)))
    async with stage.database() as database, stage.broker(database) as broker:
        await _end_to_end(broker, "warm-up", BATCH, BATCHES_IN_FLIGHT, 0.3)
        if "end-to-end" in only:
            yield Found("end-to-end", await _end_to_end(broker, "batches", BATCH, BATCHES_IN_FLIGHT, seconds))
        if "ordered" in only:
            await _create(broker, in_turn("ordered"))
            yield Found("ordered", await _end_to_end(broker, "ordered", BATCH, BATCHES_IN_FLIGHT, seconds))
        if "unary" in only:
            yield Found("unary", await _end_to_end(broker, "unary", 1, CALLS_IN_FLIGHT, seconds))
        if "latency" in only:
            yield Found("latency", await _latency(broker, round(2 * seconds * PACE)))
        if only & {"publish", "backlog", "ordered-backlog"}:
            await _create(broker, in_turn("ordered-backlog"))
            async with worker(make_group, broker.target, wish("backlog")) as line:
                await line.hear()
            yield Found("publish", await _publish(broker))
        if "backlog" in only:
            yield Found("backlog", await _drain(broker, wish("backlog")))
        if "ordered-backlog" in only:
            yield Found("ordered-backlog", await _drain(broker, wish("ordered-backlog")))
        if "nacks" in only:
            yield Found("nacks", await _end_to_end(broker, "nacks", BATCH, BATCHES_IN_FLIGHT, seconds, NACK_ONE_IN))
        if "stalled" in only:
            yield Found("stalled", await beside_a_stalled_one(broker, seconds))


async def profile(stage: Stage, seconds: float, file: Path) -> None:
    """Batches end to end, with the broker under cProfile."""
    async with stage.database() as database, stage.broker(database, file) as broker:
        await _end_to_end(broker, "batches", BATCH, BATCHES_IN_FLIGHT, seconds)


async def _end_to_end(
    broker: Broker, group: str, batch: int, in_flight: int, seconds: float, nack_one_in: int = 0
) -> dict[str, float]:
    """Until everything that was published is acked."""
    consumer = worker(consume, broker.target, wish(group), 1, nack_one_in)
    publisher = worker(publish, broker.target, batch, in_flight, NO_END, seconds)
    async with consumer as taking, publisher as giving:
        taking.say("go")
        await taking.hear()
        before = broker.usage()
        giving.say("go")
        published: Work = await giving.hear()
        taking.say(published.events)
        taken: Work = await taking.hear()
        used = broker.usage().since(before)
    work = Work(published.events, published.began, taken.ended, published.cpu + taken.cpu)
    return _rate(work) | _costs(work, used)


async def _create(broker: Broker, group: CreateGroupRequest) -> None:
    async with worker(create_group, broker.target, group) as line:
        await line.hear()


async def _publish(broker: Broker) -> dict[str, float]:
    """Until all is answered; and how long the relay takes after that."""
    async with worker(publish, broker.target, BATCH, BATCHES_IN_FLIGHT, BACKLOG, NO_END) as line:
        before = broker.usage()
        line.say("go")
        work: Work = await line.hear()
        used = broker.usage().since(before)
    await broker.caught_up()
    return _rate(work) | _costs(work, used) | {"relayed_after_ms": (time.monotonic() - work.ended) * 1e3}


async def _drain(broker: Broker, request: SubscribeRequest) -> dict[str, float]:
    """What is there already, from the opening of the stream to the last ack."""
    async with worker(consume, broker.target, request, 1) as line:
        before = broker.usage()
        line.say("go")
        await line.hear()
        line.say(BACKLOG)
        work: Work = await line.hear()
        used = broker.usage().since(before)
    return _rate(work) | _costs(work, used)


async def _fair(broker: Broker, events: int) -> dict[str, float]:
    """The latency of events of 99 tenants, alone and beside a tenant with a backlog."""
    consumer = wish("fair", tenant="")
    await _create(broker, in_turn("fair", fair=True))
    alone = await _pace(broker, events, consumer, LIGHT_TENANTS)
    async with worker(publish, broker.target, BATCH, BATCHES_IN_FLIGHT, BACKLOG, NO_END) as line:
        line.say("go")
        await line.hear()
    await broker.caught_up()
    beside = await _pace(broker, events, consumer, LIGHT_TENANTS)
    figures = _percentiles("alone", alone.delivery) | _percentiles("beside", beside.delivery)
    return figures | {"p99_ratio": figures["beside_p99_ms"] / figures["alone_p99_ms"]}


async def _latency(broker: Broker, events: int) -> dict[str, float]:
    found = await _pace(broker, events, wish("pace"))
    return _percentiles("delivery", found.delivery) | _percentiles("publish", found.publish)


async def _pace(
    broker: Broker, events: int, consumer: SubscribeRequest, tenants: Sequence[str] = (TENANT,)
) -> Latencies:
    async with worker(keep_pace, broker.target, PACE, events, consumer, tenants) as line:
        line.say("go")
        found: Latencies = await line.hear()
    return found


def _rate(work: Work) -> dict[str, float]:
    return {"events": work.events, "rate": work.events / (work.ended - work.began)}


def _costs(work: Work, used: Usage) -> dict[str, float]:
    """CPU microseconds for each event, and how many CPUs were busy with other things than this benchmark."""
    spent = {"broker": used.broker, "postgres": used.postgres, "valkey": used.valkey, "load": work.cpu}
    others = (used.machine - sum(spent.values())) / used.seconds
    return {f"{name}_us": seconds * 1e6 / work.events for name, seconds in spent.items()} | {"others_cpus": others}


def _percentiles(name: str, seconds: list[float]) -> dict[str, float]:
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {f"{name}_p50_ms": cuts[49] * 1e3, f"{name}_p99_ms": cuts[98] * 1e3}
