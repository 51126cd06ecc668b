"""`eventbroker stats`: what went through a broker, and how groups stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker.v1 import stats_service_pb2 as pb
from rich.console import Group as Stack
from rich.text import Text

from eventbroker_cli.command import command
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, table
from eventbroker_cli.readable import duration, moment, number, seconds_of

if TYPE_CHECKING:
    import typer
    from rich.console import RenderableType

_EXAMPLES = """
eventbroker stats
eventbroker stats -o json | jq '[.groups[] | select((.lag | tonumber) > 1000) | .name]'
"""


def add_to(app: typer.Typer) -> None:
    command(app, "stats", examples=_EXAMPLES, panel="Look and mend")(stats)


async def stats(link: Link, out: Output) -> None:
    """Show events by type since the broker started, and the lag of each group.

    Counts are those of the broker that answers, and of all tenants together: with --tenant there are groups only.
    """
    answer = await link.ask(link.stats.GetStats, pb.GetStatsRequest(tenant_id=link.tenant))
    out.answer(answer, lambda: view(answer))


def view(answer: pb.GetStatsResponse) -> RenderableType:
    parts: list[RenderableType] = []
    if answer.event_types:
        types = [
            (
                Text(each.event_type, "cyan"),
                number(each.published),
                number(each.delivered),
                number(each.acked),
                Text(number(each.failed), "red" if each.failed else ""),
                duration(seconds_of(each.average_latency)) if each.HasField("average_latency") else "",
                duration(seconds_of(each.p99_latency)) if each.HasField("p99_latency") else "",
            )
            for each in answer.event_types
        ]
        heads = (f"since {moment(answer.since)}", ">published", ">delivered", ">acked", ">failed", ">latency", ">p99")
        parts += [table(heads, types), Text()]
    groups = [
        (
            each.name,
            each.tenant_id,
            Text(number(each.lag), "yellow" if each.lag else ""),
            duration(seconds_of(each.oldest_unsettled_age)) if each.HasField("oldest_unsettled_age") else "",
        )
        for each in answer.groups
    ]
    return Stack(*parts, table(("group", "tenant", ">lag", ">oldest unsettled"), groups))
