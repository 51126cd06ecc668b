"""The log as it is read by streams: keeps the promises of ports.EventReader."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.group import ALL_TENANTS
from eventbroker_server.ports import Read
from eventbroker_server.postgres.event_log import stored_event
from eventbroker_server.postgres.filtering import wanted
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from eventbroker_server.domain.history import EventFilter
    from eventbroker_server.postgres.pool import Pool

_POSITIONS = 20_000  # looked at in one statement
_EVENTS, _BYTES = 1_000, 4 << 20  # in one page
_TAKEN = 5  # parameters of read_events, before those of what is asked for


class PostgresEventReader:
    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def page(self, shard: int, tenant: str, asked: EventFilter, after: int, upto: int) -> Read:
        upto = min(upto, after + _POSITIONS)
        what = wanted(tenant, asked, _TAKEN)
        sql = what.sql
        if tenant == ALL_TENANTS:
            sql += " AND tenant_id <> '_broker'"
        async with self._pool.connection() as connection:
            rows = await connection.fetch(
                QUERIES["read_events"] % {"wanted": sql}, shard, after, upto, _EVENTS, _BYTES, *what.args
            )
        events = [stored_event(row) for row in rows]
        whole = not rows or rows[0]["found"] == len(rows) < _EVENTS
        return Read(events, upto if whole else events[-1].position)
