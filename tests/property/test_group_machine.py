"""Groups against a model: two broker processes, one of which is killed, over stores that lose all of Redis.

Hypothesis draws what publishers, consumers and operators do. Whatever comes to a consumer, and every outcome, is held
against `group_model`; at the end all that is due must come and be settled, and the dead letters be those of the model.
"""

from __future__ import annotations

import asyncio
import sys
import time
import uuid
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import asyncpg
import grpc
import pytest
from eventbroker.v1.dead_letter_service_pb2 import (
    DeadLetterFilter,
    ListDeadLettersRequest,
    RedriveDeadLettersRequest,
)
from eventbroker.v1.group_service_pb2 import (
    FAIRNESS_BY_TENANT,
    FAIRNESS_NONE,
    ORDERING_BY_AGGREGATE,
    ORDERING_NONE,
    DeadLetterPolicy,
    DeleteGroupRequest,
    LogPoint,
    RetryPolicy,
    SeekGroupRequest,
)
from eventbroker.v1.subscriber_service_pb2 import (
    NACK_ACTION_DEAD_LETTER,
    NACK_ACTION_RELEASE,
    NACK_ACTION_RETRY,
    START_POINT_EARLIEST,
    START_POINT_LATEST,
)
from eventbroker_server.domain.ack_id import Signer
from eventbroker_server.domain.group import GroupKey
from eventbroker_server.redis.keys import Keys
from google.protobuf.duration_pb2 import Duration
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from tests.client import TIMEOUT, Client, event
from tests.conftest import broker_process, stores_on
from tests.property.group_model import Handed, How, Letter
from tests.property.in_turn_model import InTurnModel
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Sequence

    from eventbroker.v1.subscriber_service_pb2 import DeliveryBatch
    from eventbroker_server.engines import Engines

    from tests.client import Stream
    from tests.conftest import BrokerProcess, Stores

STEPS = 50
FLUSHES, KILLS, EXPIRIES = 2, 1, 3  # in an example: they take a while
DEADLINE = 1.0  # of an ack, the shortest that there is
CHECKPOINT = 1.0  # seconds; so that acks are forgotten with Redis
ARRIVAL = 0.3  # seconds; what is handed out at all comes sooner, most of the time
REDELIVERY = DEADLINE + 5.0
DRAIN = 20.0  # a failure that nobody came to record is found after 5 s, and its retry may fail the same way
TYPES = ("user.created", "user.renamed", "role.granted")
NACKS = {How.RETRY: NACK_ACTION_RETRY, How.DEAD_LETTER: NACK_ACTION_DEAD_LETTER, How.RELEASE: NACK_ACTION_RELEASE}

# What the machine draws.

brokers = st.sampled_from([0, 1])
groups = st.sampled_from(["all", "all", "users"])
consumers = st.sampled_from([("all", "one"), ("all", "two"), ("users", "one")])
tenants = st.integers(0, 2)
times = st.sampled_from([1, 1, 1, 1, 12])  # what waits for its turn stands in long lines
fresh = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(TYPES)), min_size=1, max_size=4)
hows = st.sampled_from(list(How))
some = st.lists(st.integers(0, 100), min_size=1, max_size=4)


class Mode(NamedTuple):
    """How a group is fed."""

    ordered: bool = False
    hold: bool = False
    fair: bool = False


AS_IT_COMES, SKIP, HOLD = Mode(), Mode(ordered=True), Mode(ordered=True, hold=True)
FAIR, FAIR_HOLD = Mode(fair=True), Mode(ordered=True, hold=True, fair=True)


@dataclass
class Broker:
    process: BrokerProcess
    client: Client
    stack: AsyncExitStack


@dataclass
class Consumer:
    """A stream that is read at once, whatever comes."""

    group: str
    broker: Broker
    stream: Stream
    handed: list[Handed] = field(default_factory=list)
    reading: asyncio.Task[None] | None = None


