"""What lists of events promise, on true PostgreSQL servers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eventbroker_server.domain.conditions import Conditions
from eventbroker_server.domain.event import Event, Metadata
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.history import EventFilter
from eventbroker_server.ports import AggregateHead, HistoryPage, Row, Span
from eventbroker_server.postgres import history as postgres_history
from eventbroker_server.postgres.event_log import PostgresEventLog
from eventbroker_server.postgres.history import PostgresHistory
from eventbroker_server.postgres.migrate import migrate
from eventbroker_server.postgres.pool import open_pool

from tests.domain_events import domain_event

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.postgres.pool import Pool

    from tests.conftest import Stores

SHARD = 1
WHOLE = Span(0, 20)  # more than any test stores, but for the last
TAGGED = EventFilter(conditions=Conditions(tags=frozenset(["red"])))


@pytest.fixture
async def pool(stores: Stores) -> AsyncIterator[Pool]:
    async with open_pool(stores.settings(), stores.postgres) as pool:
        await migrate(pool, 2)
        yield pool


@pytest.fixture
def log(pool: Pool) -> PostgresEventLog:
    return PostgresEventLog(pool)


@pytest.fixture
def history(pool: Pool) -> PostgresHistory:
    return PostgresHistory(pool)


def numbered(number: int, **changes: Any) -> Event:
    return domain_event(event_id=f"e{number}", aggregate_id=f"u{number}", **changes)


async def store(log: PostgresEventLog, *events: Event) -> None:
    """One by one, so that each can be the next of its aggregate."""
    for event in events:
        await log.append(SHARD, [Row(event, None, 1)])


def ids(page: HistoryPage) -> list[str]:
    return [stored.event.event_id for stored in page.events]


async def listed(history: PostgresHistory, asked: EventFilter, span: Span = WHOLE, count: int = 100) -> list[str]:
    """All pages, which have to be the same from both ends."""
    oldest, newest = [], []
    left: Span | None = span
    while left:
        page = await history.events("acme", SHARD, asked, left, count)
        assert len(page.events) <= count
        oldest += ids(page)
        left = None if page.reached is None else Span(page.reached, span.upto)
    left = span
    while left:
        page = await history.events("acme", SHARD, asked, left, count, newest_first=True)
        newest += ids(page)
        left = None if page.reached is None else Span(span.after, page.reached - 1)
    assert newest == oldest[::-1]
    return oldest


EVENTS = [
    numbered(1, correlation_id="c1", user_id="ann"),
    numbered(2, event_type="user.mail.changed", correlation_id="c1", metadata=Metadata(caused_by="e1", source="web")),
    domain_event(event_id="e3", aggregate_id="u1", event_type="user.left", user_id="ann"),
    numbered(4, event_type="role.granted", aggregate_type="Role", metadata=Metadata(tags=("red", "blue"))),
    numbered(5, tenant_id="globex", correlation_id="c1", user_id="ann", metadata=Metadata(caused_by="e1")),
    domain_event(event_id="e6", aggregate_id="u1", metadata=Metadata(caused_by="e1", tags=("red",))),
]
FOUND: list[tuple[EventFilter, str]] = [
    (EventFilter(), "1 2 3 4 6"),
    (EventFilter(types=TypeFilter.of("user.created")), "1 6"),
    (EventFilter(types=TypeFilter.of("user.created", "role.granted")), "1 4 6"),
    (EventFilter(types=TypeFilter.of("user.*")), "1 2 3 6"),
    (EventFilter(types=TypeFilter.of("user.mail.*", "user.left")), "2 3"),
    (EventFilter(types=TypeFilter.of("nothing.*")), ""),
    (EventFilter(types=TypeFilter.of("nothing")), ""),
    (EventFilter(aggregate_type="User"), "1 2 3 6"),
    (EventFilter(aggregate_type="User", aggregate_id="u1"), "1 3 6"),
    (EventFilter(aggregate_type="Role", aggregate_id="u1"), ""),
    (
        EventFilter(aggregate_type="User", aggregate_id="u1", user_id="ann", types=TypeFilter.of("*.left", "user.*")),
        "1 3",
    ),
    (EventFilter(correlation_id="c1"), "1 2"),
    (EventFilter(correlation_id="c1", user_id="ann"), "1"),
    (EventFilter(caused_by="e1"), "2 6"),
    (EventFilter(caused_by="e1", correlation_id="c1", types=TypeFilter.of("user.*")), "2"),
    (EventFilter(user_id="ann"), "1 3"),
    (EventFilter(conditions=Conditions(sources=frozenset(["web", "app"]))), "2"),
    (TAGGED, "4 6"),
    (EventFilter(conditions=Conditions(tags=frozenset(["red", "blue"]))), "4"),
    (EventFilter(types=TypeFilter.of("user.*"), conditions=Conditions(tags=frozenset(["red"]))), "6"),
]


async def test_a_list_has_what_matches_every_field_of_its_filter_page_by_page(
    history: PostgresHistory, log: PostgresEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(log, *EVENTS)
    for steps, step in ((10, 10_000), (10, 2), (1, 1)):  # entries are looked at all at once, or few in a call
        monkeypatch.setattr(postgres_history, "_STEPS", steps)
        monkeypatch.setattr(postgres_history, "_STEP", step)
        for asked, expected in FOUND:
            for count in (1, 2, 100):
                found = await listed(history, asked, count=count)
                assert " ".join(found).replace("e", "") == expected, (asked, step, count)


async def test_a_list_keeps_within_its_span(history: PostgresHistory, log: PostgresEventLog) -> None:
    await store(log, *EVENTS)
    for asked in (EventFilter(), EventFilter(aggregate_type="User", aggregate_id="u1"), EventFilter(user_id="ann")):
        all_of_it = await listed(history, asked)
        for after in range(7):
            for upto in range(7):
                span = [each for each in all_of_it if after < int(each[1:]) <= upto]
                assert await listed(history, asked, Span(after, upto)) == span, (asked, after, upto)


async def test_a_page_that_is_full_ends_the_list_if_nothing_comes_after_it(
    history: PostgresHistory, log: PostgresEventLog
) -> None:
    await store(log, *EVENTS)
    assert (await history.events("acme", SHARD, EventFilter(), WHOLE, 5)).reached is None
    assert (await history.events("acme", SHARD, EventFilter(), WHOLE, 4)).reached == 4
    assert (await history.events("acme", SHARD, EventFilter(), WHOLE, 4, newest_first=True)).reached == 2


async def test_a_page_looks_at_a_bounded_number_of_events(
    history: PostgresHistory, log: PostgresEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    await log.append(SHARD, [Row(numbered(number), None, 1) for number in range(1, 21)])
    monkeypatch.setattr(postgres_history, "_STEPS", 3)
    monkeypatch.setattr(postgres_history, "_STEP", 5)
    assert await history.events("acme", SHARD, TAGGED, WHOLE, 10) == HistoryPage([], 15)
    assert await history.events("acme", SHARD, TAGGED, WHOLE, 10, newest_first=True) == HistoryPage([], 6)
    assert await history.events("acme", SHARD, TAGGED, Span(15, 20), 10) == HistoryPage([], None)


async def test_a_list_goes_on_over_a_stretch_of_what_nobody_asked_for(
    history: PostgresHistory, log: PostgresEventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    red = {"metadata": Metadata(tags=("red",))}
    mine = {1: numbered(1, **red), 9: numbered(9, event_type="user.left", **red), 20: numbered(20, **red)}
    await store(log, *(mine.get(number) or numbered(number, tenant_id="globex") for number in range(1, 21)))
    for step in (1, 2, 3):
        monkeypatch.setattr(postgres_history, "_STEP", step)
        assert await listed(history, TAGGED) == ["e1", "e9", "e20"]


async def test_a_page_has_four_mebibytes_of_data_or_one_event(history: PostgresHistory, log: PostgresEventLog) -> None:
    sizes = (1.5, 1.5, 1.5, 5, 0.1, 0.1)
    for number, size in enumerate(sizes, 1):
        content = b"x" * round(size * (1 << 20))
        await store(log, numbered(number, content=content, metadata=Metadata(tags=("red",))))
    for asked in (EventFilter(), TAGGED):
        page = await history.events("acme", SHARD, asked, WHOLE, 10)
        assert (ids(page), page.reached) == (["e1", "e2"], 2)
        page = await history.events("acme", SHARD, asked, Span(3, 10), 10)
        assert (ids(page), page.reached) == (["e4"], 4)
        assert await listed(history, asked) == [f"e{number}" for number in range(1, 7)]


async def test_events_of_an_aggregate_are_listed_by_version(history: PostgresHistory, log: PostgresEventLog) -> None:
    await store(log, *(event for _ in range(5) for event in (domain_event(aggregate_id="u1"), domain_event())))
    key = ("acme", "User", "u1")

    async def versions(span: Span, count: int, *, newest_first: bool = False) -> tuple[list[int], int | None]:
        page = await history.aggregate_events(SHARD, key, span, count, newest_first=newest_first)
        return [stored.aggregate_version for stored in page.events], page.reached

    assert await versions(WHOLE, 5) == ([1, 2, 3, 4, 5], None)
    assert await versions(Span(1, 4), 2) == ([2, 3], 3)
    assert await versions(Span(3, 4), 2) == ([4], None)
    assert await versions(Span(0, 3), 2, newest_first=True) == ([3, 2], 2)
    assert (await history.aggregate_events(SHARD, ("globex", "User", "u1"), WHOLE, 9)).events == []


async def test_aggregates_are_listed_bytewise_with_their_latest_event(
    history: PostgresHistory, log: PostgresEventLog
) -> None:
    names = [("User", "b"), ("User", "B"), ("User", "ä"), ("User", "a"), ("order", "a"), ("User", "b"), ("Order", "z")]
    await store(log, *(domain_event(aggregate_type=kind, aggregate_id=key) for kind, key in names))
    await store(log, domain_event(tenant_id="globex", aggregate_id="c"))
    found = await history.aggregates("acme", "", None, 100)
    assert [(head.aggregate_type, head.aggregate_id) for head in found] == sorted(
        set(names), key=lambda name: (name[0].encode(), name[1].encode())
    )
    (stored,) = await log.at(SHARD, [6])
    assert AggregateHead("User", "b", 2, 6, stored.record_time) in found
    for place, head in enumerate(found):
        after = (head.aggregate_type, head.aggregate_id)
        assert await history.aggregates("acme", "", after, 2) == found[place + 1 : place + 3]
    users = [head for head in found if head.aggregate_type == "User"]
    assert await history.aggregates("acme", "User", None, 100) == users
    assert await history.aggregates("acme", "User", ("User", "a"), 1) == users[2:3]
