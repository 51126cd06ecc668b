"""Two hundred poison events, each through a crash at one of the steps between its failure and its dead letter."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker.v1.dead_letter_service_pb2 import DeadLetterFilter, ListDeadLettersRequest, RedriveDeadLettersRequest
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, FlowControl
from eventbroker_server import app
from eventbroker_server.broker import retry
from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable
from eventbroker_server.postgres.retry_store import PostgresRetryStore
from eventbroker_server.redis.streams import RedisStreams

from tests.client import DONE, TIMEOUT, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.client import Client
    from tests.conftest import Stores

POISON = 200
STEPS = [(call, effective) for call in ("set_aside", "record", "forget") for effective in (False, True)]
AWAY = {"set_aside": StreamsUnavailable, "record": StoreUnavailable, "forget": StreamsUnavailable}


def crashing(adapter: type[Any], calls: tuple[str, ...], struck: Counter[tuple[str, bool]]) -> type[Any]:
    """The true adapter, but each event's calls fail once at one step, before its effect or after it."""
    seen: set[int] = set()

    def failing(call: str) -> Callable[..., Awaitable[Any]]:
        true_call = getattr(adapter, call)

        async def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            positions = [one.position for one in args[-1]]
            step = STEPS[positions[0] % len(STEPS)]
            strikes = len(positions) == 1 and step[0] == call and positions[0] not in seen
            seen.update(positions if strikes else ())
            if strikes and not step[1]:
                struck[step] += 1
                raise AWAY[call]
            answer = await true_call(self, *args, **kwargs)
            if strikes:
                struck[step] += 1
                raise AWAY[call]
            return answer

        return method

    return type(f"Crashing{adapter.__name__}", (adapter,), {call: failing(call) for call in calls})


async def test_a_poison_event_is_dead_lettered_once_whatever_fails_on_the_way(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    struck: Counter[tuple[str, bool]] = Counter()
    monkeypatch.setattr(app, "RedisStreams", crashing(RedisStreams, ("set_aside", "forget"), struck))
    monkeypatch.setattr(app, "PostgresRetryStore", crashing(PostgresRetryStore, ("record",), struck))
    broker = await make_broker(sweep_interval=0.3)
    postgres = await asyncpg.connect(stores.postgres)

    async def dead() -> list[asyncpg.Record]:
        found: list[asyncpg.Record] = await postgres.fetch("SELECT * FROM eventbroker.dead_letters")
        return found

    async def all_dead() -> bool:
        return len(await dead()) >= POISON

    async def nothing_pending() -> bool:
        (group,) = await redis.xinfo_groups(f"{stores.prefix}:{{0}}:events:user.created")
        return bool(group["pending"] == 0)

    try:
        async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=POISON)) as stream:
            poison = [event() for _ in range(POISON)]
            await broker.publish(*poison)
            for delivery in await stream.take(POISON):
                for _ in range(2):  # who gets no answer asks again
                    with suppress(grpc.aio.AioRpcError):
                        await broker.nack([delivery.ack_id], NACK_ACTION_DEAD_LETTER, reason="malformed")
                        break
            await eventually(all_dead, timeout=30)
            await eventually(nothing_pending, timeout=30)
            await stream.nothing_but_heartbeats(2)
        letters = await dead()
        assert {letter["event_id"] for letter in letters} == {one.event_id for one in poison}
        told = Counter((one["reason"], one["attempts"], len(json.loads(one["history"]))) for one in letters)
        assert told == {("malformed", 1, 1): POISON}
        assert await postgres.fetchval("SELECT count(*) FROM eventbroker.retries") == 0
        assert min(struck[step] for step in STEPS) >= POISON // len(STEPS)
    finally:
        await postgres.close()


async def test_an_event_that_was_acked_on_its_retry_stays_acked_though_its_failure_was_not_forgotten(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(self: RedisStreams, *args: Any, **options: Any) -> None:
        raise StreamsUnavailable

    monkeypatch.setattr(RedisStreams, "forget", forget)
    broker = await make_broker(sweep_interval=0.3)
    aside = f"{stores.prefix}:{{0}}:failing:*:g"
    async with await broker.subscribe("g") as stream:
        await broker.publish(event())
        (first,) = await stream.take(1)
        with pytest.raises(grpc.aio.AioRpcError):
            await broker.nack([first.ack_id], seconds=2.0)
        assert await redis.hlen(aside) == 1
        (second,) = await stream.take(1)
        assert second.attempt == 2
        assert await redis.hlen(aside) == 0
        assert await broker.ack([second.ack_id]) == [DONE]
        await stream.nothing_but_heartbeats(1)


async def test_a_dead_letter_that_is_redriven_before_its_failure_was_forgotten_has_all_its_attempts(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def forget(self: RedisStreams, *args: Any, **options: Any) -> None:
        raise StreamsUnavailable

    monkeypatch.setattr(RedisStreams, "forget", forget)
    monkeypatch.setattr(retry, "_ABANDONED", 1.0)
    broker = await make_broker(sweep_interval=0.3)
    async with await broker.subscribe("g") as stream:
        await broker.publish(event())
        for _ in range(2):
            (delivery,) = await stream.take(1)
            assert delivery.attempt == 1
            with pytest.raises(grpc.aio.AioRpcError):
                await broker.nack([delivery.ack_id], NACK_ACTION_DEAD_LETTER, reason="malformed")
            await broker.dead_letters.RedriveDeadLetters(
                RedriveDeadLettersRequest(group="g", filter=DeadLetterFilter(all=True)), timeout=TIMEOUT
            )
        (delivery,) = await stream.take(1)
        await stream.nothing_but_heartbeats(4)  # sweeps go over it
        assert await broker.ack([delivery.ack_id]) == [DONE]
        listed = await broker.dead_letters.ListDeadLetters(ListDeadLettersRequest(group="g"), timeout=TIMEOUT)
        assert not listed.dead_letters
