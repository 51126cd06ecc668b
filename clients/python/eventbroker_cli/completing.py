"""What the shell offers when Tab is pressed: contexts from their file, groups from the broker, if it answers soon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer  # at run time, too: typer reads the annotations
from eventbroker.v1 import group_service_pb2 as pb
from eventbroker_client import EventBrokerError

from eventbroker_cli.contexts import Contexts
from eventbroker_cli.exits import Failed
from eventbroker_cli.link import linked
from eventbroker_cli.target import target_of

if TYPE_CHECKING:
    from eventbroker_cli.target import Target

_TIMEOUT = 1.0  # seconds: nobody waits longer for a completion


def context_names(incomplete: str) -> list[str]:
    try:
        return [name for name in sorted(Contexts.load().all) if name.startswith(incomplete)]
    except Failed:
        return []


def group_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of groups of the tenant that the command line says so far."""
    said = ctx.params
    try:
        target = target_of(said.get("url"), said.get("context"), said.get("tenant"), _TIMEOUT)
        names = asyncio.run(_names(target))
    except (Failed, EventBrokerError):
        return []
    return [name for name in names if name.startswith(incomplete)]


async def _names(target: Target) -> list[str]:
    async with linked(target) as link:
        page = await link.ask(link.groups.ListGroups, pb.ListGroupsRequest(tenant_id=link.tenant, page_size=1_000))
        return [group.name for group in page.groups]
