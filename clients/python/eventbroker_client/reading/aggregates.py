"""Aggregates: how far they are, what rebuilds them, and snapshots of their state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventbroker.v1 import event_store_service_pb2 as pb

from eventbroker_client.events.payload import put
from eventbroker_client.events.wire import event_of, time_of
from eventbroker_client.reading.aggregate import Aggregate, Snapshot, aggregate_of, snapshot_of
from eventbroker_client.reading.pages import pages
from eventbroker_client.reading.wanted import set_moment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from datetime import datetime

    from eventbroker.v1.event_store_service_pb2_grpc import EventStoreServiceStub

    from eventbroker_client.connection.connection import Connection
    from eventbroker_client.events.event import Event
    from eventbroker_client.events.wire import Defaults


class Aggregates:
    """Part of Broker, as History is."""

    _defaults: Defaults
    _store: EventStoreServiceStub

    @property
    def _connected(self) -> Connection:
        raise NotImplementedError

    def _tenant(self, tenant: str | None) -> str:
        self._connected  # noqa: B018 - raises
        return self._defaults.tenant_id if tenant is None else tenant

    async def aggregate(
        self,
        aggregate_type: str,
        aggregate_id: str,
        *,
        version: int | None = None,
        as_of: datetime | None = None,
        snapshot: bool = True,
        tenant: str | None = None,
    ) -> Aggregate:
        """All that rebuilds an aggregate: its version, its latest snapshot, and all events after that.

        version: as it was at this version, at least 1. as_of: with the events that were recorded then or before. Give
        one of them at most. snapshot: False for the events from the first.

        Raises AggregateNotFound if it has no event (by then), VersionBeyond if it has not come to that version."""
        if version is not None and as_of is not None:
            raise ValueError("give either version or as_of")
        request = pb.GetAggregateRequest(
            tenant_id=self._tenant(tenant),
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            without_snapshot=not snapshot,
        )
        if version is not None:
            request.as_of_version = version
        set_moment(request.as_of_time, as_of)
        response: pb.GetAggregateResponse = await self._connected.call(self._store.GetAggregate, request)
        events = [event_of(message) for message in response.events]
        if response.next_version:
            rest = self.list_aggregate_events(
                aggregate_type, aggregate_id, from_version=response.next_version, page_size=1_000, tenant=tenant
            )
            async for event in rest:
                if event.aggregate_version > response.aggregate.version:
                    break
                events.append(event)
        found = snapshot_of(response.snapshot) if response.HasField("snapshot") else None
        return aggregate_of(response.aggregate, found, tuple(events))

    def list_aggregate_events(
        self,
        aggregate_type: str,
        aggregate_id: str,
        *,
        from_version: int = 0,
        newest_first: bool = False,
        page_size: int = 0,
        tenant: str | None = None,
    ) -> AsyncIterator[Event]:
        """The events of one aggregate, by version, from one on; 0: from the first, or the latest if newest first."""
        request = pb.ListAggregateEventsRequest(
            tenant_id=self._tenant(tenant),
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            from_version=from_version,
            order=pb.EVENT_ORDER_NEWEST_FIRST if newest_first else pb.EVENT_ORDER_OLDEST_FIRST,
            page_size=page_size,
        )
        method = self._store.ListAggregateEvents
        return pages(self._connected, method, request, lambda page: map(event_of, page.events))

    def list_aggregates(
        self, aggregate_type: str = "", *, page_size: int = 0, tenant: str | None = None
    ) -> AsyncIterator[Aggregate]:
        """The aggregates of a tenant, by type and id, bytewise. Empty: of any type."""
        request = pb.ListAggregatesRequest(
            tenant_id=self._tenant(tenant), aggregate_type=aggregate_type, page_size=page_size
        )
        method = self._store.ListAggregates
        return pages(self._connected, method, request, lambda page: map(aggregate_of, page.aggregates))

    async def save_snapshot(
        self, aggregate_type: str, aggregate_id: str, version: int, data: Any, *, tenant: str | None = None
    ) -> Snapshot:
        """Keeps the state after exactly the events up to `version`; overrules one of the same version.

        data: as that of an event, at most 1 MiB. Raises SnapshotAhead if the aggregate has not come to that version."""
        request = pb.SaveSnapshotRequest(tenant_id=self._tenant(tenant))
        message = request.snapshot
        message.aggregate_type, message.aggregate_id, message.version = aggregate_type, aggregate_id, version
        put(data, message)
        response: pb.SaveSnapshotResponse = await self._connected.call(self._store.SaveSnapshot, request)
        return Snapshot(aggregate_type, aggregate_id, version, data, time_of(response.create_time))

    async def get_snapshot(
        self, aggregate_type: str, aggregate_id: str, *, max_version: int = 0, tenant: str | None = None
    ) -> Snapshot:
        """The latest snapshot, at a version or before; 0: of all. Raises SnapshotNotFound."""
        request = pb.GetSnapshotRequest(
            tenant_id=self._tenant(tenant),
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            max_version=max_version,
        )
        response: pb.GetSnapshotResponse = await self._connected.call(self._store.GetSnapshot, request)
        return snapshot_of(response.snapshot)

    def list_snapshots(
        self, aggregate_type: str, aggregate_id: str, *, page_size: int = 0, tenant: str | None = None
    ) -> AsyncIterator[Snapshot]:
        """The snapshots of an aggregate, the latest first, without their data."""
        request = pb.ListSnapshotsRequest(
            tenant_id=self._tenant(tenant),
            aggregate_type=aggregate_type,
            aggregate_id=aggregate_id,
            page_size=page_size,
        )
        method = self._store.ListSnapshots
        return pages(self._connected, method, request, lambda page: map(snapshot_of, page.snapshots))
