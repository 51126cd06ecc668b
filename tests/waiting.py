"""Waiting for a condition instead of sleeping."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, TypeVar, overload

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


@overload
async def eventually(condition: Callable[[], Awaitable[T]], timeout: float = ..., every: float = ...) -> T: ...
@overload
async def eventually(condition: Callable[[], T], timeout: float = ..., every: float = ...) -> T: ...
async def eventually(condition: Callable[[], Any], timeout: float = 10.0, every: float = 0.02) -> Any:
    """Ask the condition, sync or async, until it answers with something truthy, and return that.

    Raises AssertionError with the condition's name and last answer after `timeout` seconds.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout
    while True:
        asked = condition()
        answer = await asked if inspect.isawaitable(asked) else asked
        if answer:
            return answer
        if loop.time() > deadline:
            raise AssertionError(f"not within {timeout} s: {_name(condition)} (last answer: {answer!r})")
        await asyncio.sleep(every)


def _name(condition: Callable[[], Any]) -> str:
    code = getattr(condition, "__code__", None)
    name = getattr(condition, "__qualname__", None) or repr(condition)
    return f"{name} at {code.co_filename}:{code.co_firstlineno}" if code else name
