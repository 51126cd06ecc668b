"""The event that everything is measured with: 580 bytes, of which 330 are JSON, as a platform would publish it.

Makes it as a message for the broker, and as rows for bare PostgreSQL, with the same columns and keys.
"""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from eventbroker.v1 import event_pb2, publisher_service_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

AGGREGATES = 10_000  # written in turn
TYPES = ("user.updated", "role.assigned", "session.started")
GROUP_TYPES = ("user.*", "role.*", "session.*")
TENANT = "acme"
LIGHT_TENANTS = tuple(f"tenant-{number:02}" for number in range(99))

_OTHER = "01980a5e-7c1d-7f3a-9b42-6d1f0c9e8a75"
DATA = {
    "email": "augusta.lovelace@example.com",
    "name": {"given": "Ada", "family": "Lovelace"},
    "roles": ["admin", "billing", "support"],
    "address": {"street": "12 St James's Square", "city": "London", "country": "GB"},
    "preferences": {"newsletter": True, "theme": "dark"},
    "changed": ["email", "address.street", "preferences.theme"],
}
FACTS: dict[str, Any] = {  # what else an event says, beside its id, type, aggregate, tenant and time
    "user_id": "user-00042",
    "session_id": _OTHER,
    "request_id": "req-5e7c1d7f3a9b426d1f0c",
    "correlation_id": _OTHER,
    "source": "user-service",
    "caused_by": "profile_form",
    "tags": ("pii",),
}
_METADATA = ("source", "caused_by", "tags")
_JSON = json.dumps(DATA)


def _template(event_type: str) -> event_pb2.Event:
    event = event_pb2.Event(
        event_type=event_type,
        event_version="v1.0",
        aggregate_type="User",
        tenant_id=TENANT,
        json=_JSON,
        metadata=event_pb2.Metadata(**{name: FACTS[name] for name in _METADATA}),
        **{name: value for name, value in FACTS.items() if name not in _METADATA},
    )
    event.timestamp.FromJsonString("2026-01-02T03:04:05.678901Z")
    return event


_TEMPLATES = [_template(event_type) for event_type in TYPES]


def sizes() -> tuple[int, int]:
    """Bytes of an event, and of its JSON."""
    return len(next(requests(1)).events[0].SerializeToString()), len(_JSON)


def requests(size: int, tenants: Sequence[str] = (TENANT,)) -> Iterator[publisher_service_pb2.PublishRequest]:
    """Requests of `size` events each, of these tenants in turn, without end. No event id comes twice, whoever else
    makes some."""
    run = uuid.uuid4().hex[:24]
    number = count()
    while True:
        request = publisher_service_pb2.PublishRequest()
        for n in (next(number) for _ in range(size)):
            event = request.events.add()
            event.CopyFrom(_TEMPLATES[n % len(_TEMPLATES)])
            event.event_id = f"{run}{n:012}"
            event.aggregate_id = f"user-{n % AGGREGATES:05}"
            event.tenant_id = tenants[n % len(tenants)]
        yield request


INSERT = """
INSERT INTO eventbroker.events (
    shard, position, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
    user_id, session_id, request_id, correlation_id, timestamp, form, content_type, content, metadata, recorded_at
)
SELECT
    0, position, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version,
    user_id, session_id, request_id, correlation_id, timestamp, form, content_type, content, metadata::jsonb,
    clock_timestamp()
FROM unnest(
    $1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::bigint[], $9::text[],
    $10::text[], $11::text[], $12::text[], $13::timestamptz[], $14::smallint[], $15::text[], $16::bytea[], $17::text[]
) AS item(
    position, tenant_id, event_id, event_type, event_version, aggregate_type, aggregate_id, aggregate_version, user_id,
    session_id, request_id, correlation_id, timestamp, form, content_type, content, metadata
)
"""


def rows(size: int) -> Iterator[list[list[Any]]]:
    """Arguments of INSERT for the same events, `size` each, without end: positions from 1, in one shard."""
    run = uuid.uuid4().hex[:24]
    one = _TEMPLATES[0]
    moment = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    said = {"source": one.metadata.source, "caused_by": one.metadata.caused_by, "tags": list(one.metadata.tags)}
    for first in count(0, size):
        numbers = range(first, first + size)
        yield [
            [n + 1 for n in numbers],
            [TENANT] * size,
            [f"{run}{n:012}" for n in numbers],
            [TYPES[n % len(TYPES)] for n in numbers],
            [one.event_version] * size,
            [one.aggregate_type] * size,
            [f"user-{n % AGGREGATES:05}" for n in numbers],
            [n // AGGREGATES + 1 for n in numbers],
            [one.user_id] * size,
            [one.session_id] * size,
            [one.request_id] * size,
            [one.correlation_id] * size,
            [moment] * size,
            [1] * size,
            [""] * size,
            [one.json.encode()] * size,
            [json.dumps(said)] * size,
        ]
