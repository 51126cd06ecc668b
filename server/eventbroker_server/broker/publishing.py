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
        """Store the events of one tenant, all or none. Raises TenantForbidden, and what Writer.append raises and
        answers."""
        return await self._append(principal, Request(events, expectations))

    async def publish_each(self, principal: Principal, events: Sequence[Event]) -> list[Stored | BrokerError]:
        """Store each event for itself. Raises StoreUnavailable if the outcome of any is not known."""
        loop = asyncio.get_running_loop()

        def asked(event: Event) -> asyncio.Future[list[Stored]]:
            try:
                return self._append(principal, Request([event]))
            except BrokerError as exc:
                refused: asyncio.Future[list[Stored]] = loop.create_future()
                refused.set_exception(exc)
                return refused

        outcomes: list[Stored | BrokerError] = []
        for answer in await asyncio.gather(*map(asked, events), return_exceptions=True):
            if isinstance(answer, list):
                outcomes.append(answer[0])
            elif isinstance(answer, BrokerError) and not isinstance(answer, StoreUnavailable):
                outcomes.append(answer)
            else:
                raise answer
        return outcomes

    def _append(self, principal: Principal, request: Request) -> asyncio.Future[list[Stored]]:
        tenant = request.events[0].tenant_id
        if not principal.writes(tenant):
            raise TenantForbidden(tenant_id=tenant)
        return self._writers[shard_of(tenant, len(self._writers))].append(request)
