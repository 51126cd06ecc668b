"""What becomes of deliveries in Redis: settled, extended, handed back, failed, tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.ports import (
    Holding,
    Outcome,
    Waiting,
)
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import FAILING, NOBODY
from eventbroker_server.redis.rescuing import Rescuing
from eventbroker_server.redis.script import Index, entry_id, fresh

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from eventbroker_server.domain.ack_id import AckId, Lane
    from eventbroker_server.ports import Entry


_DONE, _TRIMMED = 1, 4
_OUTCOMES = {_DONE: Outcome.DONE, 2: Outcome.ALREADY_SETTLED, 3: Outcome.OUTDATED, _TRIMMED: Outcome.OUTDATED}
_MOST_RETRIES = 1_000  # unread in a retry stream, with which no more are put there


class Settling(Rescuing):
    """Part of RedisStreams."""

    async def settle(self, deliveries: Sequence[AckId]) -> list[Outcome]:
        lane, streams, items = self._fenced(deliveries)
        keys = self._keys(lane.shard)
        names = [keys.state(lane.group), keys.extended(lane.group), keys.signals]
        names += [keys.queued(lane.group), keys.done(lane.group), keys.adrift(lane.group), *streams]
        args = (lane.group, lane.generation, lane.consumer, self._to_tell(lane.consumer))
        return [_OUTCOMES[code] for code in await self._run("settle", names, *args, *items)]

    async def extend(self, deliveries: Sequence[AckId], seconds: float) -> list[Outcome]:
        lane, streams, items = self._fenced(deliveries)
        keys = self._keys(lane.shard)
        names = [keys.state(lane.group), keys.extended(lane.group), keys.signals, keys.adrift(lane.group), *streams]
        args = (lane.group, lane.generation, lane.consumer, self._to_tell(lane.consumer), int(seconds * 1000))
        return [_OUTCOMES[code] for code in await self._run("extend", names, *args, *items)]

    def _fenced(self, deliveries: Sequence[AckId]) -> tuple[Lane, list[str], list[object]]:
        lane = deliveries[0].lane
        index = Index()
        items: list[object] = []
        for (_, _, _, stream, _), position, number, retry in deliveries:
            items += (index[stream], entry_id(position, retry), number, position)
        return lane, self._lanes(self._keys(lane.shard), lane.group, lane.generation, index.types), items

    async def hand_back(
        self, shard: int, group: str, generation: int, holdings: Sequence[Holding], *, tell: bool = False
    ) -> list[Outcome]:
        outcomes, _ = await self._take_away(shard, group, generation, holdings, to=NOBODY, tell=tell)
        if Outcome.DONE in outcomes:
            self._returned.add(self._keys(shard).state(group))
        return outcomes

    async def set_aside(
        self,
        shard: int,
        group: str,
        generation: int,
        holdings: Sequence[Holding],
        *,
        note: str,
        spare_extended: bool,
        tell: bool = False,
    ) -> tuple[list[Outcome], list[Holding]]:
        return await self._take_away(
            shard, group, generation, holdings, to=FAILING, note=note, spare_extended=spare_extended, tell=tell
        )

    async def leave(self, shard: int, group: str, generation: int, types: Sequence[str], consumer: str) -> None:
        await self._take_away(shard, group, generation, (), to=NOBODY, types=types, leave=consumer)

    async def _take_away(
        self,
        shard: int,
        group: str,
        generation: int,
        holdings: Sequence[Holding],
        *,
        to: str,
        note: str = "",
        spare_extended: bool = False,
        tell: bool = False,
        types: Sequence[str] = (),
        leave: str = "",
    ) -> tuple[list[Outcome], list[Holding]]:
        """The outcome of each, and those that were done, as they are now."""
        keys = self._keys(shard)
        index = Index()
        for event_type in types:
            index[event_type]
        items = index.held(holdings)
        names = [keys.state(group), keys.extended(group), keys.signals, keys.failing(group), keys.adrift(group)]
        names += self._lanes(keys, group, generation, index.types)
        told = self._to_tell(holdings[0].consumer) if tell and holdings else ""
        args = (group, generation, self.process, to, int(to == NOBODY), int(spare_extended), leave, told, note)
        codes = await self._run("hand_back", names, *args, *items)
        outcomes = [_OUTCOMES[code] for code in codes]
        done = [holding for holding, code in zip(holdings, codes, strict=True) if code == _DONE]
        if trimmed := [number for number, code in enumerate(codes) if code == _TRIMMED]:
            rescued = await self._rescue(shard, group, generation, [holdings[number] for number in trimmed])
            again = {number: holding for number, holding in zip(trimmed, rescued, strict=True) if holding}
            if again:
                found, moved = await self._take_away(
                    shard,
                    group,
                    generation,
                    list(again.values()),
                    to=to,
                    note=note,
                    spare_extended=spare_extended,
                    tell=tell,
                )
                done += moved
                for number, outcome in zip(again, found, strict=True):
                    outcomes[number] = outcome
        return outcomes, done

    async def forget(
        self,
        shard: int,
        group: str,
        generation: int,
        holdings: Sequence[Holding],
        *,
        dead: Collection[int] = (),
        hold: bool = False,
    ) -> None:
        keys = self._keys(shard)
        index = Index()
        items: list[object] = []
        for position, stream, _, number, retry in holdings:
            items += (index[stream], entry_id(position, retry), number, position, int(position in dead))
        names = [keys.state(group), keys.queued(group), keys.failing(group), keys.adrift(group), keys.signals]
        names += self._lanes(keys, group, generation, index.types)
        await self._run("forget", names, group, generation, FAILING, self.process, int(hold), *items)

    async def requeue(
        self, shard: int, group: str, generation: int, entries: Sequence[tuple[Entry, int, Holding | None]]
    ) -> bool:
        keys = self._keys(shard)
        index = Index()
        items: list[object] = []
        for entry, failed, left in entries:
            items += (entry.position, failed, entry.tenant_id, entry.body, *index.left(left))
        names = [keys.state(group), keys.queued(group), keys.done(group), keys.failing(group), keys.signals]
        names += [keys.adrift(group), *self._lanes(keys, group, generation, index.types)]
        args = (group, generation, self.process, FAILING, _MOST_RETRIES, *items)
        return bool(fresh(await self._run("requeue", names, *args)))

    async def retried(self, shard: int, group: str) -> list[Waiting]:
        async with translated():
            done = await self._redis.hgetall(self._keys(shard).done(group))
        return [Waiting(int(position), int(failed)) for position, failed in done.items()]

    async def unmark(self, shard: int, group: str, positions: Sequence[int]) -> None:
        async with translated():
            await self._redis.hdel(self._keys(shard).done(group), *positions)
