"""Waiting until a group has settled all that was published."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.waiting import eventually

if TYPE_CHECKING:
    from tests.client import Client


async def settled(broker: Client, group: str, tenant: str) -> None:
    """Wait until the group has settled all."""

    async def nothing_is_left() -> bool:
        status = (await broker.get_group(group, tenant)).status
        (shard,) = status.shards
        waiting = status.waiting_retries + sum(consumer.pending_events for consumer in status.consumers)
        return shard.settled_position == shard.head_position > 0 and not waiting

    await eventually(nothing_is_left, timeout=30)
