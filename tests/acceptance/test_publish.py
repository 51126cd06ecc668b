"""Publish: what is stored, what is refused, and that what comes out is what went in."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.events.v1.user_pb2 import UserCreated
from eventbroker.v1 import event_pb2
from eventbroker.v1.publisher_service_pb2 import PUBLISH_MODE_PER_EVENT, AggregateExpectation
from eventbroker.v1.subscriber_service_pb2 import START_POINT_EARLIEST
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refused
from tests.client import DUPLICATE, REFUSED, STORED, event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from eventbroker.v1.publisher_service_pb2 import PublishResult

    from tests.client import Client

ABORTED, ALREADY_EXISTS = grpc.StatusCode.ABORTED, grpc.StatusCode.ALREADY_EXISTS


def of(aggregate_id: str, count: int = 1, **fields: Any) -> list[event_pb2.Event]:
    return [event(aggregate_id=aggregate_id, **fields) for _ in range(count)]


def expect(aggregate_id: str, **expected: Any) -> AggregateExpectation:
    return AggregateExpectation(aggregate_type="User", aggregate_id=aggregate_id, **expected)


def rows(results: Iterable[PublishResult]) -> list[tuple[str, int, int, int]]:
    return [(one.event_id, one.outcome, one.position, one.aggregate_version) for one in results]


async def stored_nothing(broker: Client, events: Iterable[event_pb2.Event], next_position: int) -> None:
    """None of these is stored, and no position was used for them."""
    for each in events:
        await refused(broker.get_event(each.event_id), grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")
    (result,) = await broker.publish(event())
    assert result.position == next_position


def as_published(delivered: event_pb2.Event) -> event_pb2.Event:
    """The event without what the broker adds."""
    copy = event_pb2.Event()
    copy.CopyFrom(delivered)
    for field in ("aggregate_version", "position", "record_time"):
        copy.ClearField(field)
    return copy


# Batches.


@pytest.mark.parametrize("count", [1, 2, 1000])
async def test_results_of_a_batch_come_in_its_order_with_positions_and_versions_1_2_3(
    broker: Client, count: int
) -> None:
    events = of("u1", count)
    assert rows(await broker.publish(*events)) == [(e.event_id, STORED, n, n) for n, e in enumerate(events, 1)]
    assert [(await broker.get_event(e.event_id)).position for e in (events[0], events[-1])] == [1, count]


async def test_positions_count_all_events_and_versions_those_of_one_aggregate(broker: Client) -> None:
    first = await broker.publish(*of("u1", 2), *of("u2"), *of("u1"))
    second = await broker.publish(*of("u2"), *of("u1"))
    assert [(one.position, one.aggregate_version) for one in (*first, *second)] == [
        *((1, 1), (2, 2), (3, 1), (4, 3)),
        *((5, 2), (6, 4)),
    ]


async def test_versions_are_counted_for_each_tenant_and_type_of_aggregate(broker: Client) -> None:
    for fields in ({}, {"tenant_id": "other"}, {"aggregate_type": "Session"}):
        (result,) = await broker.publish(event(aggregate_id="u1", **fields))
        assert result.aggregate_version == 1


async def test_one_conflict_stores_nothing_of_the_batch(broker: Client) -> None:
    await broker.publish(*of("u1"))
    events = of("u1", 2) + of("u2", 2)
    await refused(broker.publish(*events, expectations=[expect("u2", version=1)]), ABORTED, "VERSION_CONFLICT")
    await stored_nothing(broker, events, next_position=2)


async def test_one_reused_id_stores_nothing_of_the_batch(broker: Client) -> None:
    (taken,) = of("u1")
    await broker.publish(taken)
    events = of("u1", 3)
    await refused(broker.publish(*events, event(event_id=taken.event_id)), ALREADY_EXISTS, "EVENT_ID_REUSED")
    await stored_nothing(broker, events, next_position=2)


# Duplicates.


async def test_a_repeated_call_is_answered_with_the_first_result(broker: Client) -> None:
    events = of("u1", 3)
    first = await broker.publish(*events)
    await broker.publish(*of("u1", 2))
    second = await broker.publish(*events)
    assert rows(second) == [(one.event_id, DUPLICATE, one.position, one.aggregate_version) for one in first]


async def test_a_batch_may_hold_stored_and_new_events(broker: Client) -> None:
    old, new = of("u1", 2)
    await broker.publish(old)
    assert rows(await broker.publish(new, old)) == [(new.event_id, STORED, 2, 2), (old.event_id, DUPLICATE, 1, 1)]


async def test_of_20_identical_calls_at_once_one_stores_and_all_get_its_result(broker: Client) -> None:
    events = of("u1", 3)
    answers = await asyncio.gather(*(broker.publish(*events) for _ in range(20)))
    assert sorted(answer[0].outcome for answer in answers) == [STORED] + [DUPLICATE] * 19
    places = [(e.event_id, n, n) for n, e in enumerate(events, 1)]
    assert [[(one.event_id, one.position, one.aggregate_version) for one in answer] for answer in answers] == (
        [places] * 20
    )
    await stored_nothing(broker, [], next_position=4)


async def test_a_duplicate_through_a_second_broker_gets_the_first_result(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    one, two = await make_broker(), await make_broker()
    events = of("u1", 2)
    await one.publish(*events)
    assert rows(await two.publish(*events)) == [(e.event_id, DUPLICATE, n, n) for n, e in enumerate(events, 1)]


async def test_identical_calls_at_once_through_two_brokers_store_once(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    brokers = [await make_broker(), await make_broker()]
    (published,) = of("u1")
    answers = await asyncio.gather(*(broker.publish(published) for broker in brokers * 10))
    assert sorted(rows(answer)[0][1:] for answer in answers) == [(STORED, 1, 1)] + [(DUPLICATE, 1, 1)] * 19


OTHER_CONTENT: list[dict[str, Any]] = [
    {"json": '{"email":  "a@example.com"}'},
    {"binary": event_pb2.Binary(content_type="application/json", content=b'{"email": "a@example.com"}')},
    {"event_type": "user.deleted"},
    {"event_version": "v2.0"},
    {"aggregate_id": "u2"},
    {"aggregate_type": "Session"},
    {"timestamp": Timestamp(seconds=1)},
    {"user_id": "somebody"},
    {"session_id": "s"},
    {"request_id": "r"},
    {"correlation_id": "c"},
    {"metadata": event_pb2.Metadata(tags=["a"])},
    {"metadata": event_pb2.Metadata(attributes={"a": "b"})},
    {"metadata": event_pb2.Metadata(entity_version=1)},
]


async def test_an_id_cannot_be_used_again_for_other_content(broker: Client) -> None:
    (first,) = of("u1")
    await broker.publish(first)
    for fields in OTHER_CONTENT:
        again = event(event_id=first.event_id, **({"aggregate_id": "u1"} | fields))
        refusal = await refused(broker.publish(again), ALREADY_EXISTS, "EVENT_ID_REUSED")
        assert refusal.details["ErrorInfo"].metadata["event_id"] == first.event_id, fields
    assert as_published(await broker.get_event(first.event_id)).json == first.json


async def test_the_same_id_in_another_tenant_is_another_event(broker: Client) -> None:
    (first,) = of("u1")
    await broker.publish(first)
    (result,) = await broker.publish(event(event_id=first.event_id, tenant_id="other"))
    assert result.outcome == STORED


# Expectations.

# An aggregate at version 2 and one that has no event: what may be expected of it, and how a conflict names it.
EXPECTATIONS: list[tuple[str, dict[str, Any], str | None]] = [
    ("old", {"version": 2}, None),
    ("old", {"exists": True}, None),
    ("old", {"version": 1}, "expected 1, actual 2"),
    ("old", {"version": 3}, "expected 3, actual 2"),
    ("old", {"version": 0}, "expected 0, actual 2"),
    ("old", {"exists": False}, "expected none, actual 2"),
    ("new", {"version": 0}, None),
    ("new", {"exists": False}, None),
    ("new", {"version": 1}, "expected 1, actual 0"),
    ("new", {"exists": True}, "expected exists, actual 0"),
]


@pytest.mark.parametrize("warm", [True, False], ids=["versions remembered", "versions not remembered"])
@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
async def test_an_expectation_decides_whether_a_request_is_stored(
    make_broker: Callable[..., Awaitable[Client]], written: bool, warm: bool
) -> None:
    broker = await make_broker()
    publishing = broker if warm else await make_broker()
    for number, (kind, expected, conflict) in enumerate(EXPECTATIONS):
        aggregate = f"{kind}-{number}"
        if kind == "old":
            await broker.publish(*of(aggregate, 2))
        (published,) = of(aggregate if written else f"beside-{number}")
        call = publishing.publish(published, expectations=[expect(aggregate, **expected)])
        if conflict is None:
            (result,) = await call
            assert result.aggregate_version == (1 if not written or kind == "new" else 3), expected
        else:
            details = (await refused(call, ABORTED, "VERSION_CONFLICT")).details
            (violation,) = details["PreconditionFailure"].violations
            assert (violation.subject, violation.description) == (f"User/{aggregate}", conflict)


async def test_a_conflict_names_every_aggregate_with_what_was_expected_and_what_is(broker: Client) -> None:
    await broker.publish(*of("u1", 2), *of("u2", 3))
    expectations = [expect("u1", version=7), expect("u2", version=3), expect("u3", exists=True)]
    refusal = await refused(broker.publish(*of("u1"), expectations=expectations), ABORTED, "VERSION_CONFLICT")
    violations = refusal.details["PreconditionFailure"].violations
    assert [(v.type, v.subject, v.description) for v in violations] == [
        ("AGGREGATE_VERSION", "User/u1", "expected 7, actual 2"),
        ("AGGREGATE_VERSION", "User/u3", "expected exists, actual 0"),
    ]


async def test_a_conflict_on_many_aggregates_still_reaches_the_publisher(broker: Client) -> None:
    expectations = [expect(f"{'ü' * 250}{number}", version=1) for number in range(100)]
    await refused(broker.publish(*of("u1"), expectations=expectations), ABORTED, "VERSION_CONFLICT")


async def test_a_repeated_call_is_answered_without_looking_at_its_expectations(broker: Client) -> None:
    (published,) = of("u1")
    for outcome in (STORED, DUPLICATE):
        (result,) = await broker.publish(published, expectations=[expect("u1", exists=False)])
        assert (result.outcome, result.aggregate_version) == (outcome, 1)


async def test_of_32_writers_that_expect_the_same_version_exactly_one_wins(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    brokers = [await make_broker(), await make_broker()]
    aggregates = [f"u{number}" for number in range(20)]

    async def write(writer: int, aggregate: str, version: int) -> bool:
        broker = brokers[writer % len(brokers)]
        call = broker.publish(*of(aggregate), expectations=[expect(aggregate, version=version)])
        (outcome,) = await asyncio.gather(call, return_exceptions=True)
        if isinstance(outcome, grpc.aio.AioRpcError) and outcome.code() == ABORTED:
            return False
        assert not isinstance(outcome, BaseException), outcome
        assert outcome[0].aggregate_version == version + 1
        return True

    for version in range(2):
        for aggregate, won in zip(
            aggregates,
            await asyncio.gather(
                *(asyncio.gather(*(write(writer, each, version) for writer in range(32))) for each in aggregates)
            ),
            strict=True,
        ):
            assert sum(won) == 1, aggregate
    results = await brokers[0].publish(*(each for aggregate in aggregates for each in of(aggregate)))
    assert [result.aggregate_version for result in results] == [3] * 20
    assert [result.position for result in results] == list(range(41, 61))


# Each for itself.


async def test_per_event_mode_decides_each_event_for_itself(broker: Client) -> None:
    taken, known = event(), event()
    await broker.publish(taken, known)
    good = [event(), event(tenant_id="other"), event(tenant_id="third")]
    bad = event(aggregate_id="", event_type="User")
    batch = [good[0], bad, good[1], event(event_id=taken.event_id), known, good[2], good[1]]
    results = await broker.publish(*batch, mode=PUBLISH_MODE_PER_EVENT)

    assert [result.event_id for result in results] == [each.event_id for each in batch]
    assert [(result.outcome, result.error.reason) for result in results] == [
        (STORED, ""),
        (REFUSED, "INVALID_ARGUMENT"),
        (STORED, ""),
        (REFUSED, "EVENT_ID_REUSED"),
        (DUPLICATE, ""),
        (STORED, ""),
        (REFUSED, "INVALID_ARGUMENT"),
    ]
    assert {each.field for result in results for each in result.error.violations} == {
        "events[1].event_type",
        "events[1].aggregate_id",
        "events[6].event_id",
    }
    assert all((result.position, result.aggregate_version) == (0, 0) for result in results if result.outcome == REFUSED)
    assert all(result.error.message for result in results if result.outcome == REFUSED)
    for each in good:
        assert as_published(await broker.get_event(each.event_id, each.tenant_id)).json == each.json
    await stored_nothing(broker, [bad], next_position=6)


# What comes out.

ODD_JSON = (
    '{"z": 9007199254740993, "a" :\t18446744073709551615,\r\n "same": 1, "same": 2, "e": 1.10E+2, "m": -0.0, '
    '"ünï": "\\u00e9 \\u0000 é 😀 \\/", "": {}}  '
)
FORMS: dict[str, dict[str, Any]] = {
    "json": {"json": ODD_JSON},
    "json scalar": {"json": "null"},
    "json of 64 levels": {"json": "[" * 64 + "]" * 64},
    "empty binary": {"binary": event_pb2.Binary(content_type="application/octet-stream")},
    "binary": {"binary": event_pb2.Binary(content_type="application/avro", content=bytes(range(256)))},
    "unknown type": {"message": AnyMessage(type_url="example.com/nobody.knows.It", value=b"\x00\xff")},
    "everything": {
        "event_id": "😀" * 256,
        "event_type": ".".join("abcdefgh"),
        "event_version": "V-1.0_beta",
        "aggregate_id": "ü" * 256,
        "aggregate_type": "A" * 128,
        "user_id": "u 1",
        "session_id": "s/1",
        "request_id": "r:1",
        "correlation_id": "c",
        "metadata": event_pb2.Metadata(
            source="svc",
            caused_by="user_registration",
            entity_version=2**63 - 1,
            tags=[f"tag {number}" for number in range(64)],
            attributes={f"a{number}": "x\n" * 2048 for number in range(64)},
        ),
    },
}


async def comes_out_as_it_went_in(broker: Client, published: list[event_pb2.Event]) -> None:
    """From the store, from the live streams, and from the history."""
    async with await broker.subscribe("live") as live:
        await broker.publish(*published)
        from_live = await live.take_and_ack(len(published))
    from_store = [await broker.get_event(each.event_id) for each in published]
    async with await broker.subscribe("late", start=START_POINT_EARLIEST) as late:
        from_history = await late.take_and_ack(len(published))

    for each in published:
        each.event_version = each.event_version or "v1.0"
    assert [as_published(each) for each in from_store] == published
    assert sorted(from_live, key=lambda each: each.position) == from_store
    assert sorted(from_history, key=lambda each: each.position) == from_store
    assert all(each.record_time.seconds > 1_700_000_000 for each in from_store)


async def test_what_was_published_comes_out_as_it_went_in(broker: Client) -> None:
    typed = AnyMessage()
    typed.Pack(UserCreated(email="ü@example.com", username="ü"))
    await comes_out_as_it_went_in(broker, [event(**fields) for fields in (*FORMS.values(), {"message": typed})])


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:01Z", "9999-12-31T23:59:58.999999Z"])
async def test_the_first_and_the_last_moment_come_out_as_they_went_in(broker: Client, moment: str) -> None:
    published = event()
    published.timestamp.FromJsonString(moment)
    await comes_out_as_it_went_in(broker, [published])
    (result,) = await broker.publish(published)
    assert result.outcome == DUPLICATE


async def test_an_event_without_a_version_gets_v1_0_and_a_timestamp_its_microseconds(broker: Client) -> None:
    published = event(timestamp=Timestamp(seconds=1, nanos=123_456_789))
    await broker.publish(published)
    stored = await broker.get_event(published.event_id)
    assert stored.event_version == "v1.0"
    assert stored.timestamp == Timestamp(seconds=1, nanos=123_456_000)
    (result,) = await broker.publish(published)
    assert result.outcome == DUPLICATE


# Shards.


async def test_tenants_spread_over_shards_and_each_keeps_its_order(
    make_broker: Callable[..., Awaitable[Client]],
) -> None:
    broker = await make_broker(shards=4)
    tenants = [f"tenant-{number}" for number in range(12)]
    published: dict[str, list[str]] = {tenant: [] for tenant in tenants}

    async def publish(tenant: str) -> None:
        for _ in range(5):
            batch = of("u1", 2, tenant_id=tenant)
            await broker.publish(*batch)
            published[tenant] += [each.event_id for each in batch]

    async with await broker.subscribe("all") as everything, await broker.subscribe("one", tenant_id="tenant-3") as one:
        await asyncio.gather(*map(publish, tenants))
        delivered = await everything.take_and_ack(120)
        await one.take_and_ack(10)
        await everything.nothing_but_heartbeats(2)
        await one.nothing_but_heartbeats(2)
        heads = {shard.shard: shard.head_position for shard in everything.heartbeats[-1].shards}
        (only,) = one.heartbeats[-1].shards

    got: dict[str, list[str]] = {tenant: [] for tenant in tenants}
    for each in delivered:
        got[each.tenant_id].append(each.event_id)
    assert got == published
    assert list(heads) == [0, 1, 2, 3]
    assert sum(heads.values()) == 120
    assert sum(head > 0 for head in heads.values()) >= 2, "all tenants are in one shard"
    assert only.head_position == heads[only.shard]
