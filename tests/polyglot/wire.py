"""A TCP port in front of a broker that stays the same while brokers come and go, and that can break connections."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from asyncio import StreamReader, StreamWriter
    from collections.abc import Callable


class Wire:
    """`target` is what clients connect to; `broker`, HOST:PORT, is where it leads now. None: nowhere."""

    def __init__(self) -> None:
        self.broker: str | None = None
        self._open: set[Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._lost = b""  # the first answer with these bytes does not arrive

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.target = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    def cut(self) -> None:
        """Break all connections; new ones are let through."""
        for connection in self._open:
            connection.abort()

    def lose_answer(self, marked: bytes) -> None:
        """Break the connection on which the broker is the first to say these bytes, instead of passing them on."""
        self._lost = marked

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            if self.broker is None:
                return
            host, _, port = self.broker.rpartition(":")
            from_broker, to_broker = await asyncio.open_connection(host, int(port))
        except OSError:
            return
        else:
            connection = Connection(writer, to_broker)
            self._open.add(connection)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(connection.pass_on(reader, to_broker, lambda _: True))
                    tasks.create_task(connection.pass_on(from_broker, writer, self._arrives()))
            finally:
                self._open.discard(connection)
                connection.abort()
        finally:
            writer.transport.abort()

    def _arrives(self) -> Callable[[bytes], bool]:
        begun = b""  # the end of what came since there is a mark to look for: it may come in two pieces

        def arrives(data: bytes) -> bool:
            nonlocal begun
            seen = begun + data
            if self._lost and self._lost in seen:
                self._lost = b""
                return False
            begun = seen[-500:] if self._lost else b""
            return True

        return arrives


class Connection:
    """Both ends of one."""

    def __init__(self, client: StreamWriter, broker: StreamWriter) -> None:
        self._writers = (client, broker)

    def abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def pass_on(self, source: StreamReader, sink: StreamWriter, passes: Callable[[bytes], bool]) -> None:
        """Until either end closes; then neither is of use any more."""
        with suppress(OSError):
            while data := await source.read(1 << 18):
                if not passes(data):
                    break
                sink.write(data)
                await sink.drain()
        self.abort()
