"""All events, in the order of their positions; ids are stored once, and versions count within an aggregate."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker.v1 import publisher_service_pb2 as pb
from eventbroker.v1.event_pb2 import Event

from eventbroker_client.testing.memory.refused import Refused, refuse_if
from eventbroker_client.testing.memory.rules import event_faults

if TYPE_CHECKING:
    from collections.abc import Callable

    from eventbroker_client.testing.memory.refused import Violation

MAX_EVENTS, MAX_BYTES = 1_000, 4 * 1024 * 1024
Result = tuple[Event, bool]  # as it is stored, and whether it was before


class Log:
    """`stored` is called with each new event."""

    def __init__(self, stored: Callable[[Event], None]) -> None:
        self.events: list[Event] = []
        self._stored = stored
        self._told: dict[tuple[str, str], tuple[bytes, Event]] = {}  # by tenant and id: as it was told, and is stored
        self.aggregates: dict[tuple[str, str, str], list[Event]] = {}  # by tenant, type and id
        self.moved = asyncio.Event()  # set, and replaced, whenever an event is stored

    def get(self, tenant: str, event_id: str) -> Event:
        """Raises Refused."""
        if (tenant, event_id) not in self._told:
            raise Refused("EVENT_NOT_FOUND", event_id=event_id, tenant_id=tenant)
        return self._told[tenant, event_id][1]

    def publish(self, request: pb.PublishRequest) -> pb.PublishResponse:
        """Raises Refused."""
        if not 1 <= len(request.events) <= MAX_EVENTS:
            refuse_if([("events", f"must be 1 to {MAX_EVENTS}, not {len(request.events)}")])
        if request.ByteSize() > MAX_BYTES:
            refuse_if([("events", f"must be at most {MAX_BYTES} bytes together, not {request.ByteSize()}")])
        request.DiscardUnknownFields()
        each = request.mode == pb.PUBLISH_MODE_PER_EVENT
        faults = self._faults(request)
        if each:
            if request.expectations:
                refuse_if([("expectations", "cannot be used with PUBLISH_MODE_PER_EVENT")])
            results = [self._alone(event, found) for event, found in zip(request.events, faults, strict=True)]
            return pb.PublishResponse(results=results)
        refuse_if([fault for found in faults for fault in found])
        known = [self._known(event) for event in request.events]
        if not all(known):  # else what is expected does not matter
            self._check(request)
        return pb.PublishResponse(results=[_result(*self._append(event)) for event in request.events])

    def _faults(self, request: pb.PublishRequest) -> list[list[Violation]]:
        """Those of each event."""
        first: dict[tuple[str, str], int] = {}
        faults = []
        for number, event in enumerate(request.events):
            path = f"events[{number}]"
            event.event_version = event.event_version or "v1.0"
            if event.HasField("timestamp"):
                event.timestamp.nanos -= event.timestamp.nanos % 1000
            if not event.metadata.ByteSize():
                event.ClearField("metadata")
            found = event_faults(event, path)
            before = first.setdefault((event.tenant_id, event.event_id), number)
            if before != number and event.event_id:
                found.append((f"{path}.event_id", f"repeats events[{before}].event_id"))
            if request.mode != pb.PUBLISH_MODE_PER_EVENT and event.tenant_id != request.events[0].tenant_id:
                found.append((f"{path}.tenant_id", "must be that of events[0]"))
            faults.append(found)
        return faults

    def _alone(self, event: Event, faults: list[Violation]) -> pb.PublishResult:
        try:
            refuse_if(faults)
            return _result(*self._append(event))
        except Refused as refused:
            result = pb.PublishResult(event_id=event.event_id, outcome=pb.PUBLISH_OUTCOME_REFUSED)
            refused.tell(result.error)
            return result

    def _known(self, event: Event) -> Event | None:
        """The event as it is stored already. Raises Refused if its id stands for another one."""
        told = self._told.get((event.tenant_id, event.event_id))
        if told is None:
            return None
        if told[0] != event.SerializeToString(deterministic=True):
            raise Refused("EVENT_ID_REUSED", event_id=event.event_id, tenant_id=event.tenant_id)
        return told[1]

    def _check(self, request: pb.PublishRequest) -> None:
        """What is expected of aggregates."""
        conflicts = []
        for said in request.expectations:
            aggregate = (request.events[0].tenant_id, said.aggregate_type, said.aggregate_id)
            actual = len(self.aggregates.get(aggregate, ()))
            by_version = said.WhichOneof("expected") == "version"
            if actual != said.version if by_version else bool(actual) != said.exists:
                expected = str(said.version) if by_version else "exists" if said.exists else "none"
                conflicts.append((said.aggregate_type, said.aggregate_id, expected, str(actual)))
        if conflicts:
            first = conflicts[0]
            raise Refused(
                "VERSION_CONFLICT",
                conflicts=[(f"{kind}/{of}", f"expected {want}, actual {has}") for kind, of, want, has in conflicts],
                aggregate_type=first[0],
                aggregate_id=first[1],
                expected=first[2],
                actual=first[3],
            )

    def _append(self, event: Event) -> Result:
        """Raises Refused."""
        if (known := self._known(event)) is not None:
            return known, True
        aggregate = (event.tenant_id, event.aggregate_type, event.aggregate_id)
        before = self.aggregates.setdefault(aggregate, [])
        stored = Event()
        stored.CopyFrom(event)
        stored.position, stored.aggregate_version = len(self.events) + 1, len(before) + 1
        stored.record_time.GetCurrentTime()
        self._told[event.tenant_id, event.event_id] = event.SerializeToString(deterministic=True), stored
        self.events.append(stored)
        before.append(stored)
        self._stored(stored)
        self.moved.set()
        self.moved = asyncio.Event()
        return stored, False


def _result(event: Event, duplicate: bool) -> pb.PublishResult:
    return pb.PublishResult(
        event_id=event.event_id,
        outcome=pb.PUBLISH_OUTCOME_DUPLICATE if duplicate else pb.PUBLISH_OUTCOME_STORED,
        position=event.position,
        aggregate_version=event.aggregate_version,
    )
