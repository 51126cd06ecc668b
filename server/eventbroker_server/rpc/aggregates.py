"""Aggregates, rebuilt from a snapshot and what came after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import event_store_service_pb2 as pb

from eventbroker_server.domain.errors import AggregateNotFound, SnapshotNotFound, TenantForbidden, Violation
from eventbroker_server.domain.names import ID_RULE, is_id
from eventbroker_server.rpc import pages
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import data_of, event_message, set_data, set_time
from eventbroker_server.rpc.pages import MAX_BYTES
from eventbroker_server.rpc.rules import check_name, moment_of, raise_if_any, tenant_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import grpc

    from eventbroker_server.domain.event import AggregateKey, Data, StoredEvent
    from eventbroker_server.domain.snapshot import Rebuilt, Snapshot
    from eventbroker_server.ports import SnapshotStore

MAX_EVENTS = 1_000
_ANSWER_BYTES = MAX_BYTES - 64  # less what closes the answer
_FIELD_BYTES = 6  # around an event

_OfAggregate = pb.GetAggregateRequest | pb.GetSnapshotRequest | pb.ListSnapshotsRequest


class Aggregates:
    """Part of EventStoreServicer."""

    _snapshots: SnapshotStore
    _max_snapshot_bytes: int

    async def GetAggregate(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetAggregateRequest,
        context: grpc.aio.ServicerContext[pb.GetAggregateRequest, pb.GetAggregateResponse],
    ) -> pb.GetAggregateResponse:
        violations: list[Violation] = []
        aggregate = _addressed(request, violations)
        as_of = _as_of(request, violations)
        if not 0 <= request.max_events <= MAX_EVENTS:
            violations.append(Violation("max_events", f"must be from 1 to {MAX_EVENTS}, or 0"))
        raise_if_any(violations)
        rebuilt = None
        if PRINCIPAL.get().owns(aggregate[0]):
            rebuilt = await self._snapshots.rebuild(
                aggregate, as_of, request.max_events or MAX_EVENTS, with_snapshot=not request.without_snapshot
            )
        if rebuilt is None:  # the same for an aggregate of another tenant: not even that it exists is told
            raise AggregateNotFound(aggregate_type=aggregate[1], aggregate_id=aggregate[2], tenant_id=aggregate[0])
        return _answer(aggregate, rebuilt)

    async def SaveSnapshot(  # noqa: N802 - the name of the RPC
        self,
        request: pb.SaveSnapshotRequest,
        context: grpc.aio.ServicerContext[pb.SaveSnapshotRequest, pb.SaveSnapshotResponse],
    ) -> pb.SaveSnapshotResponse:
        violations: list[Violation] = []
        tenant = tenant_of(request.tenant_id, violations)
        said = request.snapshot
        _check_aggregate(said, "snapshot.", violations)
        if said.version < 1:
            violations.append(Violation("snapshot.version", "must be at least 1"))
        data = self._data(said, violations)
        raise_if_any(violations)
        if not PRINCIPAL.get().writes(tenant):
            raise TenantForbidden(tenant_id=tenant)
        aggregate = (tenant, said.aggregate_type, said.aggregate_id)
        response = pb.SaveSnapshotResponse()
        set_time(response.create_time, await self._snapshots.save(aggregate, said.version, data))
        return response

    async def GetSnapshot(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetSnapshotRequest,
        context: grpc.aio.ServicerContext[pb.GetSnapshotRequest, pb.GetSnapshotResponse],
    ) -> pb.GetSnapshotResponse:
        violations: list[Violation] = []
        aggregate = _addressed(request, violations)
        if request.max_version < 0:
            violations.append(Violation("max_version", "must not be negative"))
        raise_if_any(violations)
        found = None
        if PRINCIPAL.get().owns(aggregate[0]):
            found = await self._snapshots.find(aggregate, request.max_version or None)
        if found is None:
            raise SnapshotNotFound(aggregate_type=aggregate[1], aggregate_id=aggregate[2], tenant_id=aggregate[0])
        return pb.GetSnapshotResponse(snapshot=_message(found))

    async def ListSnapshots(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListSnapshotsRequest,
        context: grpc.aio.ServicerContext[pb.ListSnapshotsRequest, pb.ListSnapshotsResponse],
    ) -> pb.ListSnapshotsResponse:
        violations: list[Violation] = []
        aggregate = _addressed(request, violations)
        count = pages.size_of(request, violations)
        place = pages.place_of(request, violations, int)
        raise_if_any(violations)
        PRINCIPAL.get().tenant_for(aggregate[0])
        found = await self._snapshots.page(aggregate, place[0] if place else None, count + 1)
        return pb.ListSnapshotsResponse(
            snapshots=map(_message, found[:count]),
            next_page_token=pages.token_of(request, found[count - 1].version) if len(found) > count else "",
        )

    def _data(self, said: pb.Snapshot, violations: list[Violation]) -> Data:
        def wrong(field: str, rule: str) -> None:
            violations.append(Violation(f"snapshot.{field}", rule))

        data = data_of(said, wrong)
        form, size = said.WhichOneof("data"), len(data[2])
        if size > self._max_snapshot_bytes:
            wrong(form or "data", f"must be at most {self._max_snapshot_bytes} bytes, not {size}")
        elif form == "binary" and size == 0:  # where a message that is empty has its type, and JSON is never empty
            wrong("binary.content", "must not be empty")
        return data


def _check_aggregate(message: _OfAggregate | pb.Snapshot, path: str, violations: list[Violation]) -> None:
    check_name(message.aggregate_type, f"{path}aggregate_type", violations)
    if not is_id(message.aggregate_id):
        violations.append(Violation(f"{path}aggregate_id", ID_RULE))


def _addressed(request: _OfAggregate, violations: list[Violation]) -> AggregateKey:
    tenant = tenant_of(request.tenant_id, violations)
    _check_aggregate(request, "", violations)
    return tenant, request.aggregate_type, request.aggregate_id


def _as_of(request: pb.GetAggregateRequest, violations: list[Violation]) -> int | datetime | None:
    """A version, a time, or None for now."""
    asked = request.WhichOneof("as_of")
    if asked == "as_of_version":
        if request.as_of_version < 1:
            violations.append(Violation("as_of_version", "must be at least 1"))
        return request.as_of_version
    if asked == "as_of_time":
        if (moment := moment_of(request.as_of_time)) is None:
            rule = "must be of the years 1 to 9999, with nanos below 1,000,000,000"
            violations.append(Violation("as_of_time", rule))
        return moment
    return None


def _answer(aggregate: AggregateKey, rebuilt: Rebuilt) -> pb.GetAggregateResponse:
    response = pb.GetAggregateResponse()
    told = response.aggregate
    _, told.aggregate_type, told.aggregate_id = aggregate
    told.version, told.position = rebuilt.version, rebuilt.position
    set_time(told.record_time, rebuilt.record_time)
    if rebuilt.snapshot:
        response.snapshot.CopyFrom(_message(rebuilt.snapshot))
    upto = _add_events(response, rebuilt.events)
    if rebuilt.events and upto < rebuilt.version:
        response.next_version = upto + 1
    return response


def _add_events(response: pb.GetAggregateResponse, events: Sequence[StoredEvent]) -> int:
    """Add as many as clients take in one answer, but at least one; the version of the last."""
    size = response.ByteSize()
    upto = 0
    for stored in events:
        message = event_message(stored)
        size += message.ByteSize() + _FIELD_BYTES
        if upto and size > _ANSWER_BYTES:
            break
        response.events.append(message)
        upto = stored.aggregate_version
    return upto


def _message(snapshot: Snapshot) -> pb.Snapshot:
    _, aggregate_type, aggregate_id = snapshot.aggregate
    message = pb.Snapshot(aggregate_type=aggregate_type, aggregate_id=aggregate_id, version=snapshot.version)
    if snapshot.data:
        set_data(message, *snapshot.data)
    set_time(message.create_time, snapshot.created_at)
    return message
