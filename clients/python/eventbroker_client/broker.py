"""The broker, as a program sees it: `async with connect("127.0.0.1:50051", tenant="acme") as broker: ...`"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from eventbroker_client.connection.address import address_of
from eventbroker_client.connection.connection import Connection
from eventbroker_client.consuming.consumer import Consumer
from eventbroker_client.consuming.subscription import Subscription
from eventbroker_client.consuming.wish import wish_of
from eventbroker_client.errors import Closed
from eventbroker_client.events.wire import Defaults
from eventbroker_client.publishing.batcher import ROOM_BYTES, ROOM_EVENTS
from eventbroker_client.publishing.publisher import EventsPublisher
from eventbroker_client.reading.history import History

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import grpc.aio

    from eventbroker_client.connection.address import Tls
    from eventbroker_client.consuming.job import OnLost
    from eventbroker_client.consuming.wish import Start
    from eventbroker_client.events.event import Event
    from eventbroker_client.publishing.published import Expect, Published


def connect(
    target: str | None = None,
    *,
    tenant: str = "",
    source: str = "",
    token: str | Callable[[], str] | None = None,
    tls: bool | Tls | None = None,
    timeout: float = 30.0,
    buffer_events: int = ROOM_EVENTS,
    buffer_bytes: int = ROOM_BYTES,
    inject: Callable[[dict[str, str]], None] | None = None,
    interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
) -> Broker:
    """A broker to be used with `async with`; nothing is sent before the first call.

    target: "host:port", "grpc://host:port", "grpcs://host:port" (TLS), or any target of gRPC; else EVENTBROKER_URL.
    tenant: whose events are published and consumed unless a call says otherwise. Empty: that of the credential; for the
    platform itself, all tenants.
    source: the `source` of events that name none: this service.
    token: goes as "Bearer" with every call; a function is asked each time. Over TLS only, but in a network of your own.
    tls: True for the system's authorities, or Tls(ca=..., certificate=..., key=...).
    timeout: seconds that a call and its repetitions may take.
    buffer_events, buffer_bytes: how much may wait to be published; beyond that, `publish` waits.
    inject: adds the headers of the current trace to a dict, such as `opentelemetry.propagate.inject`.

    Raises ValueError if no target is known, or it contradicts `tls`.
    """
    address = address_of(target, tls)

    def open_connection() -> Connection:
        return Connection(address, token=token, timeout=timeout, interceptors=interceptors)

    return Broker(open_connection, Defaults(tenant, source, inject), buffer_events, buffer_bytes)


class Broker:
    """Made by `connect`. All of its methods raise EventBrokerError, and may be called from any task of its event
    loop."""

    def __init__(
        self, open_connection: Callable[[], Connection], defaults: Defaults, buffer_events: int, buffer_bytes: int
    ) -> None:
        self._open_connection = open_connection
        self._defaults = defaults
        self._buffer = buffer_events, buffer_bytes
        self._connection: Connection | None = None
        self._ended = False
        self._open: WeakSet[Subscription] = WeakSet()  # one that runs is kept by its task

    async def __aenter__(self) -> Self:
        if self._connection is not None:
            raise RuntimeError("a broker is opened once")
        self._connection = connection = self._open_connection()
        events, size = self._buffer
        self._publisher = EventsPublisher(connection, self._defaults, room_events=events, room_bytes=size)
        self._history = History(connection, self._defaults.tenant_id)
        return self

    async def __aexit__(self, *exc: object) -> None:
        """Waits for what is being published, ends subscriptions, and disconnects."""
        connection = self._connected
        self._ended = True
        try:
            for subscription in list(self._open):
                await subscription.aclose()
            await self._publisher.close(connection.timeout)
        finally:
            await asyncio.shield(connection.close())

    async def publish(self, event: Event, *, timeout: float | None = None) -> Published:
        """Returns when the event is stored for good.

        Concurrent calls share requests, in the order of the calls. What fails on the way is sent again, with the same
        id, for `timeout` seconds (None: that of `connect`), so that the event is stored once, whatever happens.

        Raises InvalidArgument (with `violations`), EventIdReused, PermissionDenied: nothing was stored. Unavailable: it
        is not known. Overloaded: nothing was stored, and the broker had too much to do all the time.
        """
        self._connected  # noqa: B018 - raises
        return await self._publisher.publish(event, timeout)

    async def publish_many(
        self, events: Iterable[Event], *, expect: Iterable[Expect] = (), timeout: float | None = None
    ) -> list[Published]:
        """Stores all of the events, next to each other, or none: 1 to 1,000 of one tenant, at most 4 MiB.

        `expect` says what must hold of aggregates. Raises as `publish`, and VersionConflict if it does not hold. To
        send events again that were stored is answered with the first results, whatever is expected."""
        self._connected  # noqa: B018 - raises
        return await self._publisher.publish_many(events, expect, timeout)

    async def get_event(self, event_id: str, *, tenant: str | None = None) -> Event:
        """One event of a tenant (None: that of `connect`). Raises EventNotFound."""
        self._connected  # noqa: B018 - raises
        return await self._history.get_event(event_id, tenant)

    def subscribe(
        self,
        group: str = "",
        types: Iterable[str] = (),
        *,
        tenant: str | None = None,
        consumer_id: str = "",
        start: Start | None = None,
        ack_deadline: float | None = None,
        max_unsettled: int = 0,
        max_batch: int = 0,
    ) -> Subscription:
        """Deliveries of a group, to be settled one by one: `async for delivery in broker.subscribe("mailer",
        ["user.*"])`.

        group: empty for an ephemeral one, which begins at the newest event, and anew after each reconnection.
        types: such as "user.created", "user.*", "*"; empty: those of the group, all for a new one.
        tenant: whose events (None: that of `connect`; empty: all tenants', for the platform).
        consumer_id: made up if empty, and the same over reconnections.
        start, ack_deadline (seconds, 1 to 43,200): of the group if this call makes it; the broker's defaults are
        "earliest" and 30.
        max_unsettled, max_batch: how many deliveries may be out, and come in one message; 0: 256 and 64.
        """
        wish = wish_of(
            group,
            types,
            tenant=self._defaults.tenant_id if tenant is None else tenant,
            consumer_id=consumer_id,
            start=start,
            ack_deadline=ack_deadline,
            max_unsettled=max_unsettled,
            max_batch=max_batch,
        )
        subscription = Subscription(self._connected, wish)
        self._open.add(subscription)
        return subscription

    def consumer(
        self,
        group: str,
        types: Iterable[str] = (),
        *,
        concurrency: int = 16,
        tenant: str | None = None,
        consumer_id: str = "",
        start: Start | None = None,
        ack_deadline: float | None = None,
        max_unsettled: int = 0,
        drain_timeout: float = 25.0,
        max_extension: float = 3_600.0,
        on_lost: OnLost | None = None,
    ) -> Consumer:
        """A consumer of a group, for handlers. Beside what `subscribe` takes:

        types: empty: what the handlers are for.
        concurrency: how many handlers run at once.
        max_unsettled: how many deliveries are here, at most; 0: four for each handler or two
            batches, but at least 64.
        drain_timeout: seconds that handlers have to end when the consumer ends.
        max_extension: seconds after which a delivery's deadline is extended no more.
        on_lost: called, and awaited if it is async, with each delivery that was settled too late.
        """
        wish = wish_of(
            group,
            types,
            tenant=self._defaults.tenant_id if tenant is None else tenant,
            consumer_id=consumer_id,
            start=start,
            ack_deadline=ack_deadline,
            max_unsettled=max_unsettled,
            max_batch=0,
        )
        return Consumer(
            self._connected,
            wish,
            concurrency=concurrency,
            drain_timeout=drain_timeout,
            max_extension=max_extension,
            on_lost=on_lost,
        )

    @property
    def _connected(self) -> Connection:
        if self._connection is None:
            raise RuntimeError("use `async with connect(...) as broker`")
        if self._ended:
            raise Closed
        return self._connection
