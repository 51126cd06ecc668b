"""Deliveries that fail, and what becomes of them.

A failure is decided in Redis, where the delivery is fenced and set aside; then it is recorded in PostgreSQL; only then
it leaves the pending list. Whatever dies in between, the next sweep finds what was set aside and goes on, and recording
it twice counts it once. What waits for its next attempt is in no stream: when it is due, any broker that delivers the
group puts it into the group's retry stream.
"""

from __future__ import annotations

import asyncio
import json
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable
from eventbroker_server.domain.group import consumer_id_of
from eventbroker_server.ports import Entry, Failure, Outcome, Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.broker.membership import ShardMembership
    from eventbroker_server.domain.group import Group, GroupKey
    from eventbroker_server.ports import Codec, EventLog, Holding, RetryStore, Streams

log = logging.getLogger(__name__)

EXPIRED = "not settled before its deadline"
_ABANDONED = 5.0  # seconds after which nobody goes on with what was set aside
_PAGE = 200  # events put into a retry stream in one step
_LONGEST_SLEEP = 1.0


class How(NamedTuple):
    """How a delivery failed: what is kept with it until it is recorded."""

    consumer_id: str
    error: str
    delay: float | None
    rejected: bool


class Retries:
    """`fail` and `go_on` may be called by anybody; `run` brings back what is due."""

    def __init__(
        self, store: RetryStore, event_log: EventLog, streams: Streams, codec: Codec, announcer: Announcer
    ) -> None:
        self._store = store
        self._announcer = announcer
        self._log = event_log
        self._streams = streams
        self._codec = codec
        self._wake = asyncio.Event()

    async def fail(
        self,
        group: Group,
        shard: int,
        generation: int,
        holdings: Sequence[Holding],
        error: str,
        *,
        delay: float | None = None,
        rejected: bool = False,
        expired: bool = False,
        tell: bool = False,
    ) -> list[Outcome]:
        """Count a failed attempt for each delivery that is still the latest of its event. Those that `expired` are
        spared if they were extended meanwhile. `tell` as in Streams.hand_back.

        Raises StoreUnavailable and StreamsUnavailable: then a sweep goes on with it.
        """
        name = str(group.key)
        how = How(consumer_id_of(holdings[0].consumer), error, delay, rejected)
        outcomes = await self._streams.set_aside(
            shard, name, generation, holdings, note=json.dumps(how), spare_extended=expired, tell=tell
        )
        failed = [holding for holding, outcome in zip(holdings, outcomes, strict=True) if outcome is Outcome.DONE]
        await self._record(group, shard, generation, [(holding, how) for holding in failed])
        return outcomes

    async def go_on(self, group: Group, shard: int, generation: int, types: Sequence[str]) -> None:
        """Record what was set aside by somebody who did not come to do it. Raises as `fail`, and Stale."""
        name = str(group.key)
        left = await self._streams.set_aside_before(shard, name, generation, types, _ABANDONED)
        unknown = How("", "it failed, and how is not known", None, False)
        await self._record(
            group, shard, generation, [(holding, How(*json.loads(note)) if note else unknown) for holding, note in left]
        )

    async def _record(self, group: Group, shard: int, generation: int, failed: Sequence[tuple[Holding, How]]) -> None:
        """Record what was set aside, and forget it. An ephemeral group has no retries: it gets its event back at once,
        unless it was rejected."""
        if not failed:
            return
        name = str(group.key)
        forgotten = [holding for holding, _ in failed]
        if group.ephemeral:
            again = [holding._replace(consumer=self._streams.aside) for holding, how in failed if not how.rejected]
            await self._streams.hand_back(shard, name, generation, again)
        else:
            failures = [
                Failure(
                    holding.position,
                    f"{generation}:{holding.stream}:{holding.retry}:{holding.number}",
                    how.consumer_id,
                    how.error,
                    how.delay,
                    how.rejected,
                )
                for holding, how in failed
            ]
            died = await self._store.record(group, shard, failures)
            self._wake.set()
            for one in died:
                details = one._asdict()
                once = f"{shard}:{one.position}:{details.pop('delivery')}"
                self._announcer.tell("dead_lettered", group.key, once, shard=shard, **details)
        await self._streams.forget(shard, name, generation, forgotten)

    async def run(self, membership_of: Callable[[GroupKey, int], ShardMembership | None]) -> None:
        """Bring back what is due, of the groups that are delivered here."""
        while True:
            self._wake.clear()
            wait = _LONGEST_SLEEP
            try:
                for key, shard, next_due in await self._store.waiting_groups():
                    membership = membership_of(key, shard)
                    if membership is None or not membership.is_open:
                        continue
                    await self._forget_settled(membership)
                    if next_due is not None:
                        wait = min(wait, (next_due - datetime.now(UTC)).total_seconds())
                        if wait <= 0 and await self._bring_back(membership):
                            wait = 0
            except (StoreUnavailable, StreamsUnavailable) as exc:
                log.warning("retries have to wait: %s", exc)
                wait = _LONGEST_SLEEP
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.01, wait)):
                    await self._wake.wait()

    async def _forget_settled(self, membership: ShardMembership) -> None:
        key, shard = membership.group.key, membership.shard
        if settled := await self._streams.retried(shard, str(key)):
            await self._store.settled(key, shard, settled)
            await self._streams.unmark(shard, str(key), [event.position for event in settled])

    async def _bring_back(self, membership: ShardMembership) -> bool:
        """Put a page of what is due into the retry stream; answer whether there may be more."""
        key, shard, generation = membership.group.key, membership.shard, membership.generation
        due = await self._store.due(key, shard, generation, _PAGE)
        if not due:
            return False
        failed = dict(due)
        events = await self._log.at(shard, list(failed))
        entries = [(failed[stored.position], Entry.of(stored, self._codec)) for stored in events]
        try:
            await self._streams.requeue(shard, str(key), generation, entries)
        except Stale:
            membership.lose()
            return False
        await self._store.queued(key, shard, generation, due)
        return len(due) == _PAGE
