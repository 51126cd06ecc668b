"""A broker for the clients; and the names of those that the tests left out."""

from __future__ import annotations

import os
import subprocess
from functools import cache
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.polyglot.control import Control
from tests.polyglot.runners import LEFT_OUT
from tests.polyglot.wire import Wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.conftest import BrokerProcess
    from tests.polyglot.runners import Runner

collect_ignore = [f"test_{runner.language}.py" for runner in LEFT_OUT]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for runner in LEFT_OUT:
        missing = ", ".join(runner.missing())
        terminalreporter.write_line(f"The client of {runner.language} was left out: {missing} not here.")


@pytest.fixture(scope="session")
def built() -> Callable[[Runner], None]:
    """Builds the client of a runner, once."""

    @cache
    def build(runner: Runner) -> None:
        if runner.verb:
            command = ["make", "-C", str(ROOT), runner.verb]
            made = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
            assert made.returncode == 0, made.stdout + made.stderr

    return build


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
