"""Redis Streams: keeps the promises of ports.Streams. Each method is one script or one command."""

from __future__ import annotations

import asyncio
import logging
import random
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from eventbroker_server.domain.ack_id import BACKFILL, RETRY
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
    Waiting,
    Where,
    Whereabouts,
)
from eventbroker_server.redis.connection import translated
from eventbroker_server.redis.keys import FAILING, NOBODY, Keys

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Iterable, Sequence

    from redis.asyncio import Redis

    from eventbroker_server.domain.ack_id import AckId
    from eventbroker_server.ports import Entry, Membership

log = logging.getLogger(__name__)

_NO_HEAD, _STALE, _GONE = -1, -2, -3
_OUTCOMES = {1: Outcome.DONE, 2: Outcome.ALREADY_SETTLED, 3: Outcome.OUTDATED}
_MOST_HOLDINGS = 10_000
_MOST_RETRIES = 1_000  # unread in a retry stream, with which no more are put there
_MOST_SIGNALS = 500  # in one read; the stream keeps more
_BLOCK_MS = 1_000  # well below the socket's timeout, which would end a longer wait as a failure


class RedisStreams:
    """`process` names this broker process in consumers and signals; it is new at every start."""

    aside = FAILING

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

    # Groups.

    def _lanes(self, keys: Keys, group: str, generation: int, types: Iterable[str]) -> list[str]:
        """The streams of a group as the scripts want them: its own two first, then its types'."""
        return [keys.backfill(group, generation), keys.retry(group, generation), *map(keys.events, types)]

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
        names = [keys.head, keys.state(group), keys.extended(group), keys.queued(group), keys.done(group)]
        names += [keys.failing(group)]
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
        streams = (BACKFILL, RETRY, *types)
        received: list[Received] = []

        async def reclaim() -> None:
            left = count - len(received)
            args = (group, generation, consumer, NOBODY, left)
            for lane, entry, number in _fresh(await self._run("reclaim", [state, *lanes], *args)):
                received.append(_received(streams[lane], entry, number))
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
                received += [_received(stream, entry, 1) for entry in entries]
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
        back, which took two thirds longer; so the generation is checked beside the read. When it turns
        out to be another, what was taken stays with the consumer."""
        async with translated(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hmget(state, "generation", *(f"returned:{lane}" for lane in lanes))
            ends = [">"] * len(lanes)
            pipe.execute_command("XREADGROUP", "GROUP", group, consumer, "COUNT", share, "STREAMS", *lanes, *ends)
            (now, *returned), new = await pipe.execute(raise_on_error=False)
            if any(returned):
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
        names = [keys.state(lane.group), keys.extended(lane.group), keys.signals]
        names += [keys.queued(lane.group), keys.done(lane.group), *streams]
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
        lanes = self._lanes(self._keys(lane.shard), lane.group, lane.generation, ())
        index = _Index()
        items: list[object] = []
        for (_, _, _, stream, _), position, number, retry in deliveries:
            items += (index[stream], _entry_id(position, retry), number, position)
        return lane, lanes + index.streams(self._keys(lane.shard)), items

    def _to_tell(self, consumer: str) -> str:
        process = process_of(consumer)
        return "" if process == self.process else process

    async def hand_back(
        self, shard: int, group: str, generation: int, holdings: Sequence[Holding], *, tell: bool = False
    ) -> list[Outcome]:
        outcomes = await self._take_away(shard, group, generation, holdings, to=NOBODY, tell=tell)
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
    ) -> list[Outcome]:
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
    ) -> list[Outcome]:
        keys = self._keys(shard)
        index = _Index()
        for event_type in types:
            index[event_type]
        items: list[object] = []
        for position, stream, consumer, number, retry in holdings:
            items += (index[stream], _entry_id(position, retry), consumer, number, position)
        names = [keys.state(group), keys.extended(group), keys.signals, keys.failing(group)]
        names += self._lanes(keys, group, generation, ()) + index.streams(keys)
        told = self._to_tell(holdings[0].consumer) if tell and holdings else ""
        args = (group, generation, self.process, to, int(to == NOBODY), int(spare_extended), leave, told, note)
        return [_OUTCOMES[code] for code in await self._run("hand_back", names, *args, *items)]

    async def forget(self, shard: int, group: str, generation: int, holdings: Sequence[Holding]) -> None:
        keys = self._keys(shard)
        index = _Index()
        items: list[object] = []
        for position, stream, _, number, retry in holdings:
            items += (index[stream], _entry_id(position, retry), number, position)
        names = [keys.state(group), keys.queued(group), keys.failing(group)]
        names += self._lanes(keys, group, generation, ())
        await self._run("forget", names + index.streams(keys), group, generation, FAILING, *items)

    async def holdings(
        self, shard: int, group: str, generation: int, types: Sequence[str], *, consumer: str = "", idle: float = 0.0
    ) -> list[Holding]:
        keys = self._keys(shard)
        names = [keys.state(group), keys.extended(group), *self._lanes(keys, group, generation, types)]
        args = (group, generation, consumer, int(idle * 1000), _MOST_HOLDINGS, NOBODY, FAILING)
        streams = (BACKFILL, RETRY, *types)
        found = _fresh(await self._run("holdings", names, *args))
        return [
            Holding(position, streams[lane], name.decode(), number, retry)
            for lane, entry_id, name, number in found
            for position, retry in [_place(streams[lane], entry_id)]
        ]

    async def set_aside_before(
        self, shard: int, group: str, generation: int, types: Sequence[str], idle: float
    ) -> list[tuple[Holding, str]]:
        found = await self.holdings(shard, group, generation, types, consumer=FAILING, idle=idle)
        if not found:
            return []
        ids = [_entry_id(holding.position, holding.retry) for holding in found]
        async with translated():
            notes = await self._redis.hmget(self._keys(shard).failing(group), ids)
        return [(holding, (note or b"").decode()) for holding, note in zip(found, notes, strict=True)]

    async def whereabouts(self, shard: int, group: str, generation: int, event_type: str, position: int) -> Whereabouts:
        keys = self._keys(shard)
        names = [keys.head, keys.state(group), keys.extended(group)]
        names += self._lanes(keys, group, generation, [event_type])
        code, *told = await self._run("whereabouts", names, group, generation, position)
        if not told:
            return Whereabouts(Where(code))
        consumer, idle, extended = told
        until = datetime.fromtimestamp(extended / 1000, UTC) if extended else None
        return Whereabouts(Where(code), consumer.decode(), idle / 1000, until)

    async def requeue(
        self, shard: int, group: str, generation: int, entries: Sequence[tuple[Entry, int, Holding | None]]
    ) -> bool:
        keys = self._keys(shard)
        index = _Index()
        items: list[object] = []
        for entry, failed, left in entries:
            items += (entry.position, failed, entry.tenant_id, entry.body)
            items += (index[left.stream], _entry_id(left.position, left.retry), left.number) if left else (-1, "", 0)
        names = [keys.state(group), keys.queued(group), keys.done(group), keys.failing(group), keys.signals]
        names += self._lanes(keys, group, generation, ()) + index.streams(keys)
        args = (group, generation, self.process, FAILING, _MOST_RETRIES, *items)
        return bool(_fresh(await self._run("requeue", names, *args)))

    async def retried(self, shard: int, group: str) -> list[Waiting]:
        async with translated():
            done = await self._redis.hgetall(self._keys(shard).done(group))
        return [Waiting(int(position), int(failed)) for position, failed in done.items()]

    async def unmark(self, shard: int, group: str, positions: Sequence[int]) -> None:
        async with translated():
            await self._redis.hdel(self._keys(shard).done(group), *positions)

    async def progress(
        self, shard: int, group: str, generation: int, types: Collection[str], known: int, filter_text: str = ""
    ) -> Progress:
        keys = self._keys(shard)
        # What waits in the retry stream has a row in PostgreSQL.
        names = [keys.head, keys.state(group), keys.types, keys.backfill(group, generation), *map(keys.events, types)]
        head, settled, oldest = _fresh(await self._run("progress", names, group, generation, known, filter_text))
        return Progress(head, settled, oldest if oldest >= 0 else None)

    async def delete_group(self, shard: int, group: str, generation: int, types: Collection[str]) -> None:
        keys = self._keys(shard)
        async with translated(), self._redis.pipeline(transaction=False) as pipe:
            for event_type in types:
                pipe.xgroup_destroy(keys.events(event_type), group)
            state = (keys.state(group), keys.extended(group), keys.queued(group), keys.done(group))
            pipe.unlink(*state, keys.failing(group), *self._lanes(keys, group, generation, ()))
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


class _Index(dict[str, int]):
    """Numbers the streams that a script is to work on: the group's own two, then as they come."""

    def __init__(self) -> None:
        super().__init__({BACKFILL: 0, RETRY: 1})

    def __missing__(self, stream: str) -> int:
        self[stream] = number = len(self)
        return number

    def streams(self, keys: Keys) -> list[str]:
        """The keys of those that are not the group's own."""
        return [keys.events(stream) for stream in list(self)[2:]]


def _entry_id(position: int, retry: int) -> str:
    return f"{retry}-{position}" if retry else f"{position}-0"


def _place(stream: str, entry_id: bytes) -> tuple[int, int]:
    """The position of an entry, and its number in the retry stream."""
    major, _, minor = entry_id.partition(b"-")
    return (int(minor), int(major)) if stream == RETRY else (int(major), 0)


def _received(stream: str, entry: Any, number: int) -> Received:
    entry_id, (_, tenant, _, body, *more) = entry
    if stream != RETRY:
        return Received(int(entry_id[:-2]), stream, 0, number, 1, tenant.decode(), body)
    position, retry = _place(stream, entry_id)
    return Received(position, stream, retry, number, int(more[1]), tenant.decode(), body)


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
