"""Connections to Redis or Valkey, without the library's silent retries, and whether the server is fit.

The library repeats a command whose reply was lost. For a read from a consumer group that skips events, so retries are
off, and every failure is StreamsUnavailable: what was under way may have happened or not.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import hiredis
import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from eventbroker_server.domain.errors import BadSetting, StreamsUnavailable, UnsafeStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from eventbroker_server.settings import Settings

log = logging.getLogger(__name__)
_FLOOR = {"redis": (7, 0), "valkey": (8, 0)}


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    try:
        yield
    except ResponseError as exc:  # such as OOM, READONLY, NOPERM
        raise StreamsUnavailable(cause=str(exc)[:200]) from exc
    except (RedisError, OSError, TimeoutError) as exc:
        raise StreamsUnavailable(cause=type(exc).__name__) from exc


class _PackedByHiredis:
    """Commands are packed in C: the asyncio side of the library does it in Python, a microsecond an argument."""

    def pack_command(self, name: str, *args: Any) -> list[bytes]:
        return [hiredis.pack_command((*name.split(), *args))]  # a name may be of two words


@asynccontextmanager
async def open_redis(settings: Settings, url: str) -> AsyncIterator[redis.Redis]:
    """A client; nothing is connected yet. Raises BadSetting."""
    try:
        pool = redis.ConnectionPool.from_url(
            url,
            protocol=2,  # RESP3 turns on notifications that nobody here reads
            socket_timeout=settings.redis_timeout,
            socket_connect_timeout=settings.redis_timeout,
            retry=Retry(NoBackoff(), 0),
            retry_on_error=[],
            max_connections=1000,
            client_name="eventbroker",
        )
        pool.connection_class = type("Connection", (_PackedByHiredis, pool.connection_class), {})
        client = redis.Redis.from_pool(pool)
    except ValueError as exc:
        raise BadSetting("redis_url", f"is not a URL of Redis: {exc}") from exc
    try:
        yield client
    finally:
        await asyncio.shield(client.aclose())


async def check_redis(client: redis.Redis) -> str:
    """Wait up to 30 s for the server, then answer its version. Raises UnsafeStore, StreamsUnavailable."""
    deadline = asyncio.get_running_loop().time() + 30
    while True:
        try:
            async with translated():
                info: dict[str, Any] = await client.info("server")
            break
        except StreamsUnavailable as exc:
            if asyncio.get_running_loop().time() > deadline:
                raise
            log.warning("waiting for Redis: %s", exc)
            await asyncio.sleep(0.5)
    kind = "valkey" if "valkey_version" in info else "redis"
    version = str(info[f"{kind}_version"])
    if tuple(int(part) for part in version.split(".")[:2]) < _FLOOR[kind]:
        raise UnsafeStore(f"{kind} is {version}", "Use Redis 7.0 or Valkey 8.0, or later")
    try:
        async with translated():
            policy = (await client.config_get("maxmemory-policy")).get("maxmemory-policy", "")
    except StreamsUnavailable as exc:
        if isinstance(exc.__cause__, ResponseError):
            log.warning("this Redis does not tell its maxmemory-policy; it must be noeviction")
            policy = "noeviction"
        else:
            raise
    if policy != "noeviction":
        raise UnsafeStore(
            f"{kind} runs with maxmemory-policy={policy}: it could drop deliveries under way",
            "Set maxmemory-policy noeviction",
        )
    return f"{kind} {version}"
