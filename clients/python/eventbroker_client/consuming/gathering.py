"""Deliveries gathered for a handler of batches: until there are enough, or the first has waited long enough."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventbroker_client.consuming.delivery import Delivery
    from eventbroker_client.consuming.handler import Handler


class Gathering:
    """`full` is called with each batch."""

    def __init__(self, handler: Handler, full: Callable[[Handler, list[Delivery]], None]) -> None:
        self._handler = handler
        self._full = full
        self._gathered: list[Delivery] = []
        self._timer: asyncio.TimerHandle | None = None

    def put(self, delivery: Delivery) -> None:
        self._gathered.append(delivery)
        if len(self._gathered) >= self._handler.batch_events:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._handler.batch_wait, self._flush)

    def clear(self) -> list[Delivery]:
        """Takes out what has not made a batch yet."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        gathered, self._gathered = self._gathered, []
        return gathered

    def _flush(self) -> None:
        if batch := self.clear():
            self._full(self._handler, batch)
