"""A consumer group: what becomes of each of its events, and who has it."""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventbroker.v1.event_pb2 import Event

    from eventbroker_client.testing.memory.stream import Stream

DONE = pb.SETTLE_OUTCOME_DONE


class State(Enum):
    WAITING = auto()
    OUT = auto()
    RETRY = auto()
    DEAD = auto()
    SETTLED = auto()


@dataclass(eq=False)
class Item:
    """An event of a group. `attempts` are those that failed."""

    event: Event
    state: State = State.WAITING
    attempts: int = 0
    ack_id: str = ""
    stream: Stream | None = None
    timer: asyncio.TimerHandle | None = None
    reason: str = ""
    rejected: bool = False
    dead_at: Timestamp = field(default_factory=Timestamp)


@dataclass(frozen=True)
class Policy:
    """Back-off in seconds; the contract's defaults."""

    initial: float = 1.0
    multiplier: float = 2.0
    maximum: float = 300.0
    max_attempts: int = 10

    def delay(self, failed: int) -> float:
        return min(self.maximum, self.initial * self.multiplier ** min(failed - 1, 64))


class Group:
    """`deliveries` is the broker's: every delivery that there ever was, by its ack id."""

    def __init__(
        self,
        name: str,
        tenant: str,
        types: Iterable[str],
        ack_deadline: float,
        deliveries: dict[str, tuple[Group, Item]],
        policy: Policy = Policy(),
    ) -> None:
        self.name, self.tenant = name, tenant
        self.types = frozenset(types) or frozenset("*")
        self.ack_deadline, self._policy = ack_deadline, policy
        self.items: list[Item] = []
        self.streams: dict[str, Stream] = {}  # by consumer, in turn
        self.progress = asyncio.Event()  # set, and replaced, whenever an event is done
        self._deliveries = deliveries
        self._waiting: deque[Item] = deque()

    def offer(self, event: Event) -> None:
        """An event that is stored."""
        if self.tenant in ("", event.tenant_id) and any(matches(pattern, event.event_type) for pattern in self.types):
            item = Item(event)
            self.items.append(item)
            self._wait(item)

    def join(self, stream: Stream) -> None:
        if (older := self.streams.pop(stream.consumer_id, None)) is not None:
            self._leave(older)
            older.end(pb.CLOSING_REASON_REPLACED)
        self.streams[stream.consumer_id] = stream
        self.pump()

    def leave(self, stream: Stream) -> None:
        """What it had goes to others at once."""
        if self.streams.get(stream.consumer_id) is stream:
            del self.streams[stream.consumer_id]
            self._leave(stream)

    def _leave(self, stream: Stream) -> None:
        for item in reversed([*stream.out]):
            self._back(item)
            self._wait(item, first=True)

    def ack(self, item: Item, ack_id: str) -> pb.SettleOutcome.ValueType:
        if (outcome := self._outcome(item, ack_id)) == DONE:
            self._back(item)
            self._done(item, State.SETTLED)
        return outcome

    def nack(self, item: Item, request: pb.NackRequest, ack_id: str) -> pb.SettleOutcome.ValueType:
        if (outcome := self._outcome(item, ack_id)) != DONE:
            return outcome
        self._back(item)
        if request.action == pb.NACK_ACTION_RELEASE:
            self._wait(item, first=True)
        elif request.action == pb.NACK_ACTION_DEAD_LETTER:
            self._bury(item, request.reason, rejected=True)
        else:
            delay = request.delay.ToTimedelta().total_seconds() if request.HasField("delay") else None
            self._failed(item, request.reason, delay)
        return outcome

    def extend(self, item: Item, seconds: float, ack_id: str) -> pb.SettleOutcome.ValueType:
        if (outcome := self._outcome(item, ack_id)) == DONE:
            self._limit(item, seconds)
        return outcome

    def redrive(self, item: Item) -> None:
        item.attempts, item.reason, item.rejected = 0, "", False
        self._wait(item)

    def done_upto(self, position: int) -> bool:
        """Whether nothing is to do any more for the events up to that position."""
        done = (State.SETTLED, State.DEAD)
        return all(item.state in done for item in self.items if item.event.position <= position)

    def _outcome(self, item: Item, ack_id: str) -> pb.SettleOutcome.ValueType:
        if item.state in (State.SETTLED, State.DEAD):
            return pb.SETTLE_OUTCOME_ALREADY_SETTLED
        return DONE if item.state is State.OUT and item.ack_id == ack_id else pb.SETTLE_OUTCOME_OUTDATED

    def pump(self) -> None:
        """Hands out what waits, to the streams in turn."""
        while self._waiting:
            stream = next((each for each in self.streams.values() if each.has_room()), None)
            if stream is None:
                return
            self.streams[stream.consumer_id] = self.streams.pop(stream.consumer_id)
            item = self._waiting.popleft()
            item.state, item.stream, item.ack_id = State.OUT, stream, uuid.uuid4().hex
            self._deliveries[item.ack_id] = self, item
            self._limit(item, self.ack_deadline)
            stream.hand_out(item)

    def _limit(self, item: Item, seconds: float) -> None:
        if item.timer is not None:
            item.timer.cancel()
        item.timer = asyncio.get_running_loop().call_later(seconds, self._expired, item)

    def _expired(self, item: Item) -> None:
        self._back(item)
        self._failed(item, "the deadline passed", 0.0)

    def _back(self, item: Item) -> None:
        """It is nobody's any more."""
        if item.timer is not None:
            item.timer.cancel()
        if item.stream is not None:
            item.stream.take_back(item)
        item.stream = item.timer = None

    def _wait(self, item: Item, *, first: bool = False) -> None:
        item.state, item.timer = State.WAITING, None
        self._waiting.insert(0 if first else len(self._waiting), item)
        self.pump()

    def _failed(self, item: Item, reason: str, delay: float | None) -> None:
        if item.attempts + 1 >= self._policy.max_attempts:
            self._bury(item, reason, rejected=False)
            return
        item.attempts += 1
        item.state = State.RETRY
        seconds = self._policy.delay(item.attempts) if delay is None else delay
        item.timer = asyncio.get_running_loop().call_later(seconds, self._wait, item)
        self.pump()

    def _bury(self, item: Item, reason: str, *, rejected: bool) -> None:
        item.attempts += 1
        item.reason, item.rejected = reason, rejected
        item.dead_at.GetCurrentTime()
        self._done(item, State.DEAD)

    def _done(self, item: Item, state: State) -> None:
        item.state = state
        self.progress.set()
        self.progress = asyncio.Event()
        self.pump()

    def close(self) -> None:
        for item in self.items:
            if item.timer is not None:
                item.timer.cancel()


def matches(pattern: str, event_type: str) -> bool:
    return pattern in ("*", event_type) or (pattern.endswith(".*") and event_type.startswith(pattern[:-1]))
