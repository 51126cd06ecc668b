"""The Python of docs/reading.md runs as it stands there."""

from __future__ import annotations

import asyncio
import random
import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import grpc
from eventbroker.v1.event_store_service_pb2 import ReadEventsRequest
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub
from eventbroker.v1.publisher_service_pb2 import PublishRequest

from tests.client import TIMEOUT, Client, event
from tests.conftest import ROOT
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import BrokerProcess


async def test_a_projection_comes_back_with_its_position_when_its_broker_ends(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/reading.md").read_text(), re.MULTILINE | re.DOTALL)
    seen: list[int] = []
    names: dict[str, Any] = {
        "EventStoreServiceStub": EventStoreServiceStub,
        "ReadEventsRequest": ReadEventsRequest,
        "asyncio": asyncio,
        "grpc": grpc,
        "random": random,
        "made": seen.append,
    }
    exec(example.replace("...  # make something of it", "made(event.position)"), names)  # noqa: S102 - our own page
    broker = await spawn_broker()
    async with grpc.aio.insecure_channel(broker.target) as channel:
        project = asyncio.create_task(names["project"](EventStoreServiceStub(channel), 0))
        async with Client(broker.target) as client:
            await client.publish(event(), event())
        await eventually(lambda: seen == [1, 2])
        await broker.kill()
        again = await spawn_broker(PORT=broker.target.rpartition(":")[2])
        async with Client(again.target) as client:  # its connection is the projection's, which may wait to be tried
            await client.publisher.Publish(PublishRequest(events=[event()]), timeout=TIMEOUT, wait_for_ready=True)
        await eventually(lambda: len(seen) > 2, timeout=TIMEOUT)
        project.cancel()
        with suppress(asyncio.CancelledError):
            await project
    assert seen == [1, 2, 3]
