"""A function that handles events, and which ones: by pattern, the most specific first."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from eventbroker_client.events.types import type_of
from eventbroker_client.events.wire import typed

if TYPE_CHECKING:
    from eventbroker_client.consuming.delivery import Delivery
    from eventbroker_client.events.event import Event

Function = Callable[..., Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Handler:
    """`function` gets the event, or a list of them, and, if it takes a second argument, the delivery or deliveries."""

    function: Function
    pattern: str
    payload: type | None = None
    batch_events: int = 0
    """0: one event at a time; else so many at most."""
    batch_wait: float = 0.0
    """How many seconds a batch waits for more."""
    arity: int = 1
    """How many of the two arguments the function takes."""

    async def handle(self, deliveries: Sequence[Delivery]) -> None:
        """Raises what the function does, and PayloadMismatch."""
        events = [self._event(delivery) for delivery in deliveries]
        arguments: tuple[Any, ...] = (events, list(deliveries)) if self.batch_events else (events[0], deliveries[0])
        await self.function(*arguments[: self.arity])

    def _event(self, delivery: Delivery) -> Event:
        return delivery.event if self.payload is None else typed(delivery.event, self.payload)


def _arity_of(function: Function) -> int:
    """How many of the two arguments it takes. Raises TypeError if it is not an async function of one or two."""
    call = function if inspect.isroutine(function) or inspect.isclass(function) else type(function).__call__
    if not (inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)):
        raise TypeError(f"{function!r} is not an async function")
    parameters = inspect.signature(function).parameters.values()
    places = [each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    required = sum(each.default is each.empty for each in places)
    keywords = any(each.kind is each.KEYWORD_ONLY and each.default is each.empty for each in parameters)
    if keywords or not places or required > 2:
        raise TypeError(f"{function!r} must take an event, and maybe a delivery")
    return max(1, required)


class Handlers:
    """The handlers of a consumer, one for each pattern."""

    def __init__(self) -> None:
        self._by_pattern: dict[str, Handler] = {}

    def add(self, handler: Handler) -> Handler:
        """The handler as it was added. Raises ValueError if the pattern has a handler, TypeError if the function is no
        handler."""
        if handler.pattern in self._by_pattern:
            raise ValueError(f"{handler.pattern!r} has a handler")
        added = self._by_pattern[handler.pattern] = replace(handler, arity=_arity_of(handler.function))
        return added

    @property
    def patterns(self) -> list[str]:
        return ["*"] if "*" in self._by_pattern else sorted(self._by_pattern)

    @property
    def largest_batch(self) -> int:
        """In events; 0 without a handler of batches."""
        return max((handler.batch_events for handler in self._by_pattern.values()), default=0)

    def find(self, event_type: str) -> Handler | None:
        """That of the type itself, else of the longest wildcard above it, else of "*"."""
        if (handler := self._by_pattern.get(event_type)) is not None:
            return handler
        level = event_type
        while "." in level:
            level = level.rpartition(".")[0]
            if (handler := self._by_pattern.get(f"{level}.*")) is not None:
                return handler
        return self._by_pattern.get("*")


def pattern_of(of: str | type) -> tuple[str, type | None]:
    """A pattern, and the class of data that its handler wants: of a pattern, or of a registered class. Raises
    TypeError."""
    return (of, None) if isinstance(of, str) else (type_of(of).name, of)
