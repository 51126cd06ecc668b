"""What is broken on purpose, and when: counted in the deliveries to one group.

A consumer is killed, and Redis is emptied if its URL is known. A run whose planned faults did not bite proves nothing,
however well it adds up: the consumer must have held deliveries, and Redis keys.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from eventbroker_cli.demo.options import CannotStart
from eventbroker_cli.readable import counted

if TYPE_CHECKING:
    from redis.asyncio import Redis

    from eventbroker_cli.demo.ledger import Group
    from eventbroker_cli.demo.options import Options
    from eventbroker_cli.demo.screen import LiveScreen

KILL_AT, EMPTY_AT = 0.4, 0.6  # of the deliveries to the group
EMPTY_WITHIN = 5.0  # seconds


class Faults:
    """The faults of one run: `happened` tells what was broken or left whole as asked, `failed` what did not bite."""

    def __init__(self, options: Options, group: Group, screen: LiveScreen) -> None:
        """Raises CannotStart when Redis cannot be reached for want of a driver or a proper URL."""
        self.happened: list[str] = []
        self.failed: list[str] = []
        self._group, self._events, self._screen = group, options.events, screen
        self._redis = connect(options.redis_url) if options.faults and options.redis_url else None
        self._kill_due, self._empty_due, self._replaced = options.faults, asyncio.Event(), asyncio.Event()

    def kills_consumer_of(self, group: Group) -> bool:
        """A consumer of the group noted deliveries. Whether it dies now, before it acks them."""
        if group is not self._group:
            return False
        delivered = sum(group.delivered)
        if delivered >= EMPTY_AT * self._events:
            self._empty_due.set()
        if not self._kill_due or delivered < KILL_AT * self._events:
            return False
        self._kill_due = False
        return True

    def killed(self, consumer_id: str, dropped: int) -> None:
        if dropped:
            self._happened(f"killed consumer {consumer_id} with {dropped:,} deliveries unacked")
        else:
            self._failed(f"consumer {consumer_id} held no deliveries when it was killed")

    def replaced(self, consumer_id: str) -> None:
        self._screen.note(f"consumer {consumer_id} took its place")
        self._replaced.set()

    async def run(self) -> None:
        """Empties Redis when it is time, and returns when all faults are over."""
        if not self._kill_due:
            self._happened("nothing was broken, as asked")
            return
        if self._redis:
            async with self._redis:
                await self._empty_due.wait()
                await self._empty(self._redis)
        else:
            self._happened("Redis was not emptied: no --redis-url was given")
        await self._replaced.wait()

    async def _empty(self, redis: Redis) -> None:
        try:
            async with asyncio.timeout(EMPTY_WITHIN):
                keys = sum(database["keys"] for database in (await redis.info("keyspace")).values())
                await redis.flushall()
        except Exception as error:  # whatever the driver raises: the run goes on, and proves nothing
            self._failed(f"Redis was not emptied: {str(error) or type(error).__name__}")
        else:
            if keys:
                self._happened(f"emptied Redis of {counted(keys, 'key')} (FLUSHALL)")
            else:
                self._failed("Redis held nothing when it was emptied: is it the broker's?")

    def _happened(self, line: str) -> None:
        self.happened.append(line)
        self._screen.note(line)

    def _failed(self, line: str) -> None:
        self.failed.append(line)
        self._screen.note(line)


def connect(url: str) -> Redis:
    """A client that has not connected yet. Raises CannotStart."""
    try:
        from redis.asyncio import Redis

        # Its own timeouts swallow cancellations before Python 3.12.
        return Redis.from_url(url, socket_timeout=None, socket_connect_timeout=None)
    except ImportError:
        raise CannotStart("--redis-url needs the package redis: pip install redis") from None
    except ValueError as error:
        raise CannotStart(f"--redis-url: {error}") from None
