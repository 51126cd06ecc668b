"""Whether PostgreSQL keeps what it says it keeps. OK on a publish means flushed, so a server that may lose a committed
transaction is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.errors import UnsafeStore

if TYPE_CHECKING:
    from eventbroker_server.postgres.pool import Pool

FLOOR = 150000
_SAFE = {  # and where else than in postgresql.conf each may be set
    "fsync": ({"on"}, ""),
    "full_page_writes": ({"on"}, ""),
    "synchronous_commit": ({"on", "remote_apply", "remote_write", "local"}, ", for the database and for the role"),
}


async def check_postgres(pool: Pool) -> str:
    """Answer the version. Raises UnsafeStore with the setting and what to set."""
    async with pool.connection() as connection:
        number = int(await connection.fetchval("SHOW server_version_num"))
        version: str = await connection.fetchval("SHOW server_version")
        if number < FLOOR:
            raise UnsafeStore(f"PostgreSQL is {version}", "Use PostgreSQL 15 or later")
        for setting, (safe, elsewhere) in _SAFE.items():
            value = await connection.fetchval("SELECT current_setting($1)", setting)
            if value not in safe:
                raise UnsafeStore(
                    f"PostgreSQL runs with {setting}={value}: it could lose events after answering OK",
                    f"Set {setting}=on in postgresql.conf{elsewhere}",
                )
    return version
