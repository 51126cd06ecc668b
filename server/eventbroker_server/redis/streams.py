"""Redis Streams: keeps the promises of ports.Streams. Each method is one script or one command."""

from __future__ import annotations

import asyncio
import logging
import random
from importlib import resources
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from eventbroker_server.domain.errors import StreamsUnavailable
from eventbroker_server.domain.group import process_of
from eventbroker_server.ports import (
    GroupState,
    Holding,
    Outcome,
    Pending,
    Progress,
    Received,
    Refiltered,
    Signal,
    Stale,
)
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import NOBODY, Keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence

    from redis.asyncio import Redis

    from eventbroker_server.domain.ack_id import AckId
    from eventbroker_server.ports import Entry, Membership

log = logging.getLogger(__name__)

_NO_HEAD, _STALE, _GONE = -1, -2, -3
_OUTCOMES = {1: Outcome.DONE, 2: Outcome.ALREADY_SETTLED, 3: Outcome.OUTDATED}
_MOST_HOLDINGS = 10_000
_MOST_SIGNALS = 500  # in one read; the stream keeps more
_BLOCK_MS = 1_000  # well below the socket's timeout, which would end a longer wait as a failure


class RedisStreams:
    """`process` names this broker process in consumers and signals; it is new at every start."""

    def __init__(self, client: Redis, prefix: str, process: str) -> None:
        self.process = process
        self._redis: Any = client  # its types do not tell that replies are bytes
        self._redis.set_response_callback("XREADGROUP", _as_it_is)  # rather than each entry made into a dict
        self._returned: set[str] = set()  # states of groups to which something was handed back
        self._prefix = prefix
        folder = resources.files("eventbroker_server.redis")
        self._scripts: dict[str, Any] = {
            file.name.removesuffix(".lua"): client.register_script(file.read_bytes())
            for file in folder.iterdir()
            if file.name.endswith(".lua")
        }

    def _keys(self, shard: int) -> Keys:
        return Keys(self._prefix, shard)

    async def _run(self, script: str, keys: Sequence[str], *args: object) -> Any:
        async with translated():
            return await self._scripts[script](keys=keys, args=args)

    # The relay.

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
        names = [keys.head, keys.types, keys.signals, *map(keys.events, streams)]
        head = await self._run("relay", names, entries[0].position, self.process, ",".join(streams), *args)
        return None if head == _NO_HEAD else int(head)

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

    # Groups.

    def _lanes(self, keys: Keys, group: str, generation: int, types: Iterable[str]) -> list[str]:
        """The streams of a group as the scripts want them: its backfill first, then its types'."""
        return [keys.backfill(group, generation), *map(keys.events, types)]

    async def open_group(
        self,
        shard: int,
        group: str,
        types: Collection[str],
        membership: Membership,
        *,
        make: bool,
        filter_text: str = "",
    ) -> GroupState | None:
        keys = self._keys(shard)
        names = [keys.head, keys.state(group), keys.attempts(group), keys.extended(group)]
        names += self._lanes(keys, group, membership.generation, types)
        args = (group, membership.generation, membership.checkpoint, int(make), filter_text)
        reply = await self._run("open_group", names, *args)
        if isinstance(reply, bytes):
            raise Refiltered(reply.decode())
        return None if reply == _GONE else _state(reply)

    async def feed(self, shard: int, group: str, state: GroupState, upto: int, entries: Sequence[Entry]) -> GroupState:
        keys = self._keys(shard)
        names = [keys.state(group), keys.backfill(group, state.generation), keys.signals]
        args = [part for entry in entries for part in (entry.position, entry.tenant_id, entry.body)]
        args = [group, state.generation, state.fed, upto, self.process, *args]
        return _state(await self._run("feed", names, *args))

    async def read(
        self, shard: int, group: str, generation: int, consumer: str, types: Sequence[str], count: int
    ) -> list[Received]:
        keys = self._keys(shard)
        state, lanes = keys.state(group), self._lanes(keys, group, generation, types)
        streams = ("", *types)
        received: list[Received] = []

        async def reclaim() -> None:
            names = [state, keys.attempts(group), *lanes]
            left = count - len(received)
            for lane, *entry in _fresh(await self._run("reclaim", names, group, generation, consumer, NOBODY, left)):
                received.append(_received(streams[lane], *entry))
            if len(received) < count:
                self._returned.discard(state)

        if state in self._returned:
            await reclaim()
        stream_of = dict(zip(lanes, streams, strict=True))
        to_ask = lanes if len(lanes) <= count else random.sample(lanes, len(lanes))
        while to_ask and (left := count - len(received)) > 0:
            asked, to_ask = to_ask[:left], to_ask[left:]
            share = left // len(asked)
            for name, entries in await self._read_new(state, group, generation, consumer, asked, share):
                stream = stream_of[lane := name.decode()]
                received += [_received(stream, entry, 1, 1) for entry in entries]
                if len(entries) == share:
                    to_ask.append(lane)  # it may have more
        if state in self._returned and len(received) < count:
            await reclaim()
        received.sort()
        return received

    async def _read_new(
        self, state: str, group: str, generation: int, consumer: str, lanes: list[str], share: int
    ) -> list[tuple[bytes, list[Any]]]:
        """Up to `share` new entries of each stream. A script would have to turn each reply into its own tables and
        back, which took twice the time of all the rest; so the generation is checked beside the read. When it turns
        out to be another, what was taken stays with the consumer."""
        async with translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(state, "generation", "returned")
            ends = [">"] * len(lanes)
            pipe.execute_command("XREADGROUP", "GROUP", group, consumer, "COUNT", share, "STREAMS", *lanes, *ends)
            (now, returned), new = await pipe.execute(raise_on_error=False)
            if returned:
                self._returned.add(state)
            if now != b"%d" % generation or (isinstance(new, ResponseError) and str(new).startswith("NOGROUP")):
                raise Stale
            if isinstance(new, ResponseError):
                raise new
            return new or []

    async def drop(self, shard: int, group: str, generation: int, received: Sequence[Received]) -> None:
        keys = self._keys(shard)
        streams: dict[str, list[str]] = {}
        for entry in received:
            streams.setdefault(entry.stream, []).append(f"{entry.position}-0")
        async with translated():
            for stream, ids in streams.items():
                name = keys.events(stream) if stream else keys.backfill(group, generation)
                await self._redis.xack(name, group, *ids)
                if not stream:
                    await self._redis.xdel(name, *ids)

    async def settle(self, deliveries: Sequence[AckId]) -> list[Outcome]:
        lane, streams, items = self._fenced(deliveries)
        keys = self._keys(lane.shard)
        names = [keys.state(lane.group), keys.attempts(lane.group), keys.extended(lane.group), keys.signals, *streams]
        args = (lane.group, lane.generation, lane.consumer, self._to_tell(lane.consumer))
        return [_OUTCOMES[code] for code in await self._run("settle", names, *args, *items)]

    async def extend(self, deliveries: Sequence[AckId], seconds: float) -> list[Outcome]:
        lane, streams, items = self._fenced(deliveries)
        keys = self._keys(lane.shard)
        names = [keys.state(lane.group), keys.extended(lane.group), keys.signals, *streams]
        args = (lane.group, lane.generation, lane.consumer, self._to_tell(lane.consumer), int(seconds * 1000))
        return [_OUTCOMES[code] for code in await self._run("extend", names, *args, *items)]

    def _fenced(self, deliveries: Sequence[AckId]) -> tuple[Any, list[str], list[object]]:
        lane = deliveries[0].lane
        index = {"": 0}
        items: list[object] = []
        for delivery in deliveries:
            stream = index.setdefault(delivery.lane.stream, len(index))
            items += (stream, delivery.position, delivery.number)
        return lane, self._lanes(self._keys(lane.shard), lane.group, lane.generation, list(index)[1:]), items

    def _to_tell(self, consumer: str) -> str:
        process = process_of(consumer)
        return "" if process == self.process else process

    async def hand_back(
        self,
        shard: int,
        group: str,
        generation: int,
        types: Sequence[str],
        holdings: Sequence[Holding],
        *,
        failed: bool,
        leave: str = "",
    ) -> list[bool]:
        keys = self._keys(shard)
        index = {"": 0} | {event_type: number for number, event_type in enumerate(types, 1)}
        for holding in holdings:
            index.setdefault(holding.stream, len(index))
        items = [part for h in holdings for part in (index[h.stream], h.position, h.consumer, h.number)]
        names = [keys.state(group), keys.attempts(group), keys.extended(group), keys.signals]
        names += self._lanes(keys, group, generation, list(index)[1:])
        args = (group, generation, self.process, NOBODY, int(failed), leave)
        freed = [bool(code) for code in await self._run("hand_back", names, *args, *items)]
        if any(freed):
            self._returned.add(names[0])
        return freed

    async def holdings(
        self, shard: int, group: str, generation: int, types: Sequence[str], *, consumer: str = "", idle: float = 0.0
    ) -> list[Holding]:
        keys = self._keys(shard)
        names = [keys.state(group), keys.extended(group), *self._lanes(keys, group, generation, types)]
        args = (group, generation, consumer, int(idle * 1000), NOBODY, _MOST_HOLDINGS)
        streams = ("", *types)
        return [
            Holding(_position(entry_id), streams[stream], name.decode(), number)
            for stream, entry_id, name, number in _fresh(await self._run("holdings", names, *args))
        ]

    async def progress(self, shard: int, group: str, generation: int, types: Collection[str], known: int) -> Progress:
        keys = self._keys(shard)
        names = [keys.head, keys.state(group), keys.types, *self._lanes(keys, group, generation, types)]
        head, settled, oldest = _fresh(await self._run("progress", names, group, generation, known))
        return Progress(head, settled, oldest if oldest >= 0 else None)

    async def delete_group(self, shard: int, group: str, generation: int, types: Collection[str]) -> None:
        keys = self._keys(shard)
        async with translated(), self._redis.pipeline(transaction=False) as pipe:
            for event_type in types:
                pipe.xgroup_destroy(keys.events(event_type), group)
            state = (keys.state(group), keys.attempts(group), keys.extended(group))
            pipe.unlink(*state, keys.backfill(group, generation))
            await pipe.execute(raise_on_error=False)

    # Processes.

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

    # Management.

    async def tell_changed(self, shard: int, group: str) -> None:
        fields = {"kind": "changed", "process": self.process, "group": group}
        async with translated():
            await self._redis.xadd(self._keys(shard).signals, fields, maxlen=1000, approximate=True)

    async def filter_of(self, shard: int, group: str) -> str | None:
        async with translated():
            told = await self._redis.hget(self._keys(shard).state(group), "filter")
        return None if told is None else told.decode()

    async def refilter(
        self, shard: int, group: str, told: str, wanted: str, known: int, join: Sequence[str], leave: Sequence[str]
    ) -> None:
        keys = self._keys(shard)
        names = [keys.head, keys.types, keys.state(group), *map(keys.events, join), *map(keys.events, leave)]
        _fresh(await self._run("refilter", names, group, told, wanted, known, len(join)))

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


def _as_it_is(response: Any, **_: Any) -> Any:
    return response


def _position(entry_id: bytes) -> int:
    return int(entry_id[:-2])  # without -0


def _received(stream: str, entry: Any, number: int, attempt: int) -> Received:
    entry_id, (_, tenant, _, body) = entry
    return Received(_position(entry_id), stream, number, attempt, tenant.decode(), body)


def _fresh(reply: Any) -> Any:
    if reply == _STALE:
        raise Stale
    return reply


def _state(reply: Any) -> GroupState:
    if isinstance(reply, int):
        raise Stale
    return GroupState(*reply)


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
