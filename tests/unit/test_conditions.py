from __future__ import annotations

from typing import Any

import pytest
from eventbroker_server.domain.conditions import Conditions, Facts
from eventbroker_server.domain.event import Metadata, StoredEvent
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.group import Group, GroupKey
from eventbroker_server.rpc.convert import EventCodec, event_message
from hypothesis import given

from tests.domain_events import LAST_MOMENT, domain_event, domain_events

FACTS = Facts("billing", "User", ("eu", "beta"))


def conditions(**named: list[str]) -> Conditions:
    return Conditions(**{field: frozenset(names) for field, names in named.items()})


@pytest.mark.parametrize(
    "met",
    [
        {},
        {"sources": ["billing", "mail"]},
        {"aggregate_types": ["Role", "User"]},
        {"tags": ["eu"]},
        {"tags": ["beta", "eu"]},
        {"sources": ["billing"], "aggregate_types": ["User"], "tags": ["eu"]},
    ],
)
def test_an_event_meets_any_source_and_aggregate_type_and_all_tags_that_are_named(met: dict[str, Any]) -> None:
    assert conditions(**met).met_by(FACTS)


@pytest.mark.parametrize(
    "missed",
    [
        {"sources": ["mail"]},
        {"sources": ["Billing"]},
        {"aggregate_types": ["Role"]},
        {"tags": ["eu", "us"]},
        {"sources": ["billing"], "aggregate_types": ["Role"], "tags": ["eu"]},
    ],
)
def test_an_event_that_misses_one_condition_does_not_meet_them(missed: dict[str, Any]) -> None:
    assert not conditions(**missed).met_by(FACTS)


def test_an_event_that_says_nothing_meets_no_source_and_no_tag() -> None:
    nothing = Facts("", "User", ())
    assert not conditions(sources=["billing"]).met_by(nothing)
    assert not conditions(tags=["eu"]).met_by(nothing)
    assert conditions().met_by(nothing)


def test_redis_is_told_of_conditions_and_not_of_none() -> None:
    group = Group(GroupKey("acme", "g"), TypeFilter.of("b", "a.*"), 30.0)
    assert group.filter_text == "a.*,b"
    sources, tags = conditions(sources=["x"]), conditions(tags=["x"])
    told = {Group(group.key, group.filter, 30.0, conditions=each).filter_text for each in (sources, tags)}
    assert len(told) == 2
    assert {text.partition(" ")[0] for text in told} == {"a.*,b"}


def test_conditions_say_in_words_what_they_want() -> None:
    wanted = conditions(sources=["b", "a"], aggregate_types=["User"], tags=["y", "x"])
    assert str(wanted) == "events of source a or b of aggregate type User with tag x and y"


@given(domain_events())
def test_the_facts_of_an_event_are_read_from_what_is_relayed(event: Any) -> None:
    body = event_message(StoredEvent(event, 7, 3, LAST_MOMENT)).SerializeToString()
    assert EventCodec().facts(body) == Facts(event.metadata.source, event.aggregate_type, event.metadata.tags)


def test_the_facts_of_an_event_without_metadata_are_empty() -> None:
    body = event_message(StoredEvent(domain_event(metadata=Metadata()), 7, 3, LAST_MOMENT)).SerializeToString()
    assert EventCodec().facts(body) == Facts("", "User", ())
