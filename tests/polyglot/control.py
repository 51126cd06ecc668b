"""What the conformance runners may have done to the broker: a line to a TCP port, answered with "ok" when it is done.

restart             end the broker orderly and start another one
kill                the same with SIGKILL
cut                 break all connections
lose_answer MARK    break the connection of the first answer that contains MARK instead of letting it through
"""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Awaitable, Callable

    from tests.conftest import BrokerProcess
    from tests.polyglot.wire import Wire


class Control:
    """Serves `port`, and keeps a broker running behind the wire."""

    def __init__(self, wire: Wire, spawn: Callable[[], Awaitable[BrokerProcess]]) -> None:
        self._wire = wire
        self._spawn = spawn

    async def __aenter__(self) -> Self:
        await self._start()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()

    async def _start(self) -> None:
        self._broker = await self._spawn()
        self._wire.broker = self._broker.target

    async def _end(self, number: signal.Signals) -> None:
        self._broker.signal(number)
        await self._broker.ended()
        self._wire.broker = None

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(await self._do(*line.decode().split()) + b"\n")
            await writer.drain()
        writer.close()

    async def _do(self, what: str, mark: str = "") -> bytes:
        match what:
            case "restart":
                await self._end(signal.SIGTERM)
                await self._start()
            case "kill":
                await self._end(signal.SIGKILL)
                await self._start()
            case "cut":
                self._wire.cut()
            case "lose_answer":
                self._wire.lose_answer(mark.encode())
            case _:
                return b"unknown"
        return b"ok"
