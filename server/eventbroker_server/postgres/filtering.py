"""What an EventFilter asks for, as SQL: only what it names, so that the planner sees which index serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.postgres.event_log import named

if TYPE_CHECKING:
    from eventbroker_server.domain.history import EventFilter


class Wanted(NamedTuple):
    """A condition on eventbroker.events, and its arguments."""

    sql: str
    args: list[object]


def wanted(tenant: str, asked: EventFilter, taken: int) -> Wanted:
    """What is asked for of a tenant, or of all. Its parameters are numbered after those that are taken."""
    parts: list[str] = []
    args: list[object] = []

    def add(condition: str, *values: object) -> None:
        """Each "?" of the condition is one of the values."""
        for value in values:
            args.append(value)
            condition = condition.replace("?", f"${taken + len(args)}", 1)
        parts.append(condition)

    if tenant != ALL_TENANTS:
        add("tenant_id = ?::text", tenant)
    if "*" not in asked.types.patterns:
        exact, prefixes = asked.types.exact(), asked.types.prefixes()
        if not prefixes:
            add("event_type = ANY (?::text[])", exact)
        else:
            below = "EXISTS (SELECT FROM unnest(?::text[]) AS prefix WHERE starts_with(event_type, prefix))"
            add(f"(event_type = ANY (?::text[]) OR {below})", exact, prefixes)
    for column in ("aggregate_type", "aggregate_id", "correlation_id", "user_id"):
        if value := getattr(asked, column):
            add(f"{column} = ?::text", value)
    if asked.caused_by:
        add("metadata ->> 'caused_by' = ?::text", asked.caused_by)
    if asked.conditions:
        lists = named(asked.conditions)
        add("eventbroker.meets(aggregate_type, metadata, ?::text[], ?::text[], ?::text[])", *lists)
    return Wanted(" AND ".join(parts) or "true", args)
