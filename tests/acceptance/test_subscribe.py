"""Subscribe, Ack and ExtendDeadline: who gets what, how much at a time, for how long, and what a stream tells."""

from __future__ import annotations

import asyncio
import string
from collections import Counter
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import grpc
import pytest
from eventbroker.v1.subscriber_service_pb2 import (
    CLOSING_REASON_MAX_AGE,
    CLOSING_REASON_REPLACED,
    START_POINT_EARLIEST,
    START_POINT_LATEST,
    FlowControl,
)
from eventbroker_server.domain.principal import Principal, Role
from eventbroker_server.rpc.auth import OpenProvider

from tests.acceptance.refused import refused
from tests.client import ALREADY_SETTLED, DONE, OUTDATED, UNKNOWN, ack_ids, event, ids, publish
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence

    from eventbroker.v1.subscriber_service_pb2 import Delivery, Heartbeat
    from redis.asyncio import Redis

    from tests.client import Client, Stream
    from tests.conftest import Stores

    MakeBroker = Callable[..., Awaitable[Client]]

LONG = 600.0  # a deadline that does not run out in a test


def attempts(deliveries: Iterable[Delivery]) -> set[int]:
    return {delivery.attempt for delivery in deliveries}


async def share(streams: Sequence[Stream], count: int) -> list[list[str]]:
    """Let these streams take and ack together until that many events came; the ids that each got."""
    got: list[list[str]] = [[] for _ in streams]

    async def consume(stream: Stream, mine: list[str]) -> None:
        while True:
            mine += ids(await stream.take_and_ack(1, timeout=60))

    tasks = [asyncio.create_task(consume(stream, mine)) for stream, mine in zip(streams, got, strict=True)]
    try:
        await eventually(lambda: sum(map(len, got)) >= count, timeout=40)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    return got


async def heartbeat(stream: Stream, condition: Callable[[Heartbeat], bool]) -> Heartbeat:
    """The next heartbeat for which the condition holds."""
    async with asyncio.timeout(10):
        while not (stream.heartbeats and condition(stream.heartbeats[-1])):
            assert await stream.read() is not None
    return stream.heartbeats[-1]


async def end(stream: Stream) -> None:
    """Read until the server ends the stream with OK."""
    while await stream.read() is not None:
        pass
    assert await stream.call.code() == grpc.StatusCode.OK


# Who gets what.


async def test_a_group_gets_the_types_that_its_patterns_match(broker: Client) -> None:
    types = ["user", "user.created", "user.mail.changed", "users.created", "role.assigned"]
    wanted = {
        ("user.*",): {"user.created", "user.mail.changed"},
        ("user.mail.*", "role.assigned"): {"user.mail.changed", "role.assigned"},
        ("user",): {"user"},
        ("*",): set(types),
        (): set(types),
    }
    streams = [await broker.subscribe(f"g{number}", *patterns) for number, patterns in enumerate(wanted)]
    for event_type in types:
        await publish(broker, event_type=event_type)
    for stream, matching in zip(streams, wanted.values(), strict=True):
        assert sorted(each.event_type for each in await stream.take_and_ack(len(matching))) == sorted(matching)
    for stream in streams:
        await stream.nothing_but_heartbeats(2)
        stream.close()


async def test_a_type_that_appears_later_reaches_the_groups_that_match_it(broker: Client) -> None:
    async with (
        await broker.subscribe("below", "user.*") as below,
        await broker.subscribe("all") as everything,
        await broker.subscribe("exact", "user.deleted") as exact,
    ):
        first = await publish(broker, event_type="user.created")
        assert ids(await below.take_and_ack(1)) == ids(await everything.take_and_ack(1)) == first
        later = await publish(broker, 3, event_type="user.deleted")
        for stream in (below, everything, exact):
            assert ids(await stream.take_and_ack(3)) == later


