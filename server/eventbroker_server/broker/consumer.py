"""One consumer's stream: what it may have, what it holds, and what it is handed next.

Credit is counted from when an entry is read from Redis until it is settled, by events and by bytes. The deadline of an
event starts when it is handed over, not when it was read. A consumer that takes nothing for as long as a deadline is
stalled: what waits for it is given to others, and it has no credit until it takes again. A consumer that asks for a
number of events, as each Pull does, has no credit beyond it; what still comes when it asks for none goes to others.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.ports import Holding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from eventbroker_server.domain.limits import Limits
    from eventbroker_server.ports import Received


@dataclass(frozen=True, slots=True)
class FlowControl:
    """Events and bytes that may be out with a stream; events in one batch."""

    max_unsettled_events: int
    max_unsettled_bytes: int
    max_batch_events: int

    def within(self, limits: Limits) -> FlowControl:
        """The same, cut to what a group allows."""
        return FlowControl(
            min(self.max_unsettled_events, limits.max_unsettled_events or self.max_unsettled_events),
            min(self.max_unsettled_bytes, limits.max_unsettled_bytes or self.max_unsettled_bytes),
            min(self.max_batch_events, limits.max_batch_events or self.max_batch_events),
        )


MAX_BATCH_BYTES = 3 << 20  # in one message: gRPC's clients take 4 MiB unless they are set otherwise

_PATIENCE = 1.0  # seconds that an entry waits for one that asks: it comes back at once, or not at all

Place = tuple[int, int]  # shard, position: names an event within a group


class ClosingReason(Enum):
    """Why a stream ends. The numbers are those of the protocol."""

    SHUTDOWN = 1
    MAX_AGE = 2
    REPLACED = 3
    GROUP_DELETED = 4
    DRAINED = 5


@dataclass(slots=True)
class Hold:
    """An entry that was read for a consumer and is not settled. Until it is handed over, the deadline (of the loop's
    clock) is None and the body is there."""

    shard: int
    generation: int
    position: int
    stream: str
    retry: int
    number: int
    attempt: int
    size: int
    body: bytes | None
    replayed: bool = False  # a seek brought it back
    deadline: float | None = None
    event_type: str = ""  # of what is from a group's own stream, once it was handed over

    @property
    def place(self) -> Place:
        return (self.shard, self.position)


class Consumer:
    """A consumer that is connected to this broker. `name` is its name in Redis."""

    def __init__(
        self, consumer_id: str, name: str, flow: FlowControl, ack_deadline: float, wake: Callable[[], None]
    ) -> None:
        self.id = consumer_id
        self.name = name
        self.flow = flow
        self._wish = flow
        self.holds: dict[Place, Hold] = {}
        self.closing: ClosingReason | None = None
        self.closed = asyncio.Event()
        self.caught_up = False  # all history of its group was handed out, to it or others
        self.level_in: set[int] = set()  # shards of which that is so
        self.heads: dict[int, int] = {}  # by shard: up to where what comes is history
        self.doubtful: set[int] = set()  # shards where a read may have taken entries whose reply was lost
        self.enrolled: dict[int, int] = {}  # by shard: the generation in which Redis knows it
        self.untaken_in: set[int] = set()  # shards where it has entries that it did not take
        self.unfilled_in: set[int] = set()  # shards where it has entries whose events could not be read
        self.ack_deadline = ack_deadline
        self._extended = False  # deadlines may not be in order any more
        self._wake = wake
        self._asked: int | None = None  # events to be handed over next; None: as many as the flow control allows
        self._bytes = 0
        self._mean_size = 512.0
        self._outbox: list[Hold] = []
        self._untaken_since = 0.0  # if there is anything in the outbox
        self._stalled = False
        self._ready = asyncio.Event()

    def holding(self, hold: Hold) -> Holding:
        """The same as Redis has it."""
        return Holding(hold.position, hold.stream, self.name, hold.number, hold.retry)

    def credit(self) -> int:
        """How many entries may be read for it now."""
        room = self.flow.max_unsettled_bytes - self._bytes
        if room <= 0 or self.closing is not None or self._stalled:
            return 0
        by_bytes = max(1, int(room / self._mean_size))
        most = min(self.flow.max_unsettled_events - len(self.holds), by_bytes)
        return most if self._asked is None else min(most, self._asked - len(self._outbox))

    def begin_again(self, shard: int) -> None:
        """The group was made anew in the shard: there is history again."""
        self.caught_up = False
        self.level_in.discard(shard)
        self.heads.pop(shard, None)

    def limit(self, limits: Limits) -> None:
        """From now on, have no more out than the group allows; what is out beyond it stays."""
        self.flow = self._wish.within(limits)

    def ask(self, most: int) -> None:
        """From now on, until it asks again, have credit for so many events that wait to be handed over."""
        self._asked = min(most, self.flow.max_batch_events)
        if most:
            self._wake()
        self._ready.set()

    @property
    def drained(self) -> bool:
        """Whether it asks for nothing and has nothing out."""
        return self._asked == 0 and all(hold.deadline is None for hold in self.holds.values())

    def give(self, shard: int, generation: int, entry: Received, replay_to: int = 0) -> None:
        """Put an entry that was read for it into its outbox. A seek brought back what lies up to `replay_to`."""
        position, stream, retry, number, attempt, _, body = entry
        size = len(body)
        hold = Hold(shard, generation, position, stream, retry, number, attempt, size, body, position <= replay_to)
        place = (shard, position)
        if place in self.holds:
            self.take_back([place])
        self.holds[place] = hold
        self._bytes += size
        self._mean_size += (size - self._mean_size) / 64
        if not self._outbox:
            self._untaken_since = asyncio.get_running_loop().time()
        self._outbox.append(hold)
        self._ready.set()

    def take_back(self, places: Iterable[Place]) -> None:
        """Forget what is settled or lost."""
        held = len(self.holds)
        for place in places:
            if (hold := self.holds.pop(place, None)) is not None:
                self._bytes -= hold.size
        if len(self.holds) < held:
            self._wake()
            if self._asked == 0:
                self._ready.set()  # it may be drained

    def extend(self, places: Iterable[Place], deadline: float) -> None:
        """Move the deadline of what it holds of these."""
        for place in places:
            if (hold := self.holds.get(place)) is not None:
                hold.deadline = deadline
                self._extended = True

    def overdue(self, now: float) -> list[Hold]:
        """What was not settled by its deadline. Deadlines are in the order of the holds, until one is extended."""
        late = []
        for hold in self.holds.values():
            if hold.deadline is None or (hold.deadline > now and not self._extended):
                break
            if hold.deadline <= now:
                late.append(hold)
        return late

    def next_deadline(self) -> float | None:
        """When to look at it again: the earliest deadline of what it holds, or when it counts as stalled."""
        stalled_at = self._untaken_since + self._patience if self._outbox else None
        if self._extended:
            deadlines = [hold.deadline for hold in self.holds.values()]
        else:
            deadlines = [next(iter(self.holds.values())).deadline] if self.holds else []
        return min([at for at in (*deadlines, stalled_at) if at is not None], default=None)

    @property
    def _patience(self) -> float:
        return self.ack_deadline if self._asked is None else _PATIENCE

    def untaken(self, now: float) -> list[Hold]:
        """What waits for it, if it has taken nothing for too long; that is no longer its own."""
        if not self._outbox or now < self._untaken_since + self._patience:
            return []
        self._stalled = True
        stale, self._outbox = self._outbox, []
        return [hold for hold in stale if self.holds.get(hold.place) is hold]

    def forget(self, holds: Iterable[Hold]) -> None:
        """Forget these, unless the same event was given to it again meanwhile."""
        self.take_back([hold.place for hold in holds if self.holds.get(hold.place) is hold])

    def must_recover(self, shard: int) -> bool:
        """Whether Redis may have entries for it there that are not here."""
        return shard in self.doubtful or shard in self.untaken_in

    def nudge(self) -> None:
        """Have `next` return: there may be something to say."""
        self._ready.set()

    def close(self, reason: ClosingReason) -> None:
        if self.closing is None:
            self.closing = reason
        self.closed.set()
        self._ready.set()

    async def next(self, timeout: float) -> list[Hold]:
        """Hand over what is there, waiting at most `timeout` seconds; nothing when nothing came or it is closing."""
        if self._stalled:
            self._stalled = False
            self._wake()
        if (not self._outbox or self._asked == 0) and self.closing is None:
            self._ready.clear()
            if not await wait_for(self._ready, timeout):
                return []
        if self.closing is not None or self._asked == 0:
            return []
        taken, size = 0, 0
        for hold in self._outbox[: self.flow.max_batch_events if self._asked is None else self._asked]:
            if taken and size + hold.size > MAX_BATCH_BYTES:
                break
            taken += 1
            size += hold.size
        batch, self._outbox = self._outbox[:taken], self._outbox[taken:]
        self._untaken_since = asyncio.get_running_loop().time()
        deadline = self._untaken_since + self.ack_deadline
        handed = [hold for hold in batch if self.holds.get(hold.place) is hold]
        for hold in handed:
            hold.deadline = deadline
        return handed
