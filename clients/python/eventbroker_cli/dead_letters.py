"""`eventbroker dlq`: what a group has given up; why; and another try, or the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from eventbroker.v1 import dead_letter_service_pb2 as pb
from rich.console import Group as Stack
from rich.text import Text

from eventbroker_cli import event_views, given
from eventbroker_cli.asking import sure
from eventbroker_cli.command import command
from eventbroker_cli.completing import group_names
from eventbroker_cli.exits import Failed
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, facts, table
from eventbroker_cli.readable import are, counted, moment, number

if TYPE_CHECKING:
    from rich.console import RenderableType

Group = Annotated[str, typer.Argument(help="The group.", show_default=False, autocompletion=group_names)]
Ids = Annotated[list[str] | None, typer.Argument(metavar="IDS...", help="Of these events.", show_default=False)]
Every = Annotated[bool, typer.Option("--all", help="All dead letters of the group.")]
Types = Annotated[list[str] | None, typer.Option("--type", help="Of this type, or another that is given: user.*.")]
Aggregate = Annotated[str, typer.Option("--aggregate", "-a", metavar="TYPE[/ID]", help="Of User/u1; of all: User.")]
EventTenant = Annotated[str, typer.Option("--event-tenant", help="Of this tenant, in a group of all tenants.")]
Reason = Annotated[str, typer.Option("--reason", help="Whose reason contains this text.")]
Since = Annotated[str, typer.Option("--since", help=f"Dead at this time or later: {given.TIME_HELP}.")]
Before = Annotated[str, typer.Option("--before", help="Dead before this time.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only count: change nothing.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def add_to(app: typer.Typer) -> None:
    redrive_examples = """
        eventbroker dlq redrive billing --reason timeout --dry-run
        eventbroker dlq redrive billing --reason timeout --max 1000 --rate 20
        eventbroker dlq redrive billing --all
    """
    command(app, "ls", examples="eventbroker dlq ls billing\neventbroker dlq ls billing --since 1h -o ndjson")(ls)
    command(app, "show", examples="eventbroker dlq show billing e1 -t acme")(show)
    command(app, "redrive", examples=redrive_examples)(redrive)
    command(app, "rm", examples="eventbroker dlq rm billing e1 e2\neventbroker dlq rm billing --all --dry-run")(rm)


async def ls(
    link: Link,
    out: Output,
    group: Group,
    types: Types = None,
    aggregate: Aggregate = "",
    event_tenant: EventTenant = "",
    reason: Reason = "",
    since: Since = "",
    before: Before = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=0, help="At most so many; 0: all.")] = 50,
) -> None:
    """List the dead letters of a group, the newest first."""
    asked = _filter(None, False, types, aggregate, event_tenant, reason, since, before)
    request = pb.ListDeadLettersRequest(group=group, tenant_id=link.tenant, filter=asked)
    found = link.pages(link.dead_letters.ListDeadLetters, request, "dead_letters", limit)
    await out.list(found, ("dead since", "type", "aggregate", "tenant", "id", ">attempts", "reason"), _row)


async def show(
    link: Link,
    out: Output,
    group: Group,
    event_id: Annotated[str, typer.Argument(metavar="ID", help="The event's id.", show_default=False)],
    event_tenant: EventTenant = "",
) -> None:
    """Show a dead letter: each attempt with its error, and the event."""
    request = pb.GetDeadLetterRequest(
        group=group, tenant_id=link.tenant, event_tenant_id=event_tenant, event_id=event_id
    )
    answer = await link.ask(link.dead_letters.GetDeadLetter, request)
    out.answer(answer, lambda: _view(answer))


async def redrive(
    link: Link,
    out: Output,
    group: Group,
    ids: Ids = None,
    every: Every = False,
    types: Types = None,
    aggregate: Aggregate = "",
    event_tenant: EventTenant = "",
    reason: Reason = "",
    since: Since = "",
    before: Before = "",
    most: Annotated[int, typer.Option("--max", min=0, max=100_000, help="At most so many; 0: 10,000.")] = 0,
    rate: Annotated[float, typer.Option("--rate", min=0, help="Events a second; 0: all at once.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Deliver dead letters to their group again, the oldest first. Their attempts are counted from 1 again.

    Say which: by ids, by conditions that must all hold, or --all.
    """
    request = pb.RedriveDeadLettersRequest(
        group=group,
        tenant_id=link.tenant,
        filter=_filter(ids, every, types, aggregate, event_tenant, reason, since, before, needed=True),
        max_events=most,
        events_per_second=rate,
        dry_run=dry_run,
    )
    answer = await link.ask(link.dead_letters.RedriveDeadLetters, request)
    left = f", {number(answer.remaining)} {are(answer.remaining, dry_run=dry_run)} left" if answer.remaining else ""
    done = f"{counted(answer.redriven, 'dead letter')} {are(answer.redriven, dry_run=dry_run)} delivered again{left}"
    out.answer(answer, lambda: Text(done))


