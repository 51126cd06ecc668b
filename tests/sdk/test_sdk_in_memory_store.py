"""Aggregates and snapshots of the broker in memory, beside those of the real one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import pytest
from eventbroker.v1 import event_store_service_pb2 as pb
from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub
from eventbroker_client import Broker, Event, EventBrokerError, connect
from eventbroker_client.connection.address import address_of
from eventbroker_client.connection.connection import Connection
from eventbroker_client.connection.failure import error_of
from eventbroker_client.testing import InMemoryBroker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.client import Client

ORDER = {"tenant_id": "acme", "aggregate_type": "Order", "aggregate_id": "o1"}


class Store:
    """The calls of EventStoreService."""

    def __init__(self, sdk: Broker, connection: Connection) -> None:
        self._sdk = sdk
        self._connection = connection
        self._stub: Any = EventStoreServiceStub(connection.channel)

    async def call(self, method: str, **fields: Any) -> Any:
        request = getattr(pb, f"{method}Request")(**fields)
        return await self._connection.call(getattr(self._stub, method), request)

    async def publish(self, *events: Event) -> None:
        for event in events:
            await self._sdk.publish(event)

    async def positions(self, **fields: Any) -> list[int]:
        """Of all pages of a list."""
        found, token = [], ""
        while True:
            page = await self.call("ListEvents", **{"tenant_id": "acme"} | fields, page_token=token)
            found += [event.position for event in page.events]
            if not (token := page.next_page_token):
                return found

    async def read(self, **fields: Any) -> list[tuple[int, int, list[int]]]:
        """What each message of a stream tells: its position, the newest, and those of its events."""
        return [
            (said.position, said.head_position, [event.position for event in said.events.events])
            async for said in self._stub.ReadEvents(pb.ReadEventsRequest(**fields))
        ]

    async def faults(self, method: str, **fields: Any) -> tuple[str, list[str]]:
        """The reason, and the fields that break a rule."""
        request = getattr(pb, f"{method}Request")(**fields)
        call = getattr(self._stub, method)(request)
        with pytest.raises(grpc.RpcError) as caught:
            await (anext(aiter(call)) if method == "ReadEvents" else call)
        error = error_of(caught.value)
        return error.reason, [fault.field for fault in getattr(error, "violations", ())]

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
        yield Store(sdk, connection)
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


async def said_of_history(store: Store) -> list[Any]:
    """What a store says to all that may be asked of its events, of which one is another tenant's."""
    acme, newest = {"tenant_id": "acme"}, pb.EVENT_ORDER_NEWEST_FIRST
    await store.publish(
        Event("user.mail.changed", "User", "u1", correlation_id="c1", caused_by="form", user_id="u9", source="web"),
        Event("user.left", "User", "u1", tags=("a", "b")),
        Event("user.left", "Order", "o2", tenant_id="globex"),
    )
    stored = (await store.call("ListEvents", **acme)).events
    filters: list[dict[str, Any]] = [
        {"event_types": ["user.*"]},
        {"event_types": ["order.changed", "user.mail.*"]},
        {"aggregate_type": "User"},
        {"aggregate_type": "Order", "aggregate_id": "o1"},
        {"correlation_id": "c1"},
        {"caused_by": "form", "user_id": "u9"},
        {"sources": ["mail", "web"]},
        {"tags": ["b"]},
        {"tags": ["b", "c"]},
    ]
    bounds: list[dict[str, Any]] = [
        {"after_position": 1, "upto_position": 4, "order": newest},
        {"recorded_from": stored[3].record_time},
        {"recorded_before": stored[3].record_time, "order": newest},
        {"page_size": 2, "order": newest},
        {"tenant_id": "globex"},
        {"tenant_id": "nobody"},
    ]
    streams: list[dict[str, Any]] = [
        {"max_batch_events": 2},
        {"after_position": 2, "upto_position": 4},
        {"after_position": 6},
        {"recorded_from": stored[3].record_time},
        {"filter": {"event_types": ["never.*"]}},
        {"filter": {"tags": ["a"]}, "upto_position": 5},
        {"tenant_id": "*"},
    ]
    wrong: list[tuple[str, dict[str, Any]]] = [
        ("ListEvents", {"page_token": "nonsense"}),
        ("ListEvents", {"page_size": 1_001}),
        ("ListEvents", {"tenant_id": "*"}),
        ("ListEvents", {"filter": {"event_types": ["*.*"], "aggregate_id": "o1"}}),
        ("ListEvents", {"after_position": 2, "upto_position": 1}),
        ("ListAggregateEvents", {"aggregate_type": "Order", "aggregate_id": "o1", "from_version": -1}),
        ("ReadEvents", {"upto_position": 1, "follow": True}),
        ("ReadEvents", {"after_position": 7}),
        ("ReadEvents", {"max_batch_events": -1}),
    ]
    backwards = await store.call("ListAggregateEvents", **ORDER, from_version=2, order=newest)
    return [
        [await store.positions(filter=each) for each in filters],
        [await store.positions(**each) for each in bounds],
        versions(backwards),
        [each.aggregate_id for each in (await store.call("ListAggregates", **acme)).aggregates],
        [await store.read(**acme | each) for each in streams],
        [await store.faults(method, **acme | each) for method, each in wrong],
    ]


async def test_the_store_in_memory_says_of_history_what_the_real_one_says(real: Store, imitated: Store) -> None:
    said = await said_of_history(imitated)
    assert said == await said_of_history(real)
    assert said[1][0] == [4, 3, 2]


async def test_the_store_in_memory_says_of_aggregates_what_the_real_one_says(real: Store, imitated: Store) -> None:
    said = await said_of_aggregates(imitated)
    assert said == await said_of_aggregates(real)
    assert said[0] == (3, 3, [1, 2, 3], False)
