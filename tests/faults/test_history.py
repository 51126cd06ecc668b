"""The checker itself: each violation is planted once, and must be found and named."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.faults.history import Ack, Acked, Answered, Delivered, Fact, Fault, History, Hurt, Invoked, Over, Row

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.faults.history import Record

GROUPS = {"audit": "", "billing": "user."}


@dataclass
class Run:
    """A good run of two events: a user's for both groups, a role's for one. One is published again, one comes again."""

    records: list[Record] = field(
        default_factory=lambda: [
            Invoked("u1"),
            Answered("u1", ok=False),
            Fault("kill"),
            Over(Fault("kill")),
            Hurt("publish"),
            Invoked("u1"),
            Answered("u1", ok=True, position=1),
            Invoked("r1"),
            Answered("r1", ok=True, position=2),
            Delivered("audit", "u1", 1),
            Delivered("audit", "r1", 2),
            Delivered("audit", "r1", 2),
            Acked("audit", "u1", Ack.DONE, asked=4),
            Acked("audit", "r1", Ack.DONE, asked=4),
            Delivered("billing", "u1", 1),
            Acked("billing", "u1", Ack.DONE, asked=4),
        ]
    )
    rows: list[Row] = field(
        default_factory=lambda: [Row(1, "u1", "user.created", "a", 1), Row(2, "r1", "role.created", "a", 2)]
    )

    @property
    def history(self) -> History:
        history = History(GROUPS)
        history.records = self.records
        history.stored = {record.event_id for record in self.records if isinstance(record, Answered) and record.ok}
        return history

    def without(self, *kinds: type) -> None:
        self.records = [record for record in self.records if not isinstance(record, kinds)]


def test_a_good_run_has_no_violation_and_is_valid() -> None:
    run = Run()
    assert run.history.judge(run.rows) == []
    assert run.history.validity(volume=2) == []


PLANTED: dict[Fact, Callable[[Run], object]] = {
    Fact.LOST: lambda run: run.rows.pop(),
    Fact.UNEXPECTED: lambda run: run.records.remove(Invoked("r1")),
    Fact.UNDELIVERED: lambda run: run.records.remove(Delivered("billing", "u1", 1)),
    Fact.UNACKED: lambda run: run.records.remove(Acked("audit", "r1", Ack.DONE, asked=4)),
    Fact.UNWANTED: lambda run: run.records.append(Delivered("billing", "r1", 2)),
    Fact.MOVED: lambda run: run.records.insert(-2, Delivered("audit", "r1", 3)),
    Fact.SHARED: lambda run: run.records.insert(-2, Delivered("audit", "u1", 2)),
    Fact.GAP: lambda run: run.rows.append(Row(4, "u2", "user.created", "b", 1)),
    Fact.VERSIONS: lambda run: run.rows.__setitem__(1, Row(2, "r1", "role.created", "a", 3)),
    Fact.RESURRECTED: lambda run: run.records.append(Delivered("audit", "u1", 1)),
    Fact.FORGOTTEN: lambda run: run.records.append(Acked("audit", "u1", Ack.DONE, asked=15)),
}


@pytest.mark.parametrize("fact", Fact)
def test_each_planted_violation_is_found_and_named(fact: Fact) -> None:
    run = Run()
    PLANTED[fact](run)
    assert fact in {violation.fact for violation in run.history.judge(run.rows)}


def test_an_event_that_nobody_published_and_somebody_stored_is_unexpected() -> None:
    run = Run()
    run.rows.append(Row(3, "ghost", "role.created", "a", 3))
    assert Fact.UNEXPECTED in {violation.fact for violation in run.history.judge(run.rows)}


def test_an_unknown_answer_whose_event_was_stored_must_be_delivered_all_the_same() -> None:
    run = Run()
    run.records += [Invoked("u2"), Answered("u2", ok=False)]
    assert run.history.judge(run.rows) == [], "it was not stored, which is fine"
    run.rows.append(Row(3, "u2", "user.created", "b", 1))
    found = run.history.judge(run.rows)
    assert [(violation.fact, violation.what) for violation in found] == [
        (Fact.UNDELIVERED, "u2 audit"),
        (Fact.UNDELIVERED, "u2 billing"),
    ]


def test_an_ack_that_is_told_again_that_it_is_done_was_not_forgotten() -> None:
    run = Run()
    run.records.append(Acked("audit", "u1", Ack.ALREADY, asked=15))
    assert run.history.judge(run.rows) == []


@pytest.mark.parametrize(
    ("fault", "asked_after", "expected"),
    [
        (Fault("flush", loses=True), False, []),
        (Fault("flush", loses=True), True, [Fact.FORGOTTEN]),
        (Fault("kill"), False, [Fact.RESURRECTED, Fact.FORGOTTEN]),
    ],
)
def test_only_what_was_acked_before_redis_lost_it_may_come_again(
    fault: Fault, asked_after: bool, expected: list[Fact]
) -> None:
    run = Run()
    begun = len(run.records)
    run.records += [fault, Over(fault)]
    run.records += [
        Acked("audit", "u1", Ack.ALREADY, asked=begun),
        Delivered("audit", "u1", 1),
        Acked("audit", "u1", Ack.DONE, asked=len(run.records)),
    ]
    if asked_after:
        run.records += [Acked("audit", "u1", Ack.DONE, asked=len(run.records))]
    assert [violation.fact for violation in run.history.judge(run.rows)] == expected


def test_a_run_below_its_volume_is_invalid() -> None:
    assert Run().history.validity(volume=3) == ["only 2 of 3 events were stored"]


def test_a_run_whose_fault_nobody_noticed_is_invalid() -> None:
    run = Run()
    run.without(Hurt)
    assert run.history.validity(volume=2) == ["nobody noticed: kill"]


def test_a_run_in_which_nothing_was_repeated_is_invalid() -> None:
    run = Run()
    run.records.remove(Invoked("u1"))
    run.records.remove(Delivered("audit", "r1", 2))
    assert run.history.validity(volume=2) == ["nothing was published again or delivered again"]
