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
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.figures import label
from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.ack_id import BACKFILL, RETRY
from eventbroker_server.domain.errors import StoreUnavailable, StreamsUnavailable
from eventbroker_server.domain.group import consumer_id_of
from eventbroker_server.ports import Entry, Failure, Holding, Recorded, Stale

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from eventbroker_server.broker.announce import Announcer
    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.broker.membership import ShardMembership
    from eventbroker_server.broker.ordering import Ordering
    from eventbroker_server.domain.group import Group, GroupKey
    from eventbroker_server.ports import Codec, Due, EventLog, Outcome, RetryStore, Streams

log = logging.getLogger(__name__)

EXPIRED = "not settled before its deadline"
_ABANDONED = 5.0  # seconds after which nobody goes on with what was set aside
_PAGE, _PAGE_BYTES = 100, 4 << 20  # put into a retry stream in one step
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
        self,
        store: RetryStore,
        event_log: EventLog,
        streams: Streams,
        codec: Codec,
        ordering: Ordering,
        announcer: Announcer,
        figures: Figures,
    ) -> None:
        self._ordering = ordering
        self._figures = figures
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
        types: Mapping[int, str],
        *,
        delay: float | None = None,
        rejected: bool = False,
        expired: bool = False,
        tell: bool = False,
    ) -> list[Outcome]:
        """Count a failed attempt for each delivery that is still the latest of its event. Those that `expired` are
        spared if they were extended meanwhile. `types` are those of events of the group's own streams, by position, as
        far as they are known: only to count by. `tell` as in Streams.hand_back.

        Raises StoreUnavailable and StreamsUnavailable: then a sweep goes on with it.
        """
        name = str(group.key)
        how = How(consumer_id_of(holdings[0].consumer), error, delay, rejected)
        outcomes, failed = await self._streams.set_aside(
            shard, name, generation, holdings, note=json.dumps(how), spare_extended=expired, tell=tell
        )
        for holding in failed:
            event_type = types.get(holding.position, "") if holding.stream in (BACKFILL, RETRY) else holding.stream
            self._figures.of(event_type, label(group.key)).failed += 1
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
        recorded = Recorded([], set())
        if group.ephemeral:
            again = [holding._replace(consumer=self._streams.aside) for holding, how in failed if not how.rejected]
            if again:
                await self._streams.hand_back(shard, name, generation, again)
        else:
            failures = [
                Failure(
                    holding.position,
                    _delivery(generation, holding),
                    how.consumer_id,
                    how.error,
                    how.delay,
                    how.rejected,
                )
                for holding, how in failed
            ]
            recorded = await self._store.record(group, shard, generation, failures)
            self._wake.set()
            for died in recorded.died:
                self._announcer.died(group.key, shard, died)
        await self._streams.forget(shard, name, generation, forgotten, dead=recorded.dead, hold=group.hold)

    async def unsettled(self, key: GroupKey, shard: int, positions: Sequence[int]) -> set[int]:
        """Which of these events, none of which is pending, are not settled: they wait for another attempt, or are dead.
        Raises StoreUnavailable, StreamsUnavailable."""
        # In this order: a row goes before the mark that its event is settled.
        settled = set(await self._streams.retried(shard, str(key)))
        found = await self._store.unsettled(key, shard, positions)
        return {event.position for event in found if event not in settled}

    async def run(self, memberships: Callable[[], Iterable[ShardMembership]]) -> None:
        """Bring back what is due, of the groups that are delivered here."""
        loop = asyncio.get_running_loop()
        next_look = loop.time()
        while True:
            self._wake.clear()
            wait = _LONGEST_SLEEP
            try:
                if loop.time() >= next_look:
                    await self._look_for_a_restart()
                    next_look = loop.time() + _LONGEST_SLEEP
                here = {(one.group.key, one.shard): one for one in memberships() if one.is_open}
                for key, shard, due_in in await self._store.waiting_groups(here):
                    membership = here[key, shard]
                    if not membership.is_open:
                        continue
                    await self._ordering.forget_settled(key, shard, membership.generation)
                    if membership.group.paused:
                        continue
                    if due_in is not None and due_in <= 0:
                        wait = 0 if await self._bring_back(membership) else wait
                    elif due_in is not None:
                        wait = min(wait, due_in)
            except (StoreUnavailable, StreamsUnavailable) as exc:
                log.warning("retries have to wait: %s", exc)
                wait = _LONGEST_SLEEP
            await wait_for(self._wake, max(0.01, wait))

    async def _look_for_a_restart(self) -> None:
        """A server that came back may have lost what it was told last, and with it what was put into retry streams.
        What is still there is not put there again."""
        if run := await self._streams.another_run():
            log.info("Redis is in another run: what is due is queued again")
            await self._store.queue_all_again()
            await self._streams.note_run(run)

    async def _bring_back(self, membership: ShardMembership) -> bool:
        """Put a page of what is due into the retry stream; answer whether there may be more."""
        key, shard, generation = membership.group.key, membership.shard, membership.generation
        try:
            async with self._store.due(key, shard, generation, _PAGE) as page:
                due = page.due
                whole = len(due) == _PAGE
                if not due:
                    return False
                if membership.group.in_turn:
                    waiting = [(one, _failed(one, generation)) for one in due]
                    left_out = await self._ordering.line_up(membership.group, shard, generation, waiting)
                    page.later.extend(one for one in due if one.position in left_out)
                    due[:] = [one for one in due if one.position not in left_out]
                    return whole
                stored = {event.position: event for event in await self._log.at(shard, [one.position for one in due])}
                size = 0
                entries: list[tuple[Entry, int, Holding | None]] = []
                for event in due:
                    entry = Entry.of(stored[event.position], self._codec)
                    size += len(entry.body)
                    if entries and size > _PAGE_BYTES:
                        break
                    entries.append((entry, event.failed, _failed(event, generation)))
                whole = whole or len(entries) < len(due)
                del due[len(entries) :]
                if not await self._streams.requeue(shard, str(key), generation, entries):
                    due.clear()  # much is unread there: later
                    return False
        except Stale:
            membership.lose()
            return False
        return whole


def _delivery(generation: int, holding: Holding) -> str:
    return f"{generation}:{holding.stream}:{holding.retry}:{holding.number}"


def _failed(event: Due, generation: int) -> Holding | None:
    """The delivery that failed last, if it is of this generation: only then it may still be set aside."""
    of, _, rest = event.delivery.partition(":")
    if of != str(generation):
        return None
    stream, retry, number = rest.rsplit(":", 2)
    return Holding(event.position, stream, "", int(number), int(retry))