@dataclass
class World:
    """True stores, brokers on them, and the loop in which all happens. Each example has a tenant of its own."""

    runner: asyncio.Runner
    stores: Stores
    postgres: asyncpg.Connection
    redis: Redis
    brokers: list[Broker]
    failures: list[str] = field(default_factory=list)

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    async def add_brokers(self, count: int) -> None:
        """So that there are so many."""
        store_settings = self.stores.settings()
        environ = {
            "POSTGRES_URL": self.stores.postgres,
            "REDIS_URL": self.stores.redis,
            "REDIS_PREFIX": self.stores.prefix,
            "SWEEP_INTERVAL": str(store_settings.sweep_interval),
            "CHECKPOINT_INTERVAL": str(CHECKPOINT),
            "PROCESS_TTL": str(store_settings.process_ttl),
        }

        async def add() -> None:
            stack = AsyncExitStack()
            process = await stack.enter_async_context(broker_process(**environ))
            client = await stack.enter_async_context(Client(process.target))
            self.brokers.append(Broker(process, client, stack))

        await asyncio.gather(*(add() for _ in range(count - len(self.brokers))))

    async def kill(self, broker: Broker) -> None:
        self.brokers.remove(broker)
        await broker.process.kill()
        await broker.stack.aclose()

    async def signer(self) -> Signer:
        return Signer(await self.postgres.fetchval("SELECT ack_key FROM eventbroker.installation"))

    async def place(self, key: GroupKey) -> tuple[int, int]:
        """The generation and the checkpoint of a group."""
        asked = "SELECT generation, checkpoint FROM eventbroker.group_shards WHERE (tenant_id, name) = ($1, $2)"
        row = await self.postgres.fetchrow(asked, *key)
        return row["generation"], row["checkpoint"]

    async def retries(self, key: GroupKey) -> set[int]:
        asked = "SELECT position FROM eventbroker.retries WHERE (tenant_id, name) = ($1, $2)"
        return {row["position"] for row in await self.postgres.fetch(asked, *key)}

    async def generation_in_redis(self, key: GroupKey) -> int:
        state: Any = self.redis.hget(Keys(self.stores.prefix, 0).state(str(key)), "generation")
        return int(await state or 0)

    async def lines(self, key: GroupKey) -> list[str]:
        """Which keys are left of the lines in which events of a group wait and are out."""
        names = [name for name in Keys(self.stores.prefix, 0).all_lines(str(key)) if not name.endswith(":held")]
        return [name for name in names if await self.redis.exists(name)]

    def blame(self, what: str) -> None:
        """Keep the story of a failure, with what brokers had to say that ended by themselves."""
        ended = [broker.process.log for broker in self.brokers if broker.process.process.returncode is not None]
        self.failures.append("\n".join([what, *(log.read_text()[-5000:] for log in ended)]))


@pytest.fixture
def world(engines: Engines) -> Iterator[World]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_world() -> World:
            stores = await stack.enter_async_context(stores_on(engines))
            redis = await stack.enter_async_context(Redis.from_url(stores.redis))
            world = World(runner, stores, None, redis, [])
            await world.add_brokers(2)
            world.postgres = await asyncpg.connect(stores.postgres)
            stack.push_async_callback(world.postgres.close)
            return world

        async def close_world(world: World) -> None:
            for broker in list(world.brokers):
                with suppress(ProcessLookupError):  # it ended by itself
                    await world.kill(broker)
            await stack.aclose()

        world = runner.run(open_world())
        try:
            yield world
        finally:
            runner.run(close_world(world))


