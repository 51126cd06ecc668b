"""Reading history: lists, page by page, and streams that may follow. Of one shard, as all is here."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceServicer

from eventbroker_client.testing.memory.group import matches
from eventbroker_client.testing.memory.refused import Refused, knows_only, refuse_if, refusing
from eventbroker_client.testing.memory.rules import history_faults
from eventbroker_client.testing.memory.stream import HEARTBEAT

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from eventbroker.v1.event_pb2 import Event
    from google.protobuf.timestamp_pb2 import Timestamp

    from eventbroker_client.testing.memory.log import Log

    Listed = pb.ListEventsRequest | pb.ListAggregateEventsRequest | pb.ListAggregatesRequest

Row = TypeVar("Row", "Event", pb.Aggregate)

MOST_BYTES = 4 * 1024 * 1024  # in one answer
PAGE, BATCH = 100, 500  # unless the request says otherwise


class History(EventStoreServiceServicer):
    """Part of EventStore."""

    _log: Log

    @refusing
    async def ListEvents(self, request: pb.ListEventsRequest, context: Any) -> pb.ListEventsResponse:  # noqa: N802
        refuse_if(history_faults(request))
        after, upto = request.after_position, request.upto_position or len(self._log.events)
        if request.HasField("recorded_from"):
            after = max(after, self._before(request.recorded_from))
        if request.HasField("recorded_before"):
            upto = min(upto, self._before(request.recorded_before))
        rows, token = _page(request, _in_order(request, self._wanted(request, after, upto)), lambda each: each.position)
        return pb.ListEventsResponse(events=rows, next_page_token=token)

    @refusing
    async def ListAggregateEvents(  # noqa: N802
        self, request: pb.ListAggregateEventsRequest, context: Any
    ) -> pb.ListAggregateEventsResponse:
        refuse_if(history_faults(request))
        events = self._log.aggregates.get((request.tenant_id, request.aggregate_type, request.aggregate_id), [])
        first = request.from_version
        newest = request.order == pb.EVENT_ORDER_NEWEST_FIRST
        events = events[: first or None] if newest else events[max(0, first - 1) :]
        rows, token = _page(request, _in_order(request, events), lambda each: each.position)
        return pb.ListAggregateEventsResponse(events=rows, next_page_token=token)

    @refusing
    async def ListAggregates(self, request: pb.ListAggregatesRequest, context: Any) -> pb.ListAggregatesResponse:  # noqa: N802
        refuse_if(history_faults(request))
        found = [
            aggregate_of(events[-1])
            for (tenant, kind, _), events in self._log.aggregates.items()
            if tenant == request.tenant_id and request.aggregate_type in ("", kind)
        ]
        found.sort(key=lambda each: (each.aggregate_type, each.aggregate_id.encode()))
        rows, token = _page(request, found, lambda each: f"{each.aggregate_type}/{each.aggregate_id}")
        return pb.ListAggregatesResponse(aggregates=rows, next_page_token=token)

    @refusing
    async def ReadEvents(self, request: pb.ReadEventsRequest, context: Any) -> None:  # type: ignore[override] # noqa: N802
        places = ("after_position", "recorded_from", "upto_position", "follow")
        knows_only(request, "tenant_id", "filter", "max_batch_events", *places)
        refuse_if(history_faults(request))
        async for said in self._read(request):
            await context.write(said)

    async def _read(self, request: pb.ReadEventsRequest) -> AsyncIterator[pb.ReadEventsResponse]:
        """Raises Refused."""
        position, head = request.after_position, len(self._log.events)
        if request.HasField("recorded_from"):
            position = self._before(request.recorded_from)
        if position > head:
            raise Refused("POSITION_BEYOND", head_position=str(head))
        goal = max(position, min(request.upto_position or head, head))
        for said in self._responses(request, position, goal):
            yield said
        if request.follow:
            said = pb.ReadEventsResponse(position=goal, head_position=goal)
            said.caught_up.SetInParent()
            yield said
        while request.follow:
            moved, position, goal = self._log.moved, goal, len(self._log.events)
            for said in self._responses(request, position, goal):
                yield said
            try:
                async with asyncio.timeout(HEARTBEAT):
                    await moved.wait()
            except TimeoutError:
                yield self._sign_of_life(goal)

    def _responses(self, request: pb.ReadEventsRequest, after: int, upto: int) -> Iterator[pb.ReadEventsResponse]:
        """All that is asked for between positions, and that the last of them was come to."""
        left = self._wanted(request, after, upto)
        if not left and (after < upto or not request.follow):
            yield self._sign_of_life(upto)
        while left:
            count = _fitting(left, request.max_batch_events or BATCH)
            batch, left = left[:count], left[count:]
            position, head = batch[-1].position if left else upto, len(self._log.events)
            said = pb.ReadEventsResponse(position=position, head_position=head)
            said.events.events.extend(batch)
            yield said

    def _wanted(self, request: pb.ListEventsRequest | pb.ReadEventsRequest, after: int, upto: int) -> list[Event]:
        return [
            event
            for event in self._log.events[after : max(after, upto)]
            if request.tenant_id in (event.tenant_id, "*") and _is_asked_for(request.filter, event)
        ]

    def _sign_of_life(self, position: int) -> pb.ReadEventsResponse:
        said = pb.ReadEventsResponse(position=position, head_position=len(self._log.events))
        said.heartbeat.server_time.GetCurrentTime()
        return said

    def _before(self, moment: Timestamp) -> int:
        """The position of the last event that was recorded before a moment, or 0."""
        at = moment.ToNanoseconds()
        return sum(event.record_time.ToNanoseconds() < at for event in self._log.events)


def aggregate_of(last: Event) -> pb.Aggregate:
    """How far the aggregate of an event has come, if that is its latest."""
    return pb.Aggregate(
        aggregate_type=last.aggregate_type,
        aggregate_id=last.aggregate_id,
        version=last.aggregate_version,
        position=last.position,
        record_time=last.record_time,
    )


def _is_asked_for(asked: pb.EventFilter, event: Event) -> bool:
    said = event.metadata
    return (
        (not asked.event_types or any(matches(pattern, event.event_type) for pattern in asked.event_types))
        and asked.aggregate_type in ("", event.aggregate_type)
        and asked.aggregate_id in ("", event.aggregate_id)
        and asked.correlation_id in ("", event.correlation_id)
        and asked.caused_by in ("", said.caused_by)
        and asked.user_id in ("", event.user_id)
        and (not asked.sources or said.source in asked.sources)
        and set(asked.tags) <= set(said.tags)
    )


def _in_order(request: pb.ListEventsRequest | pb.ListAggregateEventsRequest, events: list[Event]) -> list[Event]:
    return events[::-1] if request.order == pb.EVENT_ORDER_NEWEST_FIRST else events


def _page(request: Listed, rows: list[Row], place: Callable[[Row], Any]) -> tuple[list[Row], str]:
    """The rows after the one whose place the token is, and the token of the next page. Raises Refused."""
    places: list[str] = [str(place(row)) for row in rows]
    if request.page_token not in ("", *places):
        refuse_if([("page_token", "must be a next_page_token of this broker")])
    first = places.index(request.page_token) + 1 if request.page_token else 0
    end = first + _fitting(rows[first:], request.page_size or PAGE)
    return rows[first:end], places[end - 1] if end < len(rows) else ""


def _fitting(rows: Sequence[Row], most: int) -> int:
    """How many go into one answer; at least one."""
    size = 0
    for number, row in enumerate(rows[:most]):
        size += row.ByteSize()
        if number and size > MOST_BYTES:
            return number
    return min(most, len(rows))