async def test_the_consumers_of_a_group_share_its_events_each_once(broker: Client) -> None:
    flow = FlowControl(max_unsettled_events=4, max_batch_events=2)
    async with (
        await broker.subscribe("billing", flow_control=flow) as one,
        await broker.subscribe("billing", flow_control=flow) as two,
    ):
        published = await publish(broker, 60)
        got = await share([one, two], len(published))
    assert sorted(got[0] + got[1]) == sorted(published)
    assert all(len(mine) >= 10 for mine in got), [len(mine) for mine in got]


async def test_the_consumers_of_a_group_share_through_several_brokers(make_broker: MakeBroker) -> None:
    flow = FlowControl(max_unsettled_events=4, max_batch_events=2)
    streams = [await (await make_broker()).subscribe("billing", flow_control=flow) for _ in range(2)]
    published = await publish(streams[0].client, 60)
    got = await share(streams, len(published))
    assert sorted(got[0] + got[1]) == sorted(published)
    assert all(got), [len(mine) for mine in got]


async def test_each_group_gets_every_event(broker: Client) -> None:
    streams = [await broker.subscribe(group) for group in ("billing", "audit", "", "")]
    published = await publish(broker, 50)
    for stream in streams:
        assert ids(await stream.take_and_ack(50)) == published
        stream.close()


async def test_groups_of_tenants_see_their_own_events_even_under_the_same_name(broker: Client) -> None:
    streams = {tenant: await broker.subscribe("billing", tenant_id=tenant) for tenant in ("acme", "other", "")}
    acme, other = await publish(broker, 3), await publish(broker, 3, tenant_id="other")
    for (tenant, stream), published in zip(streams.items(), (acme, other, acme + other), strict=True):
        assert stream.opened.tenant_id == tenant
        assert ids(await stream.take_and_ack(len(published))) == published
    for stream in streams.values():
        await stream.nothing_but_heartbeats(2)
        stream.close()


# Flow control.


async def test_a_tenants_group_gets_its_events_from_behind_many_of_others(broker: Client) -> None:
    async with await broker.subscribe("billing", tenant_id="small") as stream:
        await broker.publish(*(event(tenant_id="large") for _ in range(300)))
        await broker.publish(*(event(tenant_id="small") for _ in range(3)))
        assert len(await stream.take_and_ack(3)) == 3


async def test_large_events_come_in_batches_that_every_client_takes(broker: Client) -> None:
    large = [event(binary={"content_type": "a/b", "content": bytes(700_000)}) for _ in range(6)]
    async with await broker.subscribe("billing") as stream:
        await broker.publish(*large[:3])
        await broker.publish(*large[3:])
        assert [taken.event_id for taken in await stream.take_and_ack(6)] == [each.event_id for each in large]


async def test_no_more_events_are_out_than_the_stream_has_credit_for(broker: Client) -> None:
    async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=5)) as stream:
        published = await publish(broker, 20)
        first = await stream.take(5)
        await stream.nothing_but_heartbeats(2)
        assert await broker.ack(ack_ids(first[:2])) == [DONE, DONE]
        second = await stream.take(2)
        await stream.nothing_but_heartbeats(2)
        assert ids(first + second) == published[:7]


async def test_no_more_bytes_are_out_than_the_stream_has_credit_for(broker: Client) -> None:
    flow = FlowControl(max_unsettled_bytes=25_000, max_batch_events=1)
    async with await broker.subscribe("g", flow_control=flow) as stream:
        published = await publish(broker, 10, json=f'"{"x" * 10_000}"')
        first = await stream.take(3)  # of which the third exceeds the limit: one read may
        await stream.nothing_but_heartbeats(2)
        await broker.ack(ack_ids(first[:1]))
        second = await stream.take(1)
        await stream.nothing_but_heartbeats(2)
        assert ids(first + second) == published[:4]


async def test_an_event_larger_than_the_limit_of_bytes_still_passes(broker: Client) -> None:
    flow = FlowControl(max_unsettled_bytes=1)
    async with await broker.subscribe("g", flow_control=flow) as stream:
        published = await publish(broker, 3, json=f'"{"x" * 10_000}"')
        assert ids(await stream.take_and_ack(3)) == published


