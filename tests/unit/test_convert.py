from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from eventbroker.events.v1 import user_pb2
from eventbroker.v1 import event_pb2
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.event import DataForm, Event, Metadata, StoredEvent
from eventbroker_server.rpc.convert import EventCodec, event_message, event_of
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings

from tests.client import event
from tests.domain_events import FIRST_MOMENT, LAST_MOMENT, domain_event, domain_events

RECORDED = datetime(2026, 5, 6, 7, 8, 9, 123456, tzinfo=UTC)
MAX_BYTES = 1 << 20


def taken(message: event_pb2.Event) -> Event:
    violations: list[Violation] = []
    converted = event_of(message, "events[0]", MAX_BYTES, violations)
    assert converted, violations
    assert violations == []
    return converted


def faults(message: event_pb2.Event, max_bytes: int = MAX_BYTES) -> list[str]:
    """The paths of what is wrong with a message, below the event's own."""
    violations: list[Violation] = []
    assert event_of(message, "events[3]", max_bytes, violations) is None
    assert all(violation.rule for violation in violations)
    return [violation.field.removeprefix("events[3]").removeprefix(".") for violation in violations]


def handed_out(converted: Event) -> event_pb2.Event:
    return event_message(StoredEvent(converted, 7, 3, RECORDED))


def stripped(message: event_pb2.Event) -> event_pb2.Event:
    """Without what the broker adds."""
    for field in ("aggregate_version", "position", "record_time"):
        message.ClearField(field)
    return message


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + closing * depth


FULL = Event(
    tenant_id="acme",
    event_id="e-🙂",
    event_type="user.created",
    event_version="v2",
    aggregate_type="User",
    aggregate_id="ü 7",
    user_id="who",
    session_id="where",
    request_id="why",
    correlation_id="chain",
    timestamp=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    form=DataForm.JSON,
    content_type="",
    content=b'{"n": 9007199254740993}',
    metadata=Metadata("app", "click", 2**63 - 1, ("b", "a"), (("k", "v"), ("l", ""))),
)


def test_each_field_of_a_message_comes_to_its_place() -> None:
    message = event(
        event_id="e-🙂",
        event_version="v2",
        aggregate_id="ü 7",
        user_id="who",
        session_id="where",
        request_id="why",
        correlation_id="chain",
        json='{"n": 9007199254740993}',
        metadata=event_pb2.Metadata(
            source="app",
            caused_by="click",
            entity_version=2**63 - 1,
            tags=["b", "a"],
            attributes={"l": "", "k": "v"},
        ),
    )
    assert taken(message).same_as(FULL)


def test_an_event_is_handed_out_with_its_place() -> None:
    message = handed_out(FULL)
    assert (message.position, message.aggregate_version) == (7, 3)
    assert message.record_time.ToDatetime(UTC) == RECORDED


@settings(deadline=None)
@given(domain_events())
def test_any_event_comes_back_as_it_went_out(original: Event) -> None:
    assert taken(stripped(handed_out(original))).same_as(original)


@settings(deadline=None)
@given(domain_events())
def test_an_event_from_memory_is_relayed_as_one_from_the_log(original: Event) -> None:
    published = taken(stripped(handed_out(original)))
    assert published.wire
    relayed = [
        event_pb2.Event.FromString(EventCodec().encode(StoredEvent(one, 2**40, 2**35, RECORDED)))
        for one in (published, published._replace(wire=b""))
    ]
    assert relayed[0] == relayed[1] == event_message(StoredEvent(original, 2**40, 2**35, RECORDED))


def test_empty_metadata_is_relayed_alike_from_memory_and_from_the_log() -> None:
    published = taken(event(metadata=event_pb2.Metadata()))
    relayed = event_pb2.Event.FromString(EventCodec().encode(StoredEvent(published, 7, 3, RECORDED)))
    assert relayed == handed_out(published)


def test_a_missing_version_is_filled_in_for_memory_and_log_alike() -> None:
    published = taken(event(event_version=None))
    assert published.event_version == "v1.0"
    assert event_pb2.Event.FromString(published.wire).event_version == "v1.0"


@pytest.mark.parametrize(
    "text",
    [
        '{"b":1,"a":2,"b":3}',
        ' { "spaced" :\t1 } ',
        '"\\u0000"',
        '{"ü":"🙂\\ud83d\\ude42"}',
        "18446744073709551616",
        "-9223372036854775809",
        "9007199254740993",
        "1.00000000000000000000000001",
        "1E+2",
        "null",
        '""',
    ],
)
def test_json_is_kept_byte_for_byte(text: str) -> None:
    converted = taken(event(json=text))
    assert (converted.form, converted.content) == (DataForm.JSON, text.encode())
    assert handed_out(converted).json == text


def test_a_typed_message_can_be_unpacked_again() -> None:
    data = user_pb2.UserCreated()
    packed = AnyMessage()
    packed.Pack(data)
    converted = taken(event(message=packed))
    assert (converted.form, converted.content_type) == (DataForm.MESSAGE, packed.type_url)
    assert handed_out(converted).message == packed


def test_binary_data_keeps_its_content_type_and_bytes() -> None:
    data = event_pb2.Binary(content_type="application/avro", content=bytes(range(256)))
    converted = taken(event(binary=data))
    assert (converted.form, converted.content_type) == (DataForm.BINARY, "application/avro")
    assert handed_out(converted).binary == data


def test_digits_below_the_microsecond_are_cut_off_in_the_event_and_on_the_wire() -> None:
    converted = taken(event(timestamp=Timestamp(seconds=-1, nanos=999_999_999)))
    assert converted.timestamp == datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC)
    assert event_pb2.Event.FromString(converted.wire).timestamp.nanos == 999_999_000


