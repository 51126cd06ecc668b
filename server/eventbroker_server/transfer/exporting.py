"""Export: one snapshot of the database, page by page. Brokers may serve meanwhile; what they change is not seen."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import asyncpg

from eventbroker_server.domain.errors import TransferRefused
from eventbroker_server.domain.event import shard_of
from eventbroker_server.postgres.event_log import stored_event
from eventbroker_server.postgres.migrate import migrations
from eventbroker_server.postgres.queries import QUERIES
from eventbroker_server.transfer.cloud_events import event_line
from eventbroker_server.transfer.frame import Header, Tally

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from eventbroker_server.postgres.pool import Pool

log = logging.getLogger(__name__)

_PAGE_POSITIONS = 2_000
_PAGE_BYTES = 4 << 20  # of data, give or take an event
_PAGE_ROWS = 500  # of groups, retries, dead letters
_TIMEOUT = 3600.0  # seconds for the statement that sorts these
_QUERIES = {"group": "export_groups", "retry": "export_retries", "dead_letter": "export_dead_letters"}


async def exported(pool: Pool, tenant: str = "", after: Sequence[int] = ()) -> AsyncGenerator[bytes, None]:
    """The lines of an export, some at a time: of all, or of one tenant; with the events after a position in each shard,
    or in the tenant's. Raises TransferRefused before the first, StoreUnavailable.
    """
    async with pool.connection() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.execute(QUERIES["transfer_session"])
        header = await _header(connection, tenant, after)
        tally = Tally()
        tally.add(header.line())
        yield header.line()
        for kind, query in _QUERIES.items():
            cursor = await connection.cursor(QUERIES[query], tenant, timeout=_TIMEOUT)
            while rows := await cursor.fetch(_PAGE_ROWS, timeout=_TIMEOUT):
                yield _counted(tally, kind, [row[0].encode() for row in rows])
        for shard in [shard_of(tenant, header.shards)] if tenant else range(header.shards):
            position, head = header.after[shard], header.heads[shard]
            while position < head:
                upto = min(head, position + _PAGE_POSITIONS)
                rows = await connection.fetch(
                    QUERIES["export_events"], shard, position, upto, _PAGE_BYTES, tenant, timeout=_TIMEOUT
                )
                events = [stored_event(row) for row in rows]
                whole = sum(len(stored.event.content) for stored in events) < _PAGE_BYTES
                position = upto if whole else events[-1].position
                if events:
                    yield _counted(tally, "event", [event_line(shard, stored) for stored in events])
        yield tally.trailer()
        if waiting := await connection.fetchval(QUERIES["export_outbox"], tenant, timeout=_TIMEOUT):
            log.warning("events that were published in SQL and are not in the log yet were left out: %d", waiting)


def _counted(tally: Tally, kind: str, lines: list[bytes]) -> bytes:
    page = b"\n".join([*lines, b""])
    tally.add(page)
    tally.counts[kind] += len(lines)
    return page


async def _header(connection: Any, tenant: str, after: Sequence[int]) -> Header:
    known = migrations()[-1].number
    try:
        async with connection.transaction():
            schema = await connection.fetchval(QUERIES["schema_number"])
    except (asyncpg.UndefinedTableError, asyncpg.InvalidSchemaNameError) as exc:
        raise TransferRefused("there are no events in this database, nor place for them") from exc
    if schema != known:
        raise TransferRefused(f"this database has migration {schema}, and this program knows {known}: start a broker")
    heads = tuple(row[0] for row in await connection.fetch(QUERIES["heads"]))
    if tenant and not await connection.fetchval(QUERIES["has_tenant"], tenant):
        raise TransferRefused(f"there is no tenant {tenant}")
    begin = [0] * len(heads)
    if tenant and after:
        (begin[shard_of(tenant, len(heads))],) = after if len(after) == 1 else (-1,)
    elif after:
        begin = list(after)
    if len(begin) != len(heads) or not all(0 <= first <= head for first, head in zip(begin, heads, strict=True)):
        wanted = "1 position" if tenant else f"{len(heads)} positions, one for each shard"
        raise TransferRefused(f"to go on takes {wanted}, at most {', '.join(map(str, heads))}")
    return Header(schema, heads, tuple(begin), tenant)
