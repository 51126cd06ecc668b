"""Deliveries whose entry was trimmed while it was pending."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.ack_id import RETRY
from eventbroker_server.redis.keys import NOBODY
from eventbroker_server.redis.script import Index, Scripted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.ports import Holding


class Rescuing(Scripted):
    """Part of RedisStreams."""

    async def _rescue(
        self, shard: int, group: str, generation: int, trimmed: Sequence[Holding]
    ) -> list[Holding | None]:
        """Move deliveries into the retry stream, with whom they are with. None for those that are not the latest."""
        keys = self._keys(shard)
        index = Index()
        items = index.held(trimmed)
        names = [keys.state(group), keys.extended(group), keys.failing(group), keys.queued(group), keys.adrift(group)]
        names += [keys.signals, *self._lanes(keys, group, generation, index.types)]
        numbers = await self._run("rescue", names, group, generation, self.process, NOBODY, *items)
        return [
            holding._replace(stream=RETRY, retry=number) if number else None
            for holding, number in zip(trimmed, numbers, strict=True)
        ]
