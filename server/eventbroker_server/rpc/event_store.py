"""EventStoreService."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceServicer

from eventbroker_server.domain.causality import tree
from eventbroker_server.domain.errors import EventNotFound, Violation
from eventbroker_server.domain.event import shard_of
from eventbroker_server.domain.names import ID_RULE, is_id
from eventbroker_server.rpc.aggregates import Aggregates
from eventbroker_server.rpc.auth import PRINCIPAL
from eventbroker_server.rpc.convert import event_message
from eventbroker_server.rpc.event_lists import EventLists
from eventbroker_server.rpc.event_reads import EventReads
from eventbroker_server.rpc.pages import DEFAULT_PAGE, MAX_PAGE, fitting
from eventbroker_server.rpc.rules import raise_if_any, tenant_of

if TYPE_CHECKING:
    import grpc

    from eventbroker_server.broker.causality import Causality
    from eventbroker_server.broker.reading import Readers
    from eventbroker_server.domain.event import StoredEvent
    from eventbroker_server.ports import Codec, EventLog, History, SnapshotStore


class EventStoreServicer(  # type: ignore[misc] # ReadEvents writes to the context
    EventLists, EventReads, Aggregates, EventStoreServiceServicer
):
    def __init__(
        self,
        event_log: EventLog,
        history: History,
        causality: Causality,
        readers: Readers,
        codec: Codec,
        snapshots: SnapshotStore,
        max_snapshot_bytes: int,
        shards: int,
    ) -> None:
        self._log = event_log
        self._history = history
        self._causality = causality
        self._readers = readers
        self._codec = codec
        self._snapshots = snapshots
        self._max_snapshot_bytes = max_snapshot_bytes
        self._shards = shards

    async def GetEvent(  # noqa: N802 - the name of the RPC
        self, request: pb.GetEventRequest, context: grpc.aio.ServicerContext[pb.GetEventRequest, pb.GetEventResponse]
    ) -> pb.GetEventResponse:
        return pb.GetEventResponse(event=event_message(await self._find(request, [])))

    async def GetCausality(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetCausalityRequest,
        context: grpc.aio.ServicerContext[pb.GetCausalityRequest, pb.GetCausalityResponse],
    ) -> pb.GetCausalityResponse:
        violations = []
        if not 0 <= request.max_events <= MAX_PAGE:
            violations.append(Violation("max_events", f"must be from 1 to {MAX_PAGE}, or 0"))
        stored = await self._find(request, violations)
        shard = shard_of(stored.event.tenant_id, self._shards)
        near, truncated = await self._causality.around(shard, stored, request.max_events or DEFAULT_PAGE)
        # With the longest parent that each can have: which it has depends on which fit.
        messages = fitting(
            pb.CausalEvent(event=event_message(each), parent_event_id=each.event.metadata.caused_by) for each in near
        )
        by_position = {message.event.position: message for message in messages}
        response = pb.GetCausalityResponse(truncated=truncated or len(messages) < len(near))
        for each in tree(near[: len(messages)]):
            message = by_position[each.stored.position]
            message.parent_event_id, message.depth = each.parent, each.depth
            response.events.append(message)
        return response

    async def _find(
        self, request: pb.GetEventRequest | pb.GetCausalityRequest, violations: list[Violation]
    ) -> StoredEvent:
        """The event that a request names. Raises InvalidArgument, also for `violations`, and EventNotFound."""
        tenant = tenant_of(request.tenant_id, violations)
        if not is_id(request.event_id):
            violations.append(Violation("event_id", ID_RULE))
        raise_if_any(violations)
        stored = await self._log.find((tenant, request.event_id)) if PRINCIPAL.get().owns(tenant) else None
        if stored is None:  # the same for an event of another tenant: not even that it exists is told
            raise EventNotFound(event_id=request.event_id, tenant_id=tenant)
        return stored
