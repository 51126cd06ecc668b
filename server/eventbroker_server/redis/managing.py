"""Looking at groups in Redis, and changing them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from redis.exceptions import ResponseError

from eventbroker_server.domain.ack_id import BACKFILL, RETRY
from eventbroker_server.domain.group import process_of
from eventbroker_server.ports import (
    Holding,
    Owned,
    Pending,
    Progress,
    Where,
    Whereabouts,
)
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import FAILING, NOBODY
from eventbroker_server.redis.script import Scripted, entry_id, fresh, place

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence


_MOST_HOLDINGS = 10_000


class Managing(Scripted):
    """Part of RedisStreams."""

    async def holdings(
        self, shard: int, group: str, generation: int, types: Sequence[str], *, consumer: str = "", idle: float = 0.0
    ) -> list[Holding]:
        keys = self._keys(shard)
        names = [keys.state(group), keys.extended(group), *self._lanes(keys, group, generation, types)]
        args = (group, generation, consumer, int(idle * 1000), _MOST_HOLDINGS, NOBODY, FAILING)
        streams = (BACKFILL, RETRY, *types)
        found = fresh(await self._run("holdings", names, *args))
        return [
            Holding(position, streams[lane], name.decode(), number, retry)
            for lane, entry_id, name, number in found
            for position, retry in [place(streams[lane], entry_id)]
        ]

    async def set_aside_before(
        self, shard: int, group: str, generation: int, types: Sequence[str], idle: float
    ) -> list[tuple[Holding, str]]:
        found = await self.holdings(shard, group, generation, types, consumer=FAILING, idle=idle)
        if not found:
            return []
        ids = [entry_id(holding.position, holding.retry) for holding in found]
        async with translated():
            notes = await self._redis.hmget(self._keys(shard).failing(group), ids)
        return [(holding, (note or b"").decode()) for holding, note in zip(found, notes, strict=True)]

    async def whereabouts(self, shard: int, group: str, generation: int, event_type: str, position: int) -> Whereabouts:
        keys = self._keys(shard)
        names = [keys.head, keys.state(group), keys.extended(group)]
        names += self._lanes(keys, group, generation, [event_type])
        code, *told = await self._run("whereabouts", names, group, generation, position)
        if Where(code) is Where.BEHIND:
            return Whereabouts(Where.BEHIND, before=told[0])
        if not told:
            return Whereabouts(Where(code))
        consumer, idle, extended = told
        until = datetime.fromtimestamp(extended / 1000, UTC) if extended else None
        return Whereabouts(Where(code), consumer.decode(), idle / 1000, until)

    async def progress(
        self,
        shard: int,
        group: str,
        generation: int,
        types: Collection[str],
        known: int,
        filter_text: str = "",
        most: int = 0,
    ) -> Progress:
        keys = self._keys(shard)
        # What waits in the retry stream has a row in PostgreSQL.
        names = [keys.head, keys.state(group), keys.types, keys.adrift(group), keys.backfill(group, generation)]
        names += map(keys.events, types)
        args = (group, generation, known, filter_text, most)
        head, settled, oldest, *told = fresh(await self._run("progress", names, *args))
        through, but = told or (0, ())
        return Progress(head, settled, oldest if oldest >= 0 else None, through, tuple(sorted(but)))

    async def delete_group(self, shard: int, group: str, generation: int, types: Collection[str]) -> None:
        keys = self._keys(shard)
        async with translated(), self._redis.pipeline(transaction=False) as pipe:
            for event_type in types:
                pipe.xgroup_destroy(keys.events(event_type), group)
            state = [keys.state(group), keys.extended(group), keys.queued(group), keys.done(group)]
            state += (keys.failing(group), keys.adrift(group))
            pipe.unlink(*state, *keys.all_lines(group), *self._lanes(keys, group, generation, ()))
            pipe.hdel(keys.ephemeral, group)  # last: who is cut off before is followed by a reaper
            await pipe.execute(raise_on_error=False)

    async def own(self, shard: int, group: str, generation: int) -> None:
        async with translated():
            await self._redis.hset(self._keys(shard).ephemeral, group, f"{generation} {self.process}")

    async def owned(self, shard: int) -> list[Owned]:
        async with translated():
            found = await self._redis.hgetall(self._keys(shard).ephemeral)
        noted = ((group.decode(), *value.decode().split(" ", 1)) for group, value in found.items())
        return [Owned(group, int(generation), process) for group, generation, process in noted]

    async def filter_of(self, shard: int, group: str) -> str | None:
        async with translated():
            told = await self._redis.hget(self._keys(shard).state(group), "filter")
        return None if told is None else told.decode()

    async def refilter(
        self, shard: int, group: str, told: str, wanted: str, known: int, join: Sequence[str], leave: Sequence[str]
    ) -> None:
        keys = self._keys(shard)
        names = [keys.head, keys.types, keys.state(group), *map(keys.events, join), *map(keys.events, leave)]
        fresh(await self._run("refilter", names, group, told, wanted, known, len(join)))

    async def enroll(self, shard: int, group: str, generation: int, consumer: str) -> None:
        async with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.xgroup_createconsumer(self._keys(shard).backfill(group, generation), group, consumer)
            await pipe.execute(raise_on_error=False)

    async def consumers(self, shard: int, group: str, generation: int, types: Collection[str]) -> list[Pending]:
        async with translated(), self._redis.pipeline(transaction=False) as pipe:
            for lane in self._lanes(self._keys(shard), group, generation, types):
                pipe.xinfo_consumers(lane, group)
            replies = await pipe.execute(raise_on_error=False)
        held: dict[str, int] = {}
        for reply in replies:
            for found in () if isinstance(reply, ResponseError) else reply:
                name = found["name"].decode()
                if process_of(name) != name:  # the others hold what was handed back
                    held[name] = held.get(name, 0) + found["pending"]
        return [Pending(name, held[name]) for name in sorted(held)]
