"""`eventbroker publish`: one event of arguments, many of lines, or made-up ones."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from eventbroker.v1 import event_pb2
from eventbroker.v1 import publisher_service_pb2 as pb
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.text import Text

from eventbroker_cli import given
from eventbroker_cli.command import command
from eventbroker_cli.drafts import made_up, of_lines
from eventbroker_cli.envelope import Envelope, expectation, like, pairs, put
from eventbroker_cli.event_json import as_json
from eventbroker_cli.exits import Code, Failed, complain
from eventbroker_cli.link import Link
from eventbroker_cli.output import Format, Output
from eventbroker_cli.readable import are, counted, number
from eventbroker_cli.sending import Sender, why

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Any

    from eventbroker_cli.drafts import Draft

_EXAMPLES = """
eventbroker publish user.created User/u1 '{"email": "ada@example.com"}' -t acme
eventbroker publish order.placed Order/o1 @order.json --expect Order/o1=0 -t acme
eventbroker publish -f events.ndjson
eventbroker events ls -t acme -o ndjson | eventbroker publish --url elsewhere:50051
tail -F readings.ndjson | eventbroker publish sensor.read Sensor/s1 --lines -t acme
eventbroker publish test.happened Test/{n} '{"n": {n}}' --count 10000 --rate 500 -t acme
"""

Words = Annotated[list[str] | None, typer.Option(show_default=False)]


def add_to(app: typer.Typer) -> None:
    command(app, "publish", examples=_EXAMPLES, panel="Publish and consume")(publish)


async def publish(
    link: Link,
    out: Output,
    event_type: Annotated[str, typer.Argument(metavar="TYPE", help="What happened: user.created.")] = "",
    aggregate: Annotated[str, typer.Argument(metavar="AGGREGATE", help="What it happened to: User/u1.")] = "",
    data: Annotated[str, typer.Argument(metavar="DATA", help="JSON; @FILE, or @- for standard input. Else {}.")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Events, a line of JSON each; - for standard input.")
    ] = None,
    lines: Annotated[bool, typer.Option("--lines", help="Each line is the DATA of an event of TYPE.")] = False,
    count: Annotated[
        int | None, typer.Option("--count", "-n", min=1, help="Make up so many; {n} is the number of each.")
    ] = None,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Events a second at most.")] = 0,
    expect: Annotated[
        list[str] | None,
        typer.Option(metavar="AGGREGATE=VERSION", help="Only if it is at this version (0: it is new). All or none."),
    ] = None,
    all_or_none: Annotated[bool, typer.Option("--all-or-none", help="All lines together: 1,000 at most.")] = False,
    id: Annotated[str, typer.Option("--id", help="The event's id; else a UUID is made up.")] = "",
    version: Annotated[str, typer.Option(help="The version of the data's shape.")] = "",
    time: Annotated[str, typer.Option(help=f"When it happened: {given.TIME_HELP}.", show_default="now")] = "",
    user: Annotated[str, typer.Option(help="The user who caused it.")] = "",
    source: Annotated[str, typer.Option(help="The service that publishes it.")] = "",
    correlation: Annotated[str, typer.Option(help="Joins the events of one chain of causes.")] = "",
    caused_by: Annotated[str, typer.Option(help="The event that caused it.")] = "",
    tag: Words = None,
    attribute: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", show_default=False)] = None,
    content_type: Annotated[str, typer.Option(help="DATA is bytes of this type, not JSON.")] = "",
) -> None:
    """Publish events, and return when they are stored.

    One event: TYPE, AGGREGATE and DATA. Many: a line of JSON each, from a file or standard input, with the fields that
    `events ls -o ndjson` prints; `data`, any JSON, may stand for `json`. What a line leaves out is taken from the
    arguments and options; id and time come by themselves. Each line is stored or refused for itself, in order; refused
    ones are named with their line, and the exit code is 1.

    Publishing the same lines again stores nothing twice, if they have ids and times.
    """
    common = like(link.tenant, event_type, aggregate, (id, version, time, user, source, correlation, caused_by))
    common.metadata.tags.extend(tag or ())
    common.metadata.attributes.update(pairs(attribute or ()))
    if not common.metadata.ByteSize():
        common.ClearField("metadata")
    if lines or file or not (event_type or count):
        if count or id or data:
            raise Failed("--count, --id and DATA are not for events that are read")
        if lines and not (event_type and aggregate):
            raise Failed("--lines needs TYPE and AGGREGATE")
        if file is None and sys.stdin.isatty():
            raise Failed("give TYPE and AGGREGATE, a --file, or events on standard input; --help shows examples")
        with ExitStack() as stack:
            descriptor, size = _opened(file, stack)
            drafts = of_lines(descriptor, Envelope(common, data_lines=lines))
            if all_or_none or expect:
                await _together(link, out, await _all(drafts), expect or ())
            else:
                await _many(link, out, drafts, size, rate, of_bytes=True)
        return
    put(common, data, content_type)
    if count:
        if id or expect or all_or_none:
            raise Failed("--id, --expect and --all-or-none are not for events that are made up")
        common.event_type = common.event_type or "test.happened"
        if not aggregate:
            common.aggregate_type, common.aggregate_id = "Test", "{n}"
        await _many(link, out, made_up(Envelope(common), count), count, rate, of_bytes=False)
    elif not aggregate:
        raise Failed("give an AGGREGATE, such as User/u1")
    else:
        await _together(link, out, [Envelope(common).made()], expect or ())


async def _together(link: Link, out: Output, events: list[event_pb2.Event], expect: Any) -> None:
    """All or none."""
    request = pb.PublishRequest(events=events, expectations=[expectation(text) for text in expect])
    response = await link.connection.call(link.publisher.Publish, request)
    if out.format is Format.json and len(response.results) > 1:
        out.json([as_json(result) for result in response.results], indent=2)
        return
    for result in response.results:
        if out.for_people:
            out.show(Text(_told(result)))
        else:
            out.line(result, indent=2 if out.format is Format.json else None)


async def _many(
    link: Link, out: Output, drafts: AsyncIterator[list[Draft]], size: int, rate: float, *, of_bytes: bool
) -> None:
    results: list[Any] = []
    with _progress(out, size, of_bytes=of_bytes) as progress:
        task = progress.add_task("publishing", total=size or None, stored="0")

        def told(draft: Draft, result: pb.PublishResult) -> None:
            if result.outcome == pb.PUBLISH_OUTCOME_REFUSED:
                complain(f"line {draft.line}: {why(result)}")
            if out.format is Format.ndjson:
                out.line(result)
            elif out.format is Format.json:
                results.append(as_json(result))
            progress.update(task, advance=draft.size, stored=number(sender.counts.stored))

        sender = Sender(link, told, rate)
        try:
            counts = await sender.send(drafts)
        except asyncio.CancelledError:
            out.say(f"interrupted: {counted(stored := sender.counts.stored, 'event')} {are(stored)} stored")
            raise
    if out.format is Format.json:
        out.json(results, indent=2)
    elif out.for_people:
        again = f", {number(counts.duplicates)} stored before" if counts.duplicates else ""
        refused = f", {number(counts.refused)} refused" if counts.refused else ""
        out.show(Text(f"{counted(counts.stored, 'event')} stored{again}{refused}"))
    if counts.refused:
        raise typer.Exit(Code.PARTLY)


async def _all(drafts: AsyncIterator[list[Draft]]) -> list[event_pb2.Event]:
    """Raises Failed if a line is no event: then none is published."""
    events = []
    async for some in drafts:
        for draft in some:
            if draft.event is None:
                raise Failed(f"line {draft.line}: {draft.fault}. Nothing was published")
            events.append(draft.event)
    if not 1 <= len(events) <= 1_000:
        raise Failed(f"{counted(len(events), 'event')}: 1 to 1,000 can be published together")
    return events


def _opened(file: Path | None, stack: ExitStack) -> tuple[int, int]:
    """A descriptor, and the size in bytes, 0 if it is not known. Raises Failed."""
    if file is None or str(file) == "-":
        return sys.stdin.fileno(), 0
    try:
        opened = stack.enter_context(file.expanduser().open("rb"))
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}") from None
    return opened.fileno(), os.fstat(opened.fileno()).st_size


def _progress(out: Output, size: int, *, of_bytes: bool) -> Progress:
    """On the terminal of standard error, if it is one; how much of the input, and how many events are stored."""
    known = (BarColumn(), TaskProgressColumn() if of_bytes else MofNCompleteColumn(), TimeRemainingColumn())
    columns = (TextColumn("{task.description}"), *(known if size else ()), TextColumn("{task.fields[stored]} stored"))
    return Progress(*columns, console=out.remarks, transient=True, disable=not out.remarks.is_terminal)


def _told(result: pb.PublishResult) -> str:
    before = " before" if result.outcome == pb.PUBLISH_OUTCOME_DUPLICATE else ""
    where = f"position {number(result.position)}, version {number(result.aggregate_version)}"
    return f"{result.event_id} was stored{before}: {where} of its aggregate"
