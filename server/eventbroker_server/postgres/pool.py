"""Connections to PostgreSQL, with every wait bounded and every failure translated.

A failure to reach the server, a timeout and a server that is out of resources are StoreUnavailable: what was under way
may have happened or not. Anything else is a fault of ours and is let through.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

import asyncpg

from eventbroker_server.domain.errors import BadSetting, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from eventbroker_server.settings import Settings

log = logging.getLogger(__name__)

# 08 connection, 25006 read-only (a standby), 28 login refused, 3D no such database, 40 rolled back, 53 out of
# resources, 55 not in the right state, 57 operator intervention, 58 system
_AWAY = ("08", "25006", "28", "3D", "40", "53", "55", "57", "58", "XX")


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    try:
        yield
    except asyncpg.PostgresError as exc:
        if exc.sqlstate and exc.sqlstate.startswith(_AWAY):
            raise StoreUnavailable(cause=type(exc).__name__) from exc
        raise
    except asyncpg.exceptions.ClientConfigurationError:
        raise  # of the URL
    except (OSError, TimeoutError, asyncpg.InterfaceError, asyncpg.InternalClientError) as exc:
        raise StoreUnavailable(cause=type(exc).__name__) from exc


@contextmanager
def _ended_at_timeout(connection: Any) -> Iterator[None]:
    """To roll back, or to cancel the statement, would take as long again with a server that does not answer."""
    try:
        yield
    except TimeoutError:
        connection.terminate()
        raise


class Pool:
    """A pool of connections; `connection()` lends one."""

    def __init__(self, pool: asyncpg.Pool, timeout: float) -> None:
        self._pool = pool
        self._timeout = timeout

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Any]:
        async with translated(), self._pool.acquire(timeout=self._timeout) as connection:
            with _ended_at_timeout(connection):
                yield connection

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        async with self.connection() as connection, connection.transaction():
            with _ended_at_timeout(connection):
                yield connection

    @asynccontextmanager
    async def moment(self) -> AsyncIterator[Any]:
        """A transaction in which all statements see the database as it was at one moment. It cannot write."""
        reading = {"isolation": "repeatable_read", "readonly": True}
        async with self.connection() as connection, connection.transaction(**reading):
            with _ended_at_timeout(connection):
                yield connection


@asynccontextmanager
async def open_pool(settings: Settings, url: str) -> AsyncIterator[Pool]:
    """Connect, waiting up to 30 s for a server that is starting. Raises StoreUnavailable, BadSetting."""

    async def keep_session(connection: Any) -> None:
        """Nothing is set on a session, so there is nothing to reset, and a round trip is saved."""

    async def connect() -> asyncpg.Pool:
        async with translated():
            return await asyncpg.create_pool(
                url,
                min_size=1,
                max_size=settings.postgres_pool_size,
                timeout=settings.postgres_timeout,
                command_timeout=settings.postgres_timeout,
                statement_cache_size=settings.postgres_statement_cache,
                max_inactive_connection_lifetime=0,
                reset=keep_session,
                # Every statement is meant to use an index. Without this a plan made while a table is empty may scan it;
                # with it a plan can be kept, which is a third of what PostgreSQL spends on a small append.
                server_settings={
                    "application_name": "eventbroker",
                    "enable_seqscan": "off",
                    "plan_cache_mode": "force_generic_plan",
                    "jit": "off",
                },
            )

    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            pool = await connect()
            break
        except (ValueError, asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError) as exc:
            raise BadSetting("postgres_url", f"does not lead to a database: {exc}") from exc
        except StoreUnavailable as exc:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("waiting for PostgreSQL: %s", exc)
            await asyncio.sleep(0.5)
    try:
        yield Pool(pool, settings.postgres_timeout)
    finally:
        try:
            await asyncio.shield(asyncio.wait_for(pool.close(), 5))
        except (TimeoutError, asyncpg.InterfaceError):
            pool.terminate()
