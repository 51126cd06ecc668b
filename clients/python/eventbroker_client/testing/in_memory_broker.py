"""The SDK's broker without a server: `async with InMemoryBroker() as broker: ...`

All code of the SDK runs as it does in production, over gRPC; only what answers is an imitation, in this process.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from eventbroker_client.broker import Broker
from eventbroker_client.connection.address import Address
from eventbroker_client.connection.connection import Connection
from eventbroker_client.events.wire import Defaults, event_of
from eventbroker_client.publishing.batcher import ROOM_BYTES, ROOM_EVENTS
from eventbroker_client.testing.memory.server import MemoryServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventbroker_client.events.event import Event


class InMemoryBroker(Broker):
    """A Broker of its own, empty at first, and gone at its end. It publishes, consumes, and reads history, aggregates
    and snapshots; by stubs on `target` there are groups and dead letters as far as the conformance cases go. To all
    else it answers UNIMPLEMENTED. It checks no credentials, and keeps all that it ever got."""

    def __init__(
        self,
        *,
        tenant: str = "test",
        source: str = "",
        timeout: float = 30.0,
        inject: Callable[[dict[str, str]], None] | None = None,
    ) -> None:
        """The arguments are those of `connect`."""
        self._timeout = timeout
        self._server = MemoryServer()
        super().__init__(self._open_memory, Defaults(tenant, source, inject), ROOM_EVENTS, ROOM_BYTES)

    @property
    def target(self) -> str:
        """Where others can connect to it: a port of this machine's own."""
        return self._server.target

    @property
    def published(self) -> list[Event]:
        """All events that are stored, of all tenants, in the order of their positions."""
        return [event_of(message) for message in self._server.log.events]

    async def __aenter__(self) -> Self:
        await self._server.start()
        return await super().__aenter__()

    async def __aexit__(self, *exc: object) -> None:
        try:
            await super().__aexit__(*exc)
        finally:
            await self._server.stop()

    def _open_memory(self) -> Connection:
        return Connection(Address(self._server.target, None), timeout=self._timeout)
