"""Events by what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakSet

from eventbroker.v1 import event_store_service_pb2 as pb

from eventbroker_client.events.wire import event_of
from eventbroker_client.reading.aggregates import Aggregates
from eventbroker_client.reading.causality import Causality, causality_of
from eventbroker_client.reading.pages import pages
from eventbroker_client.reading.reading import Reading
from eventbroker_client.reading.wanted import filter_of, set_moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable
    from datetime import datetime
    from typing import Unpack

    from eventbroker_client.events.event import Event
    from eventbroker_client.reading.wanted import Wanted


class History(Aggregates):
    """Part of Broker. All ask PostgreSQL: what `publish` returned for is there at once. `tenant` is whose events (None:
    that of `connect`)."""

    _readings: WeakSet[Reading]

    async def get_event(self, event_id: str, *, tenant: str | None = None) -> Event:
        """One event of a tenant. Raises EventNotFound."""
        request = pb.GetEventRequest(tenant_id=self._tenant(tenant), event_id=event_id)
        response: pb.GetEventResponse = await self._connected.call(self._store.GetEvent, request)
        return event_of(response.event)

    def read(
        self,
        types: Iterable[str] = (),
        *,
        after: int = 0,
        recorded_from: datetime | None = None,
        upto: int = 0,
        follow: bool = False,
        tenant: str | None = None,
        shard: int = 0,
        max_events_per_second: float = 0.0,
        max_batch: int = 0,
        **wanted: Unpack[Wanted],
    ) -> Reading:
        """History in the order of positions: `async for event in broker.read(["user.*"], follow=True)`.

        types: such as "user.created", "user.*"; empty: all. `wanted`: what else must match, see Wanted.
        after: begin after this position; 0: with the first event.
        recorded_from: begin with the first event that was recorded then or later, instead.
        upto: end at this position; 0: at the newest event. Not with `follow`.
        follow: stay, and go on with what is stored from then on.
        tenant: "*" for all tenants of a `shard`, for the platform.
        max_events_per_second: of history, to spare others; 0: no bound.
        max_batch: how many events come in one message; 0: 500.

        The iteration raises as said in Reading: InvalidArgument, PositionBeyond, PermissionDenied, ..."""
        request = pb.ReadEventsRequest(
            tenant_id=self._tenant(tenant),
            shard=shard,
            filter=filter_of(types, wanted),
            upto_position=upto,
            follow=follow,
            max_events_per_second=max_events_per_second,
            max_batch_events=max_batch,
        )
        if recorded_from is None:
            request.after_position = after
        else:
            if after:
                raise ValueError("give either after or recorded_from")
            set_moment(request.recorded_from, recorded_from)
        reading = Reading(self._connected, self._store.ReadEvents, request)
        self._readings.add(reading)
        return reading

    def list_events(
        self,
        types: Iterable[str] = (),
        *,
        after: int = 0,
        upto: int = 0,
        recorded_from: datetime | None = None,
        recorded_before: datetime | None = None,
        newest_first: bool = False,
        page_size: int = 0,
        tenant: str | None = None,
        **wanted: Unpack[Wanted],
    ) -> AsyncIterator[Event]:
        """Events that match, by position, page by page: `async for event in broker.list_events(user_id="u1")`.

        The bounds hold together; 0 and None: no bound. page_size: 1 to 1,000; 0: 100."""
        request = pb.ListEventsRequest(
            tenant_id=self._tenant(tenant),
            filter=filter_of(types, wanted),
            after_position=after,
            upto_position=upto,
            order=pb.EVENT_ORDER_NEWEST_FIRST if newest_first else pb.EVENT_ORDER_OLDEST_FIRST,
            page_size=page_size,
        )
        set_moment(request.recorded_from, recorded_from)
        set_moment(request.recorded_before, recorded_before)
        return pages(self._connected, self._store.ListEvents, request, lambda page: map(event_of, page.events))

    async def get_causality(self, event_id: str, *, max_events: int = 0, tenant: str | None = None) -> Causality:
        """What caused an event and what it caused, 1 to 1,000 events; 0: 100. Raises EventNotFound."""
        request = pb.GetCausalityRequest(tenant_id=self._tenant(tenant), event_id=event_id, max_events=max_events)
        return causality_of(await self._connected.call(self._store.GetCausality, request))
