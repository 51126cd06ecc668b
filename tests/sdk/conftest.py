"""Fixtures: the SDK, connected to a broker of the test's own, as a tenant of the test's own."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest
from eventbroker_client import Broker, connect

from tests.sdk.restarts import Restarts

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.client import Client
    from tests.conftest import BrokerProcess


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
async def sdk(broker: Client, tenant: str) -> AsyncIterator[Broker]:
    async with connect(broker.target, tenant=tenant) as sdk:
        yield sdk


@pytest.fixture
async def restarts(spawn_broker: Callable[..., Awaitable[BrokerProcess]]) -> Restarts:
    """A broker in a process of its own, which can be started again on the same port."""
    return Restarts(spawn_broker, await spawn_broker())
