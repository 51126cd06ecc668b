"""What a consumer group is."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.conditions import Conditions, Facts
from eventbroker_server.domain.event import SYSTEM_TENANT, shard_of
from eventbroker_server.domain.limits import Limits
from eventbroker_server.domain.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Iterable

    from eventbroker_server.domain.event import Event
    from eventbroker_server.domain.filter import TypeFilter

ALL_TENANTS = "*"


class GroupKey(NamedTuple):
    """A group's name within its scope: a tenant, or all of them."""

    tenant: str  # a tenant's name, or ALL_TENANTS
    name: str

    def __str__(self) -> str:
        return f"{self.tenant}:{self.name}"

    @property
    def tenant_id(self) -> str:
        """The tenant as callers know it: empty for all of them."""
        return "" if self.tenant == ALL_TENANTS else self.tenant

    @classmethod
    def of(cls, tenant_id: str, name: str) -> GroupKey:
        """The key of a group as callers name it: no tenant stands for all of them."""
        return cls(tenant_id or ALL_TENANTS, name)

    @classmethod
    def parse(cls, text: str) -> GroupKey:
        tenant, _, name = text.partition(":")
        return cls(tenant, name)


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group: who gets which events, how long a consumer has for one, what happens when it fails, and how
    long what was given up is kept. Times are in seconds. An ephemeral group goes with its stream: PostgreSQL does not
    know it. An ordered group gets the events of an aggregate one after the other; with `hold`, what follows an event
    that was given up is given up with it. A fair group, which is one of all tenants, gets those of its tenants in
    turn."""

    key: GroupKey
    filter: TypeFilter
    ack_deadline: float
    retry: RetryPolicy = field(default=RetryPolicy())
    dead_letter_retention: float = 30 * 86_400.0
    paused: bool = False
    ordered: bool = False
    fair: bool = False
    hold: bool = False
    ephemeral: bool = False
    conditions: Conditions = field(default=Conditions())
    limits: Limits = field(default=Limits())

    @property
    def in_turn(self) -> bool:
        """Whether it is fed all that it gets, event by event, as their turns come."""
        return self.ordered or self.fair

    def joins(self, types: Iterable[str]) -> list[str]:
        """Of these event types those whose streams it reads."""
        return [] if self.in_turn else sorted(filter(self.filter.matches, types))

    def wants(self, event: Event) -> bool:
        """Whether it gets an event."""
        facts = Facts(event.metadata.source, event.aggregate_type, event.metadata.tags)
        return (
            self.wants_tenant(event.tenant_id)
            and self.filter.matches(event.event_type)
            and self.conditions.met_by(facts)
        )

    def wants_tenant(self, tenant_id: str) -> bool:
        """Whether it gets a tenant's events. What the broker says of itself is for those who ask for it."""
        if self.key.tenant == ALL_TENANTS:
            return tenant_id != SYSTEM_TENANT
        return self.key.tenant == tenant_id

    @property
    def filter_text(self) -> str:
        """What Redis is told of the filter and the conditions, so that who knows others finds out: the patterns, joined
        by commas, and maybe a space and the mark of the conditions."""
        return f"{self.filter} {self.conditions.mark}".rstrip()


@dataclass(frozen=True, slots=True)
class GroupChange:
    """What is to be different about a group; None stays as it is."""

    filter: TypeFilter | None = None
    ack_deadline: float | None = None
    retry: RetryPolicy | None = None
    dead_letter_retention: float | None = None
    paused: bool | None = None
    hold: bool | None = None
    sources: frozenset[str] | None = None
    aggregate_types: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    limits: Limits | None = None

    @property
    def refilters(self) -> bool:
        """Whether other events are wanted."""
        return any(part is not None for part in (self.filter, self.sources, self.aggregate_types, self.tags))


def shards_of(key: GroupKey, shards: int) -> list[int]:
    """The shards that a group reads, of so many there are."""
    return list(range(shards)) if key.tenant == ALL_TENANTS else [shard_of(key.tenant, shards)]


def consumer_name(consumer_id: str, process: str) -> str:
    """A consumer's name in Redis: it tells which broker process speaks for it."""
    return f"{consumer_id}@{process}"


def process_of(name: str) -> str:
    return name.rpartition("@")[2]


def consumer_id_of(name: str) -> str:
    """The id without what tells two streams of it apart, while one takes over."""
    return name.rpartition("@")[0].partition("+")[0]
