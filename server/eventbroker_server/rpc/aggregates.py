"""Aggregates, rebuilt from a snapshot and what came after it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc
    from eventbroker.v1 import event_store_service_pb2 as pb

    from eventbroker_server.ports import EventLog


class Aggregates:
    """Part of EventStoreServicer."""

    _log: EventLog

    async def GetAggregate(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetAggregateRequest,
        context: grpc.aio.ServicerContext[pb.GetAggregateRequest, pb.GetAggregateResponse],
    ) -> pb.GetAggregateResponse:
        raise NotImplementedError

    async def SaveSnapshot(  # noqa: N802 - the name of the RPC
        self,
        request: pb.SaveSnapshotRequest,
        context: grpc.aio.ServicerContext[pb.SaveSnapshotRequest, pb.SaveSnapshotResponse],
    ) -> pb.SaveSnapshotResponse:
        raise NotImplementedError

    async def GetSnapshot(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetSnapshotRequest,
        context: grpc.aio.ServicerContext[pb.GetSnapshotRequest, pb.GetSnapshotResponse],
    ) -> pb.GetSnapshotResponse:
        raise NotImplementedError

    async def ListSnapshots(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListSnapshotsRequest,
        context: grpc.aio.ServicerContext[pb.ListSnapshotsRequest, pb.ListSnapshotsResponse],
    ) -> pb.ListSnapshotsResponse:
        raise NotImplementedError
