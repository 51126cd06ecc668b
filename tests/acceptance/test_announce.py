"""What the broker tells of groups as events of its own tenant, through real ports."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1 import group_service_pb2 as groups
from eventbroker.v1.subscriber_service_pb2 import NACK_ACTION_DEAD_LETTER, START_POINT_EARLIEST, FlowControl

from tests.client import ack_ids, error_info, event

if TYPE_CHECKING:
    from tests.client import Client, Stream


@pytest.fixture
async def ops(broker: Client) -> Stream:
    return await broker.subscribe("ops", "broker.group.*", tenant_id="_broker")


async def told(ops: Stream, count: int) -> list[tuple[str, dict[str, Any]]]:
    return [(got.event_type, json.loads(got.json)) for got in await ops.take_and_ack(count)]


async def test_a_dead_letter_is_told_once_with_its_event(broker: Client, ops: Stream) -> None:
    async with await broker.subscribe("mail", tenant_id="acme") as stream:
        await broker.publish(poison := event())
        for _ in range(2):
            await broker.nack(ack_ids(await stream.take(1)), NACK_ACTION_DEAD_LETTER, reason="malformed")
            (found,) = await told(ops, 1)
            assert found == (
                "broker.group.dead_lettered",
                {
                    "group": "mail",
                    "tenant_id": "acme",
                    "shard": 0,
                    "position": 1,
                    "event_tenant_id": "acme",
                    "event_id": poison.event_id,
                    "event_type": "user.created",
                    "attempts": found[1]["attempts"],
                    "reason": "malformed",
                },
            )
            to = groups.LogPoint(edge=START_POINT_EARLIEST)
            await broker.groups.SeekGroup(groups.SeekGroupRequest(name="mail", tenant_id="acme", to=to))
            assert [what for what, _ in await told(ops, 1)] == ["broker.group.sought"]


async def test_what_is_done_to_a_group_is_told(broker: Client, ops: Stream) -> None:
    await broker.groups.CreateGroup(groups.CreateGroupRequest(name="mail"))
    await broker.groups.PauseGroup(groups.PauseGroupRequest(name="mail"))
    await broker.groups.ResumeGroup(groups.ResumeGroupRequest(name="mail"))
    await broker.groups.DeleteGroup(groups.DeleteGroupRequest(name="mail"))
    assert await told(ops, 3) == [
        (f"broker.group.{what}", {"group": "mail", "tenant_id": ""}) for what in ("paused", "resumed", "deleted")
    ]


async def test_a_consumer_that_takes_nothing_is_told(broker: Client, ops: Stream) -> None:
    flow = FlowControl(max_batch_events=1)
    async with await broker.subscribe("g", consumer_id="c1", ack_deadline=1, flow_control=flow):
        await broker.publish(*(event(json=f'"{"x" * 900_000}"') for _ in range(4)))
        await broker.publish(*(event(json=f'"{"x" * 900_000}"') for _ in range(4)))
        ((what, data),) = await told(ops, 1)
        assert (what, data["group"], data["consumer_id"]) == ("broker.group.stalled", "g", "c1")
        assert data["waiting"] > 0


async def test_a_group_of_all_tenants_gets_nothing_of_it(broker: Client, ops: Stream) -> None:
    async with await broker.subscribe("all") as live:
        await broker.groups.PauseGroup(groups.PauseGroupRequest(name="all"))
        await broker.groups.ResumeGroup(groups.ResumeGroupRequest(name="all"))
        await told(ops, 2)
        await broker.publish(one := event())
        assert [got.event_id for got in await live.take_and_ack(1)] == [one.event_id]
    async with await broker.subscribe("late") as history:
        assert [got.event_id for got in await history.take_and_ack(1)] == [one.event_id]


async def test_a_group_of_system_events_is_not_told_of_itself(broker: Client, ops: Stream) -> None:
    for _ in range(2):
        await broker.groups.PauseGroup(groups.PauseGroupRequest(name="ops", tenant_id="_broker"))
        await broker.groups.ResumeGroup(groups.ResumeGroupRequest(name="ops", tenant_id="_broker"))
    await ops.nothing_but_heartbeats(2)


async def test_nobody_else_publishes_as_the_broker(broker: Client) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await broker.publish(event(tenant_id="_broker"))
    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
    assert error_info(caught.value)["ErrorInfo"].reason == "TENANT_FORBIDDEN"
