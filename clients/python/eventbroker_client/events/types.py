"""Which class holds the data of which type of event."""

from __future__ import annotations

from dataclasses import dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from google.protobuf.message import Message

if TYPE_CHECKING:
    from collections.abc import Callable

P = TypeVar("P")


@dataclass(frozen=True, slots=True)
class EventType:
    """A type of events: its name and version, the kind of its aggregates, the class of its data, and what stands for
    `source` and `caused_by` of those of which nothing else is known."""

    name: str
    aggregate_type: str
    payload: type
    version: str = "v1.0"
    source: str = ""
    caused_by: str = ""


_by_payload: dict[type, EventType] = {}
_by_name: dict[tuple[str, str], EventType] = {}


def event_type(
    name: str, *, aggregate_type: str, version: str = "v1.0", source: str = "", caused_by: str = ""
) -> Callable[[type[P]], type[P]]:
    """Registers a dataclass, or a class of protobuf messages, for the data of a type of events.

    `@event_type("order.placed", aggregate_type="Order")` above `@dataclass`; for a generated message
    `event_type("order.placed", aggregate_type="Order")(OrderPlaced)`. From then on a DomainEvent of it knows its type,
    and an event of that type and version comes with such data. Raises TypeError for another class, ValueError if the
    name and version, or the class, is taken."""

    def register(payload: type[P]) -> type[P]:
        if not (is_dataclass(payload) or issubclass(payload, Message)):
            raise TypeError(f"{payload.__qualname__} is neither a dataclass nor a protobuf message")
        made = EventType(name, aggregate_type, payload, version, source, caused_by)
        for taken in (_by_name.get((name, version)), _by_payload.get(payload)):
            if taken is not None and taken != made and not _reloaded(payload, taken.payload):
                raise ValueError(f"{taken.payload.__qualname__} is registered for {taken.name} {taken.version}")
        _by_name[name, version] = _by_payload[payload] = made
        return payload

    return register


def _reloaded(payload: type, taken: type) -> bool:
    """Whether it is the same class, of a module that was loaded again."""
    return (payload.__module__, payload.__qualname__) == (taken.__module__, taken.__qualname__)


def type_of(payload: type[Any]) -> EventType:
    """Raises TypeError if the class is not registered."""
    try:
        return _by_payload[payload]
    except KeyError:
        raise TypeError(f"no event type is registered for {payload.__qualname__}: use @event_type") from None


def type_named(name: str, version: str) -> EventType | None:
    return _by_name.get((name, version))
