"""What people say and read on the command line."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from eventbroker.v1 import event_pb2
from eventbroker_cli import given, readable
from eventbroker_cli.event_json import as_json, event_from
from eventbroker_cli.exits import Failed
from google.protobuf.any_pb2 import Any
from google.protobuf.wrappers_pb2 import BytesValue
from hypothesis import given as drawn
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1h30m", 5400), ("500ms", 0.5), ("2", 2), ("1.5m", 90), ("1d", 86400)]
)
def test_a_duration_is_understood(text: str, seconds: float) -> None:
    assert given.seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "5x", "-1s", "1h 30", "1s1"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(Failed):
        given.seconds(text)


def test_a_time_is_a_moment_or_how_long_ago() -> None:
    now = datetime(2026, 1, 2, 12, tzinfo=UTC)
    assert given.time("90m", lambda: now).ToJsonString() == "2026-01-02T10:30:00Z"
    assert given.time("now", lambda: now).ToJsonString() == "2026-01-02T12:00:00Z"
    assert given.time("2026-01-02T00:00:00+02:00").ToJsonString() == "2026-01-01T22:00:00Z"
    with pytest.raises(Failed):
        given.time("tomorrow")


def test_an_aggregate_is_split_at_its_first_slash() -> None:
    assert given.aggregate("User/a/b") == ("User", "a/b")
    for text in ("User", "User/", "/u1"):
        with pytest.raises(Failed):
            given.aggregate(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.00034, "340 µs"),
        (0.012, "12 ms"),
        (3.42, "3.4 s"),
        (125, "2m 5s"),
        (90_061, "1d 1h"),
        (-2, "-2 s"),
    ],
)
def test_a_duration_is_readable(seconds: float, text: str) -> None:
    assert readable.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1536, "1.5 KiB"), (1 << 30, "1 GiB"), (1 << 60, "1048576 TiB")]
)
def test_a_size_is_readable(count: int, text: str) -> None:
    assert readable.size(count) == text


@drawn(st.text())
def test_clean_text_is_printable_and_as_it_was_if_it_was(text: str) -> None:
    cleaned = readable.clean(text)
    assert not set(cleaned) & {chr(code) for code in (*range(32), *range(127, 160))}
    assert cleaned == text or not text.isprintable()


def events() -> st.SearchStrategy[event_pb2.Event]:
    known = Any()
    known.Pack(BytesValue(value=b"\x00"))
    typed = st.sampled_from([known, Any(type_url="x.example/a.B", value=b"\xff\x00"), Any(type_url="x/a.C")])
    text = st.text(st.characters(codec="utf-8"))
    metadata = st.builds(
        event_pb2.Metadata,
        tags=st.lists(text),
        attributes=st.dictionaries(text, text),
        entity_version=st.integers(0, 9),
    )
    data = st.one_of(
        st.fixed_dictionaries({"json": text}),
        st.fixed_dictionaries({"message": typed}),
        st.fixed_dictionaries({"binary": st.builds(event_pb2.Binary, content_type=text, content=st.binary())}),
    )
    return st.builds(
        lambda form, **more: event_pb2.Event(**form, **more), data, event_id=text, user_id=text, metadata=metadata
    )


@drawn(events())
def test_an_event_comes_back_from_its_json(event: event_pb2.Event) -> None:
    assert event_from(as_json(event)) == event


def test_data_stands_for_its_text_and_goes_with_no_other_form() -> None:
    assert event_from({"data": {"a": [1, None]}}).json == '{"a":[1,null]}'
    with pytest.raises(ValueError, match="data goes with none"):
        event_from({"data": 1, "json": "1"})
