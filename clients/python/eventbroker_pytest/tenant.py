"""What the fixture gives a test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventbroker_client import BlockingPublisher, connect

if TYPE_CHECKING:
    from eventbroker_client import Broker


@dataclass(frozen=True, slots=True)
class Tenant:
    """A tenant that nobody else uses. `target` and `tenant` are what `connect` wants of a program under test."""

    target: str
    tenant: str

    def connect(self, **options: Any) -> Broker:
        """As `eventbroker_client.connect`, with the same options. Works in any event loop, and several times."""
        return connect(self.target, **({"tenant": self.tenant} | options))

    def blocking(self, **options: Any) -> BlockingPublisher:
        """As BlockingPublisher.connect, for tests without asyncio."""
        return BlockingPublisher.connect(self.target, **({"tenant": self.tenant} | options))
