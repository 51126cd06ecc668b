"""Reading history as a stream, and following it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import grpc
    from eventbroker.v1 import event_store_service_pb2 as pb

    from eventbroker_server.ports import EventLog


class EventReads:
    """Part of EventStoreServicer."""

    _log: EventLog

    def ReadEvents(  # noqa: N802 - the name of the RPC
        self,
        request: pb.ReadEventsRequest,
        context: grpc.aio.ServicerContext[pb.ReadEventsRequest, pb.ReadEventsResponse],
    ) -> AsyncIterator[pb.ReadEventsResponse]:
        raise NotImplementedError
