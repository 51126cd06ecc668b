"""Events as CloudEvents, and back."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

import pytest
from eventbroker_server.domain.errors import InvalidArgument
from eventbroker_server.domain.event import DataForm, Event, Metadata, StoredEvent
from eventbroker_server.transfer.cloud_events import event_line, event_of
from hypothesis import given
from hypothesis import strategies as st

from tests.domain_events import domain_event, domain_events

RECORDED = datetime(2026, 1, 2, 3, 4, 6, tzinfo=UTC)
LARGE = st.integers(1, 2**63 - 1)


def line(event: Event | None = None) -> bytes:
    return event_line(3, StoredEvent(event or domain_event(event_id="e1"), 7, 2, RECORDED))


def said(event: Event | None = None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(line(event))
    return found


@given(event=domain_events(), shard=st.integers(0, 999), position=LARGE, version=LARGE)
def test_an_event_comes_back_as_it_was(event: Event, shard: int, position: int, version: int) -> None:
    stored = StoredEvent(event, position, version, event.timestamp)
    made = event_line(shard, stored)
    assert b"\n" not in made
    assert event_of(made + b"\n") == (shard, stored)
    assert event_line(*event_of(made)) == made


@given(domain_events())
def test_every_attribute_is_one_of_cloud_events(event: Event) -> None:
    attributes = said(event)
    assert attributes["specversion"] == "1.0"
    for name, value in attributes.items():
        if name not in ("data", "data_base64"):
            assert re.fullmatch("[a-z0-9]{1,20}", name)
            assert (isinstance(value, str) and value) or (isinstance(value, int) and abs(value) < 2**31)
    assert ("data" in attributes) != ("data_base64" in attributes)


def test_an_event_reads_as_cloud_events_name_it() -> None:
    event = domain_event(event_id="e1", aggregate_id="u1", metadata=Metadata("a b", tags=("eu",)))
    assert said(event) == {
        "specversion": "1.0",
        "id": "e1",
        "source": "/acme/a%20b",
        "type": "user.created",
        "subject": "User/u1",
        "time": "2026-01-02T03:04:05.678901Z",
        "tenantid": "acme",
        "eventversion": "v1.0",
        "aggregatetype": "User",
        "aggregateid": "u1",
        "aggregateversion": "2",
        "shard": 3,
        "position": "7",
        "recordedtime": "2026-01-02T03:04:06Z",
        "tags": '["eu"]',
        "datacontenttype": "application/json",
        "data": {},
    }


@pytest.mark.parametrize(
    "content",
    [b'{"b": 1,"a":1.0, "b":2}', b'"\\u00e9 ,\\"data\\":"', b" 1e5 ", b'{"data":{"data":null}}', b'["\xe2\x80\xa8"]'],
)
def test_json_in_a_line_is_readable_and_keeps_its_text(content: bytes) -> None:
    event = domain_event(content=content, aggregate_id=',"data":1', metadata=Metadata(attributes=(("data", '"'),)))
    assert b',"data":' + content + b"}" in line(event)
    assert event_of(line(event))[1].event == event


@pytest.mark.parametrize("content", [b'{\n"a": 1}', b"[\r1]", b'"\\ud800"', b"[" * 2000 + b"]" * 2000, b"none"])
def test_json_that_would_not_stand_in_a_line_stands_in_base64(content: bytes) -> None:
    event = domain_event(content=content)
    assert (said(event)["datacontenttype"], said(event)["dataform"]) == ("application/json", "json")
    assert event_of(line(event))[1].event == event


def test_binary_data_that_is_called_json_stays_binary() -> None:
    event = domain_event(form=DataForm.BINARY, content_type="application/json", content=b"{}")
    assert event_of(line(event))[1].event == event


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, None) for name in ("id", "source", "type", "time", "tenantid", "eventversion", "aggregatetype")),
        *((name, None) for name in ("aggregateid", "aggregateversion", "shard", "position", "recordedtime")),
        *(("id", value) for value in ("", "a\x1fb", "a" * 257, 1)),
        *(("source", value) for value in ("/other", "/acme/", "/acme/%00")),
        *(("time", value) for value in ("yesterday", "2026-01-02T03:04:05", "2026-01-02T03:04:05+01:00", 5)),
        *(("position", value) for value in (7, "-1", "x", str(2**63), "\u0661")),
        *(("shard", value) for value in ("3", -1, True, 1.0)),
        *(("tags", value) for value in ("{}", "[1]", "[", ["eu"], '[""]')),
        *(("attributes", value) for value in ("[]", '{"a":1}', '{"":"a"}', '{"a":"\\u0000"}', {"a": "b"})),
        ("type", "User Created"),
        ("userid", 7),
    ],
)
def test_an_attribute_that_is_missing_or_wrong_is_named(name: str, value: Any) -> None:
    attributes = said() | {name: value}
    if value is None:
        del attributes[name]
    attributes["data"] = attributes.pop("data")  # stays last
    with pytest.raises(InvalidArgument) as caught:
        event_of(json.dumps(attributes, separators=(",", ":")).encode())
    assert name in [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    "changed",
    [
        {"data_base64": "?"},
        {"data_base64": None},
        {"dataform": "xml"},
        {"dataform": None},
        {"dataform": []},
        {"dataform": "message"},
    ],
)
def test_data_in_base64_that_is_wrong_is_named(changed: dict[str, Any]) -> None:
    attributes = said(domain_event(form=DataForm.BINARY, content_type="a/b", content=b"1")) | changed
    with pytest.raises(InvalidArgument):
        event_of(json.dumps(attributes).encode())


@pytest.mark.parametrize(
    "broken",
    [line()[:-1], line()[:-2], line() + b"}", line().replace(b'"data"', b'"data":{},"last"'), b"[]", b"", b"{"],
)
def test_a_line_that_is_broken_is_refused(broken: bytes) -> None:
    with pytest.raises(InvalidArgument):
        event_of(broken)
