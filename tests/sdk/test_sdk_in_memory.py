"""The broker in memory does what the real one does: the conformance cases, through the SDK."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1.group_service_pb2 import ORDERING_BY_AGGREGATE, CreateGroupRequest
from eventbroker.v1.group_service_pb2_grpc import GroupServiceStub
from eventbroker_client import Delivery, Event, EventBrokerError, EventNotFound, Reject
from eventbroker_client.connection.address import address_of
from eventbroker_client.connection.connection import Connection
from eventbroker_client.testing import InMemoryBroker

from tests.conftest import ROOT
from tests.polyglot.control import Control
from tests.polyglot.wire import Wire
from tests.processes import spawned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

# Only a server can go away and come back with what it had; what is in memory goes with its process.
FOR_A_SERVER = {"the broker is restarted", "the broker is killed"}
CASES = [
    case["name"]
    for file in sorted((ROOT / "tests/conformance/cases").glob("*.json"))
    for case in json.loads(file.read_text())
]


@pytest.fixture
async def memory() -> AsyncIterator[InMemoryBroker]:
    async with InMemoryBroker() as broker:
        yield broker


@pytest.mark.timeout(200)
async def test_the_broker_in_memory_does_as_the_conformance_cases_say(memory: InMemoryBroker) -> None:
    wanted = [name for name in CASES if name not in FOR_A_SERVER]
    assert len(wanted) == len(CASES) - len(FOR_A_SERVER)

    async def already_there() -> Any:
        return memory

    async with Wire() as wire, Control(wire, already_there) as control:
        own = {
            "EVENTBROKER_URL": wire.target,
            "EVENTBROKER_CONTROL": str(control.port),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "clients/python")),
        }
        pipe = asyncio.subprocess.PIPE
        command = (sys.executable, "-m", "tests.conformance", *wanted)
        async with spawned(*command, cwd=ROOT, env=os.environ | own, stdout=pipe, stderr=pipe) as process:
            said, complained = await process.communicate()
    report = said.decode().splitlines()
    assert process.returncode == 0, (report, complained.decode())
    assert report[-1] == f"{len(wanted)} ok, 0 FAILED, 0 left out"


async def test_what_was_published_can_be_looked_at(memory: InMemoryBroker) -> None:
    event = Event("order.placed", "Order", "o1", {"total": 3})
    published = await memory.publish(event)
    (seen,) = memory.published
    assert (seen.id, seen.data, seen.position, seen.tenant_id) == (event.id, {"total": 3}, published.position, "test")
    assert await memory.get_event(event.id) == seen
    with pytest.raises(EventNotFound):
        await memory.get_event("another")


async def test_each_broker_in_memory_is_its_own(memory: InMemoryBroker) -> None:
    await memory.publish(Event("order.placed", "Order", "o1"))
    async with InMemoryBroker() as other:
        assert other.published == []


async def test_an_ephemeral_group_gets_what_comes_after_it(memory: InMemoryBroker) -> None:
    await memory.publish(Event("order.placed", "Order", "o1"))
    async with memory.subscribe() as deliveries:
        published = await memory.publish(Event("order.placed", "Order", "o2"))
        assert (await anext(deliveries)).event_id == published.event_id


async def test_a_consumer_of_a_broker_in_memory_goes_on_after_a_rejection(memory: InMemoryBroker) -> None:
    consumer = memory.consumer("billing")
    billed: asyncio.Queue[str] = asyncio.Queue()

    @consumer.on("order.*")
    async def bill(event: Event, delivery: Delivery) -> None:
        if event.data["total"] < 0:
            raise Reject("a negative total")
        billed.put_nowait(event.aggregate_id)

    async with consumer, asyncio.timeout(30):
        for order, total in (("o1", -1), ("o2", 3)):
            await memory.publish(Event("order.placed", "Order", order, {"total": total}))
        assert await billed.get() == "o2"


async def test_what_is_not_in_memory_is_refused_and_not_ignored(memory: InMemoryBroker) -> None:
    connection = Connection(address_of(memory.target))
    request = CreateGroupRequest(name="g", tenant_id="t", ordering=ORDERING_BY_AGGREGATE)
    with pytest.raises(EventBrokerError, match="ordering") as caught:
        await connection.call(GroupServiceStub(connection.channel).CreateGroup, request)
    assert caught.value.reason == "NOT_IN_MEMORY"
    await connection.close()
