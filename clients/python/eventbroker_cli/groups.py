"""`eventbroker groups`: look at consumer groups, stop and start them, and remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from eventbroker.v1 import group_service_pb2 as pb
from rich.console import Group as Stack
from rich.text import Text

from eventbroker_cli.asking import sure
from eventbroker_cli.command import command
from eventbroker_cli.completing import group_names
from eventbroker_cli.link import Link
from eventbroker_cli.output import Output, facts, table
from eventbroker_cli.readable import counted, duration, enum, number, seconds_of, size

if TYPE_CHECKING:
    from rich.console import RenderableType

Name = Annotated[str, typer.Argument(help="The group.", show_default=False, autocompletion=group_names)]


def add_to(app: typer.Typer) -> None:
    command(app, "ls", examples="eventbroker groups ls\neventbroker groups ls -t acme -o json | jq -r '.[].name'")(ls)
    command(app, "show", examples="eventbroker groups show billing\neventbroker groups show billing -o json")(show)
    command(app, "pause", examples="eventbroker groups pause billing")(pause)
    command(app, "resume", examples="eventbroker groups resume billing")(resume)
    command(app, "rm", examples="eventbroker groups rm billing\neventbroker groups rm billing --yes --force")(rm)


async def ls(link: Link, out: Output) -> None:
    """List the groups of a tenant; without one those that get the events of all tenants."""
    groups = link.pages(link.groups.ListGroups, pb.ListGroupsRequest(tenant_id=link.tenant), "groups", 0)
    heads = ("name", "tenant", "events", "ack deadline", ">attempts", "order", "state")
    count = await out.list(groups, heads, _row)
    if not count and out.for_people and not link.tenant:
        out.say("These are groups of all tenants; for those of one, give its --tenant.")


async def show(link: Link, out: Output, name: Name) -> None:
    """Show what a group is and how it stands: progress, retries, dead letters, consumers."""
    answer = await link.ask(link.groups.GetGroup, pb.GetGroupRequest(name=name, tenant_id=link.tenant))
    out.answer(answer, lambda: view(answer))


async def pause(link: Link, out: Output, name: Name) -> None:
    """Stop delivery to a group. Consumers stay connected, and can settle what they have."""
    answer = await link.ask(link.groups.PauseGroup, pb.PauseGroupRequest(name=name, tenant_id=link.tenant))
    out.answer(answer.group, lambda: Text(f"{name} is paused"))


async def resume(link: Link, out: Output, name: Name) -> None:
    """Let delivery to a group go on."""
    answer = await link.ask(link.groups.ResumeGroup, pb.ResumeGroupRequest(name=name, tenant_id=link.tenant))
    out.answer(answer.group, lambda: Text(f"{name} gets events"))


async def rm(
    link: Link,
    out: Output,
    name: Name,
    force: Annotated[bool, typer.Option("--force", help="Also while consumers are connected.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove a group with its place, retries and dead letters, for ever. Events stay in the store."""
    found = await link.ask(link.groups.GetGroup, pb.GetGroupRequest(name=name, tenant_id=link.tenant))
    status = found.status
    retries = "1 retry" if status.waiting_retries == 1 else f"{number(status.waiting_retries)} retries"
    lost = f"{counted(status.dead_letters, 'dead letter')}, {retries}"
    sure(f"Remove group {name} with its place in the log, {lost}?", yes=yes)
    answer = await link.ask(
        link.groups.DeleteGroup, pb.DeleteGroupRequest(name=name, tenant_id=link.tenant, force=force)
    )
    out.answer(answer, lambda: Text(f"{name} is removed"))


def view(answer: pb.GetGroupResponse) -> RenderableType:
    """A group and how it stands."""
    status = answer.status
    parts: list[RenderableType] = [described(answer.group)]
    oldest = duration(seconds_of(status.oldest_unsettled_age)) if status.HasField("oldest_unsettled_age") else ""
    lag = sum(shard.lag for shard in status.shards)
    parts.append(
        facts(
            (
                ("lag", counted(lag, "position") if lag else "none"),
                ("oldest unsettled", oldest),
                ("waiting retries", number(status.waiting_retries)),
                ("dead letters", number(status.dead_letters)),
                ("", "" if status.complete else "Redis did not answer: as of the last checkpoint, without consumers"),
            )
        )
    )
    shards = [
        (str(each.shard), number(each.head_position), number(each.settled_position), number(each.lag))
        for each in status.shards
    ]
    parts += [Text(), table((">shard", ">head", ">settled", ">lag"), shards)]
    if status.consumers:
        consumers = [
            (each.consumer_id, number(each.pending_events), each.broker, "yes" if each.connected else "no")
            for each in status.consumers
        ]
        parts += [Text(), table(("consumer", ">holds", "broker", "connected"), consumers)]
    return Stack(*parts)


def described(group: pb.Group) -> RenderableType:
    """What a group is."""
    policy, limits = group.retry_policy, group.limits
    waits = " up to ".join(duration(seconds_of(each)) for each in (policy.initial_backoff, policy.maximum_backoff))
    most = (
        counted(limits.max_unsettled_events, "event") if limits.max_unsettled_events else "",
        size(limits.max_unsettled_bytes) if limits.max_unsettled_bytes else "",
        f"{number(limits.max_batch_events)} in a batch" if limits.max_batch_events else "",
    )
    held = ", then its aggregate is held" if group.dead_letter_policy.hold_aggregate else ""
    return facts(
        (
            ("group", group.name),
            ("tenant", group.tenant_id or "all"),
            ("event types", ", ".join(group.event_types)),
            ("sources", ", ".join(group.sources)),
            ("aggregate types", ", ".join(group.aggregate_types)),
            ("tags", ", ".join(group.tags)),
            ("order", enum(pb.Ordering.Name(group.ordering), "ORDERING")),
            ("fairness", enum(pb.Fairness.Name(group.fairness), "FAIRNESS")),
            ("ack deadline", duration(seconds_of(group.ack_deadline))),
            ("attempts", f"{policy.max_attempts}{held}; again after {waits}, each time {policy.multiplier:g} times"),
            ("dead letters stay", duration(seconds_of(group.dead_letter_policy.retention))),
            ("a consumer has", ", ".join(filter(None, most))),
            ("state", "paused" if group.paused else "active"),
        )
    )


def _row(group: pb.Group) -> tuple[str | Text, ...]:
    return (
        group.name,
        group.tenant_id or "*",
        ", ".join(group.event_types),
        duration(seconds_of(group.ack_deadline)),
        number(group.retry_policy.max_attempts),
        enum(pb.Ordering.Name(group.ordering), "ORDERING"),
        Text("paused", "yellow") if group.paused else Text("active", "green"),
    )
