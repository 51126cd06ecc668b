"""What the running code is about, so that the events it publishes say so: kept in a context variable."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from eventbroker_client.events.event import Event

TRACE = ("traceparent", "tracestate")  # the attributes of W3C Trace Context


@dataclass(frozen=True, slots=True)
class Cause:
    """What events that are published now inherit; empty where there is nothing to inherit."""

    event_id: str = ""
    correlation_id: str = ""
    tenant_id: str = ""
    trace: Mapping[str, str] = field(default_factory=dict)


_NONE = Cause()
_current: ContextVar[Cause] = ContextVar("eventbroker_cause", default=_NONE)


def current_cause() -> Cause:
    return _current.get()


@contextmanager
def handling(event: Event) -> Iterator[None]:
    """Events published inside are caused by this one. Consumers do this around each handler."""
    trace = {name: event.attributes[name] for name in TRACE if name in event.attributes}
    with _set(Cause(event.id, event.correlation_id or event.id, event.tenant_id, trace)):
        yield


@contextmanager
def tracing(*, correlation_id: str = "", traceparent: str = "", tracestate: str = "") -> Iterator[None]:
    """Events published inside carry these: for whoever serves a request that came with them."""
    trace = {name: value for name, value in zip(TRACE, (traceparent, tracestate), strict=True) if value}
    with _set(Cause(correlation_id=correlation_id, trace=trace)):
        yield


@contextmanager
def _set(cause: Cause) -> Iterator[None]:
    token = _current.set(cause)
    try:
        yield
    finally:
        _current.reset(token)
