"""Which events: the options of `events ls` and `tail`, as a filter of the contract."""

from __future__ import annotations

from typing import Annotated

import typer
from eventbroker.v1.event_store_service_pb2 import EventFilter

from eventbroker_cli import given

Types = Annotated[list[str] | None, typer.Argument(metavar="TYPES...", help="Such as user.created, or user.*.")]
Aggregate = Annotated[str, typer.Option("--aggregate", "-a", metavar="TYPE[/ID]", help="Of User/u1; of all: User.")]
Correlation = Annotated[str, typer.Option(help="Of this chain of causes.")]
CausedBy = Annotated[str, typer.Option(help="That this caused.")]
User = Annotated[str, typer.Option(help="That this user caused.")]
Sources = Annotated[list[str] | None, typer.Option("--source", help="Of this source, or another that is given.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="With this tag, and each other that is given.")]


def filter_of(
    types: list[str] | None,
    aggregate: str,
    correlation: str,
    caused_by: str,
    user: str,
    source: list[str] | None,
    tag: list[str] | None,
) -> EventFilter:
    kind, name = given.aggregate(aggregate) if "/" in aggregate else (aggregate, "")
    return EventFilter(
        event_types=types or (),
        aggregate_type=kind,
        aggregate_id=name,
        correlation_id=correlation,
        caused_by=caused_by,
        user_id=user,
        sources=source or (),
        tags=tag or (),
    )
