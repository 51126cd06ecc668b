"""`python -m benchmarks.growth`: what the calls of the event store take when many events are stored.

The events are those of `make bench`, of 10,000 aggregates in turn, loaded by COPY; chains of causes have 50 events, and
every aggregate has a snapshot shortly before its latest version. Appends are measured beside an empty store, in turns,
each after every aggregate was written to twice.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import time
from contextlib import AsyncExitStack
from statistics import median, quantiles
from typing import TYPE_CHECKING

import asyncpg
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub

from benchmarks.events import AGGREGATES, TENANT, TYPES, rows
from benchmarks.loads import CALL_TIMEOUT, channel_to, publish
from benchmarks.plans import explain
from benchmarks.stage import Broker, open_stage
from benchmarks.worker import worker

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceAsyncStub

    from benchmarks.loads import Work
    from benchmarks.worker import Line

RATE = 100.0  # calls a second
CHAIN = 50  # events of one correlation id
TAIL = 20  # events of an aggregate after its snapshot
READ = 500_000  # events of one ReadEvents
BATCH, IN_FLIGHT = 100, 16
ROUNDS = 3
_CHUNK = 50_000
_COLUMNS = """
    position tenant_id event_id event_type event_version aggregate_type aggregate_id aggregate_version user_id
    session_id request_id correlation_id timestamp form content_type content metadata
"""
_SNAPSHOTS = """
INSERT INTO eventbroker.snapshots (
    tenant_id, aggregate_type, aggregate_id, version, form, content_type, content, created_at
)
SELECT $1, 'User', 'user-' || lpad(number::text, 5, '0'), $3, 1, '', '{}', clock_timestamp()
FROM generate_series(0, $2 - 1) AS number
"""


async def load(database: str, events: int) -> float:
    """Put events into a database; answer the seconds."""
    began = time.monotonic()
    connection = await asyncpg.connect(database)
    try:
        supply = rows(_CHUNK)
        for first in range(0, events, _CHUNK):
            columns = dict(zip(_COLUMNS.split(), next(supply), strict=True))
            numbers = range(first, first + _CHUNK)
            columns["correlation_id"] = [f"chain-{number // CHAIN:09}" for number in numbers]
            columns["user_id"] = [f"user-{number % AGGREGATES:05}" for number in numbers]
            columns["shard"] = [0] * _CHUNK
            columns["recorded_at"] = columns["timestamp"]
            await connection.copy_records_to_table(
                "events", schema_name="eventbroker", columns=list(columns), records=zip(*columns.values(), strict=True)
            )
        await connection.execute("UPDATE eventbroker.shard_head SET position = $1", events)
        await connection.execute(_SNAPSHOTS, TENANT, AGGREGATES, max(1, events // AGGREGATES - TAIL))
        await connection.execute("VACUUM (ANALYZE) eventbroker.events")
    finally:
        await connection.close()
    return time.monotonic() - began


def questions(stored: int) -> dict[str, Callable[[EventStoreServiceAsyncStub], Awaitable[object]]]:
    """Calls by name, each about something else every time."""
    chance = random.Random(5)

    def aggregate() -> str:
        return f"user-{chance.randrange(AGGREGATES):05}"

    def by_type(stub: EventStoreServiceAsyncStub) -> Awaitable[object]:
        asked = pb.EventFilter(event_types=[chance.choice(TYPES)])
        after = chance.randrange(stored)
        return stub.ListEvents(pb.ListEventsRequest(tenant_id=TENANT, filter=asked, after_position=after))

    def by_correlation(stub: EventStoreServiceAsyncStub) -> Awaitable[object]:
        asked = pb.EventFilter(correlation_id=f"chain-{chance.randrange(stored // CHAIN):09}")
        return stub.ListEvents(pb.ListEventsRequest(tenant_id=TENANT, filter=asked))

    return {
        "ListAggregateEvents": lambda stub: stub.ListAggregateEvents(
            pb.ListAggregateEventsRequest(tenant_id=TENANT, aggregate_type="User", aggregate_id=aggregate())
        ),
        "GetAggregate": lambda stub: stub.GetAggregate(
            pb.GetAggregateRequest(tenant_id=TENANT, aggregate_type="User", aggregate_id=aggregate())
        ),
        "ListEvents by type": by_type,
        "ListEvents by correlation": by_correlation,
    }


async def ask(line: Line, target: str, name: str, stored: int, seconds: float) -> list[float]:
    """Call on a fixed schedule; the seconds that each took, from when it was due."""
    async with channel_to(target) as channel:
        stub = EventStoreServiceStub(channel)
        call = questions(stored)[name]
        took: list[float] = []

        async def one(due: float) -> None:
            await call(stub)
            took.append(time.monotonic() - due)

        for _ in range(20):
            await call(stub)  # plans are made
        line.say("ready")
        await line.hear()
        began = time.monotonic()
        async with asyncio.timeout(CALL_TIMEOUT + seconds), asyncio.TaskGroup() as calls:
            for number in range(round(seconds * RATE)):
                due = began + number / RATE
                await asyncio.sleep(due - time.monotonic())
                calls.create_task(one(due))
    return took


async def read(line: Line, target: str, events: int) -> float:
    """Read history; events a second."""
    async with channel_to(target) as channel:
        line.say("ready")
        await line.hear()
        began, count = time.monotonic(), 0
        request = pb.ReadEventsRequest(tenant_id=TENANT, upto_position=events)
        async for response in EventStoreServiceStub(channel).ReadEvents(request, timeout=CALL_TIMEOUT * 2):
            count += len(response.events.events)
        return count / (time.monotonic() - began)


async def _append(broker: Broker, seconds: float) -> float:
    """Events a second of a broker that has written to each aggregate before: its cache and PostgreSQL's are warm."""
    for events, bound in ((2 * AGGREGATES, CALL_TIMEOUT), (1 << 62, seconds)):
        async with worker(publish, broker.target, BATCH, IN_FLIGHT, events, bound) as line:
            line.say("go")
            work: Work = await line.hear()
    return work.events / (work.ended - work.began)


