"""What a consumer group is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from eventbroker_server.domain.filter import TypeFilter

ALL_TENANTS = "*"


class GroupKey(NamedTuple):
    """A group's name within its scope: a tenant, or all of them."""

    tenant: str  # a tenant's name, or ALL_TENANTS
    name: str

    def __str__(self) -> str:
        return f"{self.tenant}:{self.name}"

    @classmethod
    def parse(cls, text: str) -> GroupKey:
        tenant, _, name = text.partition(":")
        return cls(tenant, name)


@dataclass(frozen=True, slots=True)
class Group:
    """A consumer group: who gets which events, and how long a consumer has for one (seconds)."""

    key: GroupKey
    filter: TypeFilter
    ack_deadline: float
    ephemeral: bool = False

    def wants_tenant(self, tenant_id: str) -> bool:
        return self.key.tenant in (ALL_TENANTS, tenant_id)


def consumer_name(consumer_id: str, process: str) -> str:
    """A consumer's name in Redis: it tells which broker process speaks for it."""
    return f"{consumer_id}@{process}"


def process_of(name: str) -> str:
    return name.rpartition("@")[2]
