"""A consumer that hands its events to functions, and settles them by what these do."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Self, TypeVar

from eventbroker_client.consuming.delivery import Delivery
from eventbroker_client.consuming.feed import Feed
from eventbroker_client.consuming.gathering import Gathering
from eventbroker_client.consuming.handler import Function, Handler, Handlers, pattern_of
from eventbroker_client.consuming.holdings import Holdings
from eventbroker_client.consuming.job import RELEASE_TIMEOUT, Job, Middleware, OnLost, Work
from eventbroker_client.consuming.lanes import Lanes
from eventbroker_client.errors import EventBrokerError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from eventbroker.v1 import subscriber_service_pb2 as pb

    from eventbroker_client.connection.connection import Connection

log = logging.getLogger("eventbroker_client")

F = TypeVar("F", bound=Function)
EXIT_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Consumer:
    """Made by `broker.consumer(group)`. Name handlers with `on` and `on_batch`, then `run` it, or use `async with`.

    An event is acked when its handler returns, and tried again, by the back-off of its group, when it raises; `Reject`
    makes it a dead letter, `Retry` names a delay. While it waits or is handled its deadline is extended. The events of
    an aggregate are handled one after the other within this consumer. Events that no handler matches are tried again,
    with that reason, so that they end as dead letters and not unseen."""

    def __init__(
        self,
        connection: Connection,
        wish: pb.SubscribeRequest,
        *,
        concurrency: int,
        drain_timeout: float,
        max_extension: float,
        on_lost: OnLost | None,
    ) -> None:
        if concurrency < 1:
            raise ValueError("concurrency must be at least 1")
        self._connection = connection
        self._wish = wish
        self._concurrency = concurrency
        self._drain_timeout = drain_timeout
        self._handlers = Handlers()
        self._gatherings: dict[str, Gathering] = {}
        self._holdings = Holdings(max_extension)
        self._work = Work(self._holdings, on_lost)
        self._lanes: Lanes[Job] = Lanes(concurrency, self._work.do)
        self._feed: Feed | None = None
        self._tasks: list[asyncio.Task[None]] = []  # that feeds, that keeps
        self._draining = False

    def on(self, *of: str | type) -> Callable[[F], F]:
        """The handler of these: event types, wildcards such as "user.*", "*", or classes registered with event_type,
        for which the event's data is always of that class.

        `async def handler(event)` or `async def handler(event, delivery)`. Of several that match the most specific is
        called. Raises ValueError for a pattern that has a handler, TypeError for what is no handler or not registered.
        """

        def add(function: F) -> F:
            for each in of:
                self._handlers.add(Handler(function, *pattern_of(each)))
            return function

        return add

    def on_batch(self, *of: str | type, max_events: int = 100, max_wait: float = 1.0) -> Callable[[F], F]:
        """As `on`, for many events at a time: `async def handler(events)` or `handler(events, deliveries)`.

        It gets at most `max_events`, and fewer when the first has waited `max_wait` seconds; one batch of a pattern
        after the other, in the order of delivery. When it returns, all are acked, but those that it settled itself;
        when it raises, all of them are tried again; `Reject` and `Retry` are for all of them, too."""
        if max_events < 1:
            raise ValueError("max_events must be at least 1")

        def add(function: F) -> F:
            for each in of:
                pattern, payload = pattern_of(each)
                handler = self._handlers.add(Handler(function, pattern, payload, max_events, max_wait))
                self._gatherings[pattern] = Gathering(handler, self._put_batch)
            return function

        return add

    def use(self, middleware: Middleware) -> Middleware:
        """Wraps all handlers: `async def middleware(deliveries, proceed)`, which awaits `proceed()` or not.
        `deliveries` is one, or those of a batch. What is used first is outermost; what it raises counts as the
        handler's."""
        self._work.middleware.append(middleware)
        return middleware

    async def run(self, *, signals: Sequence[signal.Signals] = EXIT_SIGNALS) -> None:
        """Consumes until one of the signals comes, then drains; or until it is cancelled. Raises EventBrokerError for
        what reconnecting does not mend: bad input, GroupMismatch, GroupDeleted, ConsumerReplaced, PermissionDenied.
        Needs the main thread, and no Windows, unless `signals` is empty."""
        stop = asyncio.Event()
        with _on_signals(signals, stop):
            self._start()
            feeding = self._tasks[0]
            asked: asyncio.Task[Any] = asyncio.create_task(stop.wait(), name="eventbroker signals")
            try:
                ends: list[asyncio.Task[Any]] = [asked, feeding]
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            finally:
                asked.cancel()
                await self._end()
        if not feeding.cancelled():
            feeding.result()

    async def __aenter__(self) -> Self:
        """Starts to consume, and returns when the broker has opened the stream. Raises as `run`."""
        feed = self._start()
        try:
            await asyncio.shield(feed.opened)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, exc: BaseException | None, trace: object) -> None:
        """Drains, and raises what ended the stream for good, if nothing else is being raised."""
        await self._end()
        if exc is None and not self._tasks[0].cancelled():
            self._tasks[0].result()

    async def drain(self) -> None:
        """Takes no more events, gives back what was not begun, and waits `drain_timeout` seconds for the handlers that
        run; then they are cancelled, and their events given back."""
        if self._feed is None or self._draining:
            return
        self._draining = True
        await self._feed.drain()
        waiting = [delivery for job in self._lanes.clear() for delivery in job.deliveries]
        waiting += [delivery for gathering in self._gatherings.values() for delivery in gathering.clear()]
        releasing = asyncio.gather(*[self._release(delivery) for delivery in waiting])
        await self._lanes.idle(self._drain_timeout)
        ends: list[asyncio.Future[Any]] = [releasing, self._tasks[0]]
        await asyncio.wait(ends, timeout=RELEASE_TIMEOUT)

    async def aclose(self) -> None:
        """Ends at once: handlers are cancelled, and what is not settled goes to others."""
        self._draining = True
        await self._lanes.cancel()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._feed is not None:
            await self._feed.settler.close()

    def _start(self) -> Feed:
        if self._feed is not None:
            raise RuntimeError("a consumer runs once")
        if not self._wish.event_types:
            self._wish.event_types.extend(self._handlers.patterns)
        flow = self._wish.flow_control
        flow.max_unsettled_events = flow.max_unsettled_events or self._enough()
        self._feed = feed = Feed(self._connection, self._wish, self._take)
        feeding = asyncio.create_task(feed.run(), name=f"eventbroker consumer {self._wish.group}")
        feeding.add_done_callback(_note_end)
        keeping = asyncio.create_task(self._holdings.keep(feed), name=f"eventbroker deadlines {self._wish.group}")
        self._tasks = [feeding, keeping]
        return feed

    async def _end(self) -> None:
        try:
            await self.drain()
        finally:
            await self.aclose()

    def _enough(self) -> int:
        """How many deliveries keep the handlers busy."""
        return min(10_000, max(64, 4 * self._concurrency, 2 * self._handlers.largest_batch))

    def _take(self, delivery: Delivery) -> None:
        if not self._holdings.take(delivery):
            return
        if self._draining:
            self._lanes.put(delivery.key, Job(None, (delivery,), released=True))
            return
        handler = self._handlers.find(delivery.event_type)
        if handler is not None and handler.batch_events:
            self._gatherings[handler.pattern].put(delivery)
        else:
            self._lanes.put(delivery.aggregate, Job(handler, (delivery,)))

    def _put_batch(self, handler: Handler, batch: list[Delivery]) -> None:
        self._lanes.put(handler.pattern, Job(handler, tuple(batch)))

    async def _release(self, delivery: Delivery) -> None:
        self._holdings.drop(delivery)
        try:
            await delivery.release()
        except EventBrokerError as error:
            log.info("%r could not be given back (%s)", delivery, error)


def _note_end(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (failure := task.exception()) is not None:
        log.error("%s ended (%s)", task.get_name(), failure)


@contextmanager
def _on_signals(signals: Sequence[signal.Signals], stop: asyncio.Event) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    with ExitStack() as stack:
        for number in signals:
            loop.add_signal_handler(number, stop.set)
            stack.callback(loop.remove_signal_handler, number)
        yield
