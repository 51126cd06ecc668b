"""The clients of all languages do the same, against one broker: the cases of tests/conformance."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.polyglot.runners import PRESENT
from tests.processes import spawned

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.polyglot.runners import Runner

NAMES = [
    case["name"]
    for file in sorted((ROOT / "tests/conformance/cases").glob("*.json"))
    for case in json.loads(file.read_text())
]

pytestmark = [pytest.mark.timeout(280), pytest.mark.xdist_group("clients")]  # they share what they build


@pytest.mark.parametrize("runner", PRESENT, ids=lambda runner: runner.language)
async def test_the_client_does_as_the_conformance_cases_say(
    runner: Runner, built: Callable[[Runner], None], environment: dict[str, str]
) -> None:
    assert not runner.missing(), "EVENTBROKER_ALL_CLIENTS=1 asks for all clients"
    built(runner)
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
