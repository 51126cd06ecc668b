"""Events, their types, and their data, without a broker."""

from __future__ import annotations

import enum
import time
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from eventbroker.events.v1.user_pb2 import UserCreated
from eventbroker_client import DomainEvent, Event, InvalidArgument, PayloadMismatch, event_type, new_id, tracing
from eventbroker_client.events.payload import fitted
from eventbroker_client.events.wire import Defaults, event_of, message_of, typed
from google.protobuf import any_pb2


class Color(enum.Enum):
    RED = "red"


@dataclass
class Line:
    sku: str
    price: Decimal


@event_type("bill.sent", aggregate_type="Bill", source="billing", caused_by="month_end")
@dataclass
class BillSent:
    lines: list[Line]
    by_sku: dict[str, Line]
    sent_at: datetime
    due: date | None
    key: uuid.UUID
    color: Color
    pair: tuple[int, str]
    some: set[int]
    ratio: float
    anything: Any
    note: str = "none"
    more: list[str] = field(default_factory=list)


SENT = BillSent(
    lines=[Line("a", Decimal("1.10"))],
    by_sku={"a": Line("a", Decimal(1))},
    sent_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    due=None,
    key=uuid.UUID(int=7),
    color=Color.RED,
    pair=(1, "x"),
    some={1, 2},
    ratio=2.0,
    anything={"k": [1]},
)


def there_and_back(event: Event, defaults: Defaults = Defaults()) -> Event:  # noqa: B008 - frozen
    return event_of(message_of(event, defaults))


def test_ids_are_uuids_of_version_7_that_sort_by_time() -> None:
    before = time.time_ns() // 1_000_000
    made = uuid.UUID(new_id())
    after = time.time_ns() // 1_000_000
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert before <= made.int >> 80 <= after
    assert len({new_id() for _ in range(1_000)}) == 1_000


def test_an_event_has_an_id_a_version_and_a_time_by_itself() -> None:
    event = Event("a.b", "A", "a1")
    assert uuid.UUID(event.id).version == 7
    assert event.version == "v1.0"
    assert abs((datetime.now(UTC) - event.timestamp).total_seconds()) < 60


def test_a_typed_event_knows_its_type_by_the_class_of_its_data() -> None:
    event = DomainEvent("i1", SENT, tenant_id="acme")
    assert (event.type, event.aggregate_type, event.version) == ("bill.sent", "Bill", "v1.0")
    assert replace(event, user_id="u1").data is SENT


def test_a_dataclass_comes_back_equal() -> None:
    got = there_and_back(DomainEvent("i1", SENT))
    assert isinstance(got, DomainEvent)
    assert got.data == SENT


def test_what_the_class_does_not_know_is_left_out_and_what_it_lacks_is_a_mismatch() -> None:
    assert fitted({"sku": "a", "price": "1", "new": True}, Line) == Line("a", Decimal(1))
    bad: list[object] = [{"sku": "a"}, {"sku": 3, "price": "1"}, {"sku": "a", "price": "x"}, [], None]
    for data in bad:
        with pytest.raises(PayloadMismatch):
            fitted(data, Line)


def test_json_fits_a_message_when_its_handler_asks_for_it() -> None:
    event = there_and_back(Event("user.created", "User", "u1", {"firstName": "Ada", "new": 1}))
    assert type(event) is Event
    assert typed(event, UserCreated).data == UserCreated(first_name="Ada")
    with pytest.raises(PayloadMismatch):
        typed(replace(event, data=b"?"), UserCreated)


def test_an_event_of_another_version_is_not_taken_for_the_registered_one() -> None:
    got = there_and_back(Event("bill.sent", "Bill", "i1", {"a": 1}, version="v2.0"))
    assert type(got) is Event
    assert got.data == {"a": 1}


def test_a_message_whose_class_is_not_loaded_stays_packed() -> None:
    packed = any_pb2.Any(type_url="type.googleapis.com/no.such.Message", value=b"\x08\x01")
    assert there_and_back(Event("a.b", "A", "a1", packed)).data == packed


@pytest.mark.parametrize("data", [float("nan"), object(), {"k": {1: object()}}, "\ud800"])
def test_data_without_a_form_is_refused_before_it_is_sent(data: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        message_of(Event("a.b", "A", "a1", data), Defaults())
    assert [violation.field for violation in caught.value.violations] == ["data"]


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="timestamp"):
        message_of(Event("a.b", "A", "a1", timestamp=datetime(2026, 1, 1)), Defaults())  # noqa: DTZ001


def test_a_class_is_registered_once_and_for_what_can_be_sent() -> None:
    with pytest.raises(ValueError, match="BillSent is registered"):
        event_type("bill.sent", aggregate_type="Bill")(Line)
    with pytest.raises(TypeError, match="neither a dataclass nor"):
        event_type("a.b", aggregate_type="A")(int)
    with pytest.raises(TypeError, match="no event type is registered"):
        DomainEvent("a1", Line("a", Decimal(1)))


def test_what_an_event_leaves_empty_is_filled_in_from_the_nearest_that_knows() -> None:
    typed_event = DomainEvent("i1", SENT)
    defaults = Defaults("acme", "invoices", lambda carrier: carrier.update(traceparent="00-a"))
    alone = message_of(typed_event, Defaults())
    assert (alone.metadata.source, alone.metadata.caused_by) == ("billing", "month_end")
    assert alone.correlation_id == typed_event.id
    there = message_of(typed_event, defaults)
    assert (there.tenant_id, there.metadata.source) == ("acme", "invoices")
    assert there.metadata.attributes == {"traceparent": "00-a"}
    own = replace(typed_event, tenant_id="t", source="s", caused_by="c", attributes={"traceparent": "00-b"})
    said = message_of(own, defaults)
    assert (said.tenant_id, said.metadata.source, said.metadata.caused_by) == ("t", "s", "c")
    assert said.metadata.attributes == {"traceparent": "00-b"}


def test_inside_tracing_events_carry_the_correlation_and_the_trace() -> None:
    with tracing(correlation_id="c1", traceparent="00-c", tracestate="x=1"):
        inside = message_of(Event("a.b", "A", "a1"), Defaults())
    assert inside.correlation_id == "c1"
    assert inside.metadata.attributes == {"traceparent": "00-c", "tracestate": "x=1"}
    event = Event("a.b", "A", "a1")
    assert message_of(event, Defaults()).correlation_id == event.id
