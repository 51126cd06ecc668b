"""Lists of events and aggregates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import event_store_service_pb2 as pb

from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.event import shard_of
from eventbroker_server.domain.names import ID_RULE, is_id
from eventbroker_server.ports import Span
from eventbroker_server.rpc import pages
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import event_message, set_time
from eventbroker_server.rpc.event_filter import filter_of
from eventbroker_server.rpc.rules import check_name, moment_of, raise_if_any, tenant_of

if TYPE_CHECKING:
    from datetime import datetime

    import grpc

    from eventbroker_server.ports import AggregateHead, EventLog, History

_MAX_VERSION = (1 << 63) - 1
_TIME_RULE = "must be from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, with nanos below 1,000,000,000"
_ORDER_RULE = "must be EVENT_ORDER_OLDEST_FIRST, EVENT_ORDER_NEWEST_FIRST or unspecified"

_Listed = pb.ListEventsRequest | pb.ListAggregateEventsRequest | pb.ListAggregatesRequest


class EventLists:
    """Part of EventStoreServicer."""

    _log: EventLog
    _history: History
    _shards: int

    async def ListEvents(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListEventsRequest,
        context: grpc.aio.ServicerContext[pb.ListEventsRequest, pb.ListEventsResponse],
    ) -> pb.ListEventsResponse:
        violations: list[Violation] = []
        tenant = tenant_of(request.tenant_id, violations)
        asked = filter_of(request.filter, violations)
        for field in ("after_position", "upto_position"):
            _check_not_negative(getattr(request, field), field, violations)
        if 0 < request.upto_position < request.after_position:
            violations.append(Violation("upto_position", "must not be before after_position, or be 0"))
        times = _times(request, violations)
        newest_first = _newest_first(request.order, violations)
        count = pages.size_of(request, violations)
        place = pages.place_of(request, violations, int)
        raise_if_any(violations)
        PRINCIPAL.get().tenant_for(tenant)
        shard = shard_of(tenant, self._shards)
        span = _from(place, await self._span(request, shard, *times), newest_first)
        if span.after >= span.upto:
            return pb.ListEventsResponse()
        page = await self._history.events(tenant, shard, asked, span, count, newest_first=newest_first)
        events = pages.fitting(map(event_message, page.events))
        reached = events[-1].position if len(events) < len(page.events) else page.reached
        token = "" if reached is None else pages.token_of(request, reached)
        return pb.ListEventsResponse(events=events, next_page_token=token)

    async def ListAggregateEvents(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListAggregateEventsRequest,
        context: grpc.aio.ServicerContext[pb.ListAggregateEventsRequest, pb.ListAggregateEventsResponse],
    ) -> pb.ListAggregateEventsResponse:
        violations: list[Violation] = []
        tenant = tenant_of(request.tenant_id, violations)
        check_name(request.aggregate_type, "aggregate_type", violations)
        if not is_id(request.aggregate_id):
            violations.append(Violation("aggregate_id", ID_RULE))
        _check_not_negative(request.from_version, "from_version", violations)
        newest_first = _newest_first(request.order, violations)
        count = pages.size_of(request, violations)
        place = pages.place_of(request, violations, int)
        raise_if_any(violations)
        PRINCIPAL.get().tenant_for(tenant)
        first = request.from_version
        whole = Span(0, first or _MAX_VERSION) if newest_first else Span(max(0, first - 1), _MAX_VERSION)
        span = _from(place, whole, newest_first)
        key = (tenant, request.aggregate_type, request.aggregate_id)
        shard = shard_of(tenant, self._shards)
        page = await self._history.aggregate_events(shard, key, span, count, newest_first=newest_first)
        events = pages.fitting(map(event_message, page.events))
        reached = events[-1].aggregate_version if len(events) < len(page.events) else page.reached
        token = "" if reached is None else pages.token_of(request, reached)
        return pb.ListAggregateEventsResponse(events=events, next_page_token=token)

    async def ListAggregates(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListAggregatesRequest,
        context: grpc.aio.ServicerContext[pb.ListAggregatesRequest, pb.ListAggregatesResponse],
    ) -> pb.ListAggregatesResponse:
        violations: list[Violation] = []
        tenant = tenant_of(request.tenant_id, violations)
        check_name(request.aggregate_type, "aggregate_type", violations, optional=True)
        count = pages.size_of(request, violations)
        place = pages.place_of(request, violations, str, str)
        raise_if_any(violations)
        PRINCIPAL.get().tenant_for(tenant)
        after = (place[0], place[1]) if place else None
        found = await self._history.aggregates(tenant, request.aggregate_type, after, count + 1)
        response = pb.ListAggregatesResponse(aggregates=map(_aggregate, found[:count]))
        if len(found) > count:
            last = found[count - 1]
            response.next_page_token = pages.token_of(request, last.aggregate_type, last.aggregate_id)
        return response

    async def _span(
        self, request: pb.ListEventsRequest, shard: int, since: datetime | None, before: datetime | None
    ) -> Span:
        """The positions that are asked for, up to the newest event."""
        after, upto = request.after_position, await self._log.head(shard)
        if request.upto_position:
            upto = min(upto, request.upto_position)
        if since:
            after = max(after, await self._log.position_before(shard, since))
        if before:
            upto = min(upto, await self._log.position_before(shard, before))
        return Span(after, upto)


def _check_not_negative(number: int, path: str, violations: list[Violation]) -> None:
    if number < 0:
        violations.append(Violation(path, "must not be negative"))


def _newest_first(order: int, violations: list[Violation]) -> bool:
    if order not in pb.EventOrder.values():
        violations.append(Violation("order", _ORDER_RULE))
    return order == pb.EVENT_ORDER_NEWEST_FIRST


def _times(request: pb.ListEventsRequest, violations: list[Violation]) -> tuple[datetime | None, datetime | None]:
    """The first moment, and the one after the last; None where there is no bound."""
    moments: list[datetime | None] = []
    for field in ("recorded_from", "recorded_before"):
        said = request.HasField(field)
        moments.append(moment_of(getattr(request, field)) if said else None)
        if said and moments[-1] is None:
            violations.append(Violation(field, _TIME_RULE))
    since, before = moments
    if since and before and since >= before:
        violations.append(Violation("recorded_before", "must be later than recorded_from"))
    return since, before


def _from(place: list[int] | None, whole: Span, newest_first: bool) -> Span:
    """What is left of a span, after the place that the page before reached."""
    if place is None:
        return whole
    if newest_first:
        return Span(whole.after, min(whole.upto, place[0] - 1))
    return Span(max(whole.after, place[0]), whole.upto)


def _aggregate(head: AggregateHead) -> pb.Aggregate:
    message = pb.Aggregate(
        aggregate_type=head.aggregate_type,
        aggregate_id=head.aggregate_id,
        version=head.version,
        position=head.position,
    )
    set_time(message.record_time, head.record_time)
    return message
