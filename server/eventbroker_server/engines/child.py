"""The engines' programs as children of the broker: another user if need be, the data directory's lock in hand.

A child ends when the broker does, by whatever means, and sees neither the broker's terminal nor its environment,
where secrets are.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import EngineError

if TYPE_CHECKING:
    from asyncio.subprocess import Process

    from eventbroker_server.engines.data_dir import DataDir

LAUNCHER = str(Path(__file__).with_name("launch.py"))


async def run_to_end(argv: tuple[str, ...], home: DataDir, *, log: Path, timeout: float, stdin: bytes = b"") -> None:
    """Run a program of an engine that ends by itself. Raises EngineError with its last words if it fails."""
    with log.open("ab") as output:
        said = output.tell()
        process = await spawn(
            argv, home, cwd=home.path, output=output.fileno(), stdin=asyncio.subprocess.PIPE,
            on_broker_death=signal.SIGTERM,
        )  # fmt: skip
    try:
        await asyncio.wait_for(process.communicate(stdin), timeout)
    except TimeoutError:
        raise died(f"{argv[0]} did not end within {timeout:.0f} s", log, said) from None
    finally:
        if process.returncode is None:
            process.kill()
            await asyncio.shield(process.wait())
    if process.returncode != 0:
        raise died(f"{argv[0]} ended with code {process.returncode}", log, said)


async def spawn(
    argv: tuple[str, ...],
    home: DataDir,
    *,
    cwd: Path,
    output: int,
    on_broker_death: signal.Signals,
    stdin: int = asyncio.subprocess.DEVNULL,
) -> Process:
    """Start a program as the engines' user, with the data directory's lock in its hand."""
    uid, gid = (home.user.uid, home.user.gid) if os.geteuid() == 0 else (-1, -1)
    identity = (str(os.getpid()), str(int(on_broker_death)), str(uid), str(gid))
    return await asyncio.create_subprocess_exec(
        sys.executable, "-I", "-S", LAUNCHER, *identity, *argv,
        stdin=stdin, stdout=output, stderr=output, cwd=cwd, pass_fds=(home.lock_fd,),
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"},
    )  # fmt: skip


def died(what: str, log: Path, said: int) -> EngineError:
    """The error for a program that failed, with the last lines it wrote to the log beyond the byte `said`."""
    with log.open("rb") as file:
        file.seek(max(said, log.stat().st_size - 4096))
        lines = file.read().decode(errors="replace").strip().splitlines()[-8:]
    return EngineError(f"{what}; its last words: {' | '.join(lines) or 'none'}", f"See {log}.")