async def _sizes(database: str) -> str:
    """Of the log and its indexes."""
    connection = await asyncpg.connect(database)
    try:
        sizes = await connection.fetch(
            """
            SELECT relname, pg_relation_size(oid) / 1048576 AS mebibytes
            FROM pg_class
            WHERE relnamespace = 'eventbroker'::regnamespace AND relname ~ '^(events|aggregates)'
                AND relkind IN ('r', 'i')
            ORDER BY 2 DESC
            """
        )
    finally:
        await connection.close()
    return ", ".join(f"{name} {size:,}" for name, size in sizes)


async def main(events: int, seconds: float, *, plans: bool) -> None:
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(open_stage())
        full = await stack.enter_async_context(stage.database())
        took = await load(full, events)
        print(f"{events:,} events loaded in {took:.0f} s ({events / took:,.0f} a second)", flush=True)
        print(f"MiB: {await _sizes(full)}", flush=True)
        if plans:
            await explain(full, events)
        async with stage.broker(full) as broker:
            for name in questions(events):
                async with worker(ask, broker.target, name, events, seconds) as line:
                    line.say("go")
                    found = await line.hear()
                cuts = quantiles(found, n=100, method="inclusive")
                print(
                    f"{name}, {RATE:.0f} calls/s: p50 {cuts[49] * 1e3:.1f} ms, p99 {cuts[98] * 1e3:.1f} ms", flush=True
                )
            async with worker(read, broker.target, min(events, READ)) as line:
                line.say("go")
                print(f"ReadEvents: {await line.hear():,.0f} events/s", flush=True)
        ratios = []
        for _ in range(ROUNDS):
            async with stage.database() as empty, stage.broker(empty) as broker:
                small = await _append(broker, seconds)
            await stage.empty_valkey()
            async with stage.broker(full) as broker:
                ratios.append(await _append(broker, seconds) / small)
        shown = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"appends: {median(ratios):.2f} of those to an empty store ({shown})", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=10_000_000, help="stored (default 10,000,000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measure (default 10)")
    parser.add_argument("--plans", action="store_true", help="print how PostgreSQL goes about each query")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.events, arguments.seconds, plans=arguments.plans))
