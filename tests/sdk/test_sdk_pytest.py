"""The plugin of pytest, in test runs as its users have them."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.processes import spawned

if TYPE_CHECKING:
    from pathlib import Path

FIRST = """
import sys

def test_nothing_is_loaded_before_the_fixture_is_used():
    assert {"grpc", "eventbroker_client", "asyncpg"} & set(sys.modules) == set()
"""
PLAIN = """
import asyncio

targets, tenants = set(), set()

def test_without_a_plugin_for_asyncio(eventbroker):
    from eventbroker_client import Event

    async def main():
        async with eventbroker.connect() as broker:
            async for delivery in broker.subscribe("g"):
                return delivery.event_id, await delivery.ack()

    with eventbroker.blocking() as publisher:
        published = publisher.publish(Event("order.placed", "Order", "o1"))
    assert (published.event_id, 1) == asyncio.run(main())
    targets.add(eventbroker.target)
    tenants.add(eventbroker.tenant)

async def test_with_a_plugin_for_asyncio(eventbroker):
    from eventbroker_client import Event

    async with eventbroker.connect() as broker:
        published = await broker.publish(Event("order.placed", "Order", "o1"))
        assert published.aggregate_version == 1
    targets.add(eventbroker.target)
    tenants.add(eventbroker.tenant)

def test_there_is_one_broker_and_a_tenant_for_each_test():
    assert (len(targets), len(tenants)) == (1, 2)
"""
WITHOUT = """
import sys
sys.modules["asyncpg"] = None

def test_needs_a_broker(eventbroker): ...
"""

INI = """
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""


async def run(directory: Path, **files: str) -> tuple[int | None, str]:
    """pytest on these test files: how it ended, and what it said."""
    for name, text in files.items():
        (directory / f"test_{name}.py").write_text(text)
    (directory / "pytest.ini").write_text(INI)
    path = os.pathsep.join(str(ROOT / part) for part in ("server", "clients/python"))
    # The package may be installed, and then the plugin is there already: it is loaded once in any case.
    command = (sys.executable, "-m", "pytest", "-q", "-p", "eventbroker_pytest", "--rootdir", str(directory), ".")
    pipe = asyncio.subprocess.PIPE
    environ = os.environ | {"PYTHONPATH": path}
    async with spawned(*command, cwd=directory, env=environ, stdout=pipe, stderr=asyncio.subprocess.STDOUT) as process:
        out, _ = await process.communicate()
    return process.returncode, out.decode()


@pytest.mark.timeout(200)
async def test_a_broker_is_started_once_and_each_test_has_a_tenant(tmp_path: Path) -> None:
    ended, said = await run(tmp_path, a_first=FIRST, b_plain=PLAIN)
    assert (ended, "4 passed" in said) == (0, True), said


async def test_who_has_no_server_is_told_what_to_install(tmp_path: Path) -> None:
    ended, said = await run(tmp_path, without=WITHOUT)
    assert ended == 1
    assert "asyncpg must be installed: pip install 'eventbroker[server,embedded]'" in said
