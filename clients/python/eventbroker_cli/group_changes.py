"""`eventbroker groups create` and `update`: what a group is."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from eventbroker.v1 import group_service_pb2 as pb

from eventbroker_cli import given
from eventbroker_cli.command import command
from eventbroker_cli.exits import Failed
from eventbroker_cli.group_places import place
from eventbroker_cli.groups import Name, described
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output

NewName = Annotated[str, typer.Argument(help="Its name.", show_default=False)]
Types = Annotated[list[str] | None, typer.Argument(metavar="TYPES...", help="user.created, user.*; all if none.")]
TypeOptions = Annotated[list[str] | None, typer.Option("--type", help="Event types that it gets; again for more.")]
Sources = Annotated[list[str] | None, typer.Option("--source", help="Only of these sources.")]
AggregateTypes = Annotated[list[str] | None, typer.Option("--aggregate-type", help="Only of these aggregates.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="Only with all of these tags.")]
AckDeadline = Annotated[str | None, typer.Option(help="To settle an event: 30s, up to 12h.")]
Attempts = Annotated[int | None, typer.Option("--max-attempts", min=1, help="Then it is a dead letter: 10.")]
Backoff = Annotated[str | None, typer.Option("--backoff", help="Before the second attempt: 1s.")]
MaxBackoff = Annotated[str | None, typer.Option("--max-backoff", help="Between attempts at most: 5m.")]
Multiplier = Annotated[float | None, typer.Option("--multiplier", help="From wait to wait: 2.")]
Retention = Annotated[str | None, typer.Option("--retention", help="How long dead letters stay: 30d.")]
Hold = Annotated[
    bool | None, typer.Option("--hold-aggregate/--no-hold-aggregate", help="A dead letter holds its aggregate.")
]
MaxUnsettled = Annotated[int | None, typer.Option("--max-unsettled", help="Events that a consumer may have out.")]
MaxBytes = Annotated[int | None, typer.Option("--max-unsettled-bytes", help="Their size in bytes.")]
MaxBatch = Annotated[int | None, typer.Option("--max-batch", help="Events in one response.")]


def add_to(app: typer.Typer) -> None:
    create_examples = """
        eventbroker groups create billing 'user.*' order.placed --ack-deadline 1m --max-attempts 20
        eventbroker groups create ledger --ordered --hold-aggregate --from latest
        eventbroker groups create search --fair --source signup --tag eu
    """
    update_examples = """
        eventbroker groups update billing --type 'user.*' --type 'role.*'
        eventbroker groups update billing --ack-deadline 2m --reset tags
    """
    command(app, "create", examples=create_examples)(create)
    command(app, "update", examples=update_examples)(update)


async def create(
    link: Link,
    out: Output,
    name: NewName,
    types: Types = None,
    start: Annotated[str, typer.Option("--from", help="earliest, latest, a position, or a time.")] = "earliest",
    ordered: Annotated[bool, typer.Option("--ordered", help="One event of an aggregate at a time, in order.")] = False,
    fair: Annotated[bool, typer.Option("--fair", help="Tenants take turns; for a group of all tenants.")] = False,
    source: Sources = None,
    aggregate_type: AggregateTypes = None,
    tag: Tags = None,
    ack_deadline: AckDeadline = None,
    attempts: Attempts = None,
    backoff: Backoff = None,
    max_backoff: MaxBackoff = None,
    multiplier: Multiplier = None,
    retention: Retention = None,
    hold: Hold = None,
    max_unsettled: MaxUnsettled = None,
    max_bytes: MaxBytes = None,
    max_batch: MaxBatch = None,
) -> None:
    """Make a group, before anybody subscribes. Order and fairness cannot be changed later."""
    request = pb.CreateGroupRequest(
        name=name,
        tenant_id=link.tenant,
        start=place(start),
        ordering=pb.ORDERING_BY_AGGREGATE if ordered else pb.ORDERING_NONE,
        fairness=pb.FAIRNESS_BY_TENANT if fair else pb.FAIRNESS_NONE,
    )
    _fill(request, types, source, aggregate_type, tag, ack_deadline)
    _retry(request.retry_policy, attempts, backoff, max_backoff, multiplier)
    _dead(request.dead_letter_policy, retention, hold)
    _limit(request.limits, max_unsettled, max_bytes, max_batch)
    answer = await link.ask(link.groups.CreateGroup, request)
    out.answer(answer.group, lambda: described(answer.group))


async def update(
    link: Link,
    out: Output,
    name: Name,
    types: TypeOptions = None,
    source: Sources = None,
    aggregate_type: AggregateTypes = None,
    tag: Tags = None,
    ack_deadline: AckDeadline = None,
    attempts: Attempts = None,
    backoff: Backoff = None,
    max_backoff: MaxBackoff = None,
    multiplier: Multiplier = None,
    retention: Retention = None,
    hold: Hold = None,
    max_unsettled: MaxUnsettled = None,
    max_bytes: MaxBytes = None,
    max_batch: MaxBatch = None,
    reset: Annotated[
        list[str] | None, typer.Option(metavar="FIELD", help="To its default: event_types, tags, limits, ...")
    ] = None,
) -> None:
    """Change what is given, while consumers stay connected. Lists are replaced; the rest stays as it is.

    What it does to events that are on their way: docs/groups.md.
    """
    found = await link.ask(link.groups.GetGroup, pb.GetGroupRequest(name=name, tenant_id=link.tenant))
    request = pb.UpdateGroupRequest(name=name, tenant_id=link.tenant)
    changed = _fill(request, types, source, aggregate_type, tag, ack_deadline)
    for field, change, values in (
        ("retry_policy", _retry, (attempts, backoff, max_backoff, multiplier)),
        ("dead_letter_policy", _dead, (retention, hold)),
        ("limits", _limit, (max_unsettled, max_bytes, max_batch)),
    ):
        part: Any = getattr(request, field)
        if change(part, *values):  # the broker replaces it as a whole: what is not given stays
            part.CopyFrom(getattr(found.group, field))
            change(part, *values)
            changed.append(field)
        else:
            request.ClearField(field)  # type: ignore[arg-type] # one of the three
    changed += reset or []
    if not changed:
        raise Failed("say what is to change; --help lists the options")
    request.update_mask.paths.extend(changed)
    answer = await link.ask(link.groups.UpdateGroup, request)
    out.answer(answer.group, lambda: described(answer.group))


def _fill(
    request: Any,
    types: list[str] | None,
    source: list[str] | None,
    aggregate_type: list[str] | None,
    tag: list[str] | None,
    ack_deadline: str | None,
) -> list[str]:
    """Answers the fields that were given."""
    lists = {"event_types": types, "sources": source, "aggregate_types": aggregate_type, "tags": tag}
    for field, values in lists.items():
        getattr(request, field).extend(values or ())
    told = [field for field, values in lists.items() if values]
    if ack_deadline is not None:
        request.ack_deadline.CopyFrom(given.span(ack_deadline))
        told.append("ack_deadline")
    return told


def _retry(
    policy: pb.RetryPolicy,
    attempts: int | None,
    backoff: str | None,
    max_backoff: str | None,
    multiplier: float | None,
) -> bool:
    """Answers whether anything was given; so do the others."""
    if attempts is not None:
        policy.max_attempts = attempts
    if backoff is not None:
        policy.initial_backoff.CopyFrom(given.span(backoff))
    if max_backoff is not None:
        policy.maximum_backoff.CopyFrom(given.span(max_backoff))
    if multiplier is not None:
        policy.multiplier = multiplier
    return any(each is not None for each in (attempts, backoff, max_backoff, multiplier))


def _dead(policy: pb.DeadLetterPolicy, retention: str | None, hold: bool | None) -> bool:
    if retention is not None:
        policy.retention.CopyFrom(given.span(retention))
    if hold is not None:
        policy.hold_aggregate = hold
    return retention is not None or hold is not None


def _limit(limits: pb.ConsumerLimits, events: int | None, size: int | None, batch: int | None) -> bool:
    limits.max_unsettled_events = limits.max_unsettled_events if events is None else events
    limits.max_unsettled_bytes = limits.max_unsettled_bytes if size is None else size
    limits.max_batch_events = limits.max_batch_events if batch is None else batch
    return any(each is not None for each in (events, size, batch))
