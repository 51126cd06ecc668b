"""Another filter for a group that is in Redis.

PostgreSQL has the filter that is wanted, Redis the one by which the group joined streams; who finds that they differ
brings Redis there, from what it has to what is wanted. Redis is asked first: so the answer of PostgreSQL is at least as
new, and no filter comes back.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from eventbroker_server.domain.filter import TypeFilter

if TYPE_CHECKING:
    from eventbroker_server.domain.group import GroupKey
    from eventbroker_server.ports import GroupStore, Streams


async def refilter(groups: GroupStore, streams: Streams, key: GroupKey, shard: int) -> None:
    """Make the group's filter in Redis that of PostgreSQL, if it is in both. Raises Stale if somebody else changed it
    meanwhile: try again."""
    told = await streams.filter_of(shard, str(key))
    group = await groups.find(key)
    if told is None or group is None or told == group.filter_text:
        return
    types = await streams.types(shard)
    patterns, _, _ = told.partition(" ")
    before = set(replace(group, filter=TypeFilter.of(*patterns.split(","))).joins(types))
    after = set(group.joins(types))
    join, leave = sorted(after - before), sorted(before - after)
    await streams.refilter(shard, str(key), told, group.filter_text, len(types), join, leave)
