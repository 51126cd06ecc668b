"""Import: all of an export in one transaction, or nothing.

What comes is staged in temporary tables until its last line has vouched for it; only then are the shards locked. An
export of a whole installation is put as it was, into one that has nothing, or, if it is an increment, that ends where
it begins. One of a tenant is appended to its shard as if it were published now: brokers that serve find it by their
sweep.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import asyncpg

from eventbroker_server.domain.errors import BadExport, BadSetting, TransferRefused
from eventbroker_server.domain.event import shard_of
from eventbroker_server.postgres.event_log import metadata_json
from eventbroker_server.postgres.migrate import migrate, migrations
from eventbroker_server.postgres.queries import QUERIES
from eventbroker_server.transfer.reading import Reader

if TYPE_CHECKING:
    from collections.abc import Sequence

    from eventbroker_server.postgres.pool import Pool
    from eventbroker_server.transfer.frame import Header
    from eventbroker_server.transfer.reading import Line

_TIMEOUT = 24 * 3600.0  # seconds for a statement that handles all at once
_STAGING = {"group": "stage_groups", "retry": "stage_retries", "dead_letter": "stage_dead_letters"}
_COLUMNS = (  # the fields of domain.event.Event, as far as they go, and then the place
    *("tenant_id", "event_id", "event_type", "event_version", "aggregate_type", "aggregate_id", "user_id"),
    *("session_id", "request_id", "correlation_id", "timestamp", "form", "content_type", "content", "metadata"),
    *("shard", "position", "aggregate_version", "recorded_at", "number"),
)


class Imported(NamedTuple):
    """How many there were of each."""

    groups: int
    retries: int
    dead_letters: int
    events: int


async def import_export(pool: Pool, file: BinaryIO, shards: int = 0) -> Imported:
    """Import what a file holds; `shards` is the setting, for an installation that is made with this. Raises BadExport,
    TransferRefused, BadSetting: nothing was imported. Raises StoreUnavailable: not known.
    """
    reader = Reader(file)
    header = await reader.header()
    if header.schema != (known := migrations()[-1].number):
        raise TransferRefused(
            f"the export was made with migration {header.schema}, and this program has {known}: import it with the "
            "version that made it, and bring that up to date"
        )
    if header.tenant and header.increment:
        raise TransferRefused("this is an increment of a tenant, and a tenant is moved as a whole")
    installed = await _install(pool, header, shards)
    async with pool.transaction() as connection:
        await connection.execute(QUERIES["transfer_session"])
        await connection.execute(QUERIES["make_staging"])
        async for batch in reader.batches():
            for kind, lines in groupby(batch, key=lambda line: line.kind):
                await _stage(connection, kind, list(lines))
        await connection.execute(QUERIES["analyze_staging"], timeout=_TIMEOUT)
        try:
            if header.tenant:
                fault = await _move(connection, header, installed)
            else:
                fault = await _restore(connection, header)
        except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as exc:
            raise TransferRefused(f"{exc.message}: {exc.detail or ''}") from exc
        if fault:
            raise TransferRefused(fault)
    return Imported(*reader.counts.values())


async def _install(pool: Pool, header: Header, shards: int) -> int:
    """Make or migrate the installation, and answer its number of shards."""
    try:
        installed = (await migrate(pool, shards if header.tenant else header.shards)).shards
    except BadSetting as exc:
        if header.tenant:
            raise
        raise TransferRefused(f"the export has {header.shards} shards, and this installation has others") from exc
    if not header.tenant and shards not in (0, installed):
        raise TransferRefused(f"the export has {header.shards} shards, and the setting `shards` is {shards}")
    return installed


async def _stage(connection: Any, kind: str, lines: Sequence[Line]) -> None:
    try:
        async with connection.transaction():
            if kind == "event":
                await connection.copy_records_to_table(
                    "staged_events", columns=_COLUMNS, records=[_record(line) for line in lines], timeout=_TIMEOUT
                )
            else:
                await connection.execute(QUERIES[_STAGING[kind]], [line.value for line in lines], timeout=_TIMEOUT)
    except (asyncpg.IntegrityConstraintViolationError, asyncpg.DataError) as exc:
        if len(lines) == 1:
            raise BadExport(lines[0].number, f"is nothing that the database takes: {exc.message}") from exc
        for line in lines:  # to find which
            await _stage(connection, kind, [line])


def _record(line: Line) -> tuple[Any, ...]:
    shard, (event, position, version, recorded_at) = line.value
    return (*event[:11], event.form.value, *event[12:14], metadata_json(event.metadata), shard, position, version,
            recorded_at, line.nth)  # fmt: skip


async def _restore(connection: Any, header: Header) -> str | None:
    heads = tuple(row[0] for row in await connection.fetch(QUERIES["lock_shards"]))
    if heads != header.after:
        if header.increment:
            raise TransferRefused(f"the increment goes on after {header.after}, and the last events here are {heads}")
        raise TransferRefused(
            "there are events here, and an export of an installation goes into an empty one; of one tenant "
            "(export --tenant) it would go here"
        )
    if not header.increment and await connection.fetchval(QUERIES["has_groups"]):
        raise TransferRefused("there are groups here, and an export of an installation goes into an empty one")
    await connection.execute(QUERIES["restore"], timeout=_TIMEOUT)
    await connection.execute(QUERIES["set_heads"], header.heads)
    fault: str | None = await connection.fetchval(QUERIES["restore_fault"], timeout=_TIMEOUT)
    return fault


async def _move(connection: Any, header: Header, shards: int) -> str | None:
    tenant = header.tenant
    shard, shard_before = shard_of(tenant, shards), shard_of(tenant, header.shards)
    head = await connection.fetchval(QUERIES["lock_shard"], shard)
    if await connection.fetchval(QUERIES["has_tenant"], tenant):
        raise TransferRefused(f"there is a tenant {tenant} here already")
    await connection.execute(QUERIES["move_head"], shard, timeout=_TIMEOUT)
    await connection.execute(QUERIES["move_events"], shard, head, timeout=_TIMEOUT)
    await connection.execute(QUERIES["move_groups"])
    await connection.execute(QUERIES["move_places"], shard, head, shard_before, timeout=_TIMEOUT)
    for query in ("move_retries", "move_dead_letters"):
        await connection.execute(QUERIES[query], shard, head, timeout=_TIMEOUT)
    fault: str | None = await connection.fetchval(QUERIES["move_fault"], tenant, shard_before, timeout=_TIMEOUT)
    return fault
