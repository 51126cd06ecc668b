"""How deliveries are settled: what can be said of one, and how many are settled in few messages.

As with publishing, a message goes out at once, and what comes while it is under way goes together in the next: one for
all acks, one for all nacks that say the same.
"""

from __future__ import annotations

import asyncio
import enum
import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbroker.v1 import subscriber_service_pb2 as pb

from eventbroker_client.errors import Closed, InvalidArgument, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

Request = pb.AckRequest | pb.NackRequest | pb.ExtendDeadlineRequest
Send = Callable[[Request], Awaitable[Sequence[pb.SettleResult]]]

MAX_IDS = 10_000
MAX_REASON = 1_024  # characters
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")


class Outcome(enum.IntEnum):
    """What became of a delivery that was to be settled. Only DONE changed anything."""

    DONE = pb.SETTLE_OUTCOME_DONE
    """Settled, or extended."""

    ALREADY_SETTLED = pb.SETTLE_OUTCOME_ALREADY_SETTLED
    """It was settled before."""

    OUTDATED = pb.SETTLE_OUTCOME_OUTDATED
    """Too late: its deadline had passed, or its stream had ended. The event comes again, here or elsewhere."""

    UNKNOWN = pb.SETTLE_OUTCOME_UNKNOWN
    """No delivery of this broker, or not one of the caller's."""


@dataclass(frozen=True, slots=True)
class Ack:
    """The event is done."""

    def request(self, ack_ids: list[str]) -> Request:
        return pb.AckRequest(ack_ids=ack_ids)


@dataclass(frozen=True, slots=True)
class Nack:
    """The event is given back: to be tried again after `delay` seconds (None: the group's back-off), to be a dead
    letter, or to go to any consumer at once, with no attempt counted."""

    action: pb.NackAction.ValueType
    reason: str = ""
    delay: float | None = None

    def __post_init__(self) -> None:
        if self.delay is not None and not 0 <= self.delay <= 86_400:
            raise InvalidArgument(violations=[Violation("delay", "must be from 0 s to 24 h")])
        if self.action == pb.NACK_ACTION_DEAD_LETTER and not self.reason:
            raise InvalidArgument(violations=[Violation("reason", "is required for a dead letter")])

    def request(self, ack_ids: list[str]) -> Request:
        request = pb.NackRequest(ack_ids=ack_ids, action=self.action, reason=self.reason)
        if self.delay is not None:
            request.delay.FromMicroseconds(round(self.delay * 1e6))
        return request


@dataclass(frozen=True, slots=True)
class Extend:
    """The event needs more time: so many seconds from now."""

    seconds: float

    def __post_init__(self) -> None:
        if not 1 <= self.seconds <= 43_200:
            raise InvalidArgument(violations=[Violation("seconds", "must be from 1 s to 12 h")])

    def request(self, ack_ids: list[str]) -> Request:
        request = pb.ExtendDeadlineRequest(ack_ids=ack_ids)
        request.deadline.FromMicroseconds(round(self.seconds * 1e6))
        return request


Verdict = Ack | Nack | Extend
ACK = Ack()
RELEASE = Nack(pb.NACK_ACTION_RELEASE)


def reason_of(text: str) -> str:
    """Text as the broker takes it for a reason: one line, not too long."""
    line = _CONTROL.sub(" ", text.encode("utf-8", "replace").decode()).strip()
    return line if len(line) <= MAX_REASON else line[: MAX_REASON - 3] + "..."


class Settler:
    """`settle` from any number of tasks, with a `send` that makes one call or message."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._waiting: dict[Verdict, list[tuple[str, asyncio.Future[Outcome]]]] = {}
        self._task: asyncio.Task[None] | None = None

    async def settle(self, ack_id: str, verdict: Verdict) -> Outcome:
        """Raises EventBrokerError: Unavailable if the broker did not answer."""
        return await self._put(ack_id, verdict)

    async def settle_all(self, ack_ids: Iterable[str], verdict: Verdict) -> list[Outcome]:
        """The outcome of each, in order. Raises as `settle`."""
        return await asyncio.gather(*[self._put(ack_id, verdict) for ack_id in ack_ids])

    async def close(self) -> None:
        """Gives up what is under way: it fails with Closed."""
        if (task := self._task) is not None:
            task.cancel()
            await asyncio.wait([task])
        for settled in self._waiting.values():
            _fail(settled, Closed())
        self._waiting.clear()

    def _put(self, ack_id: str, verdict: Verdict) -> asyncio.Future[Outcome]:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(verdict, []).append((ack_id, outcome))
        if self._task is None:
            self._task = asyncio.create_task(self._work(), name="eventbroker settle")
        return outcome

    async def _work(self) -> None:
        try:
            while self._waiting:
                waiting, self._waiting = self._waiting, {}
                for verdict, settled in waiting.items():
                    for start in range(0, len(settled), MAX_IDS):
                        await self._settle(verdict, settled[start : start + MAX_IDS])
        finally:
            self._task = None

    async def _settle(self, verdict: Verdict, settled: list[tuple[str, asyncio.Future[Outcome]]]) -> None:
        try:
            results = await self._send(verdict.request([ack_id for ack_id, _ in settled]))
            outcomes = [Outcome(result.outcome) for result in results]
            for (_, future), outcome in zip(settled, outcomes, strict=True):
                if not future.done():
                    future.set_result(outcome)
        except asyncio.CancelledError:
            _fail(settled, Closed())
            raise
        except Exception as failure:
            _fail(settled, failure)


def _fail(settled: list[tuple[str, asyncio.Future[Outcome]]], failure: Exception) -> None:
    for _, future in settled:
        if not future.done():
            future.set_exception(failure)