@pytest.mark.parametrize("moment", [FIRST_MOMENT, LAST_MOMENT])
def test_the_first_and_the_last_moment_are_kept(moment: datetime) -> None:
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    assert taken(event(timestamp=stamp)).timestamp == moment
    assert handed_out(domain_event(timestamp=moment)).timestamp == stamp


@pytest.mark.parametrize("depth", [1, 63, 64])
@pytest.mark.parametrize("brackets", ["[]", ('{"a":', "}")])
def test_json_may_nest_up_to_64_levels(depth: int, brackets: tuple[str, str]) -> None:
    opening, closing = brackets
    inner = "{}" if closing == "}" else "[]"
    assert taken(event(json=opening * (depth - 1) + inner + closing * (depth - 1)))


def test_brackets_that_nest_nothing_do_not_count() -> None:
    wide = "[" + ",".join(["[]"] * 100) + "]"
    assert taken(event(json=wide))
    assert taken(event(json='["' + "[{" * 100 + '"]'))


def test_depth_counts_also_where_an_equal_key_hides_it() -> None:
    assert faults(event(json='{"a":' + nested(64) + ',"a":1}')) == ["json"]


META = event_pb2.Metadata


@pytest.mark.parametrize(
    ("fields", "paths"),
    [
        ({"event_id": None}, ["event_id"]),
        ({"event_id": "x" * 257}, ["event_id"]),
        ({"event_id": "a\0b"}, ["event_id"]),
        ({"event_type": None}, ["event_type"]),
        ({"event_type": "user.*"}, ["event_type"]),
        ({"event_version": "v 1"}, ["event_version"]),
        ({"aggregate_id": None}, ["aggregate_id"]),
        ({"aggregate_id": "a\n"}, ["aggregate_id"]),
        ({"aggregate_type": None}, ["aggregate_type"]),
        ({"aggregate_type": "a/b"}, ["aggregate_type"]),
        ({"tenant_id": None}, ["tenant_id"]),
        ({"tenant_id": "a:b"}, ["tenant_id"]),
        ({"user_id": "\x7f"}, ["user_id"]),
        ({"session_id": "\x9f"}, ["session_id"]),
        ({"request_id": "x" * 257}, ["request_id"]),
        ({"correlation_id": "\0"}, ["correlation_id"]),
        ({"aggregate_version": 1}, ["aggregate_version"]),
        ({"position": 1}, ["position"]),
        ({"record_time": Timestamp()}, ["record_time"]),
        ({"timestamp": None}, ["timestamp"]),
        ({"timestamp": Timestamp(seconds=-62_135_596_801)}, ["timestamp"]),
        ({"timestamp": Timestamp(seconds=253_402_300_800)}, ["timestamp"]),
        ({"timestamp": Timestamp(nanos=-1)}, ["timestamp"]),
        ({"timestamp": Timestamp(nanos=1_000_000_000)}, ["timestamp"]),
        ({"json": None}, ["data"]),
        ({"json": ""}, ["json"]),
        ({"json": "{"}, ["json"]),
        ({"json": "NaN"}, ["json"]),
        ({"json": "{} {}"}, ["json"]),
        ({"json": "'a'"}, ["json"]),
        ({"json": '"a\0b"'}, ["json"]),
        ({"json": '"a\nb"'}, ["json"]),
        ({"json": nested(65)}, ["json"]),
        ({"json": nested(64, '{"a":', "}").replace(":}", ":[]}")}, ["json"]),
        ({"json": nested(100_000)}, ["json"]),
        ({"message": AnyMessage(value=b"x")}, ["message.type_url"]),
        ({"message": AnyMessage(type_url="UserCreated")}, ["message.type_url"]),
        ({"message": AnyMessage(type_url="a/b\0")}, ["message.type_url"]),
        ({"binary": event_pb2.Binary(content=b"x")}, ["binary.content_type"]),
        ({"metadata": META(source="\0")}, ["metadata.source"]),
        ({"metadata": META(caused_by="x" * 257)}, ["metadata.caused_by"]),
        ({"metadata": META(entity_version=-1)}, ["metadata.entity_version"]),
        ({"metadata": META(tags=["ok", "", "\n"])}, ["metadata.tags[1]", "metadata.tags[2]"]),
        ({"metadata": META(tags=["t"] * 65)}, ["metadata.tags"]),
        ({"metadata": META(attributes={"a b": "v"})}, ["metadata.attributes"]),
        ({"metadata": META(attributes={"a": "\0"})}, ['metadata.attributes["a"]']),
        ({"metadata": META(attributes={"a": "x" * 4097})}, ['metadata.attributes["a"]']),
        ({"metadata": META(attributes={str(n): "" for n in range(65)})}, ["metadata.attributes"]),
        ({"tenant_id": "", "event_id": "", "json": "{"}, ["event_id", "tenant_id", "json"]),
    ],
)
def test_every_fault_is_named_by_its_path(fields: dict[str, Any], paths: list[str]) -> None:
    assert faults(event(**fields)) == paths


@pytest.mark.parametrize(
    "metadata",
    [
        META(tags=["t"] * 64),
        META(attributes={str(n): "" for n in range(64)}),
        META(attributes={"a": "\n" + "🙂" * 4095}),
    ],
    ids=["tags", "attributes", "value"],
)
def test_what_is_just_within_the_bounds_is_taken(metadata: event_pb2.Metadata) -> None:
    assert handed_out(taken(event(metadata=metadata))).metadata == metadata


def test_an_event_may_have_as_many_bytes_as_allowed_and_no_more() -> None:
    message = event(event_version="v1.0")
    size = message.ByteSize()
    assert faults(message, max_bytes=size - 1) == [""]
    assert event_of(message, "events[3]", size, [])
