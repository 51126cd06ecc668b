"""Events by what is known of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub

from eventbroker_client.events.wire import event_of

if TYPE_CHECKING:
    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.events.event import Event


class History:
    """See Broker, which offers its methods. `tenant` stands for a tenant that is not named."""

    def __init__(self, connection: Connection, tenant: str) -> None:
        self._connection = connection
        self._tenant = tenant
        self._store = EventStoreServiceStub(connection.channel)

    async def get_event(self, event_id: str, tenant: str | None) -> Event:
        request = pb.GetEventRequest(tenant_id=self._tenant if tenant is None else tenant, event_id=event_id)
        response: pb.GetEventResponse = await self._connection.call(self._store.GetEvent, request)
        return event_of(response.event)
