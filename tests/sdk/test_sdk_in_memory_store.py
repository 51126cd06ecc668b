"""Aggregates and snapshots of the broker in memory, beside those of the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub
from eventbroker_client import Event, EventBrokerError, connect
from eventbroker_client.connection.address import address_of
from eventbroker_client.connection.connection import Connection
from eventbroker_client.testing import InMemoryBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client import Client

ORDER = {"tenant_id": "acme", "aggregate_type": "Order", "aggregate_id": "o1"}


class Store:
    """The calls of EventStoreService."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._stub = EventStoreServiceStub(connection.channel)

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(**fields)
        return await self._connection.call(getattr(self._stub, method), request)

    async def refused(self, method: str, **fields: Any) -> tuple[str, str]:
        """The reason, and the version that the aggregate is at."""
        with pytest.raises(EventBrokerError) as caught:
            await self.call(method, **fields)
        return caught.value.reason, caught.value.metadata.get("actual", "")


async def store_of(target: str) -> AsyncIterator[Store]:
    """With three events of an order."""
    async with connect(target, tenant="acme") as sdk:
        await sdk.publish_many([Event("order.changed", "Order", "o1", number) for number in (1, 2, 3)])
    connection = Connection(address_of(target))
    yield Store(connection)
    await connection.close()


@pytest.fixture
async def imitated() -> AsyncIterator[Store]:
    async with InMemoryBroker() as memory:
        async for store in store_of(memory.target):
            yield store


@pytest.fixture
async def real(broker: Client) -> AsyncIterator[Store]:
    async for store in store_of(broker.target):
        yield store


def versions(answer: Any) -> list[int]:
    return [event.aggregate_version for event in answer.events]


async def said_of_aggregates(store: Store) -> list[Any]:
    """What a store says to all that may be asked of an aggregate and its snapshots."""
    snapshot = pb.Snapshot(aggregate_type="Order", aggregate_id="o1", version=2, json="3")
    whole = await store.call("GetAggregate", **ORDER)
    then = await store.call("GetAggregate", **ORDER, as_of_version=2, max_events=1)
    page = await store.call("ListAggregateEvents", **ORDER, page_size=2)
    rest = await store.call("ListAggregateEvents", **ORDER, page_size=2, page_token=page.next_page_token)
    none_yet = await store.refused("GetSnapshot", **ORDER)
    await store.call("SaveSnapshot", tenant_id="acme", snapshot=snapshot)
    after = await store.call("GetAggregate", **ORDER)
    first = await store.call("GetAggregate", **ORDER, as_of_version=1)
    plain = await store.call("GetAggregate", **ORDER, without_snapshot=True)
    snapshot.version = 4
    return [
        (whole.aggregate.version, whole.aggregate.position, versions(whole), whole.HasField("snapshot")),
        (then.aggregate.version, versions(then), then.next_version),
        (versions(page), versions(rest), rest.next_page_token),
        none_yet,
        (after.snapshot.version, after.snapshot.json, versions(after)),
        (first.HasField("snapshot"), versions(first), versions(plain)),
        (await store.call("GetSnapshot", **ORDER)).snapshot.json,
        await store.refused("GetSnapshot", **ORDER, max_version=1),
        await store.refused("SaveSnapshot", tenant_id="acme", snapshot=snapshot),
        await store.refused("GetAggregate", **ORDER, as_of_version=4),
        await store.refused("GetAggregate", **ORDER | {"aggregate_id": "o2"}),
        await store.refused("GetEvent", tenant_id="acme", event_id="nobody's"),
    ]


async def test_the_store_in_memory_says_of_aggregates_what_the_real_one_says(real: Store, imitated: Store) -> None:
    said = await said_of_aggregates(imitated)
    assert said == await said_of_aggregates(real)
    assert said[0] == (3, 3, [1, 2, 3], False)
