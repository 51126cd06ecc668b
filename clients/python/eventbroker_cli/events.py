"""`eventbroker events`: find what is stored, and see what caused what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from eventbroker.v1 import event_store_service_pb2 as pb
from rich.console import Group as Stack
from rich.text import Text

from eventbroker_cli import event_views, filters, given
from eventbroker_cli.command import command
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output
from eventbroker_cli.readable import number

if TYPE_CHECKING:
    from rich.console import RenderableType

Limit = Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")]
EventId = Annotated[str, typer.Argument(metavar="ID", help="The event's id.", show_default=False)]


def add_to(app: typer.Typer) -> None:
    ls_examples = """
        eventbroker events ls -t acme
        eventbroker events ls 'user.*' --since 1h --user u1 -t acme
        eventbroker events ls -t acme --oldest -n 0 -o ndjson > acme.ndjson
    """
    command(app, "ls", examples=ls_examples)(ls)
    command(app, "show", examples="eventbroker events show e1 -t acme -o json | jq -r .json")(show)
    command(app, "of", examples="eventbroker events of User/u1 -t acme\neventbroker events of User/u1 --from 3")(of)
    command(app, "tree", examples="eventbroker events tree e1 -t acme")(tree)


async def ls(
    link: Link,
    out: Output,
    types: filters.Types = None,
    limit: Limit = 20,
    oldest: Annotated[bool, typer.Option("--oldest", help="The oldest first; else the newest.")] = False,
    since: Annotated[str, typer.Option(help=f"Stored at this time or later: {given.TIME_HELP}.")] = "",
    before: Annotated[str, typer.Option(help="Stored before this time.")] = "",
    after: Annotated[int, typer.Option(min=0, help="After this position.")] = 0,
    upto: Annotated[int, typer.Option(min=0, help="Up to this position.")] = 0,
    aggregate: filters.Aggregate = "",
    correlation: filters.Correlation = "",
    caused_by: filters.CausedBy = "",
    user: filters.User = "",
    source: filters.Sources = None,
    tag: filters.Tags = None,
) -> None:
    """List the events of a tenant, the newest first. All conditions that are given must hold."""
    request = pb.ListEventsRequest(
        tenant_id=link.tenant,
        filter=filters.filter_of(types, aggregate, correlation, caused_by, user, source, tag),
        after_position=after,
        upto_position=upto,
        order=pb.EVENT_ORDER_OLDEST_FIRST if oldest else pb.EVENT_ORDER_NEWEST_FIRST,
    )
    if since:
        request.recorded_from.CopyFrom(given.time(since))
    if before:
        request.recorded_before.CopyFrom(given.time(before))
    found = link.pages(link.events.ListEvents, request, "events", limit)
    count = await out.list(found, event_views.HEADS, event_views.row)
    if limit and count == limit and out.for_people and out.remarks.is_terminal:
        out.say(f"the first {number(count)}; -n 0 for all")


async def show(link: Link, out: Output, event_id: EventId) -> None:
    """Show one event, all there is to it."""
    answer = await link.ask(link.events.GetEvent, pb.GetEventRequest(tenant_id=link.tenant, event_id=event_id))
    out.answer(answer.event, lambda: event_views.view(answer.event))


async def of(
    link: Link,
    out: Output,
    aggregate: Annotated[str, typer.Argument(metavar="TYPE/ID", help="The aggregate.", show_default=False)],
    start: Annotated[int, typer.Option("--from", min=0, help="Begin with this version.")] = 0,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first.")] = False,
    limit: Limit = 0,
) -> None:
    """List the events of one aggregate, by version."""
    kind, name = given.aggregate(aggregate)
    request = pb.ListAggregateEventsRequest(
        tenant_id=link.tenant,
        aggregate_type=kind,
        aggregate_id=name,
        from_version=start,
        order=pb.EVENT_ORDER_NEWEST_FIRST if newest else pb.EVENT_ORDER_OLDEST_FIRST,
    )
    found = link.pages_of_aggregate(link.events.ListAggregateEvents, request, "events", limit)
    await out.list(found, event_views.HEADS, event_views.row)


async def tree(
    link: Link,
    out: Output,
    event_id: EventId,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, max=1000, help="The nearest so many.")] = 100,
) -> None:
    """Show what caused an event, and what it caused: the tree of its correlation."""
    request = pb.GetCausalityRequest(tenant_id=link.tenant, event_id=event_id, max_events=limit)
    answer = await link.ask(link.events.GetCausality, request)
    out.answer(answer, lambda: _drawn(answer, event_id))


def _drawn(answer: pb.GetCausalityResponse, asked: str) -> RenderableType:
    below: dict[str, list[pb.CausalEvent]] = {}
    for each in answer.events:
        below.setdefault(each.parent_event_id, []).append(each)
    lines: list[RenderableType] = []
    waiting: list[tuple[pb.CausalEvent, str, str]] = [(root, "", "") for root in reversed(below.get("", []))]
    while waiting:  # no recursion: a chain may be a thousand long
        each, lead, branch = waiting.pop()
        lines.append(Text(lead + branch, "dim") + _node(each, asked))
        children = below.get(each.event.event_id, [])
        under = lead + {"": "", "├─ ": "│  ", "└─ ": "   "}[branch]
        for place, child in reversed(list(enumerate(children))):
            waiting.append((child, under, "└─ " if place == len(children) - 1 else "├─ "))
    if answer.truncated:
        lines.append(Text("There are more; --limit shows up to 1,000.", "yellow"))
    return Stack(*lines)


def _node(each: pb.CausalEvent, asked: str) -> Text:
    event = each.event
    node = event_views.line(event, tenant=False, remark=event.event_id)
    if event.event_id == asked:
        node.stylize("bold")
    return node
