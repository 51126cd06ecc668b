"""EventStoreService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceServicer

from eventbroker_server.domain.errors import EventNotFound, Violation
from eventbroker_server.domain.names import ID_RULE, NAME_RULE, is_id, is_name
from eventbroker_server.rpc.aggregates import Aggregates
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import event_message
from eventbroker_server.rpc.event_lists import EventLists
from eventbroker_server.rpc.event_reads import EventReads
from eventbroker_server.rpc.rules import raise_if_any

if TYPE_CHECKING:
    import grpc

    from eventbroker_server.ports import EventLog, SnapshotStore


class EventStoreServicer(EventLists, EventReads, Aggregates, EventStoreServiceServicer):
    def __init__(self, event_log: EventLog, snapshots: SnapshotStore, max_snapshot_bytes: int) -> None:
        self._log = event_log
        self._snapshots = snapshots
        self._max_snapshot_bytes = max_snapshot_bytes

    async def GetEvent(  # noqa: N802 - the name of the RPC
        self, request: pb.GetEventRequest, context: grpc.aio.ServicerContext[pb.GetEventRequest, pb.GetEventResponse]
    ) -> pb.GetEventResponse:
        principal = PRINCIPAL.get()
        tenant = request.tenant_id or principal.tenant or ""
        violations = []
        if not is_name(tenant):
            violations.append(Violation("tenant_id", NAME_RULE))
        if not is_id(request.event_id):
            violations.append(Violation("event_id", ID_RULE))
        raise_if_any(violations)
        stored = await self._log.find((tenant, request.event_id)) if principal.owns(tenant) else None
        if stored is None:  # the same for an event of another tenant: not even that it exists is told
            raise EventNotFound(event_id=request.event_id, tenant_id=tenant)
        return pb.GetEventResponse(event=event_message(stored))
