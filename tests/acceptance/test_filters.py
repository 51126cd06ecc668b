"""Groups that ask for sources, aggregate types and tags."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from eventbroker.v1 import group_service_pb2 as pb
from eventbroker.v1.event_pb2 import Metadata
from eventbroker.v1.subscriber_service_pb2 import START_POINT_LATEST
from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import ALL_TENANTS, Group, GroupKey
from eventbroker_server.redis.keys import Keys
from google.protobuf.field_mask_pb2 import FieldMask

from tests.client import DONE, TIMEOUT, ack_ids, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from redis.asyncio import Redis

    from tests.client import Client
    from tests.conftest import Stores


async def said(broker: Client, source: str = "", *tags: str, **fields: Any) -> str:
    """Publish an event whose metadata says so; its id."""
    await broker.publish(one := event(metadata=Metadata(source=source, tags=tags), **fields))
    return one.event_id


async def update(broker: Client, *paths: str, **fields: Any) -> pb.Group:
    request = pb.UpdateGroupRequest(name="g", update_mask=FieldMask(paths=paths), **fields)
    return (await broker.groups.UpdateGroup(request, timeout=TIMEOUT)).group


async def settled(broker: Client, position: int) -> None:
    async def is_settled() -> bool:
        return (await broker.get_group("g")).status.shards[0].settled_position >= position

    await eventually(is_settled)


async def change_unheard(stores: Stores, redis: Redis, source: str) -> None:
    """Change the source as a broker does that dies before it tells of it."""
    connection = await asyncpg.connect(stores.postgres)
    try:
        await connection.execute("UPDATE eventbroker.groups SET sources = $1", [source])
    finally:
        await connection.close()
    key = GroupKey(ALL_TENANTS, "g")
    group = Group(key, TypeFilter.of("*"), 30.0, conditions=Conditions(frozenset({source})))
    assert await redis.hset(Keys(stores.prefix, 0).state(str(key)), "filter", group.filter_text) == 0


@pytest.fixture
async def two(make_broker: Callable[..., Awaitable[Client]]) -> list[Client]:
    return [await make_broker(), await make_broker()]


async def test_a_group_with_conditions_is_found_as_it_was_made(broker: Client) -> None:
    made = await broker.create_group("g", sources=["b", "a", "a"], aggregate_types=["User"], tags=["ü", "{x}"])
    assert (list(made.sources), list(made.aggregate_types), list(made.tags)) == (["a", "b"], ["User"], ["{x}", "ü"])
    assert (await broker.get_group("g")).group == made
    changed = await update(broker, "sources", "tags", tags=["y"])
    assert (list(changed.sources), list(changed.aggregate_types), list(changed.tags)) == ([], ["User"], ["y"])


@pytest.mark.parametrize("start", ["history", "live"])
async def test_a_group_gets_what_meets_its_conditions_and_settles_the_rest(broker: Client, start: str) -> None:
    await broker.create_group("g", sources=["billing", "mail"], aggregate_types=["User"], tags=["eu", "beta"])

    async def publish() -> list[str]:
        wanted = [await said(broker, "billing", "eu", "beta")]
        await said(broker, "billing", "eu")
        await said(broker, "other", "eu", "beta")
        await said(broker, "mail", "eu", "beta", aggregate_type="Role")
        await said(broker)
        return [*wanted, await said(broker, "mail", "x", "beta", "eu"), await said(broker, "mail", "beta", "eu")]

    if start == "history":
        wanted = await publish()
    async with await broker.subscribe("g", "*") as stream:
        if start == "live":
            wanted = await publish()
        assert [each.event_id for each in await stream.take_and_ack(3)] == wanted
        await settled(broker, 7)
        await stream.nothing_but_heartbeats(1)


async def test_changed_conditions_hold_from_then_on_at_every_broker(two: list[Client]) -> None:
    one, other = two
    await other.create_group("g", sources=["a"])
    async with await one.subscribe("g") as stream:
        held = await said(one, "a")
        (delivery,) = await stream.take(1)
        assert delivery.event.event_id == held
        for source, before in [("b", "a"), ("c", "b"), ("a", "c")]:
            await update(other, "sources", sources=[source])
            await said(one, before)
            wanted = await said(one, source)
            assert [each.event_id for each in await stream.take_and_ack(1)] == [wanted]
        await update(other, "sources")
        wanted = await said(one)
        assert [each.event_id for each in await stream.take_and_ack(1)] == [wanted]
        assert await one.ack([delivery.ack_id]) == [DONE]
        await settled(one, 8)


async def test_no_event_is_lost_to_conditions_that_a_broker_has_not_heard_of_the_change_of(
    make_broker: Callable[..., Awaitable[Client]], stores: Stores, redis: Redis
) -> None:
    broker = await make_broker(sweep_interval=600.0)
    await broker.create_group("g", sources=["a"])
    async with await broker.subscribe("g") as stream:
        first = await said(broker, "a")
        assert [each.event_id for each in await stream.take_and_ack(1)] == [first]
        await change_unheard(stores, redis, "b")
        await said(broker, "a")
        wanted = await said(broker, "b")
        assert [each.event_id for each in await stream.take_and_ack(1)] == [wanted]


async def test_history_that_comes_later_meets_the_new_conditions(broker: Client) -> None:
    await broker.create_group("g", sources=["a"])
    old, new = await said(broker, "a"), await said(broker, "b")
    async with await broker.subscribe("g") as stream:
        assert [each.event_id for each in await stream.take_and_ack(1)] == [old]
        await update(broker, "sources", sources=["b"])
        to = pb.LogPoint(position=0)
        request = pb.SeekGroupRequest(name="g", to=to, dry_run=True)

        async def again() -> bool:
            return (await broker.groups.SeekGroup(request, timeout=TIMEOUT)).events_again == 1

        await eventually(again)  # counted up to the checkpoint
        await broker.groups.SeekGroup(pb.SeekGroupRequest(name="g", to=to), timeout=TIMEOUT)
        assert [each.event_id for each in await stream.take_and_ack(1)] == [new]


async def test_what_is_out_when_the_conditions_change_is_tried_again_when_it_fails(broker: Client) -> None:
    await broker.create_group("g", tags=["x"])
    async with await broker.subscribe("g") as stream:
        wanted = await said(broker, "", "x")
        delivery = await stream.take(1)
        await update(broker, "tags", tags=["y"])
        assert await broker.nack(ack_ids(delivery), seconds=0) == [DONE]
        (again,) = await stream.take(1)
        assert (again.event.event_id, again.attempt) == (wanted, 2)


async def test_an_event_that_misses_a_condition_is_explained(broker: Client) -> None:
    await broker.create_group("g", sources=["billing"], tags=["eu"], start=pb.LogPoint(edge=START_POINT_LATEST))
    missed = await said(broker, "billing")
    request = pb.ExplainDeliveryRequest(name="g", event_tenant_id="acme", event_id=missed)
    told = await broker.groups.ExplainDelivery(request, timeout=TIMEOUT)
    assert told.state == pb.DELIVERY_STATE_FILTERED
    assert "events of source billing with tag eu" in told.explanation
