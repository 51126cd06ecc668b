"""What those who read history as a stream need of PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.domain.history import EventFilter


class Read(NamedTuple):
    """All events up to the position `reached` that were asked for, in order."""

    events: list[StoredEvent]
    reached: int


class EventReader(Protocol):
    """A shard of the log, in the order of positions."""

    async def page(self, shard: int, tenant: str, asked: EventFilter, after: int, upto: int) -> Read:
        """The next events at positions after < p <= upto that are asked for of a tenant, or of all. Looks at a bounded
        number of positions, so there may be none and it still moves: reached > after, if upto is. Of some events,
        4 MiB, or one."""
