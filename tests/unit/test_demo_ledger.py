"""The demo's books: they reconcile when nothing is wrong, and name the cell when something is."""

from __future__ import annotations

import io
from collections.abc import Iterable

import pytest
from eventbroker_cli.demo.ledger import Ledger, matches
from eventbroker_cli.demo.options import Options
from eventbroker_cli.demo.report import Report
from eventbroker_cli.demo.screen import LiveScreen
from rich.console import Console

TYPES = ("user.created", "role.assigned", "permission.checked")
GROUPS = {"all": ("*",), "users": ("user.*",)}
EVENTS = 30


def type_of(number: int) -> str:
    return TYPES[number % 3]


def ids(numbers: Iterable[int] = range(EVENTS)) -> list[str]:
    return [f"run-{number}" for number in numbers]


def publish(ledger: Ledger, unanswered: int = -1) -> None:
    for number, event_id in enumerate(ids()):
        ledger.note_published(event_id, type_of(number))
        if number != unanswered:
            ledger.note_stored(event_id, 100 + number, duplicate=False)


def deliver(ledger: Ledger, lost: int = -1, unacked: int = -1) -> None:
    for group, wanted in (("all", TYPES), ("users", TYPES[:1])):
        for number, event_id in enumerate(ids()):
            if type_of(number) not in wanted or (group == "all" and number == lost):
                continue
            ledger.groups[group].note_delivery(event_id, type_of(number), 100 + number)
            if group != "all" or number != unacked:
                ledger.groups[group].note_settled(event_id)


def wrong_cells(ledger: Ledger) -> list[str]:
    return [f"{wrong.row} / {wrong.column}" for wrong in ledger.mismatches()]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("run", EVENTS, TYPES, GROUPS)


def test_adds_up_when_every_event_is_stored_delivered_and_acked(ledger: Ledger) -> None:
    publish(ledger)
    assert not ledger.settled
    deliver(ledger)
    assert ledger.settled
    assert ledger.mismatches() == []
    *rows, total = ledger.rows()
    assert [(row.event_type, row.published, row.stored) for row in rows] == [(name, 10, 10) for name in TYPES]
    assert (total.event_type, total.published, total.stored) == ("total", 30, 30)
    assert [(total.groups[name].delivered, total.groups[name].acked) for name in GROUPS] == [(30, 30), (10, 10)]
    assert all(cells.agrees for row in (*rows, total) for cells in row.groups.values())


def test_redelivery_is_counted_and_adds_up(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger)
    deliver(ledger)
    assert ledger.mismatches() == []
    assert ledger.rows()[-1].groups["all"].redelivered == 30
    assert ledger.rows()[-1].groups["all"].acked == 30


def test_delivery_may_come_before_the_answer_to_publish(ledger: Ledger) -> None:
    for number, event_id in enumerate(ids()):
        ledger.note_published(event_id, type_of(number))
    deliver(ledger)
    assert not ledger.settled
    for number, event_id in enumerate(ids()):
        ledger.note_stored(event_id, 100 + number, duplicate=True)
    assert ledger.settled
    assert ledger.duplicates == EVENTS
    assert ledger.mismatches() == []


def test_lost_event_names_its_cells(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger, lost=4)
    assert not ledger.settled
    assert wrong_cells(ledger) == ["role.assigned / all delivered", "role.assigned / all acked"]
    assert str(ledger.mismatches()[0]) == "role.assigned / all delivered: 9 instead of 10"
    row = ledger.rows()[1]
    assert (row.groups["all"].agrees, row.groups["users"].agrees) == (False, True)
    assert (ledger.rows()[-1].groups["all"].agrees, ledger.rows()[-1].groups["users"].agrees) == (False, True)


def test_unacked_event_names_its_cell(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger, unacked=5)
    assert not ledger.settled
    assert wrong_cells(ledger) == ["permission.checked / all acked"]


def test_event_without_an_answer_to_publish_names_its_cell(ledger: Ledger) -> None:
    publish(ledger, unanswered=3)
    deliver(ledger)
    assert not ledger.settled
    assert wrong_cells(ledger) == ["user.created / stored"]


def test_event_that_is_stored_twice_names_its_cell(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger)
    ledger.note_stored("run-3", 999, duplicate=False)
    assert wrong_cells(ledger) == ["user.created / stored"]
    assert "10, and 1 twice" in str(ledger.mismatches()[0])


def test_event_that_is_delivered_from_two_positions_names_its_cell(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger)
    ledger.groups["all"].note_delivery("run-4", type_of(4), 999)
    assert wrong_cells(ledger) == ["role.assigned / all delivered"]


