"""Following a group: a delivery learns what was changed about its group in PostgreSQL, wherever that was done.

A signal tells when to look; whoever did not hear it looks every few seconds.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from eventbroker_server.broker.delivery import Delivery
    from eventbroker_server.ports import GroupStore

log = logging.getLogger(__name__)


class Follower:
    """`run` looks every so many seconds, and at once after `look`."""

    def __init__(self, delivery: Delivery, groups: GroupStore, every: float) -> None:
        self._delivery = delivery
        self._groups = groups
        self._every = every
        self._changed = asyncio.Event()

    def look(self) -> None:
        self._changed.set()

    async def run(self) -> None:
        while True:
            await wait_for(self._changed, self._every)
            self._changed.clear()
            try:
                await self.follow()
            except StoreUnavailable as exc:  # the next look tells
                log.info("cannot look for changes: %s", exc, extra={"group": self._delivery.name})

    async def follow(self) -> None:
        """Look once. Raises StoreUnavailable."""
        delivery = self._delivery
        group = await self._groups.find(delivery.group.key)
        if group is None:
            delivery.dissolve()
            return
        for membership in delivery.memberships:  # first: resumed after a seek, it goes on at its new place
            if await membership.sought():
                delivery.wake()
        if group != delivery.group:
            delivery.adopt(group)
