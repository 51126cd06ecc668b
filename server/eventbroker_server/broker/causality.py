"""Finding what caused an event and what it caused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.ports import Link

if TYPE_CHECKING:
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.ports import EventLog, History

_MOST_BYTES = 4 << 20


class Causality:
    """Goes from an event to its causes and effects, from those to theirs, and so on; what else has the event's
    correlation id comes after them."""

    def __init__(self, event_log: EventLog, history: History) -> None:
        self._log = event_log
        self._history = history

    async def around(self, shard: int, stored: StoredEvent, most: int) -> tuple[list[StoredEvent], bool]:
        """The event and those around it, the nearest first and of equally near ones the oldest, and whether there are
        more than `most` or 4 MiB of data."""
        event = stored.event
        links = [Link(stored.position, event.event_id, event.metadata.caused_by, len(event.content))]
        newest = list(links)
        while newest and len(links) <= most:
            known = [link.position for link in links]
            newest = await self._history.links_near(event.tenant_id, newest, known, most + 1 - len(links))
            links += newest
        if event.correlation_id and len(links) <= most:
            known = [link.position for link in links]
            wanted = most + 1 - len(links)
            links += await self._history.links_correlated(event.tenant_id, event.correlation_id, known, wanted)
        near = [links[0].position]
        size = links[0].size
        for link in links[1:most]:
            if (size := size + link.size) > _MOST_BYTES:
                break
            near.append(link.position)
        found = {each.position: each for each in await self._log.at(shard, near)}
        return [found[position] for position in near], len(near) < len(links)
