"""Publishing: which shard a request goes to, and on whose behalf."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker_server.broker.append import Stored
from eventbroker_server.broker.decide import Request
from eventbroker_server.domain.errors import BrokerError, StoreUnavailable, TenantForbidden
from eventbroker_server.domain.event import shard_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.broker.append import Writer
    from eventbroker_server.broker.decide import Expectation
    from eventbroker_server.domain.event import Event
    from eventbroker_server.domain.principal import Principal


class Publishing:
    """Stores events through the writers of their shards."""

    def __init__(self, writers: Sequence[Writer]) -> None:
        self._writers = writers

    async def publish(
        self, principal: Principal, events: Sequence[Event], expectations: Sequence[Expectation] = ()
    ) -> list[Stored]:
        """Store the events of one tenant, all or none. Raises TenantForbidden, and what Writer.append raises."""
        tenant = events[0].tenant_id
        if not principal.writes(tenant):
            raise TenantForbidden(tenant_id=tenant)
        writer = self._writers[shard_of(tenant, len(self._writers))]
        return await writer.append(Request(events, expectations))

    async def publish_each(self, principal: Principal, events: Sequence[Event]) -> list[Stored | BrokerError]:
        """Store each event for itself. Raises StoreUnavailable if the outcome of any is not known."""

        async def one(event: Event) -> Stored | BrokerError:
            try:
                return (await self.publish(principal, [event]))[0]
            except StoreUnavailable:
                raise
            except BrokerError as exc:
                return exc

        return await asyncio.gather(*(one(event) for event in events))
