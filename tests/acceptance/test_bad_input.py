"""What breaks a rule is refused before anything is done, and every fault is named by its path and its rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import asyncpg
import grpc
import pytest
from eventbroker.v1.event_pb2 import Binary, Metadata
from eventbroker.v1.event_store_service_pb2 import GetEventRequest
from eventbroker.v1.publisher_service_pb2 import (
    PUBLISH_MODE_ALL_OR_NONE,
    PUBLISH_MODE_PER_EVENT,
    AggregateExpectation,
    PublishRequest,
)
from eventbroker.v1.subscriber_service_pb2 import (
    AckRequest,
    ExtendDeadlineRequest,
    FlowControl,
    SubscribeRequest,
)
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refused
from tests.client import REFUSED, TIMEOUT, event

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from tests.client import Client
    from tests.conftest import Stores

ID = "1 to 256 characters without control characters"
NAME = "1 to 128 characters of"
TYPE = "1 to 8 levels"
OURS = "is set by the broker"
MEBI = 1024 * 1024

Faults = dict[str, str]  # the path of each field that breaks a rule, and what its rule says


async def violations(call: Awaitable[object]) -> Faults:
    """What a call is refused for."""
    return (await refused(call, grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")).violations


def check(found: Faults, expected: Faults, case: object) -> None:
    assert found.keys() == expected.keys(), case
    for path, rule in expected.items():
        assert rule in found[path], (case, path)


# Events. The paths are those within the event.
BAD_IDS = ("x" * 257, "a\nb", "a\0b", "\x7f", "\u0085")
BAD_TYPES = ("", "User.created", "user..created", ".user", "user.", "a.b.c.d.e.f.g.h.i", "x" * 129)
BAD_NAMES = ("x" * 129, "a b", "ü", "a/b", "a*", "a\n")
BAD_EVENTS: list[tuple[dict[str, Any], Faults]] = [
    *(({field: bad}, {field: ID}) for field in ("event_id", "aggregate_id") for bad in ("", *BAD_IDS)),
    *(
        ({field: bad}, {field: ID})
        for field in ("user_id", "session_id", "request_id", "correlation_id")
        for bad in BAD_IDS
    ),
    *(({"aggregate_type": bad}, {"aggregate_type": NAME}) for bad in ("", *BAD_NAMES)),
    *(({"event_version": bad}, {"event_version": NAME}) for bad in BAD_NAMES),
    *(({"event_type": bad}, {"event_type": TYPE}) for bad in (*BAD_TYPES, "user.*", "*")),
    ({"timestamp": None}, {"timestamp": "is required"}),
    *(
        ({"timestamp": bad}, {"timestamp": "must be from 0001-01-01T00:00:01Z to 9999-12-31T23:59:58Z"})
        for bad in (
            Timestamp(seconds=-62_135_596_800),
            Timestamp(seconds=253_402_300_799),
            Timestamp(nanos=-1),
            Timestamp(nanos=1_000_000_000),
        )
    ),
    ({"json": None}, {"data": "is required"}),
    *(
        ({"json": bad}, {"json": "JSON"})
        for bad in ("", " ", "{", "{'a': 1}", "{} {}", '{"a": 1,}', "NaN", "undefined", "01", '"a\0b"', "{}\0")
    ),
    ({"json": "[" * 65 + "]" * 65}, {"json": "64 levels"}),
    ({"json": '{"a":' * 65 + "1" + "}" * 65}, {"json": "64 levels"}),
    ({"json": "[" * 100_000 + "]" * 100_000}, {"json": "64 levels"}),
    ({"message": AnyMessage()}, {"message.type_url": "must name a type"}),
    ({"message": AnyMessage(type_url="no-slash")}, {"message.type_url": "must name a type"}),
    ({"message": AnyMessage(type_url="a/b\0")}, {"message.type_url": "must name a type"}),
    *(({"binary": Binary(content_type=bad)}, {"binary.content_type": ID}) for bad in ("", *BAD_IDS)),
    *(
        ({"metadata": Metadata(**{field: bad})}, {f"metadata.{field}": ID})  # type: ignore[arg-type]
        for field in ("source", "caused_by")
        for bad in BAD_IDS
    ),
    ({"metadata": Metadata(entity_version=-1)}, {"metadata.entity_version": "not be negative"}),
    ({"metadata": Metadata(tags=["a"] * 65)}, {"metadata.tags": "at most 64"}),
    ({"metadata": Metadata(tags=["a", "", "b\n"])}, {"metadata.tags[1]": ID, "metadata.tags[2]": ID}),
    (
        {"metadata": Metadata(attributes={f"a{number}": "" for number in range(65)})},
        {"metadata.attributes": "at most 64"},
    ),
    ({"metadata": Metadata(attributes={"": "a"})}, {"metadata.attributes": NAME}),
    ({"metadata": Metadata(attributes={"a": "x" * 4097})}, {'metadata.attributes["a"]': "4096 characters"}),
    ({"metadata": Metadata(attributes={"a": "\0"})}, {'metadata.attributes["a"]': "without NUL"}),
    ({"aggregate_version": 1}, {"aggregate_version": OURS}),
    ({"position": 1}, {"position": OURS}),
    ({"record_time": Timestamp()}, {"record_time": OURS}),
    (
        {"event_id": "", "event_type": "A", "json": "{", "position": -1},
        {"event_id": ID, "event_type": TYPE, "json": "JSON", "position": OURS},
    ),
]


async def test_each_bad_field_of_an_event_is_named_and_nothing_is_stored(broker: Client) -> None:
    for fields, faults in BAD_EVENTS:
        events = [event(), event(), event(), event(**fields)]
        found = await violations(broker.publish(*events))
        check(found, {f"events[3].{path}": rule for path, rule in faults.items()}, fields)
    await next_position_is_1(broker)


async def test_a_bad_tenant_is_named(broker: Client) -> None:
    for bad in ("", *BAD_NAMES):
        check(await violations(broker.publish(event(tenant_id=bad))), {"events[0].tenant_id": NAME}, bad)
    await next_position_is_1(broker)


async def test_each_bad_field_is_named_in_per_event_mode(broker: Client) -> None:
    events = [event(**fields) for fields, _ in BAD_EVENTS]
    results = await broker.publish(*events, mode=PUBLISH_MODE_PER_EVENT)
    for number, (result, (fields, faults)) in enumerate(zip(results, BAD_EVENTS, strict=True)):
        assert (result.outcome, result.error.reason) == (REFUSED, "INVALID_ARGUMENT"), fields
        found = {violation.field: violation.description for violation in result.error.violations}
        check(found, {f"events[{number}].{path}": rule for path, rule in faults.items()}, fields)
    await next_position_is_1(broker)


async def test_all_faults_of_all_events_and_expectations_are_named_at_once(broker: Client) -> None:
    events = [event(aggregate_id="", json="{"), event(), event(event_type="", user_id="\n")]
    found = await violations(broker.publish(*events, expectations=[AggregateExpectation(aggregate_type="User")]))
    expected = {
        "events[0].aggregate_id": ID,
        "events[0].json": "JSON",
        "events[2].event_type": TYPE,
        "events[2].user_id": ID,
        "expectations[0].aggregate_id": ID,
        "expectations[0].expected": "is required",
    }
    check(found, expected, None)
    await next_position_is_1(broker)


async def test_the_refusal_of_a_thousand_bad_events_still_reaches_the_publisher(broker: Client) -> None:
    events = [event(aggregate_id="", tenant_id="", event_type="ü" * 200, json="{") for _ in range(1000)]
    found = await violations(broker.publish(*events))
    assert "events[0].aggregate_id" in found
    await next_position_is_1(broker)


# Publish requests.


def expects(*expectations: dict[str, Any]) -> dict[str, Any]:
    defaults: dict[str, Any] = {"aggregate_type": "User", "aggregate_id": "u1", "version": 0}
    complete = [{key: value for key, value in (defaults | each).items() if value is not None} for each in expectations]
    return {"events": [event()], "expectations": [AggregateExpectation(**each) for each in complete]}


def sized(count: int, size: int) -> dict[str, Any]:
    return {"events": [event(json=f'"{"x" * size}"') for _ in range(count)]}


BAD_REQUESTS: list[tuple[dict[str, Any], Faults]] = [
    ({}, {"events": "1 to 1000"}),
    ({"events": [event() for _ in range(1001)]}, {"events": "1 to 1000"}),
    ({"mode": PUBLISH_MODE_PER_EVENT}, {"events": "1 to 1000"}),
    (sized(1, MEBI), {"events[0]": f"at most {MEBI} bytes"}),
    (sized(5, MEBI - 1000), {"events": f"at most {4 * MEBI} bytes"}),
    (sized(5, MEBI - 1000) | {"mode": PUBLISH_MODE_PER_EVENT}, {"events": f"at most {4 * MEBI} bytes"}),
    ({"events": [event()], "mode": 9}, {"mode": "PublishMode"}),
    (
        {"events": [event(event_id="a"), event(event_id="b"), event(event_id="a")]},
        {"events[2].event_id": "repeats events[0].event_id"},
    ),
    ({"events": [event(), event(tenant_id="other")]}, {"events[1].tenant_id": "must be that of events[0]"}),
    (
        {"events": [event(), event(tenant_id="other")], "mode": PUBLISH_MODE_ALL_OR_NONE},
        {"events[1].tenant_id": "must be that of events[0]"},
    ),
    (expects({}) | {"mode": PUBLISH_MODE_PER_EVENT}, {"expectations": "PER_EVENT"}),
    (expects({"aggregate_type": ""}), {"expectations[0].aggregate_type": NAME}),
    (expects({"aggregate_id": "a\n"}), {"expectations[0].aggregate_id": ID}),
    (expects({}, {"aggregate_id": "u2", "version": None}), {"expectations[1].expected": "is required"}),
    (expects({"version": -1}), {"expectations[0].version": "not be negative"}),
    (expects({}, {"aggregate_id": "u2"}, {}), {"expectations[2]": "for the second time"}),
]


async def test_each_bad_field_of_a_publish_request_is_named_and_nothing_is_stored(broker: Client) -> None:
    for fields, faults in BAD_REQUESTS:
        call = broker.publisher.Publish(PublishRequest(**fields), timeout=TIMEOUT)
        check(await violations(call), faults, [*fields, faults])
    await next_position_is_1(broker)


async def test_an_event_of_exactly_1_mib_is_stored_and_one_byte_more_is_refused(broker: Client) -> None:
    largest = event(event_version="v1.0", json=f'"{"x" * (MEBI - 1000)}"')
    largest.json = f'"{"x" * (MEBI - 1000 + MEBI - largest.ByteSize())}"'
    assert largest.ByteSize() == MEBI
    larger = event(event_version="v1.0")
    larger.json = largest.json + " "
    check(await violations(broker.publish(larger)), {"events[0]": f"at most {MEBI} bytes, not {MEBI + 1}"}, "one more")
    (result,) = await broker.publish(largest)
    assert result.position == 1


async def next_position_is_1(broker: Client) -> None:
    """A good publish right after shows that nothing was stored before."""
    (result,) = await broker.publish(event())
    assert result.position == 1


# The other calls.


def deadline(seconds: float) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(round(seconds * 1000))
    return duration


BAD_SUBSCRIPTIONS: list[tuple[dict[str, Any], Faults]] = [
    *(({field: bad}, {field: NAME}) for field in ("group", "consumer_id", "tenant_id") for bad in BAD_NAMES),
    *(
        ({"event_types": ["user.*", bad]}, {"event_types[1]": "must be an event type, a wildcard"})
        for bad in (*BAD_TYPES, "*.created", "user*", "user.**", ".*", "user.*.x")
    ),
    ({"event_types": ["a"] * 101}, {"event_types": "at most 100"}),
    ({"start": 7}, {"start": "StartPoint"}),
    *(({"ack_deadline": deadline(bad)}, {"ack_deadline": "from 1 s to 43200 s"}) for bad in (-1, 0, 0.999, 43200.001)),
    *(
        ({"flow_control": FlowControl(max_unsettled_events=bad)}, {"flow_control.max_unsettled_events": "1 to 10000"})
        for bad in (-1, 10_001)
    ),
    *(
        ({"flow_control": FlowControl(max_batch_events=bad)}, {"flow_control.max_batch_events": "1 to 1000"})
        for bad in (-1, 1_001)
    ),
    ({"flow_control": FlowControl(max_unsettled_bytes=-1)}, {"flow_control.max_unsettled_bytes": "from 1"}),
    (
        {"group": "a b", "event_types": [""], "ack_deadline": deadline(0)},
        {"group": NAME, "event_types[0]": "wildcard", "ack_deadline": "from 1 s"},
    ),
]


async def test_each_bad_field_of_a_subscribe_request_is_named_and_no_group_is_made(
    broker: Client, stores: Stores
) -> None:
    for fields, faults in BAD_SUBSCRIPTIONS:
        request = SubscribeRequest(**({"group": "billing"} | fields))
        check(await violations(broker.subscriber.Subscribe(request, timeout=TIMEOUT).read()), faults, fields)
    postgres = await asyncpg.connect(stores.postgres)
    try:
        assert await postgres.fetchval("SELECT count(*) FROM eventbroker.groups") == 0
    finally:
        await postgres.close()


BAD_CALLS: list[tuple[Any, Faults]] = [
    (AckRequest(), {"ack_ids": "1 to 10000"}),
    (AckRequest(ack_ids=["a"] * 10_001), {"ack_ids": "1 to 10000"}),
    (ExtendDeadlineRequest(deadline=deadline(10)), {"ack_ids": "1 to 10000"}),
    (ExtendDeadlineRequest(ack_ids=["a"] * 10_001, deadline=deadline(10)), {"ack_ids": "1 to 10000"}),
    (ExtendDeadlineRequest(ack_ids=["a"]), {"deadline": "from 1 s to 43200 s"}),
    *(
        (ExtendDeadlineRequest(ack_ids=["a"], deadline=deadline(bad)), {"deadline": "from 1 s to 43200 s"})
        for bad in (-1, 0, 0.999, 43200.001)
    ),
    (GetEventRequest(), {"tenant_id": NAME, "event_id": ID}),
    *((GetEventRequest(tenant_id=bad, event_id="a"), {"tenant_id": NAME}) for bad in ("", *BAD_NAMES)),
    *((GetEventRequest(tenant_id="acme", event_id=bad), {"event_id": ID}) for bad in ("", *BAD_IDS)),
]


@pytest.mark.parametrize("kind", [AckRequest, ExtendDeadlineRequest, GetEventRequest])
async def test_each_bad_field_of_the_other_calls_is_named(broker: Client, kind: type) -> None:
    call: Any = {
        AckRequest: broker.subscriber.Ack,
        ExtendDeadlineRequest: broker.subscriber.ExtendDeadline,
        GetEventRequest: broker.event_store.GetEvent,
    }[kind]
    for request, faults in BAD_CALLS:
        if isinstance(request, kind):
            check(await violations(call(request, timeout=TIMEOUT)), faults, request)


async def test_an_event_that_does_not_exist_is_not_found(broker: Client) -> None:
    published = event()
    await broker.publish(published)
    for tenant, event_id in (("acme", "nothing"), ("other", published.event_id)):
        refusal = await refused(broker.get_event(event_id, tenant), grpc.StatusCode.NOT_FOUND, "EVENT_NOT_FOUND")
        assert refusal.details["ResourceInfo"].resource_name == event_id
