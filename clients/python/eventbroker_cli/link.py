"""The way to the broker: the SDK's connection, and the services of the contract over it."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.dead_letter_service_pb2_grpc import DeadLetterServiceStub
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub
from eventbroker.v1.group_service_pb2_grpc import GroupServiceStub
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.stats_service_pb2_grpc import StatsServiceStub
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub
from eventbroker_client.connection.connection import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_cli.target import Target


class Link:
    """What a command has of a broker. Use the stubs with `ask` or, for streams, with `connection.metadata()`."""

    def __init__(self, connection: Connection, target: Target) -> None:
        self.connection = connection
        self.target = target
        self.tenant = target.tenant
        """Whose events are meant; empty: not said."""
        channel = connection.channel
        self.publisher = PublisherServiceStub(channel)
        self.subscriber = SubscriberServiceStub(channel)
        self.events = EventStoreServiceStub(channel)
        self.groups = GroupServiceStub(channel)
        self.dead_letters = DeadLetterServiceStub(channel)
        self.stats = StatsServiceStub(channel)

    async def ask(self, method: Any, request: Any) -> Any:
        """The answer to one call, tried once: people and scripts see at once what is wrong. Raises EventBrokerError."""
        return await self.connection.call_once(method, request, self.target.timeout)

    async def pages(self, method: Any, request: Any, field: str, limit: int) -> AsyncIterator[Any]:
        """The items of a list, page after page, at most `limit` (0: all). Raises EventBrokerError."""
        left = limit
        while True:
            request.page_size = min(left, 500) if limit else 500
            page = await self.ask(method, request)
            for item in getattr(page, field)[: left if limit else None]:
                left -= 1
                yield item
            if not page.next_page_token or (limit and left <= 0):
                return
            request.page_token = page.next_page_token

    async def pages_of_aggregate(self, method: Any, request: Any, field: str, limit: int) -> AsyncIterator[Any]:
        """The same, of an aggregate. Raises AggregateNotFound if it has no event: lists say nothing of that."""
        found = False
        async for item in self.pages(method, request, field, limit):
            found = True
            yield item
        if not found:
            one = pb.GetAggregateRequest(tenant_id=request.tenant_id, without_snapshot=True, max_events=1)
            one.aggregate_type, one.aggregate_id = request.aggregate_type, request.aggregate_id
            await self.ask(self.events.GetAggregate, one)


@asynccontextmanager
async def linked(target: Target) -> AsyncIterator[Link]:
    """Nothing is sent before the first call. Raises Failed: the target makes no sense."""
    connection = Connection(target.address(), token=target.token(), timeout=target.timeout)
    try:
        yield Link(connection, target)
    finally:
        await connection.close()
