"""Append and relay against a model: two writers and two relays over the same stores, failing between any two steps.

Hypothesis draws what they do, and where a call to a store fails, before its effect or after it. After every step the
table and the streams must be what the model says.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1 import event_pb2
from eventbroker_server.broker.append import AppendLimits, Writer
from eventbroker_server.broker.decide import Expectation, Request
from eventbroker_server.broker.relay import Relay, Tail
from eventbroker_server.domain.errors import EventIdReused, StoreUnavailable, StreamsUnavailable, VersionConflict
from eventbroker_server.domain.event import DataForm, Event, Metadata
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool
from eventbroker_server.redis.keys import Keys
from eventbroker_server.redis.streams import RedisStreams
from eventbroker_server.rpc.convert import EventCodec
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test
from redis.asyncio import Redis

from tests.conftest import stores_on
from tests.sql import rewrite

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence

    from eventbroker_server.broker.append import Stored
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.engines import Engines
    from eventbroker_server.postgres.pool import Pool

EXAMPLES, STEPS = 40, 30
LIMITS = AppendLimits(flush_events=5, linger=0.0, backlog_events=1000, backlog_bytes=1 << 20, cached_aggregates=3)
ROWS = "SELECT position, event_id, aggregate_id, aggregate_version FROM eventbroker.events ORDER BY position"


def event(number: int, aggregate: str, event_type: str = "user.created", content: bytes = b"{}") -> Event:
    form, at = DataForm.JSON, datetime(2026, 1, 1, tzinfo=UTC)
    place = ("acme", str(number), event_type, "v1.0", "User", aggregate)
    return Event(*place, "", "", "", "", at, form, "", content, Metadata())


# What the machine draws.

aggregates = st.sampled_from("abcde")
writers = relays = st.sampled_from([0, 1])
fresh = st.lists(st.tuples(aggregates, st.sampled_from(["user.created", "role.granted", "user.left"])), max_size=3)
indices = st.integers(0, 1000)


@dataclass
class Crash:
    """The `at`th call fails: after its effect, or instead of it. 0: none does."""

    at: int
    effective: bool
    calls: int = 0

    def strikes(self) -> bool:
        self.calls += 1
        return self.calls == self.at


crashes = st.builds(Crash, at=st.integers(0, 6), effective=st.booleans())


class Failing:
    """A port whose calls fail as `crash` says."""

    def __init__(self, port: Any, error: type[Exception]) -> None:
        self.crash = Crash(0, effective=False)
        self._port = port
        self._error = error

    def __getattr__(self, call: str) -> Any:
        true_call = getattr(self._port, call)

        async def method(*args: Any, **kwargs: Any) -> Any:
            async with self._point():
                return await true_call(*args, **kwargs)

        return method

    @asynccontextmanager
    async def deciding(self, shard: int) -> AsyncIterator[Any]:
        async with self._point(), self._port.deciding(shard) as decision:
            yield decision

    @asynccontextmanager
    async def _point(self) -> AsyncIterator[None]:
        strikes = self.crash.strikes()
        if strikes and not self.crash.effective:
            raise self._error
        yield
        if strikes:
            raise self._error


@dataclass
class Model:
    """What is stored, and after which position the streams began."""

    log: list[Event] = field(default_factory=list)
    began: int | None = None

    def find(self, event_id: str) -> int:
        """Its position; 0 if there is none."""
        return next((position for position, one in enumerate(self.log, 1) if one.event_id == event_id), 0)

    def version(self, aggregate: str, upto: int | None = None) -> int:
        return sum(one.aggregate_id == aggregate for one in self.log[:upto])

    def append(self, request: Request) -> type[Exception] | list[tuple[int, int, bool]]:
        """Why it is refused, or for each event its position, its version and whether it is a duplicate."""
        known = [self.find(one.event_id) for one in request.events]
        for one, position in zip(request.events, known, strict=True):
            if position and not self.log[position - 1].same_as(one):
                return EventIdReused
        if not all(known) and not all(e.holds(self.version(e.aggregate[2])) for e in request.expectations):
            return VersionConflict
        for one, position in zip(request.events, known, strict=True):
            if not position:
                self.log.append(one)
        places = [self.find(one.event_id) for one in request.events]
        versions = [self.version(one.aggregate_id, place) for one, place in zip(request.events, places, strict=True)]
        return list(zip(places, versions, map(bool, known), strict=True))


@dataclass
class World:
    """True stores, emptied for each example, and the loop in which all happens."""

    runner: asyncio.Runner
    pool: Pool
    redis: Redis
    keys: Keys

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def clear(self) -> None:
        async with self.pool.connection() as connection:
            await rewrite(connection, "TRUNCATE eventbroker.events")
            await connection.execute("UPDATE eventbroker.shard_head SET position = 0")
        await self.lose_redis()

    async def lose_redis(self) -> None:
        await self.redis.flushall()

    async def lose_the_head(self) -> None:
        await self.redis.delete(self.keys.head)

    async def rows(self) -> list[tuple[int, str, str, int]]:
        async with self.pool.connection() as connection:
            return [tuple(row) for row in await connection.fetch(ROWS)]

    async def entries(self) -> list[tuple[int, str, event_pb2.Event]]:
        """What is in the streams, in the order of positions: position, type and event."""
        found = []
        types: Any = await self.redis.smembers(self.keys.types)
        for name in types:
            entries: Any = await self.redis.xrange(self.keys.events(name.decode()))
            for entry_id, fields in entries:
                position, step = entry_id.decode().split("-")
                assert step == "0"
                found.append((int(position), name.decode(), event_pb2.Event.FromString(fields[b"e"])))
        return sorted(found, key=lambda entry: entry[0])

    async def head(self) -> int | None:
        head: Any = await self.redis.get(self.keys.head)
        return None if head is None else int(head)


@pytest.fixture
def world(engines: Engines) -> Iterator[World]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_world() -> World:
            stores = await stack.enter_async_context(stores_on(engines))
            pool = await stack.enter_async_context(open_pool(stores.settings(), stores.postgres))
            await migrate(pool, 1)
            redis = await stack.enter_async_context(Redis.from_url(stores.redis))
            return World(runner, pool, redis, Keys(stores.prefix, 0))

        try:
            yield runner.run(open_world())
        finally:
            runner.run(stack.aclose())


class Broker:
    """What one broker process has of the log: a writer, a relay, and the events that it is to relay."""

    def __init__(self, world: World, process: str) -> None:
        self.log = Failing(PostgresEventLog(world.pool), StoreUnavailable)
        self.relay_log = Failing(PostgresEventLog(world.pool), StoreUnavailable)
        self.streams = Failing(RedisStreams(world.redis, world.keys.prefix, process), StreamsUnavailable)
        self.committed: list[list[StoredEvent]] = []
        self.writer = Writer(self.log, 0, LIMITS, self.committed.append)
        self.writing = world.runner.get_loop().create_task(self.writer.run())
        self.relay = Relay(
            self.relay_log, self.streams, EventCodec(), 0, lambda shard, types: None, 60.0, 0.0, Tail(3600.0, 1 << 30)
        )
        self.relay.close()  # so that `run` ends when nothing waits

    async def end(self) -> None:
        self.writing.cancel()
        await asyncio.gather(self.writing, return_exceptions=True)

    async def append(self, request: Request, crash: Crash) -> tuple[list[Stored] | Exception, bool]:
        """The answer, after another try if the first had none; and whether it was the first."""
        self.log.crash = crash
        first = True
        while True:
            try:
                return await self.writer.append(request), first
            except (EventIdReused, VersionConflict) as exc:
                return exc, first
            except StoreUnavailable:
                assert first, "only one call fails"
                first = False

    async def relay_what_waits(self, crash: Crash) -> None:
        """All that its writer committed since, then a sweep. The crash may strike in either store."""
        self.relay_log.crash = self.streams.crash = crash
        for events in self.committed:
            self.relay.offer(events)
        self.committed.clear()
        with suppress(StoreUnavailable, StreamsUnavailable):
            await self.relay.run()
            await self.relay.sweep()


class LogMachine(RuleBasedStateMachine):
    world: World

    def __init__(self) -> None:
        super().__init__()
        self.world.run(self.world.clear())
        self.model = Model()
        self.brokers = [Broker(self.world, "one"), Broker(self.world, "two")]
        self.next = 0

    def teardown(self) -> None:
        for broker in self.brokers:
            self.world.run(broker.end())

    def _new(self, drawn: Sequence[tuple[str, str]]) -> list[Event]:
        self.next += len(drawn)
        return [event(self.next - number, *one) for number, one in enumerate(drawn)]

    def _append(self, writer: int, request: Request, crash: Crash) -> None:
        answer, first = self.world.run(self.brokers[writer].append(request, crash))
        expected = self.model.append(request)
        if isinstance(expected, type):
            assert type(answer) is expected
            return
        assert not isinstance(answer, Exception), answer
        got = [(stored.event.position, stored.event.aggregate_version, stored.duplicate) for stored in answer]
        if first:
            assert got == expected
        else:  # the first try may have stored them
            assert [place[:2] for place in got] == [place[:2] for place in expected]

    @rule(writer=writers, drawn=fresh.filter(bool), crash=crashes)
    def append_new(self, writer: int, drawn: list[tuple[str, str]], crash: Crash) -> None:
        self._append(writer, Request(self._new(drawn)), crash)

    @rule(writer=writers, again=st.lists(indices, min_size=1, max_size=2), drawn=fresh, crash=crashes)
    def append_known(self, writer: int, again: list[int], drawn: list[tuple[str, str]], crash: Crash) -> None:
        if self.model.log:
            known = {index % len(self.model.log) for index in again}
            self._append(writer, Request([self.model.log[index] for index in known] + self._new(drawn)), crash)

    @rule(writer=writers, index=indices, drawn=fresh, crash=crashes)
    def append_other_content_under_a_known_id(
        self, writer: int, index: int, drawn: list[tuple[str, str]], crash: Crash
    ) -> None:
        if self.model.log:
            other = self.model.log[index % len(self.model.log)]._replace(content=b"[]")
            self._append(writer, Request([*self._new(drawn), other]), crash)

    @rule(
        writer=writers,
        drawn=fresh.filter(bool),
        expected=st.dictionaries(
            aggregates, st.one_of(st.integers(-1, 1), st.booleans().map(str)), min_size=1, max_size=2
        ),
        crash=crashes,
    )
    def append_expecting(
        self, writer: int, drawn: list[tuple[str, str]], expected: dict[str, int | str], crash: Crash
    ) -> None:
        """A number is added to the true version; 0 is right, most of the time."""
        expectations = []
        for aggregate, what in expected.items():
            key = ("acme", "User", aggregate)
            if isinstance(what, int):
                expectations.append(Expectation(key, version=max(0, self.model.version(aggregate) + what)))
            else:
                expectations.append(Expectation(key, exists=what == "True"))
        self._append(writer, Request(self._new(drawn), expectations), crash)

    @rule(drawn=st.lists(st.tuples(writers, aggregates), min_size=2, max_size=6))
    def append_at_once(self, drawn: list[tuple[int, str]]) -> None:
        """By both writers. The order is theirs."""
        requests = [(writer, Request(self._new([(aggregate, "user.created")]))) for writer, aggregate in drawn]

        async def append() -> list[tuple[list[Stored] | Exception, bool]]:
            no_crash = Crash(0, effective=False)
            return await asyncio.gather(*(self.brokers[w].append(request, no_crash) for w, request in requests))

        stored: list[StoredEvent] = []
        for answer, _ in self.world.run(append()):
            assert isinstance(answer, list)
            stored += [one.event for one in answer]
        stored.sort(key=lambda one: one.position)
        assert [one.position for one in stored] == list(
            range(len(self.model.log) + 1, len(self.model.log) + len(stored) + 1)
        )
        self.model.log += [one.event for one in stored]

    def _relay(self, *turns: tuple[int, Crash]) -> None:
        async def relay() -> None:
            empty = await self.world.head() is None and not await self.world.entries()
            await asyncio.gather(*(self.brokers[which].relay_what_waits(crash) for which, crash in turns))
            if empty and await self.world.head() is not None:
                self.model.began = len(self.model.log)

        self.world.run(relay())

    @rule(which=relays, crash=crashes)
    def relay(self, which: int, crash: Crash) -> None:
        self._relay((which, crash))
        if not 0 < crash.at <= crash.calls:
            assert self.world.run(self.world.head()) == len(self.model.log)

    @rule(first=crashes, second=crashes)
    def relay_at_once(self, first: Crash, second: Crash) -> None:
        self._relay((0, first), (1, second))

    @rule(which=relays)
    def restart(self, which: int) -> None:
        """What it had not relayed is forgotten, and the versions that it knew."""
        self.world.run(self.brokers[which].end())
        self.brokers[which] = Broker(self.world, f"broker {self.next}")

    @rule()
    def flush_redis(self) -> None:
        self.world.run(self.world.lose_redis())
        self.model.began = None

    @rule(which=relays)
    def lose_the_head(self, which: int) -> None:
        """The streams that are left tell where they ended."""
        self.world.run(self.world.lose_the_head())
        self._relay((which, Crash(0, effective=False)))

    @invariant()
    def the_table_is_what_the_model_says(self) -> None:
        assert self.world.run(self.world.rows()) == [
            (position, one.event_id, one.aggregate_id, self.model.version(one.aggregate_id, position))
            for position, one in enumerate(self.model.log, 1)
        ]

    @invariant()
    def the_streams_are_the_log_from_where_they_began_up_to_the_head(self) -> None:
        head, entries = self.world.run(self.world.head()), self.world.run(self.world.entries())
        if head is None or self.model.began is None:
            assert head is self.model.began is None
            assert entries == []
            return
        assert self.model.began <= head <= len(self.model.log)
        assert [(position, kind, one.position, one.event_id) for position, kind, one in entries] == [
            (position, one.event_type, position, one.event_id)
            for position, one in enumerate(self.model.log[:head], 1)
            if position > self.model.began
        ]


@pytest.mark.timeout(330)  # a failure takes a while to be made small
def test_the_log_and_the_streams_agree_with_the_model_whatever_happens(world: World) -> None:
    machine = type("Machine", (LogMachine,), {"world": world})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),  # its patience is meant for tests without I/O
        ),
    )
