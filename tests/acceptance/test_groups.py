"""GroupService: groups that are made, told about, changed, paused, moved and deleted, also through another broker."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker.v1.group_service_pb2 import (
    ConsumerLimits,
    CreateGroupRequest,
    DeadLetterPolicy,
    DeleteGroupRequest,
    GetGroupRequest,
    ListGroupsRequest,
    LogPoint,
    PauseGroupRequest,
    ResumeGroupRequest,
    RetryPolicy,
    SeekGroupRequest,
    SeekGroupResponse,
    UpdateGroupRequest,
)
from eventbroker.v1.subscriber_service_pb2 import (
    CLOSING_REASON_GROUP_DELETED,
    START_POINT_EARLIEST,
    START_POINT_LATEST,
)
from eventbroker_server.redis.streams import RedisStreams
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refused
from tests.client import DONE, OUTDATED, TIMEOUT, ack_ids, event
from tests.faults.proxy import Proxy
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from eventbroker.v1.group_service_pb2 import Group, GroupStatus

    from tests.client import Client, Stream
    from tests.conftest import Stores

EARLIEST, LATEST = LogPoint(edge=START_POINT_EARLIEST), LogPoint(edge=START_POINT_LATEST)
LONG = 600.0


def seconds(amount: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=amount))
    return duration


async def publish(broker: Client, *types: str) -> list[str]:
    """An event of each of these types; their ids."""
    events = [event(event_type=event_type) for event_type in types]
    await broker.publish(*events)
    return [each.event_id for each in events]


async def taken(stream: Stream, count: int) -> list[str]:
    """The ids of the next events, acked."""
    return [each.event_id for each in await stream.take_and_ack(count)]


async def status(broker: Client, name: str) -> GroupStatus:
    return (await broker.get_group(name)).status


async def settled(broker: Client, name: str, position: int) -> None:
    async def is_settled() -> bool:
        return (await status(broker, name)).shards[0].settled_position >= position

    await eventually(is_settled)


async def update(broker: Client, name: str, *paths: str, **fields: Any) -> Group:
    request = UpdateGroupRequest(name=name, update_mask=FieldMask(paths=paths), **fields)
    return (await broker.groups.UpdateGroup(request, timeout=TIMEOUT)).group


async def pause(broker: Client, name: str) -> Group:
    return (await broker.groups.PauseGroup(PauseGroupRequest(name=name), timeout=TIMEOUT)).group


async def resume(broker: Client, name: str) -> Group:
    return (await broker.groups.ResumeGroup(ResumeGroupRequest(name=name), timeout=TIMEOUT)).group


async def seek(broker: Client, name: str, to: LogPoint, *, dry_run: bool = False) -> SeekGroupResponse:
    return await broker.groups.SeekGroup(SeekGroupRequest(name=name, to=to, dry_run=dry_run), timeout=TIMEOUT)


async def delete(broker: Client, name: str, *, force: bool = False) -> None:
    await broker.groups.DeleteGroup(DeleteGroupRequest(name=name, force=force), timeout=TIMEOUT)


@pytest.fixture
async def two(make_broker: Callable[..., Awaitable[Client]]) -> list[Client]:
    return [await make_broker(), await make_broker()]


# Making and finding.


async def test_a_group_is_found_as_it_was_made(broker: Client) -> None:
    made = await broker.create_group(
        "billing",
        "user.*",
        "role.granted",
        tenant_id="acme",
        ack_deadline=seconds(12.25),
        retry_policy=RetryPolicy(
            initial_backoff=seconds(0.5), multiplier=3.5, maximum_backoff=seconds(60), max_attempts=7
        ),
        dead_letter_policy=DeadLetterPolicy(retention=seconds(7200)),
    )
    assert (await broker.get_group("billing", "acme")).group == made
    assert list(made.event_types) == ["role.granted", "user.*"]
    assert made.ack_deadline == seconds(12.25)
    assert made.retry_policy.initial_backoff == seconds(0.5)
    assert (made.retry_policy.multiplier, made.retry_policy.max_attempts) == (3.5, 7)
    assert made.retry_policy.maximum_backoff == seconds(60)
    assert made.dead_letter_policy.retention == seconds(7200)


async def test_what_a_group_does_not_say_has_defaults(broker: Client) -> None:
    made = await broker.create_group("billing")
    assert list(made.event_types) == ["*"]
    assert (made.ack_deadline, made.dead_letter_policy.retention) == (seconds(30), seconds(30 * 86_400))
    policy = made.retry_policy
    assert (policy.initial_backoff, policy.maximum_backoff) == (seconds(1), seconds(300))
    assert (policy.multiplier, policy.max_attempts, made.paused) == (2.0, 10, False)


async def test_a_group_is_not_made_twice(broker: Client) -> None:
    made = await broker.create_group("billing", "user.*")
    again = broker.create_group("billing", "role.*")
    refusal = await refused(again, grpc.StatusCode.ALREADY_EXISTS, "GROUP_EXISTS")
    assert refusal.details["ResourceInfo"].resource_name == "billing"
    assert (await broker.get_group("billing")).group == made
    await broker.create_group("billing", tenant_id="acme")


@pytest.mark.parametrize(
    "call",
    [
        lambda broker: broker.get_group("none"),
        lambda broker: update(broker, "none", "event_types", event_types=["user.*"]),
        lambda broker: pause(broker, "none"),
        lambda broker: resume(broker, "none"),
        lambda broker: seek(broker, "none", EARLIEST),
        lambda broker: delete(broker, "none"),
    ],
    ids=["get", "update", "pause", "resume", "seek", "delete"],
)
async def test_a_group_that_is_not_there_is_not_found(broker: Client, call: Any) -> None:
    await broker.create_group("none", tenant_id="acme")  # another one
    await refused(call(broker), grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND")


async def test_groups_are_listed_by_name_page_by_page_and_by_tenant(broker: Client) -> None:
    for name in ("b", "a.b", "B", "a-b", "c"):
        await broker.create_group(name, tenant_id="acme")
    await broker.create_group("other")
    pages: list[list[str]] = []
    request = ListGroupsRequest(tenant_id="acme", page_size=2)
    while not pages or request.page_token:
        answer = await broker.groups.ListGroups(request, timeout=TIMEOUT)
        pages.append([group.name for group in answer.groups])
        request.page_token = answer.next_page_token
    assert pages == [["B", "a-b"], ["a.b", "b"], ["c"]]
    everybody = await broker.groups.ListGroups(ListGroupsRequest(), timeout=TIMEOUT)
    assert [group.name for group in everybody.groups] == ["other"]


def at_time_of(stored: Any) -> LogPoint:
    return LogPoint(time=stored.record_time)


async def test_a_group_starts_where_it_is_told(broker: Client) -> None:
    ids = [*await publish(broker, "user.created"), *await publish(broker, "user.created")]
    ids += await publish(broker, "user.created")
    second = await broker.get_event(ids[1])
    starts = {
        "unset": (None, ids),
        "earliest": (EARLIEST, ids),
        "position": (LogPoint(position=2), ids[2:]),
        "time": (at_time_of(second), ids[1:]),
        "long-ago": (LogPoint(time=Timestamp(seconds=1)), ids),
        "in-future": (LogPoint(time=Timestamp(seconds=2**33)), []),
        "latest": (LATEST, []),
    }
    for name, (start, _) in starts.items():
        await broker.create_group(name, start=start)
    last = await publish(broker, "user.created")
    for name, (_, expected) in starts.items():
        async with await broker.subscribe(name) as stream:
            assert await taken(stream, len(expected) + 1) == expected + last, name


async def test_without_implicit_groups_subscribe_finds_only_what_was_made(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(create_groups=False)
    await refused(broker.subscribe("billing"), grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND")
    await broker.create_group("billing")
    async with await broker.subscribe("billing"), await broker.subscribe():
        pass


BAD = [
    (CreateGroupRequest(), {"name": "1 to 128"}),
    (
        CreateGroupRequest(name="a b", tenant_id="ü", event_types=["User", "*"], ack_deadline=seconds(0.5)),
        {"name": "1 to 128", "tenant_id": "1 to 128", "event_types[0]": "wildcard", "ack_deadline": "from 1 s"},
    ),
    (CreateGroupRequest(name="g", event_types=["a"] * 101), {"event_types": "at most 100"}),
    (
        CreateGroupRequest(
            name="g",
            limits=ConsumerLimits(max_unsettled_events=10_001, max_unsettled_bytes=-1, max_batch_events=1_001),
        ),
        {
            "limits.max_unsettled_events": "from 1 to 10000",
            "limits.max_unsettled_bytes": "from 1 to",
            "limits.max_batch_events": "from 1 to 1000",
        },
    ),
    (
        CreateGroupRequest(name="g", sources=["a", "\n"], aggregate_types=["ü", "User"], tags=[""]),
        {"sources[1]": "without control", "aggregate_types[0]": "1 to 128", "tags[0]": "1 to 256"},
    ),
    (
        UpdateGroupRequest(
            name="there",
            sources=["a"] * 101,
            aggregate_types=["a"] * 101,
            tags=["a"] * 65,
            update_mask=FieldMask(paths=["sources", "aggregate_types", "tags"]),
        ),
        {"sources": "at most 100", "aggregate_types": "at most 100", "tags": "at most 64"},
    ),
    (
        CreateGroupRequest(
            name="g",
            retry_policy=RetryPolicy(
                initial_backoff=seconds(0.05), multiplier=0.5, maximum_backoff=seconds(90_000), max_attempts=1001
            ),
            dead_letter_policy=DeadLetterPolicy(retention=seconds(3599)),
        ),
        {
            "retry_policy.initial_backoff": "from 0.1 s",
            "retry_policy.multiplier": "from 1 to 10",
            "retry_policy.maximum_backoff": "to 86400 s",
            "retry_policy.max_attempts": "from 1 to 1000",
            "dead_letter_policy.retention": "from 3600 s",
        },
    ),
    (
        CreateGroupRequest(
            name="g",
            retry_policy=RetryPolicy(multiplier=float("nan"), initial_backoff=seconds(9), maximum_backoff=seconds(8)),
        ),
        {"retry_policy.multiplier": "from 1 to 10", "retry_policy.maximum_backoff": "below initial_backoff"},
    ),
    (CreateGroupRequest(name="g", start=LogPoint()), {"start": "one of edge"}),
    (CreateGroupRequest(name="g", start=LogPoint(edge=99)), {"start.edge": "START_POINT_EARLIEST"}),  # type: ignore[arg-type]
    (CreateGroupRequest(name="g", start=LogPoint(position=-1)), {"start.position": "negative"}),
    (CreateGroupRequest(name="g", start=LogPoint(position=2)), {"start.position": "from 0 to 1"}),
    (CreateGroupRequest(name="g", start=LogPoint(time=Timestamp(nanos=-1))), {"start.time": "nanos"}),
    (GetGroupRequest(name="a/b"), {"name": "1 to 128"}),
    (
        ListGroupsRequest(tenant_id="a b", page_size=1001, page_token="!"),  # noqa: S106
        {"tenant_id": "1 to 128", "page_size": "from 1 to 1000", "page_token": "next_page_token"},
    ),
    (UpdateGroupRequest(name="there"), {"update_mask": "event_types"}),
    (
        UpdateGroupRequest(
            name="there", ack_deadline=seconds(0), update_mask=FieldMask(paths=["ack_deadline", "paused"])
        ),
        {"update_mask": "event_types", "ack_deadline": "from 1 s"},
    ),
    (PauseGroupRequest(), {"name": "1 to 128"}),
    (ResumeGroupRequest(tenant_id="\n"), {"name": "1 to 128", "tenant_id": "1 to 128"}),
    (SeekGroupRequest(), {"name": "1 to 128", "to": "one of edge"}),
    (SeekGroupRequest(name="there", to=LogPoint(position=-1)), {"to.position": "negative"}),
    (SeekGroupRequest(name="there", to=LogPoint(position=2)), {"to.position": "from 0 to 1"}),
    (
        SeekGroupRequest(name="there", max_events_per_second=float("nan")),
        {"to": "one of edge", "max_events_per_second": "0.1 to 100000, or 0"},
    ),
    (
        SeekGroupRequest(name="there", to=EARLIEST, max_events_per_second=-1),
        {"max_events_per_second": "0.1 to 100000, or 0"},
    ),
    (DeleteGroupRequest(name="x" * 129), {"name": "1 to 128"}),
]


@pytest.mark.timeout(120)
async def test_bad_input_is_named_field_by_field(broker: Client) -> None:
    await publish(broker, "user.created")
    await broker.create_group("there")
    for request, expected in BAD:
        method = getattr(broker.groups, type(request).__name__.removesuffix("Request"))
        call = method(request, timeout=TIMEOUT)
        found = (await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")).violations
        assert found.keys() == expected.keys(), request
        assert all(rule in found[field] for field, rule in expected.items()), (request, found)


# How a group stands.


async def test_a_group_tells_how_it_stands_over_all_brokers(two: list[Client]) -> None:
    one, other = two
    await publish(one, *["user.created"] * 5)
    async with await one.subscribe("g", "user.*", consumer_id="ann", ack_deadline=LONG) as stream:
        deliveries = await stream.take(5)
        assert await one.ack(ack_ids(deliveries[:2])) == [DONE, DONE]
        async with await other.subscribe("g", consumer_id="bob"):

            async def both() -> bool:
                return [each.consumer_id for each in (await status(other, "g")).consumers] == ["ann", "bob"]

            await eventually(both)
            now = await status(other, "g")
            assert now.complete
            assert [each.pending_events for each in now.consumers] == [3, 0]
            assert all(each.connected for each in now.consumers)
            assert now.consumers[0].broker != now.consumers[1].broker
            (shard,) = now.shards
            assert (shard.head_position, shard.settled_position, shard.lag) == (5, 2, 3)
            assert now.HasField("oldest_unsettled_age")
            assert (now.waiting_retries, now.dead_letters) == (0, 0)


async def test_what_fails_while_a_group_is_asked_for_is_told_as_a_retry(
    make_broker: Callable[..., Awaitable[Client]], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = await make_broker(checkpoint_interval=LONG)  # nobody else asks
    progress = RedisStreams.progress
    async with await broker.subscribe("g", "user.*") as stream:
        await publish(broker, "user.created")
        (delivery,) = await stream.take(1)

        async def failing(*args: Any) -> Any:
            assert await broker.nack([delivery.ack_id], seconds=600) == [DONE]
            return await progress(*args)

        monkeypatch.setattr(RedisStreams, "progress", failing)
        now = await status(broker, "g")
        assert (now.shards[0].settled_position, now.waiting_retries) == (1, 1)


async def test_consumers_of_a_paused_group_are_told_too(broker: Client) -> None:
    await broker.create_group("g")
    await pause(broker, "g")
    async with await broker.subscribe("g", consumer_id="ann"):

        async def known() -> bool:
            return [each.consumer_id for each in (await status(broker, "g")).consumers] == ["ann"]

        await eventually(known)


@pytest.fixture
async def to_redis(stores: Stores) -> AsyncIterator[Proxy]:
    async with Proxy(stores.redis) as proxy:
        yield proxy


async def test_without_redis_a_group_tells_what_postgresql_knows(
    to_redis: Proxy,  # first, so that it is there until the broker has stopped
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(redis_url=to_redis.url, redis_timeout=2.0)
    await publish(broker, "user.created")
    async with await broker.subscribe("g") as stream:
        await taken(stream, 1)
        await settled(broker, "g", 1)
    to_redis.cut()
    now = await status(broker, "g")
    assert not now.complete
    assert not now.consumers
    assert now.shards[0].head_position == 1
    await refused(delete(broker, "g"), grpc.StatusCode.UNAVAILABLE, "STREAMS_UNAVAILABLE")
    assert (await pause(broker, "g")).paused
    to_redis.restore()


# Changing.


async def test_a_pause_through_another_broker_stops_delivery_and_a_resume_goes_on(two: list[Client]) -> None:
    one, other = two
    async with await one.subscribe("g", ack_deadline=LONG) as stream:
        await publish(one, "user.created")
        (held,) = await stream.take(1)
        assert (await pause(other, "g")).paused
        await stream.nothing_but_heartbeats(2)  # by then it has heard of it
        ids = await publish(one, "user.created")
        await stream.nothing_but_heartbeats(3)
        assert await one.ack([held.ack_id]) == [DONE]
        assert not (await resume(other, "g")).paused
        assert await taken(stream, 1) == ids


async def test_a_changed_filter_holds_from_then_on_at_every_broker(two: list[Client]) -> None:
    one, other = two
    async with await one.subscribe("g", "a.*", ack_deadline=LONG) as stream:
        await publish(one, "a.old", "b.old")
        (held,) = await stream.take(1)
        group = await update(other, "g", "event_types", event_types=["b.*", "c"])
        assert list(group.event_types) == ["b.*", "c"]
        ids = await publish(one, "a.old", "b.old", "b.new", "c")
        assert sorted(await taken(stream, 3)) == sorted(ids[1:])  # and not the b.old of before
        assert await one.ack([held.ack_id]) == [OUTDATED]
        await settled(one, "g", 6)
        await stream.nothing_but_heartbeats(2)


async def test_a_filter_changed_while_nobody_is_connected_misses_nothing_after_it(broker: Client) -> None:
    await publish(broker, "a", "b")
    async with await broker.subscribe("g", "a") as stream:
        await taken(stream, 1)
    await update(broker, "g", "event_types", event_types=["a", "b"])
    ids = await publish(broker, "b", "a")
    async with await broker.subscribe("g") as stream:
        assert sorted(await taken(stream, 2)) == sorted(ids)


async def test_a_type_that_is_wanted_again_comes_from_then_on(broker: Client) -> None:
    async with await broker.subscribe("g", "a", "b") as stream:
        await update(broker, "g", "event_types", event_types=["a"])
        ids = await publish(broker, "b", "a")
        assert await taken(stream, 1) == ids[1:]
        await update(broker, "g", "event_types", event_types=["a", "b"])
        ids = await publish(broker, "b")
        assert await taken(stream, 1) == ids


async def test_only_what_the_mask_names_is_changed(broker: Client) -> None:
    made = await broker.create_group("g", "a", ack_deadline=seconds(5))
    changed = await update(broker, "g", "ack_deadline", ack_deadline=seconds(7), event_types=["b"])
    made.ack_deadline.CopyFrom(seconds(7))
    assert changed == made
    assert (await update(broker, "g", "event_types", "ack_deadline")).event_types == ["*"]


async def test_a_new_deadline_holds_for_what_is_handed_out_next(two: list[Client]) -> None:
    one, other = two
    async with await one.subscribe("g", ack_deadline=LONG) as stream:
        await update(other, "g", "ack_deadline", ack_deadline=seconds(1))
        await stream.nothing_but_heartbeats(2)
        ids = await publish(one, "user.created")
        await stream.take(1)
        (again,) = await stream.take(1)
        assert (again.event.event_id, again.attempt) == (ids[0], 2)


async def unheard(stores: Stores, statement: str) -> None:
    """Change PostgreSQL as a broker does whose signal gets lost."""
    connection = await asyncpg.connect(stores.postgres)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def test_a_seek_that_nobody_told_of_is_noticed(broker: Client, stores: Stores) -> None:
    async with await broker.subscribe("g") as stream:
        ids = await publish(broker, "user.created")
        assert await taken(stream, 1) == ids
        await settled(broker, "g", 1)
        await unheard(stores, "UPDATE eventbroker.group_shards SET generation = generation + 1, checkpoint = 0")
        assert await taken(stream, 1) == ids


async def test_a_deletion_that_nobody_told_of_ends_the_streams(broker: Client, stores: Stores) -> None:
    async with await broker.subscribe("g") as stream:
        await unheard(stores, "DELETE FROM eventbroker.groups")
        while await stream.read() is not None:
            pass
        assert stream.closing
        assert stream.closing.reason == CLOSING_REASON_GROUP_DELETED


# Moving.


async def test_a_seek_through_another_broker_brings_events_again_and_skips_them(two: list[Client]) -> None:
    one, other = two
    ids = await publish(one, *["user.created"] * 6)
    async with await one.subscribe("g", "user.*", ack_deadline=LONG) as stream:
        assert await taken(stream, 5) == ids[:5]
        (held,) = await stream.take(1)
        await seek(other, "g", LogPoint(position=3))
        assert await taken(stream, 3) == ids[3:]
        assert await one.ack([held.ack_id]) == [OUTDATED]
        await settled(one, "g", 6)
        await seek(other, "g", EARLIEST)
        assert await taken(stream, 6) == ids
        await pause(other, "g")
        await stream.nothing_but_heartbeats(2)
        await publish(one, "user.created")
        await seek(other, "g", LATEST)
        await resume(other, "g")
        ids = await publish(one, "user.created")
        assert await taken(stream, 1) == ids


async def test_an_answer_that_comes_late_says_nothing_of_where_a_seek_has_moved_the_group(
    broker: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far a group has come is asked for a checkpoint; before the answer is there, it is at the beginning again."""
    progress = RedisStreams.progress
    again: list[str] = []
    asked_since = 0

    async def late(*args: Any) -> Any:
        nonlocal asked_since
        answer = await progress(*args)
        asked_since += bool(again)
        if answer.settled == 3 and not again:
            await broker.groups.SeekGroup(
                SeekGroupRequest(name="g", to=LogPoint(edge=START_POINT_EARLIEST)), timeout=TIMEOUT
            )
            again.extend(ack_ids(await stream.take(3)))
        return answer

    monkeypatch.setattr(RedisStreams, "progress", late)
    async with await broker.subscribe("g", ack_deadline=LONG) as stream:
        await publish(broker, *["user.created"] * 3)
        assert await broker.ack(ack_ids(await stream.take(3))) == [DONE] * 3
        await eventually(lambda: asked_since > 3)
        assert await broker.ack(again) == [DONE] * 3


