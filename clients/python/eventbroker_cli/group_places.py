"""`eventbroker groups seek`, `explain` and `wait`: where a group is in the log, and where an event is on its way."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from eventbroker.v1 import group_service_pb2 as pb
from eventbroker.v1 import subscriber_service_pb2
from rich.text import Text

from eventbroker_cli import given
from eventbroker_cli.command import command
from eventbroker_cli.exits import Code
from eventbroker_cli.groups import Name
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, facts
from eventbroker_cli.readable import are, counted, enum, moment, number

if TYPE_CHECKING:
    from rich.console import RenderableType

_EDGES = {
    "earliest": subscriber_service_pb2.START_POINT_EARLIEST,
    "latest": subscriber_service_pb2.START_POINT_LATEST,
}
_UNTIL = {
    pb.DELIVERY_STATE_OUT: "deadline",
    pb.DELIVERY_STATE_RETRY: "next attempt",
    pb.DELIVERY_STATE_DEAD: "dead since",
}
_MARGIN = 5.0  # seconds by which a call may outlast what it waits for

EventTenant = Annotated[str, typer.Option("--event-tenant", help="The tenant of the event, if the group has none.")]


def add_to(app: typer.Typer) -> None:
    seek_examples = """
        eventbroker groups seek billing earliest --dry-run
        eventbroker groups seek billing 2026-01-02T00:00:00Z --rate 200
        eventbroker groups seek billing 2h
        eventbroker groups seek billing latest
    """
    command(app, "seek", examples=seek_examples)(seek)
    command(app, "explain", examples="eventbroker groups explain billing e1 --event-tenant acme")(explain)
    command(app, "wait", examples="eventbroker groups wait billing 1200 -t acme && ./report")(wait)


def place(text: str) -> pb.LogPoint:
    """ "earliest", "latest", a position, or a time. Raises Failed."""
    if text in _EDGES:
        return pb.LogPoint(edge=_EDGES[text])
    if text.isdecimal():
        return pb.LogPoint(position=int(text))
    return pb.LogPoint(time=given.time(text))


async def seek(
    link: Link,
    out: Output,
    name: Name,
    to: Annotated[str, typer.Argument(metavar="PLACE", help="See above.", show_default=False)],
    rate: Annotated[float, typer.Option("--rate", min=0, help="Events a second of the past at most.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count: change nothing.")] = False,
) -> None:
    """Move a group: back, to get events again, or forward, to skip some.

    PLACE is earliest, latest, a position (what is after it comes), a time (what was stored then or later comes), or how
    long ago (2h). What is out with consumers comes again or is skipped, too, and retries that wait are forgotten; dead
    letters stay.
    """
    request = pb.SeekGroupRequest(
        name=name, tenant_id=link.tenant, to=place(to), dry_run=dry_run, max_events_per_second=rate
    )
    answer = await link.ask(link.groups.SeekGroup, request)
    out.answer(answer, lambda: _moved(answer, dry_run=dry_run))


async def explain(
    link: Link,
    out: Output,
    name: Name,
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.", show_default=False)],
    event_tenant: EventTenant = "",
) -> None:
    """Tell where an event is on its way to a group, and why it does not come."""
    request = pb.ExplainDeliveryRequest(
        name=name, tenant_id=link.tenant, event_tenant_id=event_tenant, event_id=event_id
    )
    answer = await link.ask(link.groups.ExplainDelivery, request)
    out.answer(answer, lambda: _explained(answer))


async def wait(
    link: Link,
    out: Output,
    name: Name,
    position: Annotated[int, typer.Argument(min=1, help="As publish told it.", show_default=False)],
    event_tenant: EventTenant = "",
    within: Annotated[str, typer.Option(help="How long to wait: up to 60s.")] = "10s",
) -> None:
    """Wait until a group is done with everything up to a position. Exits with 1 if it is not in time."""
    request = pb.WaitForGroupRequest(
        name=name, tenant_id=link.tenant, event_tenant_id=event_tenant, position=position, timeout=given.span(within)
    )
    timeout = given.seconds(within) + _MARGIN
    answer = await link.connection.call_once(link.groups.WaitForGroup, request, timeout)
    done = f"{name} is done with everything up to position {number(answer.settled_position)}"
    out.answer(answer, lambda: Text(done if answer.reached else f"not yet: {done}"))
    if not answer.reached:
        raise typer.Exit(Code.PARTLY)


def _moved(answer: pb.SeekGroupResponse, *, dry_run: bool) -> RenderableType:
    told = []
    for count, what in ((answer.events_again, "delivered again"), (answer.events_skipped, "skipped")):
        if count:
            many = "many events (more than 1,000,000 positions: not counted)" if count < 0 else counted(count, "event")
            told.append(f"{many} {are(count, dry_run=dry_run)} {what}")
    return Text("; ".join(told) or "no event is delivered again or skipped")


def _explained(answer: pb.ExplainDeliveryResponse) -> RenderableType:
    state = enum(pb.DeliveryState.Name(answer.state), "DELIVERY_STATE")
    return facts(
        (
            ("state", Text(state, "bold")),
            ("", answer.explanation),
            ("position", f"{number(answer.position)} of shard {answer.shard}"),
            ("group is done up to", number(answer.settled_position)),
            ("group", "paused" if answer.paused else ""),
            ("failed attempts", number(answer.failed_attempts) if answer.failed_attempts else ""),
            ("last error", answer.last_error),
            ("consumer", answer.consumer_id),
            (_UNTIL.get(answer.state, "until"), moment(answer.until)),
            ("behind", answer.behind_event_id),
        )
    )
