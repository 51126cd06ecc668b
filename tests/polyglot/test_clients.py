"""The clients of all languages do the same, against one broker: the cases of tests/conformance."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.polyglot.control import Control
from tests.polyglot.runners import PRESENT
from tests.polyglot.wire import Wire
from tests.processes import spawned

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.conftest import BrokerProcess
    from tests.polyglot.runners import Runner

NAMES = [
    case["name"]
    for file in sorted((ROOT / "tests/conformance/cases").glob("*.json"))
    for case in json.loads(file.read_text())
]

pytestmark = pytest.mark.timeout(280)


@pytest.fixture
async def environment(spawn_broker: Callable[..., Awaitable[BrokerProcess]]) -> AsyncIterator[dict[str, str]]:
    """Of a runner: a broker, and the control of it."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
    async with Wire() as wire, Control(wire, spawn_broker) as control:
        yield inherited | {
            "EVENTBROKER_URL": wire.target,
            "EVENTBROKER_CONTROL": str(control.port),
            "EVENTBROKER_CASES": str(ROOT / "tests/conformance/cases"),
            "PYTHONPATH": os.pathsep.join(str(ROOT / part) for part in ("", "server", "clients/python")),
        }


@pytest.mark.parametrize("runner", PRESENT, ids=lambda runner: runner.language)
async def test_the_client_does_as_the_conformance_cases_say(runner: Runner, environment: dict[str, str]) -> None:
    assert runner.here(), f"EVENTBROKER_ALL_CLIENTS=1, and one of {runner.needs} is missing"
    async with spawned(
        *runner.command,
        cwd=runner.directory,
        env=environment,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    ) as process:
        out, _ = await process.communicate()
    report = out.decode()
    assert process.returncode == 0, report
    lines = report.splitlines()
    assert not [line for line in lines if line.startswith(("FAILED", "left out"))], report
    assert len([line for line in lines if line.startswith("ok")]) == len(NAMES), report