async def test_a_seek_to_a_time_begins_with_the_first_event_of_it(broker: Client) -> None:
    ids = [*await publish(broker, "user.created"), *await publish(broker, "user.created")]
    async with await broker.subscribe("g") as stream:
        await taken(stream, 2)
        await seek(broker, "g", at_time_of(await broker.get_event(ids[1])))
        assert await taken(stream, 1) == ids[1:]
        await stream.nothing_but_heartbeats(1)


async def test_a_dry_run_counts_and_changes_nothing(broker: Client) -> None:
    await publish(broker, "a", "b", "a", "b", "a")
    await broker.create_group("g", "a", start=LogPoint(position=3))
    back, forth = await seek(broker, "g", EARLIEST, dry_run=True), await seek(broker, "g", LATEST, dry_run=True)
    assert (back.events_again, back.events_skipped) == (2, 0)
    assert (forth.events_again, forth.events_skipped) == (0, 1)
    assert (await status(broker, "g")).shards[0].settled_position == 3


async def test_a_seek_counts_what_waits_for_another_attempt(broker: Client) -> None:
    await publish(broker, *["a"] * 4)
    await broker.create_group("g", "a")
    async with await broker.subscribe("g") as stream:
        first, second, *others = await stream.take(4)
        await broker.nack(ack_ids([first, second]), seconds=600)
        await broker.ack(ack_ids(others))

        async def noted() -> bool:  # the count is from the checkpoint
            return (await seek(broker, "g", EARLIEST, dry_run=True)).events_again == 4

        await eventually(noted)
    for place, again, skipped in ((0, 4, 0), (1, 3, 1), (3, 1, 2), (4, 0, 2)):
        counted = await seek(broker, "g", LogPoint(position=place), dry_run=True)
        assert (counted.events_again, counted.events_skipped) == (again, skipped)
    await seek(broker, "g", LogPoint(position=1))
    async with await broker.subscribe("g") as stream:
        assert [delivery.event.position for delivery in await stream.take(3)] == [2, 3, 4]


