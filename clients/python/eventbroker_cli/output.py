"""What a command prints: a table for people, json for scripts, ndjson for streams; decided here and nowhere else.

json and ndjson are the messages of the contract (event_json.py), exact and complete. Tables are for reading: in a pipe
they have no colours, no frames and no cut columns.
"""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message
from rich.console import Console
from rich.table import Table
from rich.text import Text

from eventbroker_cli.event_json import as_json
from eventbroker_cli.readable import clean

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Sequence

    from rich.console import RenderableType


class Format(StrEnum):
    """How answers are printed."""

    table = "table"
    json = "json"
    ndjson = "ndjson"


class _Pipe(Console):
    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


class Output:
    """Standard output in the format that was asked for, and standard error for what is only for people."""

    def __init__(self, chosen: Format) -> None:
        self.format = chosen
        self.console = _console()
        self.remarks = _console(stderr=True)

    @property
    def for_people(self) -> bool:
        return self.format is Format.table

    def say(self, text: str) -> None:
        """A remark for people, not part of the answer."""
        self.remarks.print(clean(text), markup=False, highlight=False, soft_wrap=True)

    def answer(self, message: Message | dict[str, Any], view: Callable[[], RenderableType]) -> None:
        """One thing: a message, or for people its view."""
        if self.for_people:
            self.show(view())
        else:
            self.line(message, indent=2 if self.format is Format.json else None)

    def show(self, view: RenderableType) -> None:
        self.console.print(view)

    def row(self, text: Text) -> None:
        """A line of a stream, however long."""
        self.console.print(text, soft_wrap=True)

    def line(self, message: Message | dict[str, Any], indent: int | None = None, *, flush: bool = True) -> None:
        """A message as JSON."""
        self.json(as_json(message) if isinstance(message, Message) else message, indent, flush=flush)

    def flush(self) -> None:
        sys.stdout.flush()

    def json(self, made: Any, indent: int | None = None, *, flush: bool = True) -> None:
        """Values of JSON, for what is no message of the contract."""
        ascii_only = (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")
        text = json.dumps(made, indent=indent, ensure_ascii=ascii_only, separators=None if indent else (",", ":"))
        sys.stdout.write(text + "\n")
        if flush:
            sys.stdout.flush()

    async def list(
        self, items: AsyncIterator[Message], heads: Sequence[str], row: Callable[[Any], Sequence[str | Text]]
    ) -> int:
        """Many things: a table of rows, an array of json, or a line each as they come. Answers how many."""
        if self.format is Format.ndjson:
            count = 0
            async for item in items:
                self.line(item)
                count += 1
            return count
        found = [item async for item in items]
        if self.for_people:
            self.show(table(heads, (row(item) for item in found)))
        else:
            self.json([as_json(item) for item in found], indent=2)
        return len(found)


def table(heads: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
    """Columns whose head begins with ">" are numbers, at the right."""
    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for head in heads:
        right = head.startswith(">")
        made.add_column(head.lstrip(">").upper(), justify="right" if right else "left", overflow="fold", no_wrap=right)
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else Text(clean(cell)) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """One thing, a line for each fact; those that are empty are left out."""
    made = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            made.add_row(name, value if isinstance(value, Text) else Text(clean(value)))
    return made


def _console(stderr: bool = False) -> Console:
    console = _Pipe(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 4_000  # nothing is cut
    return console
