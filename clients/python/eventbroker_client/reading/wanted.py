"""Which events are wanted."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

from eventbroker.v1 import event_store_service_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from google.protobuf.timestamp_pb2 import Timestamp


class Wanted(TypedDict, total=False):
    """What may be asked of events beside their types: all that is given must match."""

    aggregate_type: str
    aggregate_id: str
    """Only with aggregate_type."""

    correlation_id: str
    caused_by: str
    user_id: str
    sources: Iterable[str]
    """One of these, at most 100."""

    tags: Iterable[str]
    """Every one of these, at most 64."""


def filter_of(types: Iterable[str], wanted: Wanted) -> pb.EventFilter:
    """Raises TypeError for a name that is not one of Wanted."""
    if unknown := wanted.keys() - Wanted.__annotations__.keys():
        raise TypeError(f"events are not told apart by {', '.join(sorted(unknown))}")
    return pb.EventFilter(event_types=[types] if isinstance(types, str) else types, **wanted)


def set_moment(field: Timestamp, moment: datetime | None) -> None:
    """Raises ValueError if the moment has no time zone. None leaves the field as it is."""
    if moment is None:
        return
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no time zone")
    field.FromDatetime(moment)