async def test_a_batch_holds_at_most_max_batch_events(broker: Client) -> None:
    published = await publish(broker, 30)
    async with await broker.subscribe("g", flow_control=FlowControl(max_batch_events=4)) as stream:
        batches: list[list[str]] = []
        while sum(map(len, batches)) < len(published):
            message = await stream.read()
            assert message is not None
            if message.HasField("deliveries"):
                batches.append(ids(message.deliveries.deliveries))
    assert [each for batch in batches for each in batch] == published
    assert max(map(len, batches)) == 4


async def test_a_stream_tells_its_limits_with_the_defaults_filled_in(broker: Client) -> None:
    async with await broker.subscribe("g", "b.*", "a", flow_control=FlowControl(max_batch_events=7)) as stream:
        opened = stream.opened
    assert (opened.group, list(opened.event_types), opened.tenant_id) == ("g", ["a", "b.*"], "")
    assert (opened.ack_deadline.ToMilliseconds(), bool(opened.consumer_id)) == (30_000, True)
    flow = FlowControl(max_unsettled_events=256, max_unsettled_bytes=16 << 20, max_batch_events=7)
    assert opened.flow_control == flow


async def test_acks_through_a_second_broker_reopen_the_credit_of_the_first(make_broker: MakeBroker) -> None:
    one, two = await make_broker(), await make_broker()
    async with await one.subscribe("g", flow_control=FlowControl(max_unsettled_events=2)) as stream:
        published = await publish(two, 10)
        got: list[str] = []
        while len(got) < len(published):
            taken = await stream.take(2)
            assert await two.ack(ack_ids(taken)) == [DONE, DONE]
            got += ids(taken)
    assert got == published


# Settling.


def forgeries(ack_id: str) -> list[str]:
    """Each character changed to one of another class, the last to any; and what never was an ack id."""
    changed = [
        ack_id[:at] + other + ack_id[at + 1 :]
        for at, char in enumerate(ack_id)
        for other in {"A", "a", "0", "-", "_", "+", "/", "=", " ", "é", chr(ord(char) ^ 1)} - {char}
    ]
    respelled = [ack_id[:-1] + other for other in string.printable if other != ack_id[-1]]
    resized = [ack_id[1:], ack_id[:-1], ack_id * 2, ack_id + "=", ack_id + "==", ack_id + "\n", ack_id + "AAAA"]
    return [*changed, *respelled, *resized, "", "garbage", "é", "\0", "="]


@pytest.mark.parametrize("group", ["g", "gg", "ggg"])  # ids of several lengths
async def test_an_ack_id_with_any_change_is_unknown(broker: Client, group: str) -> None:
    async with await broker.subscribe(group) as stream:
        await publish(broker)
        (ack_id,) = ack_ids(await stream.take(1))
        for do in (broker.ack, lambda forged: broker.extend(forged, 60)):
            outcomes = zip(forgeries(ack_id), await do(forgeries(ack_id)), strict=True)
            assert [(forged, outcome) for forged, outcome in outcomes if outcome != UNKNOWN] == []
        assert await broker.ack([ack_id]) == [DONE]


