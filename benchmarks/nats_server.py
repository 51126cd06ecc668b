"""NATS JetStream, as a process: file storage, and flushed before each answer or, as it comes, every two minutes."""

from __future__ import annotations

import shutil
import socket
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.stage import ROOT, program

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

MODULE = "github.com/nats-io/nats-server/v2"
_CONFIG = """
listen: "127.0.0.1:{port}"
jetstream {{
  store_dir: "{store}"
  {sync}
}}
"""


@dataclass(frozen=True)
class Nats:
    """A server that runs."""

    pid: int
    url: str


def find() -> str:
    """The server's program. Raises RuntimeError, which says how to get it."""
    own = ROOT / ".cache" / "bin"
    if (found := shutil.which("nats-server") or shutil.which("nats-server", path=str(own))) is None:
        raise RuntimeError(f"there is no nats-server: GOBIN={own} go install {MODULE}@latest")
    return found


@asynccontextmanager
async def nats_server(directory: Path, *, flushed: bool) -> AsyncIterator[Nats]:
    """A server with nothing stored; with `flushed`, as durable when it answers as the broker is."""
    home = Path(tempfile.mkdtemp(prefix="nats-", dir=directory))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    sync = "sync_interval: always" if flushed else ""
    config, log = home / "nats.conf", home / "log"
    config.write_text(_CONFIG.format(port=port, store=home / "store", sync=sync))
    try:
        async with program((find(), "-c", str(config)), log, lambda: "Server is ready" in log.read_text()) as pid:
            yield Nats(pid, f"nats://127.0.0.1:{port}")
    finally:
        shutil.rmtree(home)
