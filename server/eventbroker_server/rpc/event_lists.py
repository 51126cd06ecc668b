"""Lists of events and aggregates, and the tree of causes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc
    from eventbroker.v1 import event_store_service_pb2 as pb

    from eventbroker_server.ports import EventLog


class EventLists:
    """Part of EventStoreServicer."""

    _log: EventLog

    async def ListEvents(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListEventsRequest,
        context: grpc.aio.ServicerContext[pb.ListEventsRequest, pb.ListEventsResponse],
    ) -> pb.ListEventsResponse:
        raise NotImplementedError

    async def ListAggregateEvents(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListAggregateEventsRequest,
        context: grpc.aio.ServicerContext[pb.ListAggregateEventsRequest, pb.ListAggregateEventsResponse],
    ) -> pb.ListAggregateEventsResponse:
        raise NotImplementedError

    async def ListAggregates(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ListAggregatesRequest,
        context: grpc.aio.ServicerContext[pb.ListAggregatesRequest, pb.ListAggregatesResponse],
    ) -> pb.ListAggregatesResponse:
        raise NotImplementedError

    async def GetCausality(  # noqa: N802 - the name of the RPC
        self,
        request: pb.GetCausalityRequest,
        context: grpc.aio.ServicerContext[pb.GetCausalityRequest, pb.GetCausalityResponse],
    ) -> pb.GetCausalityResponse:
        raise NotImplementedError
