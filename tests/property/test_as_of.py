"""An aggregate as of a version or a time, against the replay of its first events: for any history, published in any
batches, and any snapshots of it, saved at any moment.

The state of an aggregate is the list of its event ids, and a snapshot holds that list.
"""

from __future__ import annotations

import asyncio
import json
import uuid
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker_server.app import running
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.client import TIMEOUT, Client, event
from tests.conftest import stores_on

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventbroker.v1.event_pb2 import Event
    from eventbroker_server.engines import Engines

EXAMPLES = 80
NANOS = 10**9

# What happens to an aggregate: a batch of its events, each with a bystander before it or not; or a snapshot, of the
# version that stands so many before the latest, if there is one.
batches = st.lists(st.booleans(), min_size=1, max_size=4)
steps = st.lists(batches | st.integers(0, 4), min_size=4, max_size=12)


@dataclass
class History:
    """One aggregate through a broker, and what is known of it."""

    client: Client
    key: dict[str, Any] = field(
        default_factory=lambda: {"aggregate_type": "User", "aggregate_id": f"u-{uuid.uuid4().hex}"}
    )
    ids: list[str] = field(default_factory=list)
    saved: set[int] = field(default_factory=set)

    async def make(self, drawn: list[list[bool] | int]) -> None:
        for step in drawn:
            if isinstance(step, list):
                await self._publish(step)
            elif step < len(self.ids):
                await self._save(len(self.ids) - step)

    async def _publish(self, bystanders: list[bool]) -> None:
        events: list[Event] = []
        for bystander in bystanders:
            events += [event()] if bystander else []
            events.append(event(**self.key))
            self.ids.append(events[-1].event_id)
        await self.client.publish(*events)

    async def _save(self, version: int) -> None:
        snapshot = pb.Snapshot(**self.key, version=version, json=json.dumps(self.ids[:version]))
        request = pb.SaveSnapshotRequest(tenant_id="acme", snapshot=snapshot)
        await self.client.event_store.SaveSnapshot(request, timeout=TIMEOUT)
        self.saved.add(version)

    async def get(self, **fields: Any) -> pb.GetAggregateResponse:
        request = pb.GetAggregateRequest(tenant_id="acme", **self.key, **fields)
        return await self.client.event_store.GetAggregate(request, timeout=TIMEOUT)

    async def check(self, version: int, **fields: Any) -> None:
        """What is answered must be the aggregate as it was at that version."""
        answer = await self.get(**fields)
        assert answer.aggregate.version == version
        from_snapshot = answer.snapshot.version
        usable = set() if fields.get("without_snapshot") else {each for each in self.saved if each <= version}
        assert from_snapshot == max(usable, default=0)
        upto = answer.next_version - 1 if answer.next_version else version
        assert upto == min(version, from_snapshot + fields.get("max_events", 1000))
        assert folded(answer) == self.ids[:upto]


def folded(answer: pb.GetAggregateResponse) -> list[str]:
    state: list[str] = json.loads(answer.snapshot.json) if answer.HasField("snapshot") else []
    return state + [each.event_id for each in answer.events]


@dataclass
class World:
    runner: asyncio.Runner
    client: Client


@pytest.fixture
def world(engines: Engines) -> Iterator[World]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_world() -> World:
            stores = await stack.enter_async_context(stores_on(engines))
            endpoints = await stack.enter_async_context(running(stores.settings()))
            return World(runner, await stack.enter_async_context(Client(endpoints.target)))

        try:
            yield runner.run(open_world())
        finally:
            runner.run(stack.aclose())


@pytest.mark.timeout(280)
def test_an_aggregate_as_of_then_is_the_replay_of_its_events_up_to_then(world: World) -> None:
    asked = st.fixed_dictionaries({}, optional={"max_events": st.integers(1, 4), "without_snapshot": st.booleans()})

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),  # its patience is meant for tests without I/O
    )
    @given(steps, asked)
    def check(drawn: list[list[bool] | int], fields: dict[str, Any]) -> None:
        world.runner.run(check_history(History(world.client), drawn, fields))

    check()


async def check_history(history: History, drawn: list[list[bool] | int], fields: dict[str, Any]) -> None:
    await history.make(drawn)
    latest = len(history.ids)
    if not latest:
        return
    await history.check(latest, **fields)
    for version in range(1, latest + 1):
        await history.check(version, as_of_version=version, **fields)
    times = [nanos(each.record_time) for each in (await history.get(without_snapshot=True)).events]
    for moment in sorted({time + shift for time in times for shift in (-1000, 0, 1000)} - {times[0] - 1000}):
        version = sum(time <= moment for time in times)
        await history.check(version, as_of_time=Timestamp(seconds=moment // NANOS, nanos=moment % NANOS), **fields)


def nanos(time: Timestamp) -> int:
    return time.seconds * NANOS + time.nanos
