"""How long dead letters are kept: looks again and again for those that are past the retention of their group.

Any number of brokers may do this at once. Nothing hangs on its being in time, so what fails is left to the next look.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import StoreUnavailable

if TYPE_CHECKING:
    from eventbroker_server.ports import DeadLetterStore

log = logging.getLogger(__name__)


class Retention:
    """`run` looks at once, and then every `interval` seconds."""

    def __init__(self, dead_letters: DeadLetterStore, interval: float) -> None:
        self._dead_letters = dead_letters
        self._interval = interval

    async def run(self) -> None:
        while True:
            try:
                if purged := await self._dead_letters.purge():
                    log.info("dead letters purged", extra={"dead_letters": purged})
            except StoreUnavailable as exc:
                log.warning("cannot purge dead letters: %s", exc)
            await asyncio.sleep(self._interval)
