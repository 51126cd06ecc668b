"""`eventbroker aggregate`: what is known of one, also as of an earlier version or time; and which there are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from eventbroker.v1 import event_store_service_pb2 as pb
from rich.console import Group as Stack
from rich.text import Text

from eventbroker_cli import event_views, given
from eventbroker_cli.command import command
from eventbroker_cli.exits import Failed
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, facts, table
from eventbroker_cli.readable import moment, number

if TYPE_CHECKING:
    from rich.console import RenderableType

_EXAMPLES = """
eventbroker aggregate User/u1 -t acme
eventbroker aggregate User/u1 --at 3 -t acme
eventbroker aggregate User/u1 --at 2026-01-02T00:00:00Z -o json -t acme
eventbroker aggregate User/u1 --snapshots -t acme
eventbroker aggregate User -n 0 -o ndjson -t acme
"""


def add_to(app: typer.Typer) -> None:
    command(app, "aggregate", examples=_EXAMPLES, panel="Look and mend")(aggregate)


async def aggregate(
    link: Link,
    out: Output,
    which: Annotated[str, typer.Argument(metavar="TYPE/ID", help="The aggregate, or only a type.")] = "",
    at: Annotated[str, typer.Option(metavar="VERSION|TIME", help=f"As it was: {given.TIME_HELP}.")] = "",
    every: Annotated[bool, typer.Option("--all", help="All its events, and no snapshot.")] = False,
    snapshots: Annotated[bool, typer.Option("--snapshots", help="List its snapshots instead.")] = False,
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="Of a list at most so many; 0: all.")] = 100,
) -> None:
    """Show an aggregate: its version, its latest snapshot, and the events after that, now or as of then.

    With a type alone, or nothing, it lists the aggregates of the tenant, by type and id.
    """
    kind, name = given.aggregate(which) if "/" in which else (which, "")
    if name and snapshots:
        await _snapshots(link, out, kind, name, limit)
    elif name:
        await _show(link, out, kind, name, at, every=every)
    elif at or every or snapshots:
        raise Failed("give the aggregate: its type, a slash and its id, such as User/u1")
    else:
        await _list(link, out, kind, limit)


async def _list(link: Link, out: Output, kind: str, limit: int) -> None:
    request = pb.ListAggregatesRequest(tenant_id=link.tenant, aggregate_type=kind)
    found = link.pages(link.events.ListAggregates, request, "aggregates", limit)
    heads = ("aggregate", ">version", ">position", "latest event")
    await out.list(
        found,
        heads,
        lambda each: (
            f"{each.aggregate_type}/{each.aggregate_id}",
            number(each.version),
            number(each.position),
            moment(each.record_time),
        ),
    )


async def _show(link: Link, out: Output, kind: str, name: str, at: str, *, every: bool) -> None:
    request = pb.GetAggregateRequest(
        tenant_id=link.tenant, aggregate_type=kind, aggregate_id=name, without_snapshot=every
    )
    if at.isdecimal():
        request.as_of_version = int(at)
    elif at:
        request.as_of_time.CopyFrom(given.time(at))
    answer = await link.ask(link.events.GetAggregate, request)
    if answer.next_version:
        await _rest(link, answer)
    out.answer(answer, lambda: _view(answer))


async def _snapshots(link: Link, out: Output, kind: str, name: str, limit: int) -> None:
    request = pb.ListSnapshotsRequest(tenant_id=link.tenant, aggregate_type=kind, aggregate_id=name)
    found = link.pages_of_aggregate(link.events.ListSnapshots, request, "snapshots", limit)
    await out.list(found, (">version", "saved"), lambda each: (number(each.version), moment(each.create_time)))


async def _rest(link: Link, answer: pb.GetAggregateResponse) -> None:
    """Adds the events that found no room in the answer."""
    whole = answer.aggregate
    request = pb.ListAggregateEventsRequest(
        tenant_id=link.tenant,
        aggregate_type=whole.aggregate_type,
        aggregate_id=whole.aggregate_id,
        from_version=answer.next_version,
    )
    left = whole.version - answer.next_version + 1
    async for event in link.pages(link.events.ListAggregateEvents, request, "events", left):
        answer.events.append(event)
    answer.next_version = 0


def _view(answer: pb.GetAggregateResponse) -> RenderableType:
    whole, snapshot = answer.aggregate, answer.snapshot
    saved = f"version {number(snapshot.version)}, {moment(snapshot.create_time)}" if answer.HasField("snapshot") else ""
    parts: list[RenderableType] = [
        facts(
            (
                ("aggregate", f"{whole.aggregate_type}/{whole.aggregate_id}"),
                ("version", number(whole.version)),
                ("latest event", f"{moment(whole.record_time)} at position {number(whole.position)}"),
                ("snapshot", saved),
                ("state then", event_views.data_of(snapshot)),
            )
        )
    ]
    if answer.events:
        parts += [Text(), table(event_views.HEADS, (event_views.row(event) for event in answer.events))]
    return Stack(*parts)
