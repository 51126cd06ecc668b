"""The command `eventbroker`, run through pipes or at a pseudo-terminal."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.processes import spawned
from tests.waiting import eventually

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator

_TIMEOUT = 30.0  # seconds


@dataclass(frozen=True)
class Ended:
    """How a command ended, and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """Of ndjson."""
        return [json.loads(line) for line in self.out.splitlines()]


class Command:
    def __init__(self, environ: dict[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("EVENTBROKER_")}
        path = {"PYTHONPATH": os.pathsep.join(sys.path), "TZ": "UTC", "TERM": "xterm-256color"}
        for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "GITHUB_ACTIONS", "PY_COLORS"):
            inherited.pop(name, None)
        self.environ = inherited | path | environ

    async def __call__(self, *arguments: str, stdin: str | None = None, **environ: str) -> Ended:
        """Runs it to its end. Without `stdin` there is nothing to read."""
        async with self.started(*arguments, stdin=DEVNULL if stdin is None else PIPE, **environ) as process:
            async with asyncio.timeout(_TIMEOUT):
                out, err = await process.communicate(stdin.encode() if stdin is not None else None)
            assert process.returncode is not None
            return Ended(process.returncode, out.decode(), err.decode())

    async def done(self, *arguments: str, stdin: str | None = None, **environ: str) -> Ended:
        """The same, of what must succeed and complain of nothing."""
        ended = await self(*arguments, stdin=stdin, **environ)
        assert (ended.code, ended.err) == (0, ""), ended.out + ended.err
        return ended

    @asynccontextmanager
    async def started(self, *arguments: str, stdin: Any = DEVNULL, **environ: str) -> AsyncIterator[Process]:
        command = (sys.executable, "-m", "eventbroker_cli", *arguments)
        streams = {"stdin": stdin, "stdout": PIPE, "stderr": PIPE}
        async with spawned(*command, env=self.environ | environ, **streams) as process:
            yield process

    @asynccontextmanager
    async def at_terminal(self, *arguments: str, **environ: str) -> AsyncIterator[Terminal]:
        """Runs it at a terminal of 80 columns."""
        ours, its = pty.openpty()
        try:
            command = (sys.executable, "-m", "eventbroker_cli", *arguments)
            wide = {"COLUMNS": "80", "LINES": "24"}
            streams = {"stdin": its, "stdout": its, "stderr": its}
            async with spawned(*command, env=self.environ | wide | environ, **streams) as process:
                os.close(its)
                its = -1
                terminal = Terminal(process, ours)
                asyncio.get_running_loop().add_reader(ours, terminal.take)
                try:
                    yield terminal
                finally:
                    asyncio.get_running_loop().remove_reader(ours)
        finally:
            for descriptor in (ours, its):
                with suppress(OSError):
                    os.close(descriptor)


class Terminal:
    """What a person sees, and types."""

    def __init__(self, process: Process, descriptor: int) -> None:
        self.process = process
        self.seen = ""
        self._descriptor = descriptor

    def take(self) -> None:
        try:
            self.seen += os.read(self._descriptor, 65_536).decode(errors="replace")
        except OSError:  # the other end was closed
            asyncio.get_running_loop().remove_reader(self._descriptor)

    async def shows(self, text: str) -> None:
        await eventually(lambda: text in self.seen or self._over(), timeout=_TIMEOUT)
        assert text in self.seen, self.seen

    def type(self, keys: str) -> None:
        os.write(self._descriptor, keys.encode())

    async def ended(self) -> int:
        async with asyncio.timeout(_TIMEOUT):
            return await self.process.wait()

    def _over(self) -> bool:
        return self.process.returncode is not None
