"""History in the order of positions, and what comes after it, over as many streams as it takes."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Self

import grpc
import grpc.aio

from eventbroker_client.connection.attempts import Attempts, Backoff
from eventbroker_client.connection.failure import error_of
from eventbroker_client.errors import Closed, EventBrokerError, Unavailable
from eventbroker_client.events.wire import event_of

if TYPE_CHECKING:
    from eventbroker.v1 import event_store_service_pb2 as pb
    from eventbroker.v1.event_pb2 import Event as Message

    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.events.event import Event

log = logging.getLogger("eventbroker_client")

SILENCE = 60.0  # seconds; a stream without even a heartbeat for so long is broken


class Reading:
    """Iterate over it, in one task. It opens streams by itself, each after the position that the last one came to, so
    that there is neither a gap nor a repeat.

    Without `follow` it ends at what was the newest event when it began, and raises Unavailable when the broker cannot
    be reached for the timeout of `connect`. With `follow` it goes on until `aclose`, the end of `async with`, or the
    end of its broker; who waits then sees the iteration end. Raises EventBrokerError for what opening again does not
    mend.
    """

    def __init__(self, connection: Connection, method: Any, request: pb.ReadEventsRequest) -> None:
        self._connection = connection
        self._method = method
        self._request = request  # of the next stream
        self._call: Any = None
        self._events: deque[Message] = deque()  # that came, and were not handed out
        self._told = request.after_position  # up to here all came
        self._caught_up = False
        self._ended = False
        self._closing = asyncio.Event()
        self._backoff = Backoff()
        self.position = request.after_position
        """Up to here all was handed out: keep it together with what you made of the events, and come back with it as
        `after`. It also rises while nothing matches."""

    @property
    def caught_up(self) -> bool:
        """Whether all history was handed out; only with `follow`."""
        return self._caught_up and not self._events

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """Raises PayloadMismatch for an event that does not fit its class; to go on leaves it out."""
        while not self._events:
            self.position = self._told
            if self._ended or self._closing.is_set():
                raise StopAsyncIteration
            await self._more()
        message = self._events.popleft()
        event = event_of(message)
        self.position = event.position
        return event

    async def aclose(self) -> None:
        """Ends the iteration, also of a task that waits in it."""
        self._closing.set()
        self._events.clear()
        self._drop()

    async def _more(self) -> None:
        """Waits for the next message, whatever it takes, or for the end."""
        attempts = Attempts(self._connection.timeout)
        while not self._closing.is_set():
            try:
                response = await self._read()
            except EventBrokerError as error:
                self._drop()
                if self._closing.is_set():
                    return
                pause = self._pause(error, attempts)
                log.warning("reading broke after %d, again in %.2f s (%s)", self._told, pause, error)
                await self._sleep(pause)
                continue
            if response is None:
                self._ended = not self._closing.is_set()
                return
            if response.WhichOneof("response") == "closing":
                self._drop()
                self._note(response)
                await self._sleep(response.closing.retry_after.ToTimedelta().total_seconds())
                continue
            self._note(response)
            return

    def _pause(self, error: EventBrokerError, attempts: Attempts) -> float:
        """How many seconds to wait before the next stream. Raises the error if there is to be none."""
        if not self._request.follow:
            return attempts.pause_after(error)
        if not error.retryable:
            raise error
        return self._backoff.next() + float(getattr(error, "retry_after", 0.0))

    def _note(self, response: pb.ReadEventsResponse) -> None:
        if response.position > self._told:  # a stream that only opens and breaks is no progress
            self._backoff.reset()
        self._events.extend(response.events.events)
        self._caught_up = self._caught_up or response.WhichOneof("response") == "caught_up"
        self._told = self._request.after_position = response.position
        if not self._request.follow and not self._request.upto_position:
            self._request.upto_position = response.head_position  # the same end for every stream

    async def _read(self) -> pb.ReadEventsResponse | None:
        """The next message, of a stream that is opened if there is none; None at the end of history, and when this is
        closed."""
        try:
            if self._call is None:
                self._call = self._method(self._request, metadata=self._connection.metadata())
            async with asyncio.timeout(SILENCE):
                response = await self._call.read()
        except TimeoutError:
            raise Unavailable(f"the broker was silent for {SILENCE:g} s") from None
        except grpc.RpcError as failure:
            raise error_of(failure) from None
        except grpc.aio.UsageError:
            raise Closed from None
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._closing.is_set() and (task is None or not task.cancelling()):
                return None
            if self._connection.cancelled_by_close():
                raise Closed from None
            self._drop()  # what may have come is read again
            raise
        if response is grpc.aio.EOF:
            if self._request.follow:
                raise Unavailable("the stream ended")
            return None
        message: pb.ReadEventsResponse = response
        return message

    async def _sleep(self, pause: float) -> None:
        """So many seconds, or until this is closed."""
        try:
            async with asyncio.timeout(pause):
                await self._closing.wait()
        except TimeoutError:
            pass

    def _drop(self) -> None:
        if self._call is not None:
            self._call.cancel()
            self._call = None
