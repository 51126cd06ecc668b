"""What a consumer has been handed and has not settled, and what it did in vain.

The deadlines of all of it are extended, also of what waits for its turn. What is handed out again while it is still
being handled here (the stream broke, or the broker restarted) goes on under its new delivery, so that nothing is
handled twice side by side. What was handled, but could not be acked in time, is acked unseen when it comes again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING

from eventbroker_client.consuming.settling import Extend, Outcome
from eventbroker_client.errors import EventBrokerError

if TYPE_CHECKING:
    from eventbroker_client.consuming.delivery import Delivery
    from eventbroker_client.consuming.feed import Feed

    Key = tuple[str, str]

log = logging.getLogger("eventbroker_client")

REMEMBERED = 10_000  # events that were handled in vain
LOOKS = 4  # at what is held, within one deadline


class Holdings:
    """What is held is extended for at most `max_extension` seconds."""

    def __init__(self, max_extension: float) -> None:
        self._max_extension = max_extension
        self._held: dict[Key, tuple[Delivery, float]] = {}  # and since when
        self._in_vain: OrderedDict[Key, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def take(self, delivery: Delivery) -> bool:
        """Whether it is news; if not, one that is held goes on as this one."""
        held, _ = self._held.get(delivery.key, (None, 0.0))
        if held is not None and not held.settled and not delivery.is_replay:
            held.renew(delivery)
            return False
        self._held[delivery.key] = (delivery, asyncio.get_running_loop().time())
        return True

    def drop(self, delivery: Delivery) -> None:
        """It is about to be settled."""
        if self._held.get(delivery.key, (None, 0.0))[0] is delivery:
            del self._held[delivery.key]

    def handled_in_vain(self, delivery: Delivery) -> None:
        """It was handled, and its ack came too late."""
        self._in_vain[delivery.key] = None
        while len(self._in_vain) > REMEMBERED:
            self._in_vain.popitem(last=False)

    def was_handled(self, delivery: Delivery) -> bool:
        """Whether it was handled in vain before; a replay is to be handled again."""
        known = delivery.key in self._in_vain
        self._in_vain.pop(delivery.key, None)
        return known and not delivery.is_replay

    async def keep(self, feed: Feed) -> None:
        """Extends the deadlines of what came from there, until it is cancelled."""
        loop = asyncio.get_running_loop()
        await asyncio.wait([feed.opened])
        while True:
            every = feed.ack_deadline / LOOKS
            await asyncio.sleep(every)
            now = loop.time()
            old = [
                delivery
                for delivery, since in self._held.values()
                if not delivery.settled and every / 2 < now - since < self._max_extension
            ]
            if not old:
                continue
            try:
                ids = [delivery.ack_id for delivery in old]
                outcomes = await feed.settler.settle_all(ids, Extend(max(1.0, feed.ack_deadline)))
            except EventBrokerError as error:
                log.warning("the deadlines of %d events could not be extended (%s)", len(old), error)
                continue
            if late := sum(outcome is Outcome.OUTDATED for outcome in outcomes):
                log.warning("%d of %d events were lost before their deadlines were extended", late, len(old))
