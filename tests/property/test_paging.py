"""Lists against a model: whatever is asked for, from either end, and whatever is published between two pages."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker_server.domain.event import Event, Metadata
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.principal import Principal, Role
from eventbroker_server.ports import Row
from eventbroker_server.postgres import history as postgres_history
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.history import PostgresHistory
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import set_time
from eventbroker_server.rpc.event_lists import EventLists
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import stores_on
from tests.domain_events import domain_event
from tests.sql import rewrite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventbroker_server.domain.event import AggregateKey, StoredEvent
    from eventbroker_server.engines import Engines
    from eventbroker_server.postgres.pool import Pool

OLDEST, NEWEST = pb.EVENT_ORDER_OLDEST_FIRST, pb.EVENT_ORDER_NEWEST_FIRST
MOST_PAGES = 100  # more than there are events, with those that are published meanwhile
CALLER = Principal("test", frozenset(Role))

# What is drawn: few values of each kind, so that much of it meets.
some_types = st.sampled_from(["user.created", "user.mail.changed", "user.left", "role.granted", "role"])
ids = st.sampled_from(["a", "b"])
maybe_ids = st.sampled_from(["", "a", "b"])
tags = st.lists(ids, max_size=2, unique=True)
events = st.builds(
    domain_event,
    tenant_id=st.sampled_from(["acme", "acme", "acme", "globex"]),
    event_type=some_types,
    aggregate_type=st.sampled_from(["User", "Role"]),
    aggregate_id=ids,
    correlation_id=maybe_ids,
    user_id=maybe_ids,
    metadata=st.builds(Metadata, maybe_ids, maybe_ids, st.just(0), tags.map(tuple), st.just(())),
)
conditions: list[dict[str, Any]] = [
    {"event_types": ["user.created", "role"]},
    {"event_types": ["user.*", "role"]},
    {"event_types": ["user.mail.*", "no.*"]},
    {"event_types": ["*"]},
    {"aggregate_type": "User"},
    {"aggregate_type": "User", "aggregate_id": "a"},
    {"correlation_id": "a"},
    {"caused_by": "a"},
    {"user_id": "a"},
    {"sources": ["a", "c"]},
    {"tags": ["a"]},
    {"tags": ["a", "b"]},
]
filters = st.tuples(st.sampled_from([{}, *conditions]), st.sampled_from([{}, *conditions])).map(
    lambda drawn: pb.EventFilter(**(drawn[0] | drawn[1]))
)
places = st.integers(0, 20)
ranges = st.tuples(places, places).filter(lambda pair: pair[0] // 3 < pair[1] // 3)


@dataclass
class World:
    """A true store, emptied for each example, the calls upon it, and the loop in which all happens."""

    runner: asyncio.Runner
    pool: Pool
    log: PostgresEventLog
    calls: Any

    async def publish(self, events: list[Event]) -> None:
        aggregates: Counter[AggregateKey] = Counter()
        rows = []
        for event in events:
            aggregates[event.aggregate] += 1
            rows.append(Row(event, None, aggregates[event.aggregate]))
        if rows:
            await self.log.append(0, rows)

    async def stored(self) -> list[StoredEvent]:
        return await self.log.read(0, 0, await self.log.head(0))

    async def clear(self) -> None:
        async with self.pool.connection() as connection:
            await rewrite(connection, "TRUNCATE eventbroker.events")
            await connection.execute("UPDATE eventbroker.shard_head SET position = 0")


@pytest.fixture
def world(engines: Engines) -> Iterator[World]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_world() -> World:
            stores = await stack.enter_async_context(stores_on(engines))
            pool = await stack.enter_async_context(open_pool(stores.settings(), stores.postgres))
            await migrate(pool, 1)
            log, history = PostgresEventLog(pool), PostgresHistory(pool)
            lists = EventLists()
            lists._log, lists._history, lists._shards = log, history, 1
            return World(runner, pool, log, lists)

        try:
            yield runner.run(open_world())
        finally:
            runner.run(stack.aclose())


def matches(asked: pb.ListEventsRequest, stored: StoredEvent) -> bool:
    wanted, event = asked.filter, stored.event
    return (
        event.tenant_id == "acme"
        and TypeFilter.of(*wanted.event_types).matches(event.event_type)
        and wanted.aggregate_type in ("", event.aggregate_type)
        and wanted.aggregate_id in ("", event.aggregate_id)
        and wanted.correlation_id in ("", event.correlation_id)
        and wanted.user_id in ("", event.user_id)
        and wanted.caused_by in ("", event.metadata.caused_by)
        and (not wanted.sources or event.metadata.source in wanted.sources)
        and set(wanted.tags) <= set(event.metadata.tags)
        and asked.after_position < stored.position
        and (not asked.upto_position or stored.position <= asked.upto_position)
        and (not asked.HasField("recorded_from") or stored.record_time >= asked.recorded_from.ToDatetime(UTC))
        and (not asked.HasField("recorded_before") or stored.record_time < asked.recorded_before.ToDatetime(UTC))
    )


@given(
    before=st.lists(events, min_size=10, max_size=25),
    meanwhile=st.lists(st.lists(events, max_size=3), max_size=10),
    asked=filters,
    order=st.sampled_from([OLDEST, NEWEST]),
    positions=st.just((0, 0)) | st.just((0, 0)) | st.tuples(places, st.just(0)) | ranges,
    times=st.just((None, None))
    | st.just((None, None))
    | st.tuples(places, st.none())
    | st.tuples(st.none(), places)
    | ranges,
    page_size=st.integers(1, 5),
    step=st.integers(1, 5),
    steps=st.integers(1, 3),
)
@settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
def test_a_list_has_each_event_that_matches_once_and_in_order(
    world: World,
    before: list[Event],
    meanwhile: list[list[Event]],
    asked: pb.EventFilter,
    order: Any,
    positions: tuple[int, int],
    times: tuple[int | None, int | None],
    page_size: int,
    step: int,
    steps: int,
) -> None:
    async def example() -> None:
        PRINCIPAL.set(CALLER)
        await world.clear()
        for first in range(0, len(before), 3):  # each three have a time of their own
            await world.publish(before[first : first + 3])
        at_first = await world.stored()
        request = pb.ListEventsRequest(tenant_id="acme", filter=asked, order=order, page_size=page_size)
        request.after_position, request.upto_position = positions
        for place, field in zip(times, ("recorded_from", "recorded_before"), strict=True):
            if place is not None and place // 3 * 3 < len(at_first):
                set_time(getattr(request, field), at_first[place // 3 * 3].record_time)
        expected_at_first = [stored.position for stored in at_first if matches(request, stored)]
        listed: list[int] = []
        publish = iter(meanwhile)
        for _ in range(MOST_PAGES):
            page = await world.calls.ListEvents(request, None)
            assert len(page.events) <= page_size
            listed += [event.position for event in page.events]
            request.page_token = page.next_page_token
            if not request.page_token:
                break
            await world.publish(next(publish, []))
        assert not request.page_token
        if order == NEWEST:
            assert listed == expected_at_first[::-1]
        else:
            assert listed == [stored.position for stored in await world.stored() if matches(request, stored)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(postgres_history, "_STEP", step)
        patch.setattr(postgres_history, "_STEPS", steps)
        world.runner.run(example())
