"""A TCP port in front of a store's Unix socket, which can be cut, frozen, or lose one reply."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import parse_qs, unquote, urlsplit, urlunsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(eq=False)
class _Connection:
    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    deaf: bool = False  # the client hears no more of the server

    def abort(self) -> None:
        self.client.transport.abort()
        self.server.transport.abort()


@dataclass
class Swallowed:
    """A reply that is to be lost: the first to a request that contains all these bytes."""

    contains: tuple[bytes, ...]
    bit: asyncio.Event = field(default_factory=asyncio.Event)


class Proxy:
    """`url` is the store's, by way of this proxy."""

    def __init__(self, url: str) -> None:
        """`url`: of PostgreSQL or Valkey, as the embedded engines tell it."""
        self._store = urlsplit(url)
        self._connections: set[_Connection] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self._is_cut = False
        self._to_swallow: Swallowed | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self._port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        for task in tuple(self._serving):
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    @property
    def _socket(self) -> str:
        if self._store.scheme == "unix":
            return unquote(self._store.path)
        query = parse_qs(self._store.query)
        return f"{query['host'][0]}/.s.PGSQL.{query['port'][0]}"

    @property
    def url(self) -> str:
        address = f"127.0.0.1:{self._port}"
        if self._store.scheme == "unix":
            return f"redis://{address}/0"
        return urlunsplit(("postgresql", f"eventbroker@{address}", self._store.path, "sslmode=disable", ""))

    def cut(self) -> None:
        """Break all connections, and every new one."""
        self._is_cut = True
        for connection in self._connections:
            connection.abort()

    def freeze(self) -> None:
        """Connections stay, and new ones are accepted, but nothing passes until `restore`."""
        self._passing.clear()

    def restore(self) -> None:
        self._is_cut = False
        self._passing.set()

    def swallow(self, *contains: bytes) -> asyncio.Event:
        """Lose the reply to the next request that contains all of this; its connection is silent from then on. The
        event is set when the reply came and was lost."""
        self._to_swallow = Swallowed(contains)
        return self._to_swallow.bit

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)

        def served(task: asyncio.Task[None]) -> None:
            self._serving.discard(task)
            writer.transport.abort()  # also of a task that was cancelled before it began

        task.add_done_callback(served)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            return
        try:
            from_server, to_server = await asyncio.open_unix_connection(self._socket)
        except OSError:
            return
        connection = _Connection(writer, to_server)
        if self._is_cut:  # meanwhile
            connection.abort()
            return
        self._connections.add(connection)
        lost: list[Swallowed] = []

        def request(data: bytes) -> bool:
            wanted = self._to_swallow
            if wanted and all(part in data for part in wanted.contains):
                self._to_swallow, connection.deaf = None, True
                lost.append(wanted)
            return True

        def reply(_: bytes) -> bool:
            for swallowed in lost:
                swallowed.bit.set()
            return not connection.deaf

        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pass(reader, to_server, request))
                tasks.create_task(self._pass(from_server, writer, reply))
        finally:
            self._connections.discard(connection)
            connection.abort()

    async def _pass(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, passes: Callable[[bytes], bool]
    ) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 20):
                await self._passing.wait()
                if passes(data):
                    sink.write(data)
                    await sink.drain()
        sink.close()
