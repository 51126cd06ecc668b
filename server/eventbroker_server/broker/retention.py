"""How long something is kept: looks again and again for what may go, such as dead letters past the retention of their
group.

Any number of brokers may do this at once. Nothing hangs on its being in time, so what fails is left to the next look.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from eventbroker_server.ports import DeadLetterStore, SettledInSql

log = logging.getLogger(__name__)


class Retention:
    """`run` looks at once, and then every `interval` seconds."""

    def __init__(self, store: DeadLetterStore | SettledInSql, interval: float, what: str) -> None:
        self._store = store
        self._what = what
        self._interval = interval

    async def run(self) -> None:
        while True:
            try:
                if purged := await self._store.purge():
                    log.info("%s purged", self._what, extra={"rows": purged})
            except StoreUnavailable as exc:
                log.warning("cannot purge %s: %s", self._what, exc)
            await asyncio.sleep(self._interval)
