"""Groups of all tenants that give each its turn, through real ports."""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
import pytest
from eventbroker.v1 import group_service_pb2 as groups
from eventbroker.v1.publisher_service_pb2 import PUBLISH_MODE_PER_EVENT
from eventbroker.v1.subscriber_service_pb2 import FlowControl

from tests.client import DONE, ack_ids, event, violations
from tests.waiting import eventually

if TYPE_CHECKING:
    from eventbroker.v1.event_pb2 import Event

    from tests.client import Client

BY_TENANT = groups.FAIRNESS_BY_TENANT
SLOTS = 16  # that a tenant has


def of(tenant: str, number: int, aggregate: str = "") -> Event:
    name = f"{tenant}-{number:05}"
    return event(tenant_id=tenant, event_id=name, aggregate_id=aggregate or name)


async def test_a_tenant_with_a_backlog_lets_the_events_of_others_go_before_its_own(broker: Client) -> None:
    await broker.create_group("g", fairness=BY_TENANT)
    await broker.publish(*(of("heavy", number) for number in range(500)))
    await broker.publish(*(of("light", number) for number in range(3)))
    async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=4)) as stream:
        taken = await stream.take_and_ack(503)
    order = [event.event_id for event in taken]
    assert len(set(order)) == 503
    assert max(order.index(f"light-{number:05}") for number in range(3)) <= 3 * SLOTS  # it is fed while they go


async def test_what_waits_for_its_next_attempt_takes_no_slot_of_its_tenant(broker: Client) -> None:
    await broker.create_group("g", fairness=BY_TENANT)
    async with await broker.subscribe("g") as stream:
        await broker.publish(*(of("a", number) for number in range(SLOTS + 5)))
        first = await stream.take(SLOTS)
        await stream.nothing_but_heartbeats(1)
        assert await broker.nack(ack_ids(first), seconds=3600) == [DONE] * SLOTS
        rest = await stream.take(5)
        assert await broker.ack(ack_ids(rest)) == [DONE] * 5
        assert [delivery.event.event_id for delivery in rest] == [
            f"a-{number:05}" for number in range(SLOTS, SLOTS + 5)
        ]


async def test_slots_of_events_that_are_retried_are_taken_and_given_back(broker: Client) -> None:
    await broker.create_group("g", fairness=BY_TENANT)
    async with await broker.subscribe("g") as stream:
        await broker.publish(*(of("a", number) for number in range(100)))
        for _ in range(2):
            await broker.nack(ack_ids(await stream.take(SLOTS)), seconds=0)
        events = await stream.take_and_ack(100)
        assert len({event.event_id for event in events}) == 100
        await broker.publish(*(of("a", number) for number in range(100, 200)))
        assert len(await stream.take_and_ack(100)) == 100
        await eventually(lambda: _is_done(broker))


async def _is_done(broker: Client) -> bool:
    status = (await broker.get_group("g")).status
    return not status.waiting_retries and not any(shard.lag for shard in status.shards)


@pytest.mark.parametrize(
    "ordering", [groups.ORDERING_NONE, groups.ORDERING_BY_AGGREGATE], ids=["as-it-comes", "ordered"]
)
async def test_a_group_far_behind_gets_all_of_all_tenants_once(broker: Client, ordering: int) -> None:
    published = [of(f"t{number % 3}", number, aggregate=f"u{number % 50}") for number in range(3_000)]
    for first in range(0, 3_000, 1_000):
        await broker.publish(*published[first : first + 1_000], mode=PUBLISH_MODE_PER_EVENT)
    await broker.create_group("g", fairness=BY_TENANT, ordering=ordering)
    async with await broker.subscribe("g") as stream:
        events = await stream.take_and_ack(3_000, timeout=40)
    assert sorted(event.event_id for event in events) == sorted(event.event_id for event in published)
    if ordering == groups.ORDERING_BY_AGGREGATE:
        lines: dict[tuple[str, str], list[int]] = {}
        for one in events:
            lines.setdefault((one.tenant_id, one.aggregate_id), []).append(one.position)
        assert all(line == sorted(line) for line in lines.values())


async def test_fairness_is_refused_for_one_tenant_and_for_what_there_is_not(broker: Client) -> None:
    for fields in ({"fairness": BY_TENANT, "tenant_id": "acme"}, {"fairness": 9}):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await broker.create_group("g", **fields)
        assert list(violations(refused.value)) == ["fairness"]
