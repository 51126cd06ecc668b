"""Both engines on one data directory: locked, started together, stopped in the mirror order.

When embedded_engines hands them out, both answer; when it ends, both are gone and the directory is free again.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

from eventbroker_server.engines.data_dir import open_data_dir
from eventbroker_server.engines.postgres import run_postgres
from eventbroker_server.engines.valkey import run_valkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from eventbroker_server.engines.process import EmbeddedEngine


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines that were asked for."""

    postgres: EmbeddedEngine | None
    valkey: EmbeddedEngine | None

    async def wait_failed(self) -> NoReturn:
        """Wait until an engine is beyond restarting, and raise its EngineError; never return."""
        tasks = [
            asyncio.create_task(engine.wait_failed(), name=f"{engine.name} failed")
            for engine in (self.postgres, self.valkey)
            if engine
        ]
        try:
            await asyncio.gather(*tasks)
            await asyncio.Event().wait()  # no engine was asked for
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        raise AssertionError


@asynccontextmanager
async def embedded_engines(
    data_dir: Path,
    *,
    postgres: bool,
    valkey: bool,
    postgres_bin: str = "",
    valkey_bin: str = "",
) -> AsyncIterator[Engines]:
    """Run the engines asked for in data_dir. Raises EngineError if one cannot run, or another broker has data_dir."""
    async with AsyncExitStack() as stack:
        home = await stack.enter_async_context(open_data_dir(data_dir))
        wanted: list[AbstractAsyncContextManager[EmbeddedEngine]] = []
        if postgres:
            wanted.append(run_postgres(home, postgres_bin))
        if valkey:
            wanted.append(run_valkey(home, valkey_bin))
        running = []
        for outcome in await asyncio.gather(*map(stack.enter_async_context, wanted), return_exceptions=True):
            if isinstance(outcome, BaseException):
                raise outcome
            running.append(outcome)
        yield Engines(
            postgres=running[0] if postgres else None,
            valkey=running[-1] if valkey else None,
        )


@asynccontextmanager
async def embedded_postgres(data_dir: Path, bin_dir: str = "") -> AsyncIterator[EmbeddedEngine]:
    """Run PostgreSQL alone in data_dir."""
    async with embedded_engines(data_dir, postgres=True, valkey=False, postgres_bin=bin_dir) as engines:
        assert engines.postgres  # noqa: S101 - for the type checker
        yield engines.postgres


@asynccontextmanager
async def embedded_valkey(data_dir: Path, binary: str = "") -> AsyncIterator[EmbeddedEngine]:
    """Run Valkey alone in data_dir."""
    async with embedded_engines(data_dir, postgres=False, valkey=True, valkey_bin=binary) as engines:
        assert engines.valkey  # noqa: S101 - for the type checker
        yield engines.valkey