def test_one_lost_and_one_doubled_event_do_not_make_up_for_each_other(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger, lost=4)
    ledger.groups["all"].note_delivery("run-1", type_of(1), 999)
    ledger.groups["all"].note_settled("run-1")
    assert wrong_cells(ledger) == ["role.assigned / all delivered", "role.assigned / all acked"]


def test_delivery_outside_the_filter_names_its_cell(ledger: Ledger) -> None:
    publish(ledger)
    deliver(ledger)
    ledger.groups["users"].note_delivery("run-1", type_of(1), 101)
    assert wrong_cells(ledger) == ["role.assigned / users delivered"]


@pytest.mark.parametrize(("event_id", "event_type"), [("run-30", TYPES[0]), ("run-3", TYPES[1])])
def test_delivery_of_what_was_never_published_names_its_cell(ledger: Ledger, event_id: str, event_type: str) -> None:
    publish(ledger)
    deliver(ledger)
    ledger.groups["all"].note_delivery(event_id, event_type, 130)
    assert wrong_cells(ledger) == ["total / all delivered"]
    assert not ledger.rows()[-1].groups["all"].agrees


def test_unpublished_event_names_the_total(ledger: Ledger) -> None:
    for number, event_id in enumerate(ids(range(EVENTS - 1))):
        ledger.note_published(event_id, type_of(number))
        ledger.note_stored(event_id, 100 + number, duplicate=False)
    for group in ledger.groups.values():
        for number, event_id in enumerate(ids(range(EVENTS - 1))):
            if group.matches[number % 3]:
                group.note_delivery(event_id, type_of(number), 100 + number)
                group.note_settled(event_id)
    assert not ledger.settled
    assert wrong_cells(ledger) == ["total / published"]


@pytest.mark.parametrize("event_id", ["other-1", "run-", "run-x", "run", "run-1-1", ""])
def test_events_of_other_runs_are_not_counted(ledger: Ledger, event_id: str) -> None:
    publish(ledger)
    deliver(ledger)
    ledger.groups["all"].note_delivery(event_id, TYPES[0], 1)
    ledger.groups["all"].note_settled(event_id)
    ledger.note_stored(event_id, 1, duplicate=False)
    assert ledger.mismatches() == []


def test_event_is_published_once(ledger: Ledger) -> None:
    publish(ledger)
    with pytest.raises(ValueError, match="run-0"):
        ledger.note_published("run-0", TYPES[0])


@pytest.mark.parametrize(
    ("pattern", "event_type", "taken"),
    [
        ("*", "user.created", True),
        ("user.*", "user.created", True),
        ("user.*", "user", False),
        ("user.*", "users.created", False),
        ("user.created", "user.created", True),
        ("user.created", "user.created.late", False),
    ],
)
def test_patterns(pattern: str, event_type: str, taken: bool) -> None:
    assert matches(pattern, event_type) is taken


@pytest.mark.parametrize("width", [80, 100, 200])
def test_screen_names_the_cell_that_does_not_add_up(ledger: Ledger, width: int) -> None:
    publish(ledger)
    deliver(ledger, lost=4)
    text = io.StringIO()
    screen = LiveScreen(Options(run_id="run"), Console(file=text, force_terminal=True, width=width, color_system=None))
    screen.show(report_of(ledger))
    assert "It does not add up" in text.getvalue()
    assert "role.assigned / all delivered: 9 instead of 10" in text.getvalue()
    assert all(len(line) <= width for line in text.getvalue().splitlines())


def test_screen_off_a_terminal_is_plain_text(ledger: Ledger) -> None:
    text = io.StringIO()
    screen = LiveScreen(Options(run_id="run"), Console(file=text))
    with screen:
        screen.begin(ledger)
        publish(ledger)
        deliver(ledger)
        screen.refresh()
        screen.note("[nothing] is broken")
    screen.show(report_of(ledger))
    assert "30/100,000" not in text.getvalue()
    assert "30/30 published" in text.getvalue()
    assert "[nothing] is broken" in text.getvalue()
    assert "✓ Everything adds up." in text.getvalue()
    assert "\x1b" not in text.getvalue()


def report_of(ledger: Ledger) -> Report:
    return Report(
        run_id="run",
        rows=ledger.rows(),
        mismatches=ledger.mismatches(),
        duplicates=0,
        retries=0,
        duration=1.0,
        publish_duration=0.5,
        faults=["killed consumer all-1 with 3 deliveries unacked"],
        unproven=[],
        sample_checked=10,
        sample_wrong=[],
    )
