"""How far groups are behind, as of their last checkpoints: from PostgreSQL alone, so the same at every broker."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.group import GroupKey, shards_of

if TYPE_CHECKING:
    from eventbroker_server.ports import GroupStore

MOST_GROUPS = 1_000


class Lag(NamedTuple):
    """Positions of the shards that a group reads which are stored and not settled, and how long ago the first of them
    was stored, if there is one."""

    group: GroupKey
    positions: int
    oldest_age: timedelta | None


async def lags(store: GroupStore, tenant: str, shards: int) -> list[Lag]:
    """Of the groups of a tenant, or of all and those of all tenants if it is empty, by tenant and name; so many at
    most. Raises StoreUnavailable."""
    found = []
    now = datetime.now(UTC)
    for key, places in groupby(await store.places(tenant, MOST_GROUPS), lambda place: place.group):
        read = shards_of(key, shards)
        behind = [place for place in places if place.shard in read and place.checkpoint < place.head]
        oldest = min((place.stored_at for place in behind if place.stored_at is not None), default=None)
        age = max(now - oldest, timedelta()) if oldest is not None else None
        found.append(Lag(key, sum(place.head - place.checkpoint for place in behind), age))
    return found
