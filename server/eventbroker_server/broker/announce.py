"""What happens to groups, told as ordinary events of the reserved tenant `_broker`: anyone can subscribe to them.

They are told as well as can be: what waits in memory when a broker dies is not told. The tables they tell of are the
truth. A group of that tenant is not told of itself.
"""

from __future__ import annotations

import asyncio
import json
import logging
import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from eventbroker_server.broker.figures import label
from eventbroker_server.domain.errors import BrokerError, Overloaded, StoreUnavailable
from eventbroker_server.domain.event import SYSTEM_TENANT, DataForm, Event, Metadata
from eventbroker_server.domain.principal import Principal, Role

if TYPE_CHECKING:
    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.broker.publishing import Publishing
    from eventbroker_server.domain.group import GroupKey
    from eventbroker_server.ports import Died

log = logging.getLogger(__name__)

_MOST_WAITING = 10_000
_ITSELF = Principal("broker", frozenset({Role.PUBLISH}), SYSTEM_TENANT)


class Announcer:
    """`tell` never waits; `run` publishes."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures
        self._waiting: asyncio.Queue[Event] = asyncio.Queue(_MOST_WAITING)

    def tell(self, what: str, key: GroupKey, once: str = "", **details: object) -> None:
        """Tell `broker.group.<what>` of a group. Whatever is told under the same `once` is told once."""
        if key.tenant == SYSTEM_TENANT:
            return
        name = f"{what} {key} {once}"
        event = Event(
            tenant_id=SYSTEM_TENANT,
            event_id=str(uuid.uuid5(uuid.NAMESPACE_OID, name) if once else uuid.uuid4()),
            event_type=f"broker.group.{what}",
            event_version="v1.0",
            aggregate_type="Group",
            aggregate_id=str(key)[:256],
            user_id="",
            session_id="",
            request_id="",
            correlation_id="",
            timestamp=datetime.now(UTC),
            form=DataForm.JSON,
            content_type="",
            content=json.dumps({"group": key.name, "tenant_id": key.tenant_id} | details).encode(),
            metadata=Metadata(source="eventbroker"),
        )
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            log.warning("too much to tell; not told", extra={"event_type": event.event_type, "group": str(key)})

    def died(self, key: GroupKey, shard: int, died: Died) -> None:
        """Tell that an event was given up, and count it."""
        self._figures.of(died.event_type, label(key)).dead_lettered += 1
        details = died._asdict()
        once = f"{shard}:{died.position}:{details.pop('delivery')}"
        self.tell("dead_lettered", key, once, shard=shard, **details)

    async def run(self, publishing: Publishing) -> None:
        while True:
            event = await self._waiting.get()
            while True:
                try:
                    await publishing.publish(_ITSELF, [event])
                    break
                except (StoreUnavailable, Overloaded):
                    await asyncio.sleep(1.0)
                except BrokerError as exc:  # another broker told it, or this one is stopping
                    log.debug("not told: %s", exc)
                    break
