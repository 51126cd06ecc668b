"""What a consumer group must do with each event, told from what its clients did and saw.

The model knows nothing of how a group works, but for the generation in an ack id: every seek and every loss of Redis
begins a new one, and ids of an earlier one are outdated. It writes down what must not be in `wrong`.
"""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from tests.client import ALREADY_SETTLED, DONE, OUTDATED

if TYPE_CHECKING:
    from collections.abc import Iterable

CLOSE = 0.1  # seconds to a deadline that nobody can be sure about


class State(Enum):
    """What an event is to a group."""

    DUE = auto()  # it must be delivered until it is settled or dead
    PERHAPS = auto()  # it was acked, and Redis may have forgotten it: it may come again, and is due if it does
    DONE = auto()
    DEAD = auto()
    SKIPPED = auto()  # the group was moved past it


class How(Enum):
    """How a delivery is settled."""

    ACK = auto()
    RETRY = auto()
    DEAD_LETTER = auto()
    RELEASE = auto()


class Letter(NamedTuple):
    """A dead letter: whether a consumer rejected it, and since when it is one, if that was told."""

    rejected: bool
    dead_at: int | None = None


@dataclass(eq=False)
class Handed:
    """A delivery that a consumer was handed. `deadline` is on the clock of all processes here."""

    ack_id: str
    event_id: str
    position: int
    attempt: int
    generation: int
    deadline: float
    closed: bool = False  # its stream was closed: others may have the event
    settled: How | None = None


