"""Events that are to be published: of arguments, of lines, or made up; each with its line, to name it by."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker.v1.event_pb2 import Event

    from eventbroker_cli.envelope import Envelope

_CHUNK = 256 * 1024  # bytes
_AT_ONCE = 500  # made-up events


@dataclass(frozen=True, slots=True)
class Draft:
    """An event, or why there is none; `size` is how much of the input it took, in bytes."""

    line: int
    event: Event | None
    fault: str = ""
    size: int = 0


async def made_up(envelope: Envelope, count: int) -> AsyncIterator[list[Draft]]:
    for first in range(1, count + 1, _AT_ONCE):
        numbers = range(first, min(first + _AT_ONCE, count + 1))
        yield [Draft(number, envelope.numbered(number), size=1) for number in numbers]


async def of_lines(descriptor: int, envelope: Envelope) -> AsyncIterator[list[Draft]]:
    """The lines of a file that is open, as they come; those that are blank are left out."""
    number, rest = 0, b""
    async for chunk in _chunks(descriptor):
        *lines, rest = (rest + chunk).split(b"\n")
        drafts = [_draft(number + place, line, envelope) for place, line in enumerate(lines, 1)]
        number += len(lines)
        yield [draft for draft in drafts if draft]
    if rest and (last := _draft(number + 1, rest, envelope)):
        yield [last]


def _draft(number: int, line: bytes, envelope: Envelope) -> Draft | None:
    if not line.strip():
        return None
    try:
        return Draft(number, envelope.read(line), size=len(line) + 1)
    except json.JSONDecodeError as error:
        return Draft(number, None, f"no JSON: {error.msg} at column {error.colno}", len(line) + 1)
    except UnicodeDecodeError:
        return Draft(number, None, "not in UTF-8", len(line) + 1)
    except (ValueError, RecursionError) as error:
        return Draft(number, None, str(error) or "nested too deeply", len(line) + 1)


async def _chunks(descriptor: int) -> AsyncIterator[bytes]:
    """What can be read, without waiting for more than there is. No thread, which Ctrl-C would have to wait for."""
    loop = asyncio.get_running_loop()
    while True:
        came = asyncio.Event()
        try:
            loop.add_reader(descriptor, came.set)
        except PermissionError:  # a file on a disk is always ready
            pass
        else:
            try:
                await came.wait()
            finally:
                loop.remove_reader(descriptor)
        if not (chunk := os.read(descriptor, _CHUNK)):
            return
        yield chunk
