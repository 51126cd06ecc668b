"""Brings the schema up to date: runs the numbered .sql files that the database has not seen, each in a transaction.

Several brokers may start at once: one migrates, the others wait by asking for the lock again and again, since a waiter
blocked inside PostgreSQL could deadlock with the migration. A database newer than this code is refused, and so is one
whose migrations were changed afterwards.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from importlib import resources
from typing import TYPE_CHECKING, Any, NamedTuple

from eventbroker_server.domain.errors import BadSetting, UnsafeStore
from eventbroker_server.postgres.queries import QUERIES

if TYPE_CHECKING:
    from eventbroker_server.postgres.pool import Pool

log = logging.getLogger(__name__)
_LOCK = 0x6576656E7462  # "eventb"


class Migration(NamedTuple):
    number: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return hashlib.sha256(self.sql.encode()).hexdigest()


class Installation(NamedTuple):
    """What was fixed when the database was made."""

    shards: int
    ack_key: bytes


def migrations() -> list[Migration]:
    folder = resources.files("eventbroker_server.postgres").joinpath("migrations")
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".sql")), key=lambda file: file.name)
    return [Migration(int(file.name[:4]), file.name, file.read_text()) for file in files]


async def migrate(pool: Pool, shards: int) -> Installation:
    """Migrate, and answer the installation; `shards` of a new one (0: 1). Raises UnsafeStore, BadSetting."""
    async with pool.connection() as connection:
        async with asyncio.timeout(60):
            while not await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK):  # noqa: ASYNC110 - see above
                await asyncio.sleep(0.1)
        try:
            await _migrate(connection)
            return await _install(connection, shards)
        finally:
            await connection.execute("SELECT pg_advisory_unlock($1)", _LOCK)


async def _migrate(connection: Any) -> None:
    await connection.execute(
        """
        CREATE SCHEMA IF NOT EXISTS eventbroker;
        CREATE TABLE IF NOT EXISTS eventbroker.migrations (
            number integer PRIMARY KEY,
            name text NOT NULL,
            checksum text NOT NULL,
            applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
        )
        """
    )
    applied = {row["number"]: row for row in await connection.fetch("SELECT * FROM eventbroker.migrations")}
    known = migrations()
    if newer := [row["name"] for number, row in applied.items() if number > known[-1].number]:
        raise UnsafeStore(f"the database has migrations that this broker does not know: {newer}", "Run a newer broker")
    for migration in known:
        if row := applied.get(migration.number):
            if row["checksum"] != migration.checksum:
                raise UnsafeStore(f"migration {migration.name} was changed after it ran", "Restore the original file")
            continue
        async with connection.transaction():
            await connection.execute(migration.sql, timeout=600)
            await connection.execute(
                "INSERT INTO eventbroker.migrations (number, name, checksum) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.checksum,
            )
        log.info("migrated", extra={"migration": migration.name})


async def _install(connection: Any, shards: int) -> Installation:
    async with connection.transaction():
        await connection.execute(QUERIES["install"], shards or 1, secrets.token_bytes(32))
        await connection.execute(QUERIES["install_shards"])
        installation = Installation(*await connection.fetchrow(QUERIES["installation"]))
    if shards not in (0, installation.shards):
        raise BadSetting("shards", f"is {shards}, but this database was made with {installation.shards}, for ever")
    return installation