async def test_an_ack_id_of_another_tenant_is_unknown_and_changes_nothing(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await broker.subscribe("g", tenant_id="acme", ack_deadline=LONG) as stream:
        await publish(broker)
        (delivery,) = await stream.take(1)
        with monkeypatch.context() as other:
            other.setattr(OpenProvider, "_PLATFORM", Principal("globex", frozenset(Role), "globex"))
            for do in (broker.ack, broker.nack, lambda ids: broker.extend(ids, 60)):
                assert await do([delivery.ack_id]) == [UNKNOWN]
        await stream.nothing_but_heartbeats(1)
        assert await broker.ack([delivery.ack_id]) == [DONE]


async def test_each_ack_id_of_a_call_gets_its_outcome_in_order(broker: Client) -> None:
    await publish(broker, 4)
    async with await broker.subscribe("g", ack_deadline=LONG) as one:
        old = ack_ids(await one.take(4))
        assert await broker.ack(old[3:]) == [DONE]
    async with await broker.subscribe("g") as two:
        new = ack_ids(await two.take(3))
        mixed = [old[0], new[0], "", old[3], new[1], "garbage", new[0], old[2]]
        extended = [OUTDATED, DONE, UNKNOWN, ALREADY_SETTLED, DONE, UNKNOWN, DONE, OUTDATED]
        assert await broker.extend(mixed, 60) == extended
        acked = [OUTDATED, DONE, UNKNOWN, ALREADY_SETTLED, DONE, UNKNOWN, ALREADY_SETTLED, OUTDATED]
        assert await broker.ack(mixed) == acked
        assert await broker.ack(new) == [ALREADY_SETTLED, ALREADY_SETTLED, DONE]
        assert await broker.ack(old) == [ALREADY_SETTLED] * 4
        assert await broker.extend(new, 60) == [ALREADY_SETTLED] * 3


async def test_ten_thousand_acks_in_one_call_settle_all_of_them(broker: Client) -> None:
    flow = FlowControl(max_unsettled_events=10_000, max_batch_events=1000)
    async with await broker.subscribe("g", flow_control=flow) as stream:
        for _ in range(10):
            await publish(broker, 1000)
        taken = ack_ids(await stream.take(10_000))
        assert await broker.ack(taken) == [DONE] * 10_000
        assert await broker.ack(taken) == [ALREADY_SETTLED] * 10_000


# Deadlines.


async def test_what_is_not_settled_in_time_comes_again_to_another_consumer(broker: Client) -> None:
    flow = FlowControl(max_batch_events=1)  # so that the two take turns
    async with await broker.subscribe("g", ack_deadline=1, flow_control=flow) as late:
        published = await publish(broker, 10)
        first = await late.take(10)
        assert attempts(first) == {1}
        async with await broker.subscribe("g", flow_control=flow) as other:
            (again,) = await other.take(1)
            assert again.attempt == 2
            (outdated,) = [one.ack_id for one in first if one.event.event_id == again.event.event_id]
            assert len(published) == 10
            assert await broker.ack([outdated]) == [OUTDATED]
            assert await broker.extend([outdated], 60) == [OUTDATED]
            assert await broker.ack([again.ack_id, again.ack_id]) == [DONE, ALREADY_SETTLED]


async def test_a_batch_tells_the_deadline_counted_from_its_hand_over(broker: Client) -> None:
    async with await broker.subscribe("g", ack_deadline=20) as stream:
        before = datetime.now(UTC)
        await publish(broker)
        message = None
        while message is None or not message.HasField("deliveries"):
            message = await stream.read()
        deadline = message.deliveries.ack_deadline.ToDatetime(UTC)
        assert 20 <= (deadline - before).total_seconds() <= 20 + (datetime.now(UTC) - before).total_seconds()


async def test_what_a_stalled_consumer_does_not_take_goes_to_another_and_it_goes_on_when_it_takes_again(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    async with await broker.subscribe("g", ack_deadline=1, flow_control=FlowControl(max_batch_events=1)) as slow:
        published = await publish(broker, 4, json=f'"{"x" * 900_000}"')
        published += await publish(broker, 4, json=f'"{"x" * 900_000}"')
        stream = f"{stores.prefix}:{{0}}:events:user.created"
        await eventually(lambda: _pending(redis, stream, 8))  # all are read for it; few fit into the connection
        async with await broker.subscribe("g", flow_control=FlowControl(max_unsettled_events=1)) as other:
            (again,) = await other.take(1)
            assert again.event.event_id in published
            last = None
            while last is None or last.event.event_id != published[-1]:
                (last,) = await slow.take(1)
            assert last.attempt == 1
            assert await broker.ack([last.ack_id]) == [DONE]


async def _pending(redis: Redis, stream: str, count: int) -> bool:
    (group,) = await redis.xinfo_groups(stream)
    return bool(group["pending"] == count)


@pytest.mark.parametrize("brokers", [1, 2], ids=["through the same broker", "through another broker"])
async def test_an_extended_deadline_keeps_the_event_with_its_consumer(make_broker: MakeBroker, brokers: int) -> None:
    clients = [await make_broker() for _ in range(brokers)]
    async with await clients[0].subscribe("g", ack_deadline=1) as stream:
        kept, lost = await publish(clients[0], 2)
        deliveries = {delivery.event.event_id: delivery.ack_id for delivery in await stream.take(2)}
        assert await clients[-1].extend([deliveries[kept]], 60) == [DONE]
        async with await clients[-1].subscribe("g") as other:
            seen: Counter[str] = Counter()
            readers = [asyncio.create_task(_count(each, seen)) for each in (stream, other)]
            await eventually(lambda: seen[lost] >= 1)  # its deadline ran out
            assert seen[kept] == 0
            assert await clients[-1].ack([deliveries[kept]]) == [DONE]
            for reader in readers:
                reader.cancel()
            await asyncio.wait(readers)


async def _count(stream: Stream, seen: Counter[str]) -> None:
    while True:
        seen.update(ids(await stream.take(1)))


async def test_a_deadline_can_be_made_shorter(broker: Client) -> None:
    async with await broker.subscribe("g", ack_deadline=LONG) as stream:
        await publish(broker)
        assert await broker.extend(ack_ids(await stream.take(1)), 1) == [DONE]
        assert attempts(await stream.take(1)) == {2}


async def test_a_closed_stream_gives_its_events_back_at_once_without_counting_an_attempt(broker: Client) -> None:
    async with await broker.subscribe("g", ack_deadline=LONG) as other:
        async with await broker.subscribe("g", consumer_id="gone") as gone:
            published = await publish(broker, 100)
            theirs = len(await asyncio.gather(gone.take(1), other.take(1)))
            assert theirs == 2
        got = await other.take(99, timeout=5)
        assert attempts(got) == {1}
        assert len(set(ids(got))) == 99
        assert set(ids(got)) <= set(published)


# Where groups start, and where they go on.

STARTS = {
    "named": ({"group": "a"}, True),
    "named, earliest": ({"group": "b", "start": START_POINT_EARLIEST}, True),
    "named, latest": ({"group": "c", "start": START_POINT_LATEST}, False),
    "ephemeral": ({}, False),
    "ephemeral, earliest": ({"start": START_POINT_EARLIEST}, True),
    "ephemeral, latest": ({"start": START_POINT_LATEST}, False),
}


async def test_a_group_starts_where_its_first_stream_says(broker: Client) -> None:
    old = await publish(broker, 3)
    streams = {name: await broker.subscribe(**wish) for name, (wish, _) in STARTS.items()}  # type: ignore[arg-type]
    new = await publish(broker, 3)
    for name, (_, from_start) in STARTS.items():
        wanted = old + new if from_start else new
        assert sorted(ids(await streams[name].take_and_ack(len(wanted)))) == sorted(wanted), name
    for name, stream in streams.items():
        await stream.nothing_but_heartbeats(2)
        assert bool(stream.opened.group), name
        stream.close()


async def test_a_group_that_is_joined_again_goes_on_where_it_was(broker: Client) -> None:
    async with await broker.subscribe("g", "user.*", start=START_POINT_LATEST) as first:
        published = await publish(broker, 20)
        await first.take_and_ack(15)
    missed = await publish(broker, 5)
    async with await broker.subscribe("g", start=START_POINT_EARLIEST) as second:
        assert second.opened.event_types == ["user.*"]
        assert sorted(ids(await second.take_and_ack(10))) == sorted(published[15:] + missed)
        await second.nothing_but_heartbeats(2)


async def test_a_group_cannot_be_joined_with_another_filter_or_deadline(broker: Client) -> None:
    (await broker.subscribe("g", "user.*", "role.assigned", ack_deadline=20)).close()
    for patterns, deadline in ((["user.*"], None), (["*"], None), ([], 21), (["user.*", "role.assigned"], 19)):
        call = broker.subscribe("g", *patterns, ack_deadline=deadline)
        refusal = await refused(call, grpc.StatusCode.FAILED_PRECONDITION, "GROUP_MISMATCH")
        told = dict(refusal.details["ErrorInfo"].metadata)
        assert told == {"group": "g", "event_types": "role.assigned,user.*", "ack_deadline_seconds": "20"}
    async with await broker.subscribe("g", "role.assigned", "user.*", ack_deadline=20) as stream:
        assert stream.opened.ack_deadline.seconds == 20


async def test_a_mismatch_with_a_large_filter_still_reaches_the_consumer(broker: Client) -> None:
    (await broker.subscribe("g", *(f"{'x' * 120}{number}" for number in range(100)))).close()
    await refused(broker.subscribe("g", "user.*"), grpc.StatusCode.FAILED_PRECONDITION, "GROUP_MISMATCH")


async def test_history_joins_the_live_tail_without_gap_or_repeat(broker: Client) -> None:
    published: list[str] = []
    for _ in range(5):
        published += await publish(broker, 500)
    async with await broker.subscribe("g", start=START_POINT_EARLIEST) as stream:

        async def go_on() -> None:
            for _ in range(60):
                published.extend(await publish(broker, 10))

        going_on = asyncio.create_task(go_on())
        got = ids(await stream.take_and_ack(3_100, timeout=40))
        await going_on
        await stream.nothing_but_heartbeats(2)
    assert sorted(got) == sorted(published)


async def test_history_of_a_tenant_holds_only_what_the_group_wants(broker: Client) -> None:
    wanted: list[str] = []
    for _ in range(100):
        events = [event(), event(tenant_id="other"), event(event_type="role.assigned")]
        await broker.publish(events[1])
        await broker.publish(events[0], events[2])
        wanted.append(events[0].event_id)
    async with await broker.subscribe("g", "user.*", tenant_id="acme") as stream:
        assert ids(await stream.take_and_ack(100)) == wanted
        await stream.nothing_but_heartbeats(2)


async def test_an_ephemeral_group_gets_live_events_and_leaves_nothing(
    broker: Client, redis: Redis, stores: Stores
) -> None:
    async def keys() -> set[str]:
        every = {key async for key in redis.scan_iter(f"{stores.prefix}:*", count=1000)}
        return {key for key in every if stream.opened.group in key}

    await publish(broker, 3)
    await eventually(lambda: redis.exists(f"{stores.prefix}:{{0}}:events:user.created"))
    stream = await broker.subscribe("", "user.*", ack_deadline=1)
    published = await publish(broker, 3)
    deliveries = await stream.take(3)
    assert ids(deliveries) == published
    assert await broker.ack(ack_ids(deliveries[:1])) == [DONE]
    assert await broker.extend(ack_ids(deliveries[1:2]), 60) == [DONE]
    (again,) = await stream.take(1)
    assert again.attempt == 2
    assert await keys() != set()

    stream.close()
    await eventually(lambda: _none(keys))
    assert await redis.xinfo_groups(f"{stores.prefix}:{{0}}:events:user.created") == []
    postgres = await asyncpg.connect(stores.postgres)
    try:
        for table in ("groups", "group_shards"):
            assert await postgres.fetchval(f"SELECT count(*) FROM eventbroker.{table}") == 0  # noqa: S608
    finally:
        await postgres.close()


async def _none(keys: Callable[[], Awaitable[set[str]]]) -> bool:
    return not await keys()


# What a stream tells.


async def test_heartbeats_tell_how_the_group_stands(broker: Client) -> None:
    def stands(head: int, settled: int) -> Callable[[Heartbeat], bool]:
        return lambda said: (
            [(s.head_position, s.settled_position, s.lag) for s in said.shards] == [(head, settled, head - settled)]
        )

    async with await broker.subscribe("g", "user.*") as stream:
        empty = await heartbeat(stream, stands(0, 0))
        assert not empty.HasField("oldest_unsettled_age")
        await publish(broker, event_type="other")  # moves the head, and there is nothing to settle
        await heartbeat(stream, stands(1, 1))
        for event_type in ("user.a", "user.b", "other", "user.a", "other"):
            await publish(broker, event_type=event_type)
        taken = {each.event.position: each.ack_id for each in await stream.take(3)}
        assert list(taken) == [2, 3, 5]

        young = await heartbeat(stream, stands(6, 1))
        assert young.HasField("oldest_unsettled_age")
        await stream.nothing_but_heartbeats(2)
        old = stream.heartbeats[-1]
        grown = old.oldest_unsettled_age.ToTimedelta() - young.oldest_unsettled_age.ToTimedelta()
        passed = old.server_time.ToDatetime() - young.server_time.ToDatetime()
        assert passed.total_seconds() > 0
        assert grown.total_seconds() == pytest.approx(passed.total_seconds(), abs=0.1)

        await broker.ack([taken[3]])  # above one that is not settled
        await stream.nothing_but_heartbeats(2)
        assert stands(6, 1)(stream.heartbeats[-1])
        await broker.ack([taken[2]])
        await heartbeat(stream, stands(6, 4))
        await broker.ack([taken[5]])
        done = await heartbeat(stream, stands(6, 6))
        assert not done.HasField("oldest_unsettled_age")
        assert abs((done.server_time.ToDatetime(UTC) - datetime.now(UTC)).total_seconds()) < 5


@pytest.mark.parametrize("brokers", [1, 2], ids=["at the same broker", "at another broker"])
async def test_a_second_stream_with_the_same_consumer_id_takes_over(make_broker: MakeBroker, brokers: int) -> None:
    clients = [await make_broker() for _ in range(brokers)]
    first = await clients[0].subscribe("g", consumer_id="me", ack_deadline=LONG)
    held = await publish(clients[0], 3)
    await first.take(3)
    async with await clients[-1].subscribe("g", consumer_id="me") as second:
        await end(first)
        assert first.closing is not None
        assert first.closing.reason == CLOSING_REASON_REPLACED
        again = await second.take(3, timeout=5)
        assert (ids(again), attempts(again)) == (held, {1})
        assert await clients[0].ack(ack_ids(again)) == [DONE] * 3
        published = await publish(clients[0], 3)
        assert ids(await second.take_and_ack(3)) == published
        await second.nothing_but_heartbeats(1)


async def test_the_same_consumer_id_in_two_groups_is_two_consumers(broker: Client) -> None:
    streams = [
        await broker.subscribe(group, consumer_id="me", tenant_id=tenant)
        for group, tenant in (("a", "acme"), ("b", "acme"), ("a", ""))
    ]
    published = await publish(broker, 3)
    for stream in streams:
        assert ids(await stream.take_and_ack(3)) == published
        stream.close()


async def test_a_stream_that_reached_its_age_is_closed_and_can_be_opened_again(make_broker: MakeBroker) -> None:
    broker = await make_broker(stream_max_age=1.0)
    stream = await broker.subscribe("g", ack_deadline=LONG)
    published = await publish(broker, 3)
    await stream.take(3)
    await end(stream)
    assert stream.closing is not None
    assert stream.closing.reason == CLOSING_REASON_MAX_AGE
    assert stream.closing.HasField("retry_after")
    async with await broker.subscribe("g") as next_stream:
        again = await next_stream.take(3)
        assert (ids(again), attempts(again)) == (published, {1})