@dataclass
class GroupModel:
    name: str
    prefix: str  # how the types begin that it wants
    max_attempts: int
    states: dict[str, State] = field(default_factory=dict)  # by event id, of all that it wants
    positions: dict[str, int] = field(default_factory=dict)  # as soon as they are told
    letters: dict[str, Letter] = field(default_factory=dict)
    handed: list[Handed] = field(default_factory=list)
    newest: dict[str, Handed] = field(default_factory=dict)  # of each event
    twice: set[str] = field(default_factory=set)  # brought back by a seek, and by a redrive: these may come twice
    failed: Counter[str] = field(default_factory=Counter)  # attempts that surely failed
    seen: Counter[str] = field(default_factory=Counter)  # deliveries, each of which failed once at most
    kills: int = 0  # brokers that may have handed out what nobody saw
    sought: int = 0  # the generation that the last seek began
    lost: int = 0  # the last generation that Redis lost
    wrong: list[str] = field(default_factory=list)

    def published(self, event_id: str, event_type: str, tenant: str, aggregate: str) -> None:
        if event_type.startswith(self.prefix):
            self.states[event_id] = State.DUE

    def placed(self, event_id: str, position: int) -> None:
        if event_id in self.states and self.positions.setdefault(event_id, position) != position:
            self.wrong.append(f"{event_id} is at {position}, and was handed out as at {self.positions[event_id]}")

    @property
    def due(self) -> set[str]:
        return {event_id for event_id, state in self.states.items() if state is State.DUE}

    @property
    def current(self) -> list[Handed]:
        """What can surely be settled, for a moment yet."""
        now = time.time()
        return [
            one
            for one in self.newest.values()
            if one.settled is None and not one.closed and one.generation > self.lost and one.deadline > now
        ]

    def gives_way(self, one: Handed, since: int) -> bool:
        """Whether another, of those that were handed after the first so many, goes before its next attempt."""
        return False

    def received(self, one: Handed) -> None:
        """Judge a delivery."""
        self.handed.append(one)
        if one.event_id not in self.states:
            self.wrong.append(f"unwanted: {one}")
            return
        self.placed(one.event_id, one.position)
        if one.generation < self.sought:
            return  # it was on its way when the group was moved
        self.newest[one.event_id] = one
        self.seen[one.event_id] += 1
        state = self.states[one.event_id]
        if state in (State.DUE, State.PERHAPS) or one.event_id in self.twice:
            self.states[one.event_id] = State.DUE
        else:
            self.wrong.append(f"came though it is {state.name}: {one}")
        most = min(self.max_attempts, self.seen[one.event_id] + self.kills)
        if not self.failed[one.event_id] < one.attempt <= most:
            self.wrong.append(f"attempt {one.attempt} after {self.failed[one.event_id]} to {most - 1}: {one}")

    def settled(self, one: Handed, how: How, outcome: int, *, newest: bool) -> None:
        """Judge an outcome, just answered. `newest`: no later delivery of the event had come when it was asked for."""
        wrong = self._why_wrong(one, outcome, newest=newest)
        if wrong:
            self.wrong.append(f"{how.name} came to {outcome}: {wrong}: {one}")
        if outcome != DONE or one.settled is not None:
            return
        one.settled = how
        if one.generation < self.sought:
            return  # that place of the group is history
        if how is How.ACK:
            self.states[one.event_id] = State.DONE
            self.failed[one.event_id] = 0
        elif how is How.DEAD_LETTER or (how is How.RETRY and one.attempt >= self.max_attempts):
            self.states[one.event_id] = State.DEAD
            self.letters[one.event_id] = Letter(how is How.DEAD_LETTER)
        elif how is How.RETRY:
            self.failed[one.event_id] += 1

    def _why_wrong(self, one: Handed, outcome: int, *, newest: bool) -> str:
        if outcome not in (DONE, ALREADY_SETTLED, OUTDATED):
            return "it is an ack id of this group"
        if one.generation <= self.lost:
            return "" if outcome == OUTDATED else "Redis lost it"
        if one.settled is not None and outcome == DONE:
            return "it was done before"
        if one.generation < self.sought or one.event_id in self.twice:
            return ""
        state = self.states.get(one.event_id)
        if one.settled is How.ACK and state is State.DONE:
            return "" if outcome == ALREADY_SETTLED else "it was acked before"
        if outcome == ALREADY_SETTLED and state not in (State.DONE, State.PERHAPS):
            return "nobody settled it"
        if one.settled is not None:
            return ""
        if not newest:
            return "" if outcome != DONE else "it was handed out again since"
        if not one.closed and outcome != DONE and time.time() < one.deadline - CLOSE:
            return "its deadline is not over"
        return ""

    def flushed(self, generation: int, forgotten: set[int], checkpoint: int) -> None:
        """Redis is emptied, which has this generation, or 0 for none. It forgets acks above the checkpoint, and acks of
        retries that were not cleared up."""
        self.lost = max(self.lost, generation)
        for event_id, state in self.states.items():
            position = self.positions[event_id]
            if state is State.DONE and (position > checkpoint or position in forgotten):
                self.states[event_id] = State.PERHAPS

    def moved(self, point: int, generation: int) -> None:
        """The group sought a place, in this generation."""
        self.sought = generation
        self.failed.clear()
        self.seen.clear()
        self.twice.clear()
        self.newest.clear()
        for event_id, position in self.positions.items():
            self.states[event_id] = State.DUE if position > point else State.SKIPPED

    def listed(self, letters: dict[str, Letter]) -> None:
        """Judge the dead letters that there are, by event id. What ran out of deadlines at its last attempt is found to
        be dead here, which one that a seek brought back may have been before."""
        for event_id in self.letters.keys() - letters.keys():
            self.wrong.append(f"no dead letter: {event_id}")
        for event_id, letter in sorted(letters.items(), key=lambda item: self.positions[item[0]]):
            known = self.letters.get(event_id)
            again = self.states[event_id] is not State.DEAD and known and known.dead_at not in (None, letter.dead_at)
            if letter.rejected and (again or not known or not known.rejected):
                self.wrong.append(f"nobody rejected {event_id}")
            if again or not known:
                if not self.may_die(event_id):
                    position = self.positions[event_id]
                    self.wrong.append(f"dead though it is {self.states[event_id].name}: {event_id} at {position}")
                self.states[event_id] = State.DEAD
            self.letters[event_id] = letter

    def may_die(self, event_id: str) -> bool:
        """Whether it may have run out of attempts by now. Brokers that were killed may have handed it out unseen."""
        if self.states[event_id] is not State.DUE:
            return False
        one = self.newest.get(event_id)
        attempts = self.kills + (one.attempt if one else 0)
        return event_id in self.twice or (
            attempts >= self.max_attempts and (one is None or one.deadline < time.time() + CLOSE)
        )

    def redriven(self, event_ids: Iterable[str]) -> None:
        """These dead letters are to come again."""
        for event_id in event_ids:
            if self.states[event_id] is not State.DEAD:
                self.twice.add(event_id)
            self.states[event_id] = State.DUE
            self.failed[event_id] = 0
            del self.letters[event_id]
