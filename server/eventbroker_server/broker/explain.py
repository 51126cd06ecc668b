"""Why an event was or was not delivered to a group, and waiting until a group has come so far.

Redis knows what is on its way, PostgreSQL what failed and how far the group has come; neither is changed.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.domain.conditions import Facts
from eventbroker_server.domain.errors import EventNotFound, InvalidArgument, Violation
from eventbroker_server.domain.event import shard_of
from eventbroker_server.domain.group import consumer_id_of
from eventbroker_server.ports import Waiting, Where

if TYPE_CHECKING:
    from eventbroker_server.broker.groups import Groups
    from eventbroker_server.domain.event import EventKey
    from eventbroker_server.domain.group import Group, GroupKey
    from eventbroker_server.ports import EventLog, GroupStore, RetryStore, Streams, Trouble, Whereabouts

_EVERY = 0.1  # seconds between looks


class DeliveryState(Enum):
    """What an event is to a group. The numbers are those of the protocol."""

    FILTERED = 1
    NOT_RELAYED = 2
    HISTORY = 3
    WAITING = 4
    OUT = 5
    FAILING = 6
    RETRY = 7
    DEAD = 8
    SETTLED = 9
    BEHIND = 10


class Explanation(NamedTuple):
    """The state of an event in a group, and what belongs to that state; times are UTC."""

    state: DeliveryState
    shard: int
    position: int
    checkpoint: int
    paused: bool
    wanted: str = ""  # FILTERED: what the group wants instead
    failed: int = 0  # attempts
    error: str = ""  # of the last one
    consumer_id: str = ""  # OUT
    behind: str = ""  # BEHIND: the event that has the turn
    attended: bool = True  # WAITING, HISTORY: whether any consumer is connected
    until: datetime | None = None  # OUT: the deadline; RETRY: when it is due; DEAD: since when


class Explainer:
    """Raises GroupNotFound, EventNotFound, StoreUnavailable, StreamsUnavailable."""

    def __init__(
        self,
        groups: Groups,
        event_log: EventLog,
        store: GroupStore,
        retries: RetryStore,
        streams: Streams,
        shards: int,
    ) -> None:
        self._groups = groups
        self._log = event_log
        self._store = store
        self._retries = retries
        self._streams = streams
        self._shards = shards

    async def explain(self, key: GroupKey, event_key: EventKey) -> Explanation:
        group = await self._groups.get(key)
        stored = await self._log.find(event_key)
        if stored is None:
            raise EventNotFound(tenant_id=event_key[0], event_id=event_key[1])
        shard, position = shard_of(event_key[0], self._shards), stored.position
        membership = await self._store.membership(key, shard)
        said = Explanation(DeliveryState.WAITING, shard, position, membership.checkpoint, group.paused)
        if not group.wants_tenant(event_key[0]):
            return said._replace(state=DeliveryState.FILTERED, wanted=f"events of tenant {key.tenant}")
        if not group.filter.matches(stored.event.event_type):
            return said._replace(state=DeliveryState.FILTERED, wanted=f"event types {group.filter}")
        event = stored.event
        if not group.conditions.met_by(Facts(event.metadata.source, event.aggregate_type, event.metadata.tags)):
            return said._replace(state=DeliveryState.FILTERED, wanted=str(group.conditions))
        there = await self._streams.whereabouts(
            shard, str(key), membership.generation, stored.event.event_type, position
        )
        # In this order: what failed is in Redis until its row is there, and the mark of what was settled then until its
        # row is gone.
        settled = await self._streams.retried(shard, str(key)) if there.where is Where.OVER else []
        trouble = await self._retries.trouble(key, shard, position)
        if trouble is not None:
            said = said._replace(failed=trouble.failed, error=trouble.error)
            if Waiting(position, trouble.failed) in settled:
                trouble = None
        if there.where is Where.BEHIND:
            before = await self._log.at(shard, [there.before])
            return said._replace(state=DeliveryState.BEHIND, behind=before[0].event.event_id)
        said = self._judge(said, group, there, trouble)
        if said.state is DeliveryState.HISTORY and await self._store.is_settled(key, shard, position):
            said = said._replace(state=DeliveryState.SETTLED)  # Redis was lost since
        if said.state in (DeliveryState.WAITING, DeliveryState.HISTORY):
            said = said._replace(attended=await self._groups.is_attended(group))
        return said

    def _judge(self, said: Explanation, group: Group, there: Whereabouts, trouble: Trouble | None) -> Explanation:
        if there.where is Where.PENDING:
            if there.consumer == self._streams.aside:
                return said._replace(state=DeliveryState.FAILING)
            if consumer_id := consumer_id_of(there.consumer):
                now = datetime.now(UTC)
                until = now + timedelta(seconds=group.ack_deadline - there.idle)
                until = max(until, there.extended_to) if there.extended_to else until
                return said._replace(state=DeliveryState.OUT, consumer_id=consumer_id, until=until)
            return said  # handed back
        if trouble is not None and trouble.due_at is not None and there.where is not Where.TO_BE_READ:
            return said._replace(state=DeliveryState.RETRY, until=trouble.due_at)
        if trouble is not None and trouble.dead_at is not None:
            return said._replace(state=DeliveryState.DEAD, until=trouble.dead_at)
        if there.where is Where.OVER or said.position <= said.checkpoint:
            return said._replace(state=DeliveryState.SETTLED)
        states = {Where.NOT_RELAYED: DeliveryState.NOT_RELAYED, Where.TO_BE_READ: DeliveryState.WAITING}
        return said._replace(state=states.get(there.where, DeliveryState.HISTORY))

    async def wait(self, key: GroupKey, tenant: str, position: int, timeout: float) -> tuple[bool, int]:
        """Wait until every event up to the position, in the shard of that tenant, is settled or dead; answer whether
        it came to that within so many seconds, and the position up to which it is so. Raises InvalidArgument for a
        position beyond the head."""
        group = await self._groups.get(key)
        shard = shard_of(tenant, self._shards)
        if position > (head := await self._log.head(shard)):
            rule = f"must be from 1 to {head}, the position of the newest event"
            raise InvalidArgument([Violation("position", rule)])
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout
        while True:
            settled = await self._settled(group, shard)
            if settled >= position or loop.time() >= until:
                return settled >= position, settled
            await asyncio.sleep(min(_EVERY, until - loop.time()))

    async def _settled(self, group: Group, shard: int) -> int:
        membership = await self._store.membership(group.key, shard)
        progress = await self._groups.progress(group, shard, membership.generation)
        settled = max(membership.checkpoint, progress.settled if progress is not None else 0)
        retry = await self._retries.oldest(group.key, shard)
        return settled if retry is None else min(settled, retry - 1)
