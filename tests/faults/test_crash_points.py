"""Every call to Redis in the life of a delivery fails once, before its effect and after it: no event is lost.

The life: a group is opened, fed from history, read for, settled in part, left by its consumer, given back, read for by
the next one, settled, and its checkpoint written.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker_server import app
from eventbroker_server.domain.errors import StreamsUnavailable
from eventbroker_server.redis.streams import RedisStreams

from tests.client import ALREADY_SETTLED, DONE, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker.v1.subscriber_service_pb2 import Delivery

    from tests.client import Client, Stream
    from tests.conftest import Stores

CALLS = ("open_group", "tell_opened", "feed", "read", "drop", "settle", "hand_back", "holdings", "progress")
AT_ONCE = 8  # lives


@dataclass
class Crash:
    """The nth call of a kind for a group fails, after its effect or instead of it."""

    call: str
    number: int
    effective: bool
    calls: Counter[str] = field(default_factory=Counter)

    def strikes(self, call: str) -> bool:
        self.calls[call] += 1
        return call == self.call and self.calls[call] == self.number

    @property
    def struck(self) -> bool:
        return self.calls[self.call] >= self.number


def crashing(crashes: dict[str, Crash]) -> type[RedisStreams]:
    """True streams whose calls fail as planned for each group."""

    def failing(call: str) -> Callable[..., Awaitable[Any]]:
        true_call = getattr(RedisStreams, call)

        async def method(self: RedisStreams, *args: Any, **kwargs: Any) -> Any:
            crash = crashes.get(args[0][0].lane.group if call == "settle" else args[1])
            strikes = crash is not None and crash.strikes(call)
            if crash and strikes and not crash.effective:
                raise StreamsUnavailable
            answer = await true_call(self, *args, **kwargs)
            if crash and strikes:
                raise StreamsUnavailable
            return answer

        return method

    return type("CrashingStreams", (RedisStreams,), {call: failing(call) for call in CALLS})


@pytest.fixture
def crashes() -> dict[str, Crash]:
    return {}


@pytest.fixture
async def broker(
    make_broker: Callable[..., Awaitable[Client]], crashes: dict[str, Crash], monkeypatch: pytest.MonkeyPatch
) -> Client:
    monkeypatch.setattr(app, "RedisStreams", crashing(crashes))
    return await make_broker(sweep_interval=0.3)


@pytest.fixture
async def postgres(stores: Stores) -> AsyncIterator[asyncpg.Pool]:
    async with asyncpg.create_pool(stores.postgres, min_size=1, max_size=AT_ONCE) as pool:
        yield pool


@dataclass
class Life:
    """One group, and the events that it is to get."""

    name: str
    crash: Crash
    client: Client
    postgres: asyncpg.Pool
    published: dict[str, int] = field(default_factory=dict)
    acked: set[str] = field(default_factory=set)

    async def live(self) -> None:
        await self.publish()
        async with await self.subscribe() as stream:
            await self.ack(await stream.take(1))
            await self.publish()
            await stream.take(1)
        async with await self.subscribe() as stream:
            await self.ack_all(stream)
            await eventually(self.checkpointed)
            await eventually(lambda: self.crash.calls.keys() == set(CALLS))
            await self.publish()
            await self.ack_all(stream)

    async def publish(self) -> None:
        """Two events for the group, and between them one of the same type for another tenant."""
        for tenant_id in ("acme", "other", "acme"):
            one = event(event_type=f"{self.name}.happened", tenant_id=tenant_id)
            (result,) = await self.client.publish(one)
            if tenant_id == "acme":
                self.published[one.event_id] = result.position

    async def subscribe(self) -> Stream:
        wish: dict[str, Any] = {"tenant_id": "acme", "ack_deadline": 1.5, "flow_control": {"max_unsettled_events": 2}}
        return await self.client.subscribe(self.name, f"{self.name}.*", **wish)

    async def ack_all(self, stream: Stream) -> None:
        while self.acked != self.published.keys():
            await self.ack(await stream.take(1))

    async def ack(self, deliveries: list[Delivery]) -> None:
        """Once more if it fails."""
        ack_ids = [delivery.ack_id for delivery in deliveries]
        try:
            outcomes = await self.client.ack(ack_ids)
        except grpc.aio.AioRpcError:
            outcomes = await self.client.ack(ack_ids)
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            assert delivery.event.event_id in self.published
            if outcome in (DONE, ALREADY_SETTLED):
                self.acked.add(delivery.event.event_id)

    async def checkpointed(self) -> bool:
        found = await self.postgres.fetchval(
            "SELECT checkpoint FROM eventbroker.group_shards WHERE name = $1", self.name
        )
        return bool(found >= max(self.published.values()))


@pytest.mark.parametrize("effective", [False, True], ids=["before its effect", "after its effect"])
async def test_no_event_is_lost_whichever_call_of_a_delivery_s_life_fails(
    broker: Client, postgres: asyncpg.Pool, crashes: dict[str, Crash], effective: bool
) -> None:
    at_once = asyncio.Semaphore(AT_ONCE)

    async def live(call: str, number: int) -> Crash:
        name = f"{call}-{number}"
        crash = crashes[f"acme:{name}"] = Crash(call, number, effective)
        async with at_once:
            try:
                await Life(name, crash, broker, postgres).live()
            except (AssertionError, TimeoutError) as exc:
                raise AssertionError(f"lost or stuck after a failure of {call} number {number}") from exc
        return crash

    undisturbed = await live("none", 0)
    async with asyncio.TaskGroup() as tasks:
        lives = [
            tasks.create_task(live(call, number))
            for call, count in undisturbed.calls.items()
            for number in range(1, count + 1)
        ]
    struck = [crash for crash in (life.result() for life in lives) if crash.struck]
    assert {crash.call for crash in struck} == set(CALLS)


async def test_a_burst_of_other_tenants_does_not_hold_up_a_group(broker: Client) -> None:
    async with await broker.subscribe("billing", "*", tenant_id="acme") as stream:
        await broker.publish(*(event(tenant_id="other") for _ in range(1000)))
        one = event(tenant_id="acme")
        await broker.publish(one)
        assert [got.event_id for got in await stream.take_and_ack(1)] == [one.event_id]
