"""Lists of events and aggregates, and the tree of causes, through the port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1.event_pb2 import Binary, Event, Metadata
from eventbroker.v1.event_store_service_pb2 import (
    EVENT_ORDER_NEWEST_FIRST,
    EventFilter,
    GetCausalityRequest,
    GetCausalityResponse,
    ListAggregateEventsRequest,
    ListAggregateEventsResponse,
    ListAggregatesRequest,
    ListAggregatesResponse,
    ListEventsRequest,
    ListEventsResponse,
)
from eventbroker_server.domain.principal import Principal, Role
from eventbroker_server.rpc import auth
from google.protobuf.timestamp_pb2 import Timestamp

from tests.acceptance.refused import refused
from tests.client import TIMEOUT, event, ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.client import Client

INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
ID, NAME = "1 to 256 characters without control characters", "1 to 128 characters of"
MEBI = 1 << 20
NEWEST: Any = EVENT_ORDER_NEWEST_FIRST


def of_acme(fields: dict[str, Any]) -> dict[str, Any]:
    return {"tenant_id": "acme"} | fields


async def events(broker: Client, **fields: Any) -> ListEventsResponse:
    return await broker.event_store.ListEvents(ListEventsRequest(**of_acme(fields)), timeout=TIMEOUT)


async def of_aggregate(broker: Client, **fields: Any) -> ListAggregateEventsResponse:
    request = ListAggregateEventsRequest(**of_acme({"aggregate_type": "User", "aggregate_id": "u1"} | fields))
    return await broker.event_store.ListAggregateEvents(request, timeout=TIMEOUT)


async def aggregates(broker: Client, **fields: Any) -> ListAggregatesResponse:
    return await broker.event_store.ListAggregates(ListAggregatesRequest(**of_acme(fields)), timeout=TIMEOUT)


async def causality(broker: Client, **fields: Any) -> GetCausalityResponse:
    request = GetCausalityRequest(**of_acme({"event_id": "e1"} | fields))
    return await broker.event_store.GetCausality(request, timeout=TIMEOUT)


LISTS: list[Callable[..., Awaitable[Any]]] = [events, of_aggregate, aggregates]


async def pages(call: Callable[..., Awaitable[Any]], broker: Client, **fields: Any) -> list[Any]:
    """All pages of a list."""
    found = [await call(broker, **fields)]
    while token := found[-1].next_page_token:
        found.append(await call(broker, **fields, page_token=token))
    return found


def ids_of(pages: list[Any]) -> list[str]:
    return [each for page in pages for each in ids(page.events)]


@pytest.fixture
async def stored(broker: Client) -> list[Event]:
    """e1, e3 and e5 of one user, e2 and e4 of two others; each is caused by the one before."""
    for number in range(1, 6):
        await broker.publish(
            event(
                event_id=f"e{number}",
                aggregate_id="u1" if number % 2 else f"u{number}",
                event_type="user.created" if number < 4 else "user.left",
                correlation_id="c" if number > 3 else "",
                metadata=Metadata(source="web", caused_by=f"e{number - 1}"),
            )
        )
    return [await broker.get_event(f"e{number}") for number in range(1, 6)]


async def test_events_are_listed_as_they_are_stored_from_either_end(broker: Client, stored: list[Event]) -> None:
    assert list((await events(broker)).events) == stored
    for size in (1, 2, 5):
        assert ids_of(await pages(events, broker, page_size=size)) == ids(stored)
        assert ids_of(await pages(events, broker, page_size=size, order=NEWEST)) == ids(stored)[::-1]


async def test_a_filter_and_a_range_of_positions_are_both_kept(broker: Client, stored: list[Event]) -> None:
    created = EventFilter(event_types=["user.created"], sources=["web", "app"])
    assert ids((await events(broker, filter=created)).events) == ["e1", "e2", "e3"]
    assert ids((await events(broker, filter=created, after_position=1, upto_position=2)).events) == ["e2"]
    assert ids((await events(broker, after_position=2, order=NEWEST)).events) == ["e5", "e4", "e3"]
    for nothing in ({"after_position": 5}, {"after_position": 1 << 62}, {"after_position": 2, "upto_position": 2}):
        assert not (await events(broker, **nothing)).ListFields()


async def test_a_range_of_times_has_its_first_moment_and_not_its_last(broker: Client, stored: list[Event]) -> None:
    second, fourth = stored[1].record_time, stored[3].record_time
    assert ids((await events(broker, recorded_from=second, recorded_before=fourth)).events) == ["e2", "e3"]
    assert ids((await events(broker, recorded_from=fourth, order=NEWEST)).events) == ["e5", "e4"]
    later = Timestamp(seconds=stored[4].record_time.seconds + 1000)
    assert ids((await events(broker, recorded_before=later, after_position=4)).events) == ["e5"]
    assert not (await events(broker, recorded_from=later)).ListFields()


async def test_what_is_published_meanwhile_appears_once_in_a_list_from_the_oldest_on(
    broker: Client, stored: list[Event]
) -> None:
    first = await events(broker, page_size=3)
    await broker.publish(event(event_id="e6"))
    second = await events(broker, page_size=3, page_token=first.next_page_token)
    assert (ids_of([first, second]), second.next_page_token) == (["e1", "e2", "e3", "e4", "e5", "e6"], "")


async def test_events_of_an_aggregate_are_listed_from_a_version_on(broker: Client, stored: list[Event]) -> None:
    assert ids_of(await pages(of_aggregate, broker, page_size=1)) == ["e1", "e3", "e5"]
    assert ids_of(await pages(of_aggregate, broker, page_size=2, order=NEWEST)) == ["e5", "e3", "e1"]
    assert ids_of([await of_aggregate(broker, from_version=2)]) == ["e3", "e5"]
    assert ids_of(await pages(of_aggregate, broker, from_version=2, order=NEWEST, page_size=1)) == ["e3", "e1"]
    for nothing in ({"aggregate_id": "nobody"}, {"aggregate_type": "Nothing"}, {"from_version": 4}):
        assert not (await of_aggregate(broker, **nothing)).ListFields()


async def test_aggregates_are_listed_with_their_latest_event(broker: Client, stored: list[Event]) -> None:
    await broker.publish(event(aggregate_type="Role", aggregate_id="u9"))
    found = [each for page in await pages(aggregates, broker, page_size=1) for each in page.aggregates]
    assert [(each.aggregate_type, each.aggregate_id, each.version) for each in found] == [
        ("Role", "u9", 1),
        ("User", "u1", 3),
        ("User", "u2", 1),
        ("User", "u4", 1),
    ]
    assert (found[1].position, found[1].record_time) == (5, stored[4].record_time)
    assert list((await aggregates(broker, aggregate_type="User")).aggregates) == found[1:]


async def test_a_tree_of_causes_names_the_parent_and_the_depth_of_each(broker: Client, stored: list[Event]) -> None:
    answer = await causality(broker, event_id="e3")
    assert not answer.truncated
    assert [each.event for each in answer.events] == stored
    assert [(each.parent_event_id, each.depth) for each in answer.events] == [
        *(("", 0), ("e1", 1)),
        *(("e2", 2), ("e3", 3), ("e4", 4)),
    ]
    answer = await causality(broker, event_id="e3", max_events=3)
    assert answer.truncated
    assert [(each.event.event_id, each.parent_event_id, each.depth) for each in answer.events] == [
        ("e2", "", 0),
        ("e3", "e2", 1),
        ("e4", "e3", 2),
    ]


async def test_an_answer_is_no_larger_than_a_client_takes(broker: Client) -> None:
    attributes = {f"a{number}": "x" * 4096 for number in range(20)}
    for number in range(1, 9):
        content = b"x" * (MEBI - 100_000)
        metadata = Metadata(attributes=attributes, caused_by="e1")
        large = {"binary": Binary(content_type="a/b", content=content), "metadata": metadata}
        await broker.publish(event(event_id=f"e{number}", aggregate_id="u1", **large))
    everything = [f"e{number}" for number in range(1, 9)]
    for call in (events, of_aggregate):
        assert ids_of(await pages(call, broker)) == everything
        assert ids_of(await pages(call, broker, order=NEWEST)) == everything[::-1]
    answer = await causality(broker, event_id="e8")
    assert answer.truncated
    assert [each.event.event_id for each in answer.events] == ["e1", "e2", "e3", "e8"]


async def test_a_token_is_good_for_the_request_that_it_was_given_for(broker: Client, stored: list[Event]) -> None:
    other: dict[Any, list[dict[str, Any]]] = {
        events: [{"filter": EventFilter(event_types=["user.*"])}, {"order": NEWEST}, {"after_position": 1}],
        of_aggregate: [{"aggregate_id": "u2"}, {"order": NEWEST}, {"from_version": 1}],
        aggregates: [{"aggregate_type": "User"}],
    }
    tokens = [(await call(broker, page_size=1)).next_page_token for call in LISTS]
    for number, call in enumerate(LISTS):
        token = tokens[number]
        last = "A" if token[10] != "A" else "B"
        bad = ("x", "ü", "====", token[:-4], token + "AAAA", token[:10] + last + token[11:], tokens[number - 1])
        wrong = [{"page_token": each} for each in bad]
        for fields in [*wrong, *(each | {"page_token": token} for each in [*other[call], {"tenant_id": "globex"}])]:
            violations = (await refused(call(broker, **fields), INVALID, "INVALID_ARGUMENT")).violations
            assert violations.keys() == {"page_token"}, fields


async def test_events_of_other_tenants_are_neither_listed_nor_found(
    broker: Client, stored: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in LISTS:
        assert not (await call(broker, tenant_id="globex")).ListFields()
    await refused(causality(broker, tenant_id="globex"), NOT_FOUND, "EVENT_NOT_FOUND")
    await broker.publish(event(tenant_id="globex", event_id="e1"))
    globex = Principal("globex", frozenset(Role), "globex")
    acme = Principal("acme", frozenset(Role), "acme")
    monkeypatch.setattr(auth.OpenProvider, "_PLATFORM", acme)
    tokens = [(await call(broker, tenant_id="", page_size=1)).next_page_token for call in LISTS]
    monkeypatch.setattr(auth.OpenProvider, "_PLATFORM", globex)
    for call, token in zip(LISTS, tokens, strict=True):
        violations = (
            await refused(call(broker, tenant_id="", page_token=token), INVALID, "INVALID_ARGUMENT")
        ).violations
        assert violations.keys() == {"page_token"}
    for call in LISTS:
        await refused(call(broker), grpc.StatusCode.PERMISSION_DENIED, "TENANT_FORBIDDEN")
        await call(broker, tenant_id="")
    await refused(causality(broker), NOT_FOUND, "EVENT_NOT_FOUND")
    assert [each.event.tenant_id for each in (await causality(broker, tenant_id="")).events] == ["globex"]


TIME, ORDER = "from 0001-01-01T00:00:00Z", "EVENT_ORDER_OLDEST_FIRST"
BAD: list[tuple[Any, dict[str, Any], dict[str, str]]] = [
    *((call, {"tenant_id": bad}, {"tenant_id": NAME}) for call in [*LISTS, causality] for bad in ("", "*", "a b")),
    *((call, {"page_size": bad}, {"page_size": "from 1 to 1000"}) for call in LISTS for bad in (-1, 1001)),
    *((call, {"order": 3}, {"order": ORDER}) for call in (events, of_aggregate)),
    (events, {"after_position": -1, "upto_position": -2}, {"after_position": "negative", "upto_position": "negative"}),
    (events, {"after_position": 2, "upto_position": 1}, {"upto_position": "before after_position"}),
    *(
        (events, {"recorded_from": Timestamp(seconds=5), "recorded_before": bad}, {"recorded_before": "later than"})
        for bad in (Timestamp(seconds=5), Timestamp(seconds=4))
    ),
    (
        events,
        {"recorded_from": Timestamp(seconds=-62_135_596_801), "recorded_before": Timestamp(nanos=-1)},
        {"recorded_from": TIME, "recorded_before": TIME},
    ),
    (
        events,
        {"filter": EventFilter(event_types=["A"], aggregate_id="\n", sources=[""], tags=["a", "\0"])},
        {
            "filter.event_types[0]": "wildcard",
            "filter.aggregate_id": ID,
            "filter.aggregate_type": "must be set",
            "filter.sources[0]": ID,
            "filter.tags[1]": ID,
        },
    ),
    (
        of_aggregate,
        {"aggregate_type": "", "aggregate_id": "", "from_version": -1, "page_token": "x"},
        {"aggregate_type": NAME, "aggregate_id": ID, "from_version": "negative", "page_token": "next_page_token"},
    ),
    (aggregates, {"aggregate_type": "a b"}, {"aggregate_type": NAME}),
    *((causality, {"max_events": bad}, {"max_events": "from 1 to 1000"}) for bad in (-1, 1001)),
    (
        causality,
        {"tenant_id": "", "event_id": "", "max_events": -1},
        {"tenant_id": NAME, "event_id": ID, "max_events": ""},
    ),
]


async def test_each_bad_field_is_named(broker: Client) -> None:
    for call, fields, faults in BAD:
        refusal = await refused(call(broker, **fields), INVALID, "INVALID_ARGUMENT")
        assert refusal.violations.keys() == faults.keys(), (call, fields)
        for path, rule in faults.items():
            assert rule in refusal.violations[path], (call, fields)
