"""`@publishes`: a method whose event is published after it returned, and never when it raised."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from eventbroker_client.events.event import Event

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from eventbroker_client.publishing.published import Publisher

R = TypeVar("R")
A = ParamSpec("A")


def publishes(
    build: Callable[[Any, Mapping[str, Any]], Event | Iterable[Event] | None],
    *,
    via: str | Publisher | Callable[[Mapping[str, Any]], Publisher] = "broker",
) -> Callable[[Callable[A, Awaitable[R]]], Callable[A, Awaitable[R]]]:
    """Publishes what `build` makes of the result and the arguments, and then returns the result.

    `build(result, arguments)` gets the arguments by the names of the parameters, defaults filled in, `self` among
    them. It answers an event, several (which are published one after the other), or None for none. `via` is who
    publishes: the name of an attribute of the method's object, a Publisher, or a function that gets the arguments and
    answers one.

    For async functions and methods only; TypeError for others. If publishing fails, which it does after many attempts,
    its EventBrokerError is raised though the method has done its work: an event that must not be missed belongs into
    the method's own transaction."""

    def decorate(method: Callable[A, Awaitable[R]]) -> Callable[A, Awaitable[R]]:
        if not inspect.iscoroutinefunction(method):
            raise TypeError(f"{method.__qualname__} is not an async function")
        signature = inspect.signature(method)

        @functools.wraps(method)
        async def publishing(*args: A.args, **kwargs: A.kwargs) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            result = await method(*args, **kwargs)
            built = build(result, bound.arguments)
            publisher = _publisher(via, args, bound.arguments)
            for event in () if built is None else (built,) if isinstance(built, Event) else built:
                await publisher.publish(event)
            return result

        return publishing

    return decorate


def _publisher(
    via: str | Publisher | Callable[[Mapping[str, Any]], Publisher],
    args: tuple[Any, ...],
    arguments: Mapping[str, Any],
) -> Publisher:
    if isinstance(via, str):
        return cast("Publisher", getattr(args[0], via))
    if hasattr(via, "publish"):
        return via
    return via(arguments)
