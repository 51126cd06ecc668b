"""The relay's side of Redis: the tail of each shard, and what brokers tell each other."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import StreamsUnavailable
from eventbroker_server.ports import (
    Signal,
)
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.script import Scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Sequence

    from eventbroker_server.ports import Entry

log = logging.getLogger(__name__)

_NO_HEAD = -1
_MOST_SIGNALS = 500  # in one read; the stream keeps more
_BLOCK_MS = 1_000  # well below the socket's timeout, which would end a longer wait as a failure


class Relaying(Scripted):
    """Part of RedisStreams."""

    async def head(self, shard: int) -> int | None:
        async with translated():
            head = await self._redis.get(self._keys(shard).head)
        return None if head is None else int(head)

    async def start_at(self, shard: int, position: int) -> int:
        keys = self._keys(shard)
        return int(await self._run("start_at", [keys.head, keys.types], position, keys.events("")))

    async def relay(self, shard: int, entries: Sequence[Entry]) -> int | None:
        keys = self._keys(shard)
        streams: dict[str, int] = {}
        args: list[object] = []
        for entry in entries:
            index = streams.setdefault(entry.event_type, len(streams) + 1)
            args += (index, entry.tenant_id, entry.body)
        names = [keys.head, keys.types, keys.signals, keys.added, *map(keys.events, streams)]
        head = await self._run("relay", names, entries[0].position, self.process, ",".join(streams), *args)
        return None if head == _NO_HEAD else int(head)

    async def trim(self, shard: int, age: float, size: int) -> int:
        keys = self._keys(shard)
        args = (int(age), size, keys.events(""), keys.state(""))
        names = [keys.head, keys.types, keys.added, keys.tail, keys.before]
        return int(await self._run("trim", names, *args))

    async def types(self, shard: int) -> set[str]:
        async with translated():
            return {name.decode() for name in await self._redis.smembers(self._keys(shard).types)}

    async def signals(self, shard: int) -> AsyncIterator[Signal | None]:
        key = self._keys(shard).signals
        last: bytes | None = None
        while True:
            try:
                async with translated():
                    if last is None:
                        newest = await self._redis.xrevrange(key, count=1)
                        last = newest[0][0] if newest else b"0-0"
                        yield None  # what was told before is not known
                        continue
                    reply = await self._redis.xread({key: last}, count=_MOST_SIGNALS, block=_BLOCK_MS)
            except StreamsUnavailable as exc:
                log.warning("no signals from Redis: %s", exc)
                last = None
                await asyncio.sleep(0.2)
                continue
            signals = reply[0][1] if reply else ()
            for entry_id, fields in signals:
                last = entry_id
                yield _signal(fields)
            if len(signals) == _MOST_SIGNALS:
                yield None  # so far behind that some may be trimmed already

    async def another_run(self) -> str:
        async with translated(), self._redis.pipeline(transaction=False) as pipe:
            pipe.info("server")
            pipe.get(self._run_key)
            info, noted = await pipe.execute()
        run = str(info["run_id"])
        return "" if noted == run.encode() else run

    async def note_run(self, run: str) -> None:
        async with translated():
            await self._redis.set(self._run_key, run)

    @property
    def _run_key(self) -> str:
        return f"{self._prefix}:run"  # kept where what may be lost is kept, and as old as that

    async def beat(self, shard: int, ttl: float) -> None:
        async with translated():
            await self._redis.set(self._keys(shard).process(self.process), 1, px=int(ttl * 1000))

    async def living(self, shard: int, processes: Iterable[str]) -> set[str]:
        asked = sorted(set(processes))
        if not asked:
            return set()
        async with translated():
            values = await self._redis.mget(map(self._keys(shard).process, asked))
        return {process for process, value in zip(asked, values, strict=True) if value is not None}

    async def tell_opened(self, shard: int, group: str, consumer: str) -> None:
        fields = {"kind": "opened", "process": self.process, "group": group, "consumer": consumer}
        async with translated():
            await self._redis.xadd(self._keys(shard).signals, fields, maxlen=1000, approximate=True)

    async def tell_changed(self, shard: int, group: str) -> None:
        fields = {"kind": "changed", "process": self.process, "group": group}
        async with translated():
            await self._redis.xadd(self._keys(shard).signals, fields, maxlen=1000, approximate=True)


def _signal(fields: dict[bytes, bytes]) -> Signal:
    told = {name.decode(): value.decode() for name, value in fields.items()}
    return Signal(
        kind=told["kind"],
        process=told["process"],
        group=told.get("group", ""),
        consumer=told.get("consumer", ""),
        types=tuple(filter(None, told.get("types", "").split(","))),
        positions=tuple(map(int, filter(None, told.get("positions", "").split(",")))),
        seconds=float(told.get("seconds", 0)),
    )
