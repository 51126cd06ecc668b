"""Fixtures: one broker for all tests of the command line, and the command as people and scripts run it."""

from __future__ import annotations

import signal
import uuid
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio

from tests.cli.command import Command
from tests.client import Client
from tests.conftest import broker_process
from tests.polyglot.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.conftest import BrokerProcess


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def served() -> AsyncIterator[BrokerProcess]:
    """A broker with engines of its own, and several shards."""
    quick = {"SWEEP_INTERVAL": "0.2", "CHECKPOINT_INTERVAL": "0.1", "DRAIN_TIMEOUT": "5"}
    async with broker_process(SHARDS="3", **quick) as process:
        yield process
        process.signal(signal.SIGTERM)  # its engines stop with it
        await process.ended()


@pytest.fixture
async def client(served: BrokerProcess) -> AsyncIterator[Client]:
    async with Client(served.target) as client:
        yield client


@pytest.fixture
async def wire(served: BrokerProcess) -> AsyncIterator[Wire]:
    """A way to the broker that can be cut."""
    async with Wire() as wire:
        wire.broker = served.target
        yield wire


@pytest.fixture
def tenant() -> str:
    return f"t-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def eventbroker(served: BrokerProcess, tenant: str, tmp_path: Path) -> Command:
    """The command, for the tenant of the test."""
    return Command({"EVENTBROKER_URL": served.target, "EVENTBROKER_TENANT": tenant, "XDG_CONFIG_HOME": str(tmp_path)})
