"""Decides what an append may store: pure, request by request.

Two ways lead to the log. `guess` takes what can be written at once and lets the unique keys of the store judge.
`decide` is asked when something objected, or when a request expects what cannot be guessed; it is given what a locked
shard says, and its word is final.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.errors import BrokerError, Conflict, EventIdReused, VersionConflict
from eventbroker_server.ports import Row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from eventbroker_server.domain.event import AggregateKey, Event, EventKey, StoredEvent


class Expectation(NamedTuple):
    """What must hold of an aggregate: this version exactly, or whether it has any event."""

    aggregate: AggregateKey
    version: int | None = None
    exists: bool | None = None

    def holds(self, actual: int) -> bool:
        if self.version is not None:
            return actual == self.version
        return (actual > 0) == self.exists

    def __str__(self) -> str:
        if self.version is not None:
            return str(self.version)
        return "exists" if self.exists else "none"


@dataclass(slots=True)
class Request:
    """Events that are stored all or none, and what must hold for that. Ids differ; all are of one shard."""

    events: Sequence[Event]
    expectations: Sequence[Expectation] = ()


def guess(requests: Sequence[Request], cached: Mapping[AggregateKey, int]) -> tuple[list[Row], list[bool]]:
    """Rows to try, and for each request whether it is among them.

    A cached version is never above the true one, as events are not deleted. So a version that turns out too low meets
    the unique key, and an expectation that agrees with the cache is judged by the same key, if its aggregate is
    written. The requests share no event id.
    """
    rows: list[Row] = []
    taken: list[bool] = []
    steps: dict[AggregateKey, int] = {}
    for request in requests:
        written = {event.aggregate for event in request.events} if request.expectations else set()
        bold = all(
            expectation.aggregate in written
            and expectation.aggregate not in steps
            and _agrees(expectation, cached.get(expectation.aggregate))
            for expectation in request.expectations
        )
        taken.append(bold)
        if not bold:
            continue
        none_yet = {e.aggregate for e in request.expectations if e.aggregate not in cached}
        for event in request.events:
            aggregate = event.aggregate
            step = steps[aggregate] = steps.get(aggregate, 0) + 1
            rows.append(Row(event, 0 if aggregate in none_yet else cached.get(aggregate), step))
    return rows, taken


def _agrees(expectation: Expectation, cached: int | None) -> bool:
    if cached is None:
        return expectation.holds(0)  # taken as new: written as version 1, to which the unique key may object
    return expectation.holds(cached)


@dataclass(slots=True)
class Verdict:
    """What is to become of one request: refused with an error, or stored, but for the events that are known already."""

    error: BrokerError | None = None
    known: list[StoredEvent | None] = field(default_factory=list)


def decide(
    requests: Sequence[Request],
    found: Mapping[EventKey, StoredEvent],
    versions: Mapping[AggregateKey, int],
) -> tuple[list[Row], list[Verdict]]:
    """Rows to insert, and a verdict on each request. Earlier requests count as stored for the later ones; they share no
    event id."""
    rows: list[Row] = []
    verdicts: list[Verdict] = []
    latest = dict(versions)
    for request in requests:
        verdict = _decide_one(request, found, latest)
        verdicts.append(verdict)
        if verdict.error is not None:
            continue
        for event, known in zip(request.events, verdict.known, strict=True):
            if known is None:
                base = latest.get(event.aggregate, 0)
                latest[event.aggregate] = base + 1
                rows.append(Row(event, base, 1))
    return rows, verdicts


def _decide_one(
    request: Request,
    found: Mapping[EventKey, StoredEvent],
    versions: Mapping[AggregateKey, int],
) -> Verdict:
    known: list[StoredEvent | None] = []
    for event in request.events:
        stored = found.get(event.key)
        if stored is not None and not stored.event.same_as(event):
            return Verdict(error=EventIdReused(event_id=event.event_id, tenant_id=event.tenant_id))
        known.append(stored)
    if None in known:
        conflicts = [
            Conflict(e.aggregate[1], e.aggregate[2], str(e), versions.get(e.aggregate, 0))
            for e in request.expectations
            if not e.holds(versions.get(e.aggregate, 0))
        ]
        if conflicts:
            return Verdict(error=VersionConflict(conflicts))
    return Verdict(known=known)
