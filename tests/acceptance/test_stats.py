"""GetStats: what is counted, and how groups stand, through the port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1.group_service_pb2 import ORDERING_BY_AGGREGATE
from eventbroker.v1.stats_service_pb2 import GetStatsRequest, GetStatsResponse
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, NACK_ACTION_RELEASE, START_POINT_LATEST
from eventbroker_server.domain.event import shard_of
from eventbroker_server.domain.principal import Principal, Role
from eventbroker_server.rpc.auth import OpenProvider

from tests.acceptance.refused import refusal, refused
from tests.client import DONE, TIMEOUT, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client

    MakeBroker = Callable[..., Awaitable[Client]]

TYPE = "user.created"


async def stats(broker: Client, **fields: Any) -> GetStatsResponse:
    return await broker.stats.GetStats(GetStatsRequest(**fields), timeout=TIMEOUT)


async def counts(broker: Client, event_type: str = TYPE) -> tuple[int, int, int, int]:
    """Published, delivered, acked, failed; zeros for a type that was not met."""
    for row in (await stats(broker)).event_types:
        if row.event_type == event_type:
            return row.published, row.delivered, row.acked, row.failed
    return 0, 0, 0, 0


async def test_each_step_of_an_event_moves_its_count_and_no_other(broker: Client) -> None:
    async with await broker.subscribe("billing", TYPE, start=START_POINT_LATEST) as stream:
        one = event()
        await broker.publish(one)
        (delivery,) = await stream.take(1)
        assert await counts(broker) == (1, 1, 0, 0)
        await broker.publish(one)  # a duplicate
        assert await counts(broker) == (1, 1, 0, 0)
        await broker.nack([delivery.ack_id], seconds=0)
        assert await counts(broker) in [(1, 1, 0, 1), (1, 2, 0, 1)]
        (again,) = await stream.take(1)
        assert await counts(broker) == (1, 2, 0, 1)
        assert await broker.ack([again.ack_id, delivery.ack_id, again.ack_id]) != [DONE] * 3
        assert await counts(broker) == (1, 2, 1, 1)


async def test_released_delivery_is_neither_acked_nor_failed(broker: Client) -> None:
    async with await broker.subscribe("billing", TYPE, start=START_POINT_LATEST) as stream:
        await broker.publish(event())
        (delivery,) = await stream.take(1)
        await broker.nack([delivery.ack_id], NACK_ACTION_RELEASE)
        await stream.take(1)
        assert await counts(broker) == (1, 2, 0, 0)


async def test_missed_deadline_and_rejection_count_as_failed(broker: Client) -> None:
    async with await broker.subscribe("billing", TYPE, ack_deadline=1.0, start=START_POINT_LATEST) as stream:
        await broker.publish(event())
        await stream.take(1)
        (again,) = await stream.take(1)
        assert await counts(broker) == (1, 2, 0, 1)
        await broker.nack([again.ack_id], NACK_ACTION_DEAD_LETTER, reason="broken")
        assert await counts(broker) == (1, 2, 0, 2)


async def test_history_is_counted_by_type_and_says_nothing_of_latency(broker: Client) -> None:
    await broker.publish(event(), event(event_type="user.deleted"))
    async with await broker.subscribe("late", "*") as stream:
        deliveries = await stream.take(2)
        await broker.ack(delivery.ack_id for delivery in deliveries)
    told = await stats(broker)
    assert [(row.event_type, row.delivered, row.acked) for row in told.event_types] == [
        (TYPE, 1, 1),
        ("user.deleted", 1, 1),
    ]
    assert told.total_event_types == 2
    assert not any(row.HasField("average_latency") or row.HasField("p99_latency") for row in told.event_types)


async def test_latency_runs_from_storing_to_the_first_hand_over(broker: Client) -> None:
    async with await broker.subscribe("billing", TYPE, start=START_POINT_LATEST) as stream:
        for _ in range(3):
            await broker.publish(event())
            await stream.take(1)
    (row,) = (await stats(broker)).event_types
    average, p99 = row.average_latency.ToTimedelta(), row.p99_latency.ToTimedelta()
    assert 0 < average.total_seconds() <= p99.total_seconds() < TIMEOUT


async def test_ack_through_another_broker_is_counted_there(make_broker: MakeBroker) -> None:
    one, other = await make_broker(), await make_broker()
    async with await one.subscribe("billing", TYPE, start=START_POINT_LATEST) as stream:
        await one.publish(event())
        (delivery,) = await stream.take(1)
        assert await other.ack([delivery.ack_id]) == [DONE]
    assert await counts(one) == (1, 1, 0, 0)
    assert await counts(other) == (0, 0, 1, 0)


async def test_group_in_turn_is_counted_by_type(broker: Client) -> None:
    await broker.create_group("ordered", "*", ordering=ORDERING_BY_AGGREGATE)
    async with await broker.subscribe("ordered") as stream:
        await broker.publish(event())
        (delivery,) = await stream.take(1)
        await broker.ack([delivery.ack_id])
        assert await counts(broker) == (1, 1, 1, 0)


async def test_lag_and_age_of_a_group_go_as_it_settles(broker: Client) -> None:
    async with await broker.subscribe("billing", TYPE, tenant_id="acme") as stream:
        await broker.publish(event(), event())
        deliveries = await stream.take(2)
        (group,) = (await stats(broker)).groups
        assert (group.tenant_id, group.name, group.lag) == ("acme", "billing", 2)
        assert group.HasField("oldest_unsettled_age")
        await broker.ack(delivery.ack_id for delivery in deliveries)

        async def all_settled() -> bool:
            (group,) = (await stats(broker)).groups
            return group.lag == 0 and not group.HasField("oldest_unsettled_age")

        await eventually(all_settled)


async def test_shards_that_a_group_does_not_read_are_not_its_lag(make_broker: MakeBroker) -> None:
    broker = await make_broker(shards=4)
    await broker.create_group("everything")
    await broker.create_group("billing", tenant_id="t0")
    tenants = [f"t{number}" for number in range(8)]
    for tenant in tenants:
        await broker.publish(event(tenant_id=tenant))
    in_its_shard = [tenant for tenant in tenants if shard_of(tenant, 4) == shard_of("t0", 4)]
    assert len(in_its_shard) < len(tenants)
    lags = {(group.tenant_id, group.name): group.lag for group in (await stats(broker)).groups}
    assert lags == {("*", "everything"): len(tenants), ("t0", "billing"): len(in_its_shard)}


async def test_tenant_sees_its_groups_and_no_counts(make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    broker = await make_broker()
    for tenant in ("acme", "globex", ""):
        (await broker.subscribe("billing", tenant_id=tenant)).close()
    await broker.publish(event())
    everything = await stats(broker)
    assert [group.tenant_id for group in everything.groups] == ["*", "acme", "globex"]
    assert len(everything.event_types) == 1
    asked = await stats(broker, tenant_id="acme")
    monkeypatch.setattr(OpenProvider, "_PLATFORM", Principal("acme", frozenset(Role), "acme"))
    for told in (asked, await stats(broker)):
        assert [(group.tenant_id, group.name) for group in told.groups] == [("acme", "billing")]
        assert (list(told.event_types), told.total_event_types) == ([], 0)
    await refused(stats(broker, tenant_id="globex"), grpc.StatusCode.PERMISSION_DENIED, "TENANT_FORBIDDEN")


async def test_tenant_that_is_not_a_name_is_refused(broker: Client) -> None:
    assert list((await refusal(stats(broker, tenant_id="a b"))).violations) == ["tenant_id"]
