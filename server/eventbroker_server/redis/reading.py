"""Groups' side of Redis: joining streams, feeding history, reading."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from eventbroker_server.domain.ack_id import BACKFILL, RETRY
from eventbroker_server.ports import (
    GroupState,
    Holding,
    Received,
    Refiltered,
    Stale,
)
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import NOBODY
from eventbroker_server.redis.rescuing import Rescuing
from eventbroker_server.redis.script import Index, entry_id, fresh, place, state_of

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from eventbroker_server.ports import Entry, Membership


_GONE = -3


class Reading(Rescuing):
    """Part of RedisStreams."""

    async def open_group(
        self,
        shard: int,
        group: str,
        types: Collection[str],
        membership: Membership,
        *,
        make: bool,
        filter_text: str = "",
        in_turn: bool = False,
    ) -> GroupState | None:
        keys = self._keys(shard)
        names = [keys.head, keys.state(group), keys.extended(group), keys.queued(group), keys.done(group)]
        names += [keys.failing(group), keys.adrift(group)]
        names += self._lanes(keys, group, membership.generation, types)
        lines = keys.lines(group) if in_turn else ""
        args = (group, membership.generation, membership.checkpoint, int(make), filter_text, lines)
        reply = await self._run("open_group", names, *args)
        if isinstance(reply, bytes):
            raise Refiltered(reply.decode())
        return None if reply == _GONE else state_of(reply)

    async def feed(self, shard: int, group: str, state: GroupState, upto: int, entries: Sequence[Entry]) -> GroupState:
        keys = self._keys(shard)
        names = [keys.state(group), keys.backfill(group, state.generation), keys.signals]
        args = [part for entry in entries for part in (entry.position, entry.tenant_id, entry.body)]
        args = [group, state.generation, state.fed, upto, self.process, *args]
        return state_of(await self._run("feed", names, *args))

    async def turn(self, shard: int, group: str, state: GroupState, seconds: float) -> tuple[bool, float]:
        names, args = [self._keys(shard).state(group)], (state.generation, state.fed, round(seconds * 1000))
        taken, wait = fresh(await self._run("turn", names, *args))
        return bool(taken), wait / 1000

    async def read(
        self,
        shard: int,
        group: str,
        generation: int,
        consumer: str,
        types: Sequence[str],
        count: int,
        filter_text: str = "",
    ) -> list[Received]:
        keys = self._keys(shard)
        state, lanes = keys.state(group), self._lanes(keys, group, generation, types)
        streams = (BACKFILL, RETRY, *types)
        received: list[Received] = []

        async def reclaim() -> None:
            while (left := count - len(received)) > 0:
                args = (group, generation, consumer, NOBODY, left)
                trimmed: list[Holding] = []
                for lane, entry, number in fresh(await self._run("reclaim", [state, *lanes], *args)):
                    if isinstance(entry, bytes):
                        position, retry = place(streams[lane], entry)
                        trimmed.append(Holding(position, streams[lane], NOBODY, number, retry))
                    else:
                        received.append(_received(streams[lane], entry, number))
                if not trimmed:
                    break
                await self._rescue(shard, group, generation, trimmed)
            if len(received) < count:
                self._returned.discard(state)

        if state in self._returned:
            await reclaim()
        stream_of = dict(zip(lanes, streams, strict=True))
        to_ask = lanes if len(lanes) <= count else random.sample(lanes, len(lanes))
        while to_ask and (left := count - len(received)) > 0:
            asked, to_ask = to_ask[:left], to_ask[left:]
            share = left // len(asked)
            for name, entries in await self._read_new(state, group, generation, filter_text, consumer, asked, share):
                stream = stream_of[lane := name.decode()]
                received += [_received(stream, entry, 1) for entry in entries]
                if len(entries) == share:
                    to_ask.append(lane)  # it may have more
        if state in self._returned and len(received) < count:
            await reclaim()
        received.sort()
        return received

    async def _read_new(
        self, state: str, group: str, generation: int, filter_text: str, consumer: str, lanes: list[str], share: int
    ) -> list[tuple[bytes, list[Any]]]:
        """Up to `share` new entries of each stream. A script would have to turn each reply into its own tables and
        back, which took two thirds longer; so the generation is checked beside the read, and the
        filter. When one turns out to be another, what was taken stays with the consumer."""
        async with translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(state, "generation", "filter", *(f"returned:{lane}" for lane in lanes))
            ends = [">"] * len(lanes)
            pipe.execute_command("XREADGROUP", "GROUP", group, consumer, "COUNT", share, "STREAMS", *lanes, *ends)
            (now, told, *returned), new = await pipe.execute(raise_on_error=False)
            if any(returned):
                self._returned.add(state)
            if now != b"%d" % generation or (isinstance(new, ResponseError) and str(new).startswith("NOGROUP")):
                raise Stale
            if filter_text and told != filter_text.encode():
                raise Stale
            if isinstance(new, ResponseError):
                raise new
            return new or []

    async def drop(self, shard: int, group: str, generation: int, received: Sequence[Received]) -> None:
        keys = self._keys(shard)
        index = Index()
        items: list[object] = []
        for entry in received:
            items += (index[entry.stream], entry_id(entry.position, entry.retry), entry.position)
        names = [keys.state(group), keys.queued(group), keys.adrift(group), keys.signals]
        names += self._lanes(keys, group, generation, index.types)
        await self._run("drop", names, group, generation, self.process, *items)


def _received(stream: str, entry: Any, number: int) -> Received:
    entry_id, fields = entry  # t, the tenant, e, the event; in the retry stream also a, the attempt
    if stream != RETRY:
        return Received(int(entry_id[:-2]), stream, 0, number, 1, fields[1].decode(), fields[3])
    position, retry = place(stream, entry_id)
    return Received(position, stream, retry, number, int(fields[5]), fields[1].decode(), fields[3])
