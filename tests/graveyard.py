"""Dead letters made by SQL, and what became of them."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncpg
    from eventbroker_server.domain.group import GroupKey

NOON = datetime(2026, 1, 2, 12, 0, 0, 123456, tzinfo=UTC)
HISTORY = [
    {"attempt": 1, "at": "2026-01-02T11:58:00.5+00:00", "consumer": "c1", "error": "deadline"},
    {"attempt": 2, "at": "2026-01-02T12:59:00+01:00", "consumer": "", "error": "no such user"},
]


def after(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


class Graveyard:
    """The tables `dead_letters` and `retries`, through a connection of the test's own."""

    def __init__(self, postgres: asyncpg.Connection) -> None:
        self.postgres = postgres

    async def bury(self, key: GroupKey, event_id: str, dead_at: datetime, **columns: Any) -> None:
        """Make an event that is stored a dead letter of a group; columns replace those that are made up."""
        event = await self.postgres.fetchrow(
            "SELECT shard, position, tenant_id AS event_tenant_id, event_id, event_type, aggregate_type, aggregate_id "
            "FROM eventbroker.events WHERE event_id = $1",
            event_id,
        )
        row: dict[str, Any] = {
            "tenant_id": key.tenant,
            "name": key.name,
            **event,
            "attempts": 2,
            "reason": "no such user",
            "rejected": False,
            "delivery": "d",
            "history": json.dumps(HISTORY),
            "dead_at": dead_at,
            **columns,
        }
        places = ", ".join(f"${number}" for number in range(1, len(row) + 1))
        await self.postgres.execute(
            f"INSERT INTO eventbroker.dead_letters ({', '.join(row)}) VALUES ({places})",  # noqa: S608 - our own names
            *row.values(),
        )

    async def dead(self) -> list[str]:
        """The ids of all dead letters, of whatever group, the oldest first."""
        rows = await self.postgres.fetch("SELECT event_id FROM eventbroker.dead_letters ORDER BY dead_at, position")
        return [row["event_id"] for row in rows]

    async def retries(self) -> list[Any]:
        """All retries with the ids of their events, the first due first."""
        return list(
            await self.postgres.fetch(
                "SELECT retries.*, event_id FROM eventbroker.retries JOIN eventbroker.events USING (shard, position) "
                "ORDER BY due_at, position"
            )
        )
