"""The HTTP server: a part of the broker, in its loop, which leaves signals to it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import uvicorn

from eventbroker_server.broker.tasks import end, wait_for
from eventbroker_server.domain.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from starlette.applications import Starlette

_CLOSING = 2  # seconds that answers under way have at the end


class _Server(uvicorn.Server):
    """Stops when it is told to, not by a signal, and at once."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.begun = asyncio.Event()
        self._over = asyncio.Event()

    def stop(self) -> None:
        self.should_exit = True
        self._over.set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.begun.set()

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # which renews the date that answers bear
            await wait_for(self._over, 1.0)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self.server_state.connections:
            await super().shutdown(sockets)  # waits a little, even for nothing
        self.close()

    def close(self) -> None:
        for server in self.servers:
            server.close()


@asynccontextmanager
async def serving_http(app: Starlette, host: str, port: int, tasks: asyncio.TaskGroup) -> AsyncIterator[str]:
    """Answer requests; tells the URL. Raises BadSetting."""
    host = host.strip("[]")
    listener = _listen(host, port)
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        limit_concurrency=100,
        timeout_graceful_shutdown=_CLOSING,
    )
    server = _Server(config)
    task = tasks.create_task(server.serve([listener]), name="http")
    try:
        await server.begun.wait()
        yield f"http://{f'[{host}]' if ':' in host else host}:{listener.getsockname()[1]}"
    finally:
        server.stop()
        await asyncio.wait([task], timeout=2 * _CLOSING)
        await end([task])
        server.close()
        listener.close()


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen()
    except OSError as exc:
        listener.close()
        rule = f"{port} cannot be listened to on {host}: is it in use? EVENTBROKER_HTTP_PORT sets another, -1 none"
        raise BadSetting("http_port", rule) from exc
    listener.setblocking(False)
    return listener
