"""The lines of groups that are fed in turn, in Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.ports import Holding
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import FAILING
from eventbroker_server.redis.script import Index, Scripted, fresh, state_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.ports import Bringing, GroupState, InLine, Line, Waiting

_LATER_MS = 10_000  # what it waits for is due at some time, and goes before it then


class Ordering(Scripted):
    """Part of RedisStreams."""

    async def feed_lines(
        self, shard: int, group: str, state: GroupState, upto: int, entries: Sequence[InLine], filter_text: str
    ) -> GroupState:
        keys, generation = self._keys(shard), state.generation
        names = [keys.state(group), *self._lanes(keys, group, generation, ()), keys.signals, keys.head]
        args: list[object] = [group, generation, state.fed, upto, self.process, filter_text]
        for (position, _, tenant, body), (line, slots_of), ask in entries:
            args += (position, tenant, body, line, slots_of, int(ask))
        return state_of(await self._run("feed_lines", names, *args))

    async def line_up(
        self, shard: int, group: str, generation: int, events: Sequence[tuple[Waiting, Line, Holding | None]]
    ) -> list[int]:
        keys = self._keys(shard)
        names = [keys.state(group), keys.queued(group), keys.done(group), keys.failing(group), keys.signals]
        index = Index()
        args: list[object] = [group, generation, self.process, FAILING]
        for (position, failed), line, left in events:
            args += (position, failed, *line, *index.left(left))
        names += self._lanes(keys, group, generation, ())
        left_out: list[int] = fresh(await self._run("line_up", names, *args))
        return left_out

    async def released(self, shard: int, group: str, most: int) -> dict[int, float]:
        async with translated():
            found = await self._redis.zrange(self._keys(shard).released(group), 0, most - 1, withscores=True)
        return {int(position): since for position, since in found}

    async def bring(
        self, shard: int, group: str, generation: int, decisions: Sequence[Bringing], filter_text: str
    ) -> None:
        keys = self._keys(shard)
        names = [keys.state(group), keys.queued(group), keys.done(group), keys.signals, keys.retry(group, generation)]
        args: list[object] = [group, generation, self.process, filter_text, _LATER_MS]
        for position, since, what, failed, tenant, body in decisions:
            args += (position, f"{since:.0f}", what.value, "" if failed is None else failed, tenant, body)
        fresh(await self._run("bring", names, *args))