class GroupMachine(RuleBasedStateMachine):
    world: World
    modes: tuple[Mode, Mode]

    def __init__(self) -> None:
        super().__init__()
        self.mark = f"t{uuid.uuid4().hex[:8]}"
        all_of_it, users = self.modes
        self.groups = {
            "all": InTurnModel("all", f"{self.mark}.", 10, **all_of_it._asdict()),
            "users": InTurnModel("users", f"{self.mark}.user.", 2, **users._asdict()),
        }
        self.consumers: dict[tuple[str, str], Consumer] = {}
        self.positions = [0]
        self.began = time.time()
        self.story: list[str] = []
        self.arrived = asyncio.Event()
        self.flushes = self.kills = self.expiries = 0

    def _key(self, group: InTurnModel) -> GroupKey:
        """A fair group is one of all tenants."""
        return GroupKey.of("" if group.fair else self._tenant(0), f"{group.name}-{self.mark}")

    def _named(self, group: InTurnModel) -> dict[str, str]:
        key = self._key(group)
        return {"name": key.name, "tenant_id": key.tenant_id}

    def _tenant(self, number: int) -> str:
        """There are several if all groups get the events of all."""
        return f"{self.mark}-{number if self.modes[0].fair else 0}"

    @initialize(broker=brokers, drawn=fresh)
    def begin(self, broker: int, drawn: Sequence[tuple[str, str]]) -> None:
        async def begin() -> None:
            await self.world.add_brokers(2)
            self.signer = await self.world.signer()
            for group in self.groups.values():
                backoff = Duration(nanos=100_000_000)
                key = self._key(group)
                await self._client(0).create_group(
                    key.name,
                    group.prefix + "*",
                    tenant_id=key.tenant_id,
                    ordering=ORDERING_BY_AGGREGATE if group.ordered else ORDERING_NONE,
                    fairness=FAIRNESS_BY_TENANT if group.fair else FAIRNESS_NONE,
                    dead_letter_policy=DeadLetterPolicy(hold_aggregate=group.hold),
                    ack_deadline=Duration(seconds=round(DEADLINE)),
                    retry_policy=RetryPolicy(initial_backoff=backoff, max_attempts=group.max_attempts),
                )
            await self._open(("all", "one"), broker)
            await self._open(("users", "one"), broker)
            await self._publish(broker, 0, drawn)

        self._do(f"begin with {drawn} at {broker}", begin())

    def teardown(self) -> None:
        unharmed = sys.exc_info()[0] is None
        try:
            if unharmed:
                self._do("at the end", self._drain())
                self.nothing_is_wrong()
        finally:
            self.world.run(self._leave())

    async def _leave(self) -> None:
        for consumer in list(self.consumers):
            await self._close(consumer)
        for group in self.groups.values():
            with suppress(grpc.aio.AioRpcError):
                request = DeleteGroupRequest(**self._named(group), force=True)
                await self._client(0).groups.DeleteGroup(request, timeout=TIMEOUT)

    def _tell(self, what: str) -> None:
        self.story.append(f"{time.time() - self.began:7.3f} {what}")

    def _do(self, what: str, work: Coroutine[Any, Any, Any]) -> None:
        self._tell(what)
        try:
            self.world.run(work)
        except Exception as exc:
            self.world.blame("\n".join([*self.story, repr(exc)]))
            raise

    def _client(self, broker: int) -> Client:
        return self.world.brokers[broker % len(self.world.brokers)].client

    # Publishers.

    @rule(broker=brokers, tenant=tenants, drawn=fresh, times=times)
    def publish(self, broker: int, tenant: int, drawn: Sequence[tuple[str, str]], times: int) -> None:
        if self.modes == (AS_IT_COMES, AS_IT_COMES):
            times = 1
        self._do(f"publish {times} * {drawn} of {tenant} to {broker}", self._publish(broker, tenant, [*drawn] * times))

    async def _publish(self, broker: int, tenant: int, drawn: Sequence[tuple[str, str]]) -> None:
        tenant_id = self._tenant(tenant)
        events = [
            event(event_type=f"{self.mark}.{event_type}", aggregate_id=aggregate, tenant_id=tenant_id)
            for aggregate, event_type in drawn
        ]
        for one in events:
            for group in self.groups.values():
                group.published(one.event_id, one.event_type, one.tenant_id, one.aggregate_id)
        for result in await self._client(broker).publish(*events):
            self.positions.append(result.position)
            for group in self.groups.values():
                group.placed(result.event_id, result.position)

    # Consumers.

    async def _open(self, key: tuple[str, str], broker: int) -> None:
        group, name = key
        named = self._key(self.groups[group])
        chosen = self.world.brokers[broker % len(self.world.brokers)]
        stream = await chosen.client.subscribe(named.name, tenant_id=named.tenant_id, consumer_id=name)
        consumer = self.consumers[key] = Consumer(group, chosen, stream)
        consumer.reading = asyncio.create_task(self._read(consumer))

    async def _read(self, consumer: Consumer) -> None:
        with suppress(grpc.aio.AioRpcError):
            while (message := await consumer.stream.read(600)) is not None:
                self._receive(consumer, message.deliveries)

    def _receive(self, consumer: Consumer, batch: DeliveryBatch) -> None:
        for delivery in batch.deliveries:
            ack_id = self.signer.verify(delivery.ack_id)
            assert ack_id
            one = Handed(
                delivery.ack_id,
                delivery.event.event_id,
                delivery.event.position,
                delivery.attempt,
                ack_id.lane.generation,
                batch.ack_deadline.ToNanoseconds() / 1e9,
            )
            self._tell(f"  {consumer.group} gets {one.position} attempt {one.attempt} in {one.generation}")
            consumer.handed.append(one)
            self.groups[consumer.group].received(one)
            self.arrived.set()

    async def _close(self, key: tuple[str, str]) -> None:
        consumer = self.consumers.pop(key)
        for one in consumer.handed:
            one.closed = True
        assert consumer.reading
        consumer.reading.cancel()
        consumer.stream.close()
        await asyncio.gather(consumer.reading, return_exceptions=True)

    @rule(key=consumers, broker=brokers)
    def subscribe(self, key: tuple[str, str], broker: int) -> None:
        if key not in self.consumers:
            self._do(f"subscribe {key} to {broker}", self._open(key, broker))

    @rule(key=consumers)
    def close(self, key: tuple[str, str]) -> None:
        if key in self.consumers:
            self._do(f"close {key}", self._close(key))

    async def _settle(self, group: InTurnModel, handed: Sequence[Handed], how: How, broker: int) -> None:
        client, ack_ids = self._client(broker), [one.ack_id for one in handed]
        newest = set(group.newest.values())  # when it was asked
        group.asked(handed)
        if how is How.ACK:
            outcomes = await client.ack(ack_ids)
        else:
            outcomes = await client.nack(ack_ids, NACKS[how], reason="no", seconds=0 if how is How.RETRY else None)
        for one, outcome in zip(handed, outcomes, strict=True):
            self._tell(f"  {how.name} {one.position} of {one.generation} comes to {outcome}")
            group.settled(one, how, outcome, newest=one in newest)
        group.answered()

    def _settle_some(self, name: str, picks: Sequence[int], how: How, broker: int) -> None:
        """Of what was handed out, and not to others since."""
        group = self.groups[name]

        async def settle() -> None:
            if not group.current:
                await self._arrival(group)
            if among := group.current:
                await self._settle(group, list({among[pick % len(among)]: 0 for pick in picks}), how, broker)

        self._do(f"{how.name} {name}", settle())

    async def _arrival(self, group: InTurnModel) -> None:
        """Give what is due some time to come."""
        self.arrived.clear()
        if group.due and self._connected(group):
            with suppress(TimeoutError):
                async with asyncio.timeout(ARRIVAL):
                    await self.arrived.wait()

    def _connected(self, group: InTurnModel) -> bool:
        return any(name == group.name for name, _ in self.consumers)

    @rule(name=groups, picks=some, broker=brokers)
    def ack(self, name: str, picks: Sequence[int], broker: int) -> None:
        self._settle_some(name, picks, How.ACK, broker)

    @rule(name=groups, picks=some, how=st.sampled_from(list(NACKS)), broker=brokers)
    def nack(self, name: str, picks: Sequence[int], how: How, broker: int) -> None:
        self._settle_some(name, picks, how, broker)

    @rule(name=groups, picks=some, how=hows, broker=brokers)
    def settle_again(self, name: str, picks: Sequence[int], how: How, broker: int) -> None:
        """What was settled, or outdated, not long ago."""
        group = self.groups[name]
        current = set(group.current)
        if old := [one for one in group.handed if one not in current][-8:]:
            chosen = list({old[pick % len(old)]: 0 for pick in picks})
            self._do(f"{how.name} again {name}", self._settle(group, chosen, how, broker))

    @rule(name=groups, pick=st.integers(0, 100), how=hows, again=hows, broker=brokers)
    def settle_twice(self, name: str, pick: int, how: How, again: How, broker: int) -> None:
        """The second time after the event may have come again."""
        group = self.groups[name]

        async def settle_twice() -> None:
            if not group.current:
                await self._arrival(group)
            if among := group.current:
                one = among[pick % len(among)]
                await self._settle(group, [one], how, broker)
                await self._arrival(group)
                await self._settle(group, [one], again, broker)

        self._do(f"{how.name} and {again.name} {name}", settle_twice())

    @precondition(lambda self: self.expiries < EXPIRIES)
    @rule(name=groups, pick=st.integers(0, 100))
    def let_a_deadline_pass(self, name: str, pick: int) -> None:
        self.expiries += 1
        group = self.groups[name]
        if not group.current or not self._connected(group):
            return
        one = group.current[pick % len(group.current)]
        since = len(group.handed)

        async def comes_again_or_is_dead() -> bool:
            again = group.newest[one.event_id] is not one
            return again or group.gives_way(one, since) or one.event_id in await self._letters(group)

        self._do(f"{one.position} expires in {name}", eventually(comes_again_or_is_dead, REDELIVERY, every=0.05))

    # Operators.

    @rule(
        name=groups, where=st.sampled_from(["earliest", "latest", "position"]), pick=st.integers(0, 100), broker=brokers
    )
    def seek(self, name: str, where: str, pick: int, broker: int) -> None:
        group = self.groups[name]
        key = self._key(group)
        position = self.positions[pick % len(self.positions)]
        to, point = {
            "earliest": (LogPoint(edge=START_POINT_EARLIEST), 0),
            "latest": (LogPoint(edge=START_POINT_LATEST), self.positions[-1]),
            "position": (LogPoint(position=position), position),
        }[where]

        async def seek() -> None:
            before, _ = await self.world.place(key)
            group.listed(await self._letters(group))
            group.moved(point, before + 1)
            request = SeekGroupRequest(name=key.name, tenant_id=key.tenant_id, to=to)
            await self._client(broker).groups.SeekGroup(request, timeout=TIMEOUT)
            group.letters |= await self._letters(group)  # what died just before; in the new place none did so soon
            await self._made_anew_after(group, before)

        self._do(f"seek {name} {where} {point}", seek())

    async def _letters(self, group: InTurnModel) -> dict[str, Letter]:
        key = self._key(group)
        request = ListDeadLettersRequest(group=key.name, tenant_id=key.tenant_id, page_size=1000)
        page = await self._client(0).dead_letters.ListDeadLetters(request, timeout=TIMEOUT)
        assert not page.next_page_token
        return {
            letter.event_id: Letter(letter.rejected, letter.dead_at.ToNanoseconds()) for letter in page.dead_letters
        }

    @rule(name=groups, broker=brokers, pick=st.none() | st.integers(0, 100))
    def redrive(self, name: str, broker: int, pick: int | None) -> None:
        what = "all" if pick is None else f"letter {pick}"
        self._do(f"redrive {what} {name}", self._redrive(self.groups[name], broker, pick))

    async def _redrive(self, group: InTurnModel, broker: int, pick: int | None = None) -> None:
        """All dead letters, also those that come meanwhile, or one of them."""
        key, wanted = self._key(group), DeadLetterFilter(all=True)
        group.listed(await self._letters(group))
        letters = list(group.letters)
        if letters and pick is not None:
            letters = [letters[pick % len(letters)]]
            tenant, _ = group.line_of[letters[0]]
            wanted = DeadLetterFilter(event_ids=letters, event_tenant_id=tenant)
        group.redriven(letters)
        request = RedriveDeadLettersRequest(group=key.name, tenant_id=key.tenant_id, filter=wanted)
        redriven, remaining = 0, 1
        while remaining:
            answer = await self._client(broker).dead_letters.RedriveDeadLetters(request, timeout=TIMEOUT)
            redriven, remaining = redriven + answer.redriven, answer.remaining
        assert redriven >= len(letters)

    # Faults.

    @precondition(lambda self: self.flushes < FLUSHES)
    @rule(name=groups, picks=some, how=hows, broker=brokers)
    def flush_redis(self, name: str, picks: Sequence[int], how: How, broker: int) -> None:
        """Right after something was settled."""
        self._settle_some(name, picks, how, broker)

        async def flush() -> None:
            known = {name: await self._known_of(name) for name in self.groups}
            for name, group in self.groups.items():
                group.flushed(*known[name])
            await self.world.redis.flushall()
            for group in self.groups.values():
                await self._made_anew_after(group, group.lost)

        self.flushes += 1
        self._do("FLUSHALL", flush())

    async def _known_of(self, name: str) -> tuple[int, set[int], int]:
        """What Redis is about to lose of a group: its generation there, and what is left of it in PostgreSQL."""
        key = self._key(self.groups[name])
        generation = await self.world.generation_in_redis(key)
        _, checkpoint = await self.world.place(key)
        return generation, await self.world.retries(key), checkpoint

    async def _made_anew_after(self, group: InTurnModel, generation: int) -> None:
        """Wait until Redis has the group in a later generation, if anybody is there to make it."""

        async def made_anew() -> bool:
            return await self.world.generation_in_redis(self._key(group)) > generation

        if self._connected(group):
            await eventually(made_anew)

    @precondition(lambda self: self.kills < KILLS)
    @rule(broker=brokers)
    def kill(self, broker: int) -> None:
        async def kill() -> None:
            victim = self.world.brokers[broker]
            await self.world.kill(victim)
            for key, consumer in list(self.consumers.items()):
                if consumer.broker is victim:
                    assert consumer.reading
                    await asyncio.wait([consumer.reading], timeout=TIMEOUT)
                    del self.consumers[key]

        self.kills += 1
        for group in self.groups.values():
            group.kills += 1
        self._do(f"kill {broker}", kill())

    # What must be.

    @invariant()
    def nothing_is_wrong(self) -> None:
        wrong = [f"{group.name}: {what}" for group in self.groups.values() for what in group.wrong]
        if wrong:
            self.world.blame("\n".join([*self.story, *wrong]))
        assert not wrong, wrong

    async def _drain(self) -> None:
        """Ack all that comes, until every group is done."""
        for group in self.groups.values():
            await self._open((group.name, "last"), 0)
        for group in self.groups.values():
            await self._settle_all(group)
            if group.hold and group.letters:
                await self._redrive(group, 0)
                await self._settle_all(group)
            assert not (left := await self.world.lines(self._key(group))), left

    async def _settle_all(self, group: InTurnModel) -> None:
        until = time.monotonic() + DRAIN
        while not await self._is_drained(group):
            missing = sorted(group.positions[event_id] for event_id in group.due)
            assert time.monotonic() < until, f"{group.name} is not done, and waits for {missing}"
            if group.current:
                await self._settle(group, group.current, How.ACK, 0)
            else:
                await self._arrival(group)

    async def _is_drained(self, group: InTurnModel) -> bool:
        status = (await self._client(0).get_group(**self._named(group))).status
        letters = await self._letters(group)
        if (
            group.due - letters.keys()
            or not status.complete
            or status.waiting_retries
            or status.shards[0].settled_position < self.positions[-1]
        ):
            return False
        group.listed(letters)
        assert not group.due
        return True


@pytest.mark.parametrize(
    ("modes", "examples"),
    [((AS_IT_COMES, AS_IT_COMES), 16), ((SKIP, HOLD), 10), ((HOLD, SKIP), 10), ((FAIR, FAIR_HOLD), 10)],
    ids=["as-it-comes", "ordered", "held", "fair"],
)
@pytest.mark.parametrize("engines", ["wheel"], indirect=True)
@pytest.mark.timeout(330)  # for the slow; it takes half a minute
def test_groups_do_what_the_model_says_whatever_happens(world: World, modes: tuple[Mode, Mode], examples: int) -> None:
    machine = type("Machine", (GroupMachine,), {"world": world, "modes": modes})
    try:
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=examples,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=[Phase.generate],  # what fails depends on time, and would be made small for long
                suppress_health_check=list(HealthCheck),  # its patience is meant for tests without I/O
            ),
        )
    except Exception as exc:
        exc.add_note("\n\n".join(world.failures))  # Hypothesis tries again, which may go another way
        raise
