"""A broker that goes away and comes back at the same address."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import BrokerProcess


class Restarts:
    def __init__(self, spawn: Callable[..., Awaitable[BrokerProcess]], process: BrokerProcess) -> None:
        self._spawn = spawn
        self._process = process
        self.target = process.target

    async def kill(self) -> None:
        await self._process.kill()

    async def stop(self) -> None:
        """As a deployment would."""
        self._process.signal(signal.SIGTERM)
        await self._process.ended()

    async def start(self) -> None:
        self._process = await self._spawn(PORT=self.target.rpartition(":")[2])