async def rm(
    link: Link,
    out: Output,
    group: Group,
    ids: Ids = None,
    every: Every = False,
    types: Types = None,
    aggregate: Aggregate = "",
    event_tenant: EventTenant = "",
    reason: Reason = "",
    since: Since = "",
    before: Before = "",
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Forget dead letters: the group never gets these events again. The events themselves stay in the store.

    Say which: by ids, by conditions that must all hold, or --all.
    """
    request = pb.DeleteDeadLettersRequest(
        group=group,
        tenant_id=link.tenant,
        filter=_filter(ids, every, types, aggregate, event_tenant, reason, since, before, needed=True),
        dry_run=True,
    )
    answer = await link.ask(link.dead_letters.DeleteDeadLetters, request)
    if not dry_run and answer.deleted:
        sure(f"Forget {counted(answer.deleted, 'dead letter')} of group {group} for ever?", yes=yes)
        request.dry_run = False
        answer = await link.ask(link.dead_letters.DeleteDeadLetters, request)
    done = f"{counted(answer.deleted, 'dead letter')} {are(answer.deleted, dry_run=dry_run)} gone"
    out.answer(answer, lambda: Text(done))


def _filter(
    ids: list[str] | None,
    every: bool,
    types: list[str] | None,
    aggregate: str,
    event_tenant: str,
    reason: str,
    since: str,
    before: str,
    *,
    needed: bool = False,
) -> pb.DeadLetterFilter:
    """Raises Failed if it is needed, and nothing was said."""
    kind, name = given.aggregate(aggregate) if "/" in aggregate else (aggregate, "")
    asked = pb.DeadLetterFilter(
        all=every,
        event_types=types or (),
        aggregate_type=kind,
        aggregate_id=name,
        event_tenant_id=event_tenant,
        event_ids=ids or (),
        reason_contains=reason,
    )
    if since:
        asked.dead_after.CopyFrom(given.time(since))
    if before:
        asked.dead_before.CopyFrom(given.time(before))
    if needed and not asked.ByteSize():
        raise Failed("say which dead letters: event ids, conditions such as --reason, or --all")
    return asked


def _row(letter: pb.DeadLetter) -> tuple[str | Text, ...]:
    return (
        moment(letter.dead_at),
        Text(letter.event_type, "cyan"),
        f"{letter.aggregate_type}/{letter.aggregate_id}",
        letter.event_tenant_id,
        letter.event_id,
        number(letter.attempts),
        letter.reason,
    )


def _view(answer: pb.GetDeadLetterResponse) -> RenderableType:
    letter = answer.dead_letter
    why = "a consumer rejected it" if letter.rejected else f"attempt {number(letter.attempts)} failed"
    attempts = [(str(each.attempt), moment(each.at), each.consumer, each.error) for each in answer.history]
    parts: list[RenderableType] = [
        facts((("dead since", moment(letter.dead_at)), ("because", why), ("reason", letter.reason)))
    ]
    if attempts:
        parts += [Text(), table((">attempt", "failed", "consumer", "error"), attempts)]
    return Stack(*parts, Text(), event_views.view(answer.event))