async def test_a_seek_over_very_many_positions_moves_without_counting(broker: Client, stores: Stores) -> None:
    await publish(broker, "a", "b", "a")
    await broker.create_group("g", "a")
    await unheard(stores, "UPDATE eventbroker.group_shards SET checkpoint = 1000001")  # as if the log were that long
    assert await seek(broker, "g", EARLIEST, dry_run=True) == SeekGroupResponse(events_again=2)
    assert await seek(broker, "g", EARLIEST) == SeekGroupResponse(events_again=-1)
    assert (await status(broker, "g")).shards[0].settled_position == 0
    assert await seek(broker, "g", LATEST) == SeekGroupResponse(events_skipped=2)
    await unheard(stores, "UPDATE eventbroker.group_shards SET checkpoint = 1000000")
    assert await seek(broker, "g", EARLIEST) == SeekGroupResponse(events_again=2)


async def test_a_seek_moves_a_group_in_every_shard_that_it_reads(make_broker: Callable[..., Awaitable[Client]]) -> None:
    broker = await make_broker(shards=3)
    tenants = [f"tenant-{number}" for number in range(9)]
    for tenant in tenants:
        await broker.publish(event(tenant_id=tenant))
    async with await broker.subscribe("g") as all_of_them, await broker.subscribe("g", tenant_id="tenant-1") as one:
        for _ in range(2):
            events = await all_of_them.take_and_ack(9)
            assert sorted(each.tenant_id for each in events) == tenants
            assert len(await one.take_and_ack(1)) == 1
            await seek(broker, "g", EARLIEST)
            request = SeekGroupRequest(name="g", tenant_id="tenant-1", to=EARLIEST)
            await broker.groups.SeekGroup(request, timeout=TIMEOUT)
        assert len((await status(broker, "g")).shards) == 3
        assert len((await broker.get_group("g", "tenant-1")).status.shards) == 1


# Deleting.


async def test_a_group_with_consumers_anywhere_is_deleted_only_by_force(two: list[Client]) -> None:
    one, other = two
    await publish(one, "user.created")
    async with await one.subscribe("g", consumer_id="ann") as stream:
        await stream.take(1)
        refusal = await refused(delete(other, "g"), grpc.StatusCode.FAILED_PRECONDITION, "GROUP_IN_USE")
        assert refusal.details["ErrorInfo"].metadata["consumers"] == "ann"
        await delete(other, "g", force=True)
        while await stream.read() is not None:
            pass
        assert stream.closing
        assert stream.closing.reason == CLOSING_REASON_GROUP_DELETED
    await refused(one.get_group("g"), grpc.StatusCode.NOT_FOUND, "GROUP_NOT_FOUND")


async def test_a_group_of_a_deleted_name_begins_anew(broker: Client) -> None:
    ids = await publish(broker, "user.created")
    async with await broker.subscribe("g") as stream:
        assert await taken(stream, 1) == ids
    await eventually(lambda: _gone(broker))
    await delete(broker, "g")
    async with await broker.subscribe("g") as stream:
        assert await taken(stream, 1) == ids


async def _gone(broker: Client) -> bool:
    return not (await status(broker, "g")).consumers
