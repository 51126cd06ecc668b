"""A group that is fed in turn, by aggregate or by tenant: what may come when, told from what came and was settled.

An event is out while a consumer has it and may settle it. What is being settled just now, or may have run out of
attempts, is judged when that is known.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.property.group_model import CLOSE, GroupModel, Handed, State

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.property.group_model import Letter

SLOTS = 16  # of a tenant


@dataclass
class InTurnModel(GroupModel):
    ordered: bool = False
    hold: bool = False
    fair: bool = False
    line_of: dict[str, tuple[str, str]] = field(default_factory=dict)  # tenant and aggregate of each event
    lines: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # events, as they were published
    front: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)  # generation, and how far the line came
    late: set[str] = field(default_factory=set)  # redriven: these come when they can
    awaited: set[str] = field(default_factory=set)  # those of them that did not come yet
    asking: set[Handed] = field(default_factory=set)  # being settled
    unsure: list[tuple[Handed, str]] = field(default_factory=list)  # what came, and an event that was to be over then

    def published(self, event_id: str, event_type: str, tenant: str, aggregate: str) -> None:
        super().published(event_id, event_type, tenant, aggregate)
        if event_id in self.states:
            line = self.line_of[event_id] = (tenant, aggregate)
            self.lines.setdefault(line, []).append(event_id)

    def gives_way(self, one: Handed, since: int) -> bool:
        line = self.line_of[one.event_id]
        after = (other for other in self.handed[since:] if self.line_of.get(other.event_id) == line)
        return self.ordered and any(other.position < one.position for other in after)

    def received(self, one: Handed) -> None:
        super().received(one)
        if one.event_id not in self.states or one.generation < self.sought or one.generation <= self.lost:
            return
        tenant, _ = line = self.line_of[one.event_id]
        if self.fair and (out := sum(self._is_out(event_id, one) for event_id in self._of(tenant))) > SLOTS:
            self.wrong.append(f"{out} of {tenant} are out: {one}")
        if self.ordered and self.front.get(line, (0, 0))[0] <= one.generation:
            self._judge_order(one, line)
        self.awaited.discard(one.event_id)

    def _of(self, tenant: str) -> Iterable[str]:
        return (event_id for line, events in self.lines.items() if line[0] == tenant for event_id in events)

    def _is_out(self, event_id: str, beside: Handed) -> bool:
        one = self.newest.get(event_id)
        return (
            one is not None
            and one.generation == beside.generation
            and one.settled is None
            and not one.closed
            and one not in self.asking
            and one.deadline > time.time() + CLOSE
        )

    def _judge_order(self, one: Handed, key: tuple[str, str]) -> None:
        line = self.lines[key]
        place = line.index(one.event_id)
        generation, front = self.front.get(key, (0, -1))
        late = one.event_id in self.late or one.event_id in self.twice
        if generation == one.generation and place < front and not late:
            self.wrong.append(f"came after {self.positions[line[front]]}: {one}")
        if not late and (generation < one.generation or front < place):
            self.front[key] = one.generation, place
        for after in line[place + 1 :]:
            if self._is_out(after, one):
                self.wrong.append(f"came while {self.positions[after]} is out: {one}")
        for before in line[:place]:
            if before not in self.twice and before not in self.awaited:
                self._judge_follower(one, before)

    def _judge_follower(self, one: Handed, before: str) -> None:
        """What came has to follow an event that is settled, or dead if that holds nothing back."""
        state = self.states[before]
        handed = self.newest.get(before)
        if handed in self.asking or (self.may_die(before) and not self.hold):
            self.unsure.append((one, before))
        elif state is State.DUE or (state is State.DEAD and self.hold):
            self.wrong.append(f"came though {self.positions.get(before)} is {state.name}: {one}")

    def asked(self, handed: Iterable[Handed]) -> None:
        self.asking.update(handed)

    def answered(self) -> None:
        self.asking.clear()
        unsure, self.unsure = self.unsure, []
        for one, before in unsure:
            self._judge_follower(one, before)

    def listed(self, letters: dict[str, Letter]) -> None:
        super().listed(letters)
        for one, before in self.unsure:
            if self.states[before] is State.DUE:
                self.wrong.append(f"came though {self.positions[before]} was not dead: {one}")
        self.unsure.clear()

    def may_die(self, event_id: str) -> bool:
        """Or it follows a dead event that holds it back."""
        if super().may_die(event_id):
            return True
        line = self.lines[self.line_of[event_id]]
        before = line[: line.index(event_id)]
        behind = self.hold and any(self.states[one] is State.DEAD for one in before)
        return behind and self.states[event_id] in (State.DUE, State.PERHAPS)

    def moved(self, point: int, generation: int) -> None:
        super().moved(point, generation)
        self.late.clear()
        self.awaited.clear()
        self.unsure.clear()

    def redriven(self, event_ids: Iterable[str]) -> None:
        event_ids = list(event_ids)
        if not self.hold:
            gone = {*event_ids, *(event_id for event_id in self.due if self.may_die(event_id))}
            self.late |= gone
            self.awaited |= gone
        super().redriven(event_ids)
