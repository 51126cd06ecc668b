from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.broker.decide import Expectation, Request, Verdict, decide, guess
from eventbroker_server.domain.errors import BrokerError, Conflict, EventIdReused, VersionConflict
from eventbroker_server.domain.event import Event, StoredEvent
from eventbroker_server.ports import Row
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.domain.event import AggregateKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def on(aggregate_id: str, event_id: str = "", content: str = "") -> Event:
    said: dict[str, Any] = {"event_id": event_id} if event_id else {}
    return domain_event(aggregate_id=aggregate_id, content=content.encode(), **said)


def expect(aggregate_id: str, **expected: Any) -> Expectation:
    return Expectation(("acme", "User", aggregate_id), **expected)


@dataclass
class Log:
    """The naive model: events one after the other, and everything found out by looking at all of them."""

    events: list[Event] = field(default_factory=list)

    def version(self, aggregate: AggregateKey) -> int:
        return sum(event.aggregate == aggregate for event in self.events)

    def versions(self) -> dict[AggregateKey, int]:
        return dict(Counter(event.aggregate for event in self.events))

    def stored(self) -> dict[tuple[str, str], StoredEvent]:
        found = {}
        for position, event in enumerate(self.events, 1):
            version = Log(self.events[:position]).version(event.aggregate)
            found[event.key] = StoredEvent(event, position, version, NOW)
        return found

    def append(self, request: Request) -> BrokerError | list[bool]:
        """Do what Publish says, for one request; the answer tells which events were there before."""
        known = {event.key: event for event in self.events}
        for event in request.events:
            if event.key in known and not known[event.key].same_as(event):
                return EventIdReused(event_id=event.event_id, tenant_id=event.tenant_id)
        duplicates = [event.key in known for event in request.events]
        conflicts = [
            Conflict(e.aggregate[1], e.aggregate[2], str(e), self.version(e.aggregate))
            for e in request.expectations
            if not e.holds(self.version(e.aggregate))
        ]
        if conflicts and not all(duplicates):
            return VersionConflict(conflicts)
        self.events += [event for event in request.events if event.key not in known]
        return duplicates

    def decide(self, *requests: Request) -> tuple[list[Row], list[Verdict]]:
        return decide(requests, self.stored(), self.versions())


def outcome(verdict: Verdict) -> tuple[type[BrokerError], object] | list[bool]:
    if verdict.error is not None:
        return _told(verdict.error)
    return [known is not None for known in verdict.known]


def _told(error: BrokerError) -> tuple[type[BrokerError], object]:
    return type(error), error.conflicts if isinstance(error, VersionConflict) else error.details


def stored_by(rows: Sequence[Row]) -> list[tuple[Event, int]]:
    """Events with the version that they get."""
    return [(row.event, (row.base or 0) + row.step) for row in rows]


# What decide says.


@pytest.mark.parametrize(
    ("expected", "shown", "holds_at"),
    [
        ({"version": 0}, "0", [0]),
        ({"version": 2}, "2", [2]),
        ({"exists": True}, "exists", [1, 2, 3]),
        ({"exists": False}, "none", [0]),
    ],
    ids=["version 0", "version 2", "exists", "none yet"],
)
@pytest.mark.parametrize("actual", range(4))
def test_an_expectation_is_judged_by_the_version(
    expected: dict[str, Any], shown: str, holds_at: list[int], actual: int
) -> None:
    log = Log([on("a") for _ in range(actual)])
    rows, (verdict,) = log.decide(Request([on("a")], [expect("a", **expected)]))
    if actual in holds_at:
        assert verdict == Verdict(known=[None])
        assert [version for _, version in stored_by(rows)] == [actual + 1]
    else:
        assert outcome(verdict) == (VersionConflict, [Conflict("User", "a", shown, actual)])
        assert rows == []


def test_without_an_expectation_events_get_the_next_versions() -> None:
    events = [on("a"), on("b"), on("a")]
    rows, _ = Log([on("a")]).decide(Request(events))
    assert stored_by(rows) == [(events[0], 2), (events[1], 1), (events[2], 3)]


def test_a_conflict_names_every_aggregate_that_is_not_as_expected() -> None:
    log = Log([on("a"), on("b"), on("b")])
    wanted = [expect("a", version=7), expect("b", version=2), expect("b2", exists=True), expect("a2", exists=False)]
    _, (verdict,) = log.decide(Request([on("c")], wanted))
    conflicts = [Conflict("User", "a", "7", 1), Conflict("User", "b2", "exists", 0)]
    assert outcome(verdict) == (VersionConflict, conflicts)


