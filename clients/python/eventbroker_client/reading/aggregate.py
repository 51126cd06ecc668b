"""Aggregates and their snapshots, as they are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventbroker_client.events.payload import take
from eventbroker_client.events.wire import time_of

if TYPE_CHECKING:
    from datetime import datetime

    from eventbroker.v1 import event_store_service_pb2 as pb

    from eventbroker_client.events.event import Event


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The state of an aggregate after its events up to `version`. `data` is as that of an event: a value of JSON, a
    protobuf message, bytes or Binary; None in a list."""

    aggregate_type: str
    aggregate_id: str
    version: int
    data: Any
    create_time: datetime


@dataclass(frozen=True, slots=True)
class Aggregate:
    """How far an aggregate has come: `version` is how many events it has, `position` and `record_time` are those of the
    latest. In a list `snapshot` and `events` are empty; else they are all that rebuilds it: its latest snapshot, and
    the events after that."""

    aggregate_type: str
    aggregate_id: str
    version: int
    position: int
    record_time: datetime
    snapshot: Snapshot | None = None
    events: tuple[Event, ...] = ()


def aggregate_of(message: pb.Aggregate, snapshot: Snapshot | None = None, events: tuple[Event, ...] = ()) -> Aggregate:
    return Aggregate(
        message.aggregate_type,
        message.aggregate_id,
        message.version,
        message.position,
        time_of(message.record_time),
        snapshot,
        events,
    )


def snapshot_of(message: pb.Snapshot) -> Snapshot:
    return Snapshot(
        message.aggregate_type,
        message.aggregate_id,
        message.version,
        None if message.WhichOneof("data") is None else take(message),
        time_of(message.create_time),
    )
