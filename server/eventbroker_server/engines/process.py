"""One engine's process: started, awaited, watched, restarted, stopped.

Every wait has a bound. An engine that dies is restarted; one that keeps dying is given up, which wait_failed tells.
It is told to end in order first, and firmly only if it does not.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections import deque
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from eventbroker_server.domain.errors import EngineError
from eventbroker_server.engines.child import died, spawn

if TYPE_CHECKING:
    from asyncio.subprocess import Process
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker_server.engines.data_dir import DataDir

logger = logging.getLogger(__name__)

READY_WITHIN = 30.0  # seconds of an engine that says nothing
RECOVERED_WITHIN = 600.0  # of one that says it is reading its log after a crash
STOPPED_WITHIN = 10.0  # before it is told more firmly
KILLED_WITHIN = 5.0
POLL = 0.02
DEATHS, DEATHS_WITHIN = 5, 60.0  # so many within so many seconds, and it is given up
BACK_OFF = 0.1  # seconds before the first restart; doubles with every death


class Health(Enum):
    SILENT = auto()
    RECOVERING = auto()
    READY = auto()


@dataclass(frozen=True, slots=True)
class Program:
    """How to run an engine."""

    name: str
    version: str
    url: str
    argv: tuple[str, ...]
    cwd: Path
    log: Path
    health: Callable[[int], Awaitable[Health]]  # of the process with this pid
    before_start: Callable[[], None]
    stop: signal.Signals  # asks it to end in order
    kill: signal.Signals  # ends it at once


class EmbeddedEngine:
    """An engine that runs. What it is stays the same over restarts, but for the pid."""

    def __init__(self, program: Program, home: DataDir) -> None:
        self.name, self.version, self.url = program.name, program.version, program.url
        self.bin = Path(program.argv[0])
        self._program, self._home = program, home
        self._process: Process | None = None
        self._watch: asyncio.Task[NoReturn] | None = None

    @property
    def pid(self) -> int:
        assert self._process  # noqa: S101 - handed out only while it runs
        return self._process.pid

    async def wait_failed(self) -> NoReturn:
        """Wait until the engine is given up, and raise why (an EngineError); never return."""
        assert self._watch  # noqa: S101 - handed out only while it runs
        await asyncio.shield(self._watch)
        raise AssertionError

    async def start(self) -> None:
        program = self._program
        program.before_start()
        with program.log.open("ab") as log:
            said = log.tell()
            self._process = await spawn(
                program.argv, self._home, cwd=program.cwd, output=log.fileno(), on_broker_death=program.stop
            )
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (health := await program.health(self.pid)) is not Health.READY:
            if self._process.returncode is not None:
                raise died(f"{self.name} ended with code {self._process.returncode} at its start", program.log, said)
            if loop.time() - began > (RECOVERED_WITHIN if health is Health.RECOVERING else READY_WITHIN):
                raise died(f"{self.name} was not ready within {loop.time() - began:.0f} s", program.log, said)
            await asyncio.sleep(POLL)
        logger.info("%s %s is ready, pid %d, after %.2f s", self.name, self.version, self.pid, loop.time() - began)

    def watch(self) -> None:
        """Restart it from now on whenever it dies."""
        self._watch = asyncio.create_task(self._restart_for_ever(), name=f"watch {self.name}")

    async def _restart_for_ever(self) -> NoReturn:
        loop = asyncio.get_running_loop()
        deaths: deque[float] = deque(maxlen=DEATHS)
        while True:
            assert self._process  # noqa: S101 - start comes before watch
            code = await self._process.wait()
            while deaths and loop.time() - deaths[0] > DEATHS_WITHIN:
                deaths.popleft()
            deaths.append(loop.time())
            if len(deaths) == DEATHS:
                raise died(f"{self.name} died {DEATHS} times within {DEATHS_WITHIN:.0f} s", self._program.log, 0)
            logger.warning("%s died with code %d and is restarted", self.name, code)
            await asyncio.sleep(BACK_OFF * 2 ** (len(deaths) - 1))
            try:
                await self.start()
            except EngineError as exc:
                logger.warning("%s did not come back: %s", self.name, exc)
                await self._end()

    async def stop(self) -> None:
        """End it, in order if it manages to in time, and stop watching it. Takes at most 20 s."""
        if self._watch:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        await self._end()

    async def _end(self) -> None:
        process = self._process
        for number, patience in (
            (self._program.stop, STOPPED_WITHIN),
            (self._program.kill, KILLED_WITHIN),
            (signal.SIGKILL, KILLED_WITHIN),
        ):
            if process is None or process.returncode is not None:
                return
            with suppress(ProcessLookupError):
                process.send_signal(number)
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), patience)
                return
            logger.warning("%s did not end within %.0f s of %s", self.name, patience, number.name)


@asynccontextmanager
async def running(program: Program, home: DataDir) -> AsyncIterator[EmbeddedEngine]:
    """Run the program as an engine that is watched. Raises EngineError if it does not get ready."""
    engine = EmbeddedEngine(program, home)
    try:
        await engine.start()
        engine.watch()
        yield engine
    finally:
        await asyncio.shield(engine.stop())