def test_an_event_that_is_stored_is_answered_with_its_place() -> None:
    log = Log([on("a"), on("a", "e1", "x"), on("b")])
    rows, (verdict,) = log.decide(Request([on("a", "e1", "x")]))
    assert rows == []
    assert [(known.position, known.aggregate_version) for known in verdict.known if known] == [(2, 2)]


@pytest.mark.parametrize("changed", sorted(set(Event._fields) - {"tenant_id", "event_id", "wire"}))
def test_an_id_with_anything_else_changed_is_refused(changed: str) -> None:
    stored = on("a", "e1")
    different: dict[str, Any] = {
        "form": 3,
        "timestamp": NOW,
        "metadata": stored.metadata._replace(tags=("t",)),
        "content": b"other",
    }
    again = stored._replace(**{changed: different.get(changed, "other")})
    rows, (verdict,) = Log([stored]).decide(Request([again]))
    assert outcome(verdict) == (EventIdReused, {"event_id": "e1", "tenant_id": "acme"})
    assert rows == []


def test_the_serialized_form_is_no_part_of_an_event() -> None:
    stored = on("a", "e1")
    _, (verdict,) = Log([stored]).decide(Request([stored._replace(wire=b"as it came")]))
    assert outcome(verdict) == [True]


def test_an_id_of_another_tenant_is_another_event() -> None:
    _, (verdict,) = Log([on("a", "e1", "x")]).decide(Request([on("a", "e1", "y")._replace(tenant_id="other")]))
    assert outcome(verdict) == [False]


def test_of_duplicates_and_new_events_only_the_new_ones_are_stored() -> None:
    old, new = on("a", "e1"), [on("a"), on("a")]
    rows, (verdict,) = Log([old]).decide(Request([new[0], old, new[1]]))
    assert outcome(verdict) == [False, True, False]
    assert stored_by(rows) == [(new[0], 2), (new[1], 3)]


def test_duplicates_alone_are_answered_whatever_was_expected() -> None:
    old = on("a", "e1")
    _, (verdict,) = Log([old]).decide(Request([old], [expect("a", version=0)]))
    assert outcome(verdict) == [True]


def test_a_duplicate_beside_a_new_event_does_not_excuse_an_expectation() -> None:
    old = on("a", "e1")
    rows, (verdict,) = Log([old]).decide(Request([old, on("a")], [expect("a", version=0)]))
    assert outcome(verdict) == (VersionConflict, [Conflict("User", "a", "0", 1)])
    assert rows == []


def test_a_refused_request_does_not_touch_its_neighbours() -> None:
    before, after = on("a"), on("a")
    reused = [on("a"), on("a", "e1", "other")]
    rows, verdicts = Log([on("b", "e1")]).decide(
        Request([before]), Request(reused), Request([on("a")], [expect("a", version=9)]), Request([after])
    )
    assert [verdict.error is None for verdict in verdicts] == [True, False, False, True]
    assert stored_by(rows) == [(before, 1), (after, 2)]


def test_of_two_requests_that_expect_the_same_version_the_first_wins() -> None:
    rows, verdicts = Log([on("a")]).decide(*(Request([on("a")], [expect("a", version=1)]) for _ in range(2)))
    assert outcome(verdicts[0]) == [False]
    assert outcome(verdicts[1]) == (VersionConflict, [Conflict("User", "a", "1", 2)])
    assert len(rows) == 1


# Hypothesis: small worlds, so that ids and aggregates meet.

_aggregates = st.sampled_from(["a", "b", "c"])
_expected = st.builds(lambda version: {"version": version}, st.integers(0, 4)) | st.builds(
    lambda exists: {"exists": exists}, st.booleans()
)
_expectations = st.dictionaries(_aggregates, _expected, max_size=3).map(
    lambda wanted: [expect(aggregate, **expected) for aggregate, expected in wanted.items()]
)


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[Log, list[Request]]:
    """A log, and requests that share no event id; some events are in the log, as they are or with other content."""
    stored = [on(aggregate, f"s{number}") for number, aggregate in enumerate(draw(st.lists(_aggregates, max_size=6)))]
    fresh = [on(aggregate, f"n{number}") for number, aggregate in enumerate(draw(st.lists(_aggregates, max_size=6)))]
    offered = [
        event._replace(content=b"other") if draw(st.integers(0, 5)) == 0 else event
        for event in draw(st.permutations(stored + fresh))
    ]
    requests = []
    while offered:
        size = draw(st.integers(1, 3))
        requests.append(Request(offered[:size], draw(_expectations)))
        offered = offered[size:]
    return Log(stored), requests


