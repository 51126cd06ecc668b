"""Who calls, and what for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from eventbroker_server.domain.errors import TenantForbidden
from eventbroker_server.domain.event import SYSTEM_TENANT


class Role(Enum):
    """What a caller may do. Each method of the API asks for one."""

    PUBLISH = "publish"
    SUBSCRIBE = "subscribe"
    READ = "read"
    MANAGE = "manage"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller, as its credential tells. Without a tenant it acts for the platform: for any tenant, and for all."""

    name: str
    roles: frozenset[Role]
    tenant: str | None = None

    def owns(self, tenant_id: str) -> bool:
        return self.tenant in (None, tenant_id)

    def writes(self, tenant_id: str) -> bool:
        """Whether it may add to what is kept of a tenant: the broker's own is reserved."""
        return self.owns(tenant_id) and (tenant_id != SYSTEM_TENANT or self.tenant == SYSTEM_TENANT)

    def tenant_for(self, requested: str) -> str:
        """The tenant of a request that may leave it out; empty when it means all. Raises TenantForbidden."""
        if requested and not self.owns(requested):
            raise TenantForbidden(tenant_id=requested)
        return requested or self.tenant or ""
