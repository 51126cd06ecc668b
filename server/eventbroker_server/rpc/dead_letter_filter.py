"""The filter of the calls about dead letters, as they come, to the one that the store works with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.dead_letter import DeadLetterFilter
from eventbroker_server.domain.errors import Violation
from eventbroker_server.domain.filter import TypeFilter
from eventbroker_server.domain.names import ID_RULE, is_id
from eventbroker_server.rpc.rules import check_name, check_patterns, moment_of

if TYPE_CHECKING:
    from datetime import datetime

    from eventbroker.v1 import dead_letter_service_pb2 as pb

MAX_EVENT_IDS = 1_000
_TIME_RULE = "must be from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59Z, with nanos below 1,000,000,000"


def filter_of(
    message: pb.DeadLetterFilter, tenant: str, violations: list[Violation], *, explicit: bool = False
) -> DeadLetterFilter:
    """What is wrong with it is added to `violations`. `tenant` is that of the group, empty for all of them; `explicit`:
    all dead letters are meant only if `all` says so."""

    def wrong(field: str, rule: str) -> None:
        violations.append(Violation(f"filter.{field}", rule))

    said = [descriptor.name for descriptor, _ in message.ListFields()]
    if message.all and len(said) > 1:
        wrong("all", "must stand alone: leave it out, or the other fields")
    if explicit and not said:
        wrong("all", "must be set to mean all dead letters of the group; or set another field")
    check_patterns(message.event_types, "filter.event_types", violations)
    for field in ("aggregate_type", "event_tenant_id"):
        check_name(getattr(message, field), f"filter.{field}", violations, optional=True)
    for field in ("aggregate_id", "reason_contains"):
        if field in said and not is_id(getattr(message, field)):
            wrong(field, f"{ID_RULE}, or be empty")
    if message.aggregate_id and not message.aggregate_type:
        wrong("aggregate_type", "is required with aggregate_id")
    if len(message.event_ids) > MAX_EVENT_IDS:
        wrong("event_ids", f"must be at most {MAX_EVENT_IDS}")
    for number, event_id in enumerate(message.event_ids[:MAX_EVENT_IDS]):
        if not is_id(event_id):
            wrong(f"event_ids[{number}]", ID_RULE)
    event_tenant = message.event_tenant_id
    if message.event_ids and not event_tenant:
        event_tenant = tenant  # an id is one of its tenant
        if not tenant:
            wrong("event_tenant_id", "is required with event_ids, as the group gets the events of all tenants")
    moments: dict[str, datetime | None] = {}
    for field in ("dead_after", "dead_before"):
        moments[field] = moment_of(getattr(message, field)) if field in said else None
        if field in said and moments[field] is None:
            wrong(field, _TIME_RULE)
    if (after := moments["dead_after"]) and (before := moments["dead_before"]) and after >= before:
        wrong("dead_before", "must be later than dead_after")
    return DeadLetterFilter(
        types=TypeFilter.of(*message.event_types),
        aggregate_type=message.aggregate_type,
        aggregate_id=message.aggregate_id,
        event_tenant_id=event_tenant,
        event_ids=tuple(dict.fromkeys(message.event_ids)),
        reason_contains=message.reason_contains,
        dead_after=moments["dead_after"],
        dead_before=moments["dead_before"],
    )