@settings(deadline=None)
@given(_worlds())
def test_decide_agrees_with_one_request_after_the_other(world: tuple[Log, list[Request]]) -> None:
    log, requests = world
    rows, verdicts = log.decide(*requests)
    for request, verdict in zip(requests, verdicts, strict=True):
        answer = log.append(request)
        assert outcome(verdict) == (_told(answer) if isinstance(answer, BrokerError) else answer)
    versions = {stored.event.key: stored.aggregate_version for stored in log.stored().values()}
    new = log.events[len(log.events) - len(rows) :]
    assert stored_by(rows) == [(event, versions[event.key]) for event in new]


@settings(deadline=None, max_examples=300)
@given(_worlds(), st.data())
def test_what_the_unique_keys_let_pass_of_a_guess_is_right(
    world: tuple[Log, list[Request]], data: st.DataObject
) -> None:
    log, requests = world
    versions = log.versions()
    cached = {aggregate: data.draw(st.integers(1, version)) for aggregate, version in sorted(versions.items())}
    for forgotten in data.draw(st.lists(st.sampled_from(sorted(cached)), unique=True)) if cached else ():
        del cached[forgotten]

    rows, taken = guess(requests, cached)
    bold = [request for request, is_bold in zip(requests, taken, strict=True) if is_bold]
    assert [row.event for row in rows] == [event for request in bold for event in request.events]
    written = [
        (row.event, row.step + (versions.get(row.event.aggregate, 0) if row.base is None else row.base)) for row in rows
    ]
    taken_ids = [event.key for event in log.events]
    taken_versions = [(aggregate, number) for aggregate, last in versions.items() for number in range(1, last + 1)]
    ids = taken_ids + [event.key for event, _ in written]
    numbers = taken_versions + [(event.aggregate, version) for event, version in written]
    if len(set(ids)) < len(ids) or len(set(numbers)) < len(numbers):
        return  # the store refuses it, and decide is asked
    for request in bold:
        assert log.append(request) == [False] * len(request.events)
    assert written == [(event, log.stored()[event.key].aggregate_version) for event, _ in written]


# What guess takes.


def test_a_request_that_expects_nothing_is_always_tried() -> None:
    event = on("a")
    assert guess([Request([event])], {}) == ([Row(event, None, 1)], [True])
    assert guess([Request([event])], {event.aggregate: 4}) == ([Row(event, 4, 1)], [True])


@pytest.mark.parametrize("expected", [{"version": 0}, {"exists": False}])
def test_an_unknown_aggregate_that_should_be_new_is_written_as_version_1(expected: dict[str, Any]) -> None:
    event = on("a")
    assert guess([Request([event], [expect("a", **expected)])], {}) == ([Row(event, 0, 1)], [True])


@pytest.mark.parametrize("expected", [{"version": 4}, {"exists": True}])
def test_an_expectation_that_agrees_with_what_is_cached_is_tried(expected: dict[str, Any]) -> None:
    event = on("a")
    assert guess([Request([event], [expect("a", **expected)])], {event.aggregate: 4}) == ([Row(event, 4, 1)], [True])


@pytest.mark.parametrize("expected", [{"version": 3}, {"version": 5}, {"exists": False}])
def test_an_expectation_that_disagrees_with_what_is_cached_is_left_to_decide(expected: dict[str, Any]) -> None:
    event = on("a")
    assert guess([Request([event], [expect("a", **expected)])], {event.aggregate: 4}) == ([], [False])


def test_an_expectation_of_an_aggregate_that_is_not_written_is_left_to_decide() -> None:
    assert guess([Request([on("a")], [expect("b", exists=False)])], {}) == ([], [False])


def test_an_expectation_behind_another_write_of_the_aggregate_is_left_to_decide() -> None:
    first, second = on("a"), on("a")
    rows, taken = guess([Request([first]), Request([second], [expect("a", version=4)])], {first.aggregate: 4})
    assert (rows, taken) == ([Row(first, 4, 1)], [True, False])
