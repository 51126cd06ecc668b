"""Reading what is stored: events by id, and aggregates with their snapshots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventbroker.v1 import event_store_service_pb2 as pb
from google.protobuf.timestamp_pb2 import Timestamp

from eventbroker_client.testing.memory.history import History, aggregate_of
from eventbroker_client.testing.memory.refused import Refused, refuse_if, refusing

if TYPE_CHECKING:
    from eventbroker.v1.event_pb2 import Event

    from eventbroker_client.testing.memory.log import Log

    Addressed = pb.GetAggregateRequest | pb.GetSnapshotRequest

MOST_EVENTS = 1_000  # in one answer


class EventStore(History):
    """What it leaves out answers UNIMPLEMENTED."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._snapshots: dict[tuple[str, str, str], dict[int, pb.Snapshot]] = {}  # by aggregate and version

    @refusing
    async def GetEvent(self, request: pb.GetEventRequest, context: Any) -> pb.GetEventResponse:  # noqa: N802
        return pb.GetEventResponse(event=self._log.get(request.tenant_id, request.event_id))

    @refusing
    async def GetAggregate(self, request: pb.GetAggregateRequest, context: Any) -> pb.GetAggregateResponse:  # noqa: N802
        events = self._events(request)
        if request.HasField("as_of_time"):
            upto = request.as_of_time.ToNanoseconds()
            events = [event for event in events if event.record_time.ToNanoseconds() <= upto]
        if not events:
            raise Refused("AGGREGATE_NOT_FOUND", **_named(request))
        if request.HasField("as_of_version") and request.as_of_version > events[-1].aggregate_version:
            asked, actual = str(request.as_of_version), str(events[-1].aggregate_version)
            raise Refused("VERSION_BEYOND", asked=asked, actual=actual, **_named(request))
        if request.HasField("as_of_version"):
            events = events[: request.as_of_version]
        last = events[-1]
        answer = pb.GetAggregateResponse(aggregate=aggregate_of(last))
        snapshot = None if request.without_snapshot else self._snapshot(request, last.aggregate_version)
        if snapshot is not None:
            answer.snapshot.CopyFrom(snapshot)
            events = events[snapshot.version :]
        page, answer.next_version = _cut(events, request.max_events or MOST_EVENTS)
        answer.events.extend(page)
        return answer

    @refusing
    async def SaveSnapshot(self, request: pb.SaveSnapshotRequest, context: Any) -> pb.SaveSnapshotResponse:  # noqa: N802
        said = request.snapshot
        if said.version < 1:
            refuse_if([("snapshot.version", "must be at least 1")])
        if said.WhichOneof("data") is None:
            refuse_if([("snapshot.data", "is required: one of json, message, binary")])
        aggregate = (request.tenant_id, said.aggregate_type, said.aggregate_id)
        actual = len(self._log.aggregates.get(aggregate, ()))
        if said.version > actual:
            raise Refused("SNAPSHOT_AHEAD", asked=str(said.version), actual=str(actual))
        now = Timestamp()
        now.GetCurrentTime()
        said.create_time.CopyFrom(now)
        self._snapshots.setdefault(aggregate, {})[said.version] = said
        return pb.SaveSnapshotResponse(create_time=now)

    @refusing
    async def GetSnapshot(self, request: pb.GetSnapshotRequest, context: Any) -> pb.GetSnapshotResponse:  # noqa: N802
        if (snapshot := self._snapshot(request, request.max_version)) is None:
            raise Refused("SNAPSHOT_NOT_FOUND", **_named(request))
        return pb.GetSnapshotResponse(snapshot=snapshot)

    def _events(self, request: Addressed) -> list[Event]:
        return self._log.aggregates.get((request.tenant_id, request.aggregate_type, request.aggregate_id), [])

    def _snapshot(self, request: Addressed, upto: int) -> pb.Snapshot | None:
        """The latest up to a version; 0: the latest."""
        known = self._snapshots.get((request.tenant_id, request.aggregate_type, request.aggregate_id), {})
        versions = [version for version in known if not upto or version <= upto]
        return known[max(versions)] if versions else None


def _named(request: Addressed) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ("aggregate_type", "aggregate_id", "tenant_id")}


def _cut(events: list[Event], most: int) -> tuple[list[Event], int]:
    """So many, and the version of the next, or 0."""
    return events[:most], events[most].aggregate_version if len(events) > most else 0
