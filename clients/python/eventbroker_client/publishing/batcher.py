"""Many callers that publish one event each, as few calls that carry many.

A call goes out at once; what comes while it is under way waits and goes together in the next. One call is under way at
a time, so that events are stored in the order in which they were given. What a call may or may not have stored stays
in front and goes again, with the same ids, until its deadline. How a call is made is given: the batcher knows no
transport.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from eventbroker_client.connection.attempts import Attempts
from eventbroker_client.errors import Closed, EventBrokerError, Unavailable
from eventbroker_client.publishing.published import Published
from eventbroker_client.publishing.room import Room

if TYPE_CHECKING:
    from eventbroker.v1.event_pb2 import Event

# Makes one call, of at most so many seconds: what became of each event, in order. Raises EventBrokerError if that is
# the same for all.
Send = Callable[[Sequence["Event"], float], Awaitable[Sequence[Published | EventBrokerError]]]

MAX_EVENTS, MAX_BYTES = 1_000, 4 * 1024 * 1024  # of a call, as the broker takes them
ROOM_EVENTS, ROOM_BYTES = 10_000, 64 * 1024 * 1024
_OVERHEAD = 8  # bytes at most that an event takes in a call beside its own
_CALL = 64  # bytes that a call takes beside its events


@dataclass(eq=False, slots=True)
class _Waiting:
    message: Event
    size: int
    attempts: Attempts
    outcome: asyncio.Future[Published]


class Batcher:
    """`publish` from any number of tasks; `close` at the end."""

    def __init__(self, send: Send, *, room_events: int = ROOM_EVENTS, room_bytes: int = ROOM_BYTES) -> None:
        """`room_*`: how much waits at most; callers of more wait before it."""
        self._send = send
        self._room = Room(room_events, room_bytes)
        self._waiting: deque[_Waiting] = deque()
        self._task: asyncio.Task[None] | None = None
        self._closed = False
        self._pause = 0.0  # seconds before what failed goes again

    async def publish(self, message: Event, timeout: float) -> Published:
        """Returns when the event is stored. Raises EventBrokerError; Unavailable when that is not known after `timeout`
        seconds, in which the wait for room counts."""
        attempts = Attempts(timeout)
        try:
            async with asyncio.timeout(timeout):
                return await self._publish(message, attempts)
        except TimeoutError:
            raise attempts.unknown or Unavailable(
                "too much waits to be published, or the broker does not answer"
            ) from None

    async def _publish(self, message: Event, attempts: Attempts) -> Published:
        size = message.ByteSize() + _OVERHEAD
        await self._room.enter(size)
        try:
            if self._closed:
                raise Closed
            waiting = _Waiting(message, size, attempts, asyncio.get_running_loop().create_future())
            self._waiting.append(waiting)
            if self._task is None:
                self._task = asyncio.create_task(self._work(), name="eventbroker publish")
            return await waiting.outcome
        finally:
            self._room.leave(size)

    async def close(self, timeout: float) -> None:
        """Takes no more, and waits so many seconds for what is under way; the rest fails with Closed."""
        self._closed = True
        if (task := self._task) is not None:
            await asyncio.wait([task], timeout=timeout)
            task.cancel()
            await asyncio.wait([task])
        _fail(list(self._waiting), Closed())
        self._waiting.clear()

    async def _work(self) -> None:
        """Sends until nothing waits."""
        try:
            while batch := self._next():
                self._waiting.extendleft(reversed(again := await self._deliver(batch)))
                if again:
                    await asyncio.sleep(self._pause)
        finally:
            self._task = None

    def _next(self) -> list[_Waiting]:
        """What goes in the next call: in order, each id once."""
        batch: list[_Waiting] = []
        room, seen = MAX_BYTES - _CALL, set()
        while self._waiting and len(batch) < MAX_EVENTS:
            waiting = self._waiting[0]
            key = (waiting.message.tenant_id, waiting.message.event_id)
            if waiting.outcome.done():  # nobody waits for it any more
                self._waiting.popleft()
                continue
            if batch and (waiting.size > room or key in seen):
                break
            batch.append(self._waiting.popleft())
            room -= waiting.size
            seen.add(key)
        return batch

    async def _deliver(self, batch: list[_Waiting]) -> list[_Waiting]:
        """Those of the batch that are to be sent again, after `_pause` seconds."""
        outcomes: Sequence[Published | EventBrokerError]
        try:
            timeout = min(waiting.attempts.timeout() for waiting in batch)
            outcomes = await self._send([waiting.message for waiting in batch], timeout)
        except EventBrokerError as error:
            outcomes = [error] * len(batch)
        except asyncio.CancelledError:
            _fail(batch, Closed())
            raise
        except Exception as failure:  # a fault of this package: for those who asked, not for those who come
            _fail(batch, failure)
            return []
        again: list[_Waiting] = []
        self._pause = 0.0
        for waiting, outcome in zip(batch, outcomes, strict=True):
            if waiting.outcome.done():
                continue
            if isinstance(outcome, Published):
                waiting.outcome.set_result(outcome)
                continue
            try:
                self._pause = max(self._pause, waiting.attempts.pause_after(outcome))
                again.append(waiting)
            except EventBrokerError as error:
                waiting.outcome.set_exception(error)
        return again


def _fail(batch: list[_Waiting], failure: Exception) -> None:
    for waiting in batch:
        if not waiting.outcome.done():
            waiting.outcome.set_exception(failure)
