"""Event-sourced aggregates of one kind: load, decide, append as of the version that was seen.

The state is any value, folded from events by a pure function. Nothing is kept here between calls, so one repository may
be used by any number of tasks, and any number of processes may write the same aggregates: of those that saw the same
version one appends, and `execute` has the others decide again.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import is_dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from google.protobuf.message import Message

from eventbroker_client.connection.attempts import Backoff
from eventbroker_client.errors import AggregateNotFound, EventBrokerError, PayloadMismatch, VersionConflict
from eventbroker_client.events.event import Event
from eventbroker_client.events.payload import fitted
from eventbroker_client.publishing.published import Expect
from eventbroker_client.sourcing.sourced import Sourced

if TYPE_CHECKING:
    from datetime import datetime

    from eventbroker_client.broker import Broker

log = logging.getLogger("eventbroker_client")

S = TypeVar("S")
Decided = Event | Iterable[Event] | None


class Repository(Generic[S]):
    """`Repository(broker, "Account", Account(), apply)`, where `apply(state, event)` answers the next state."""

    def __init__(
        self,
        broker: Broker,
        aggregate_type: str,
        initial: S,
        apply: Callable[[S, Event], S],
        *,
        snapshot_every: int = 0,
        encode: Callable[[S], Any] | None = None,
        decode: Callable[[Any], S] | None = None,
        tenant: str | None = None,
    ) -> None:
        """initial: the state before the first event. It is shared, so `apply` must not change it.
        apply: pure: answers the state after an event. An event that it does not know should leave the state alone.
        snapshot_every: saves a snapshot when so many events were appended since the last; 0: never.
        encode, decode: the state to the data of a snapshot, and back. Without them the state itself is the data, and
            comes back as an instance of its dataclass or class of messages. `decode` may raise PayloadMismatch for one
            that it no longer understands: the events are read instead.
        tenant: whose aggregates (None: that of `connect`)."""
        self._broker = broker
        self._type = aggregate_type
        self._initial = initial
        self._apply = apply
        self._every = snapshot_every
        self._encode: Callable[[S], Any] = encode or (lambda state: state)
        self._decode: Callable[[Any], S] = decode or self._fitted
        self._tenant = tenant

    async def load(self, aggregate_id: str, *, version: int | None = None, as_of: datetime | None = None) -> Sourced[S]:
        """The aggregate; at version 0, with the initial state, if it has no event. Also as it was at a version, or with
        the events that were recorded at a time or before. Raises VersionBeyond, and what `apply` raises."""
        try:
            return await self._load(aggregate_id, version, as_of, snapshot=True)
        except PayloadMismatch as mismatch:
            log.info("a snapshot of %s %s is left aside (%s)", self._type, aggregate_id, mismatch)
            return await self._load(aggregate_id, version, as_of, snapshot=False)

    async def append(self, seen: Sourced[S], events: Event | Iterable[Event]) -> Sourced[S]:
        """Stores all events, or none, if the aggregate is still at the version that was seen; answers it after them.

        1 to 1,000 events of this aggregate, at most 4 MiB. Raises VersionConflict: somebody else was faster, and
        nothing was stored. Unavailable: it is not known, but to call it again with the same events is safe. ValueError
        if an event is of another aggregate or tenant."""
        own = [self._own(event, seen.id) for event in ([events] if isinstance(events, Event) else events)]
        if not own:
            return seen
        results = await self._broker.publish_many(own, expect=[Expect(self._type, seen.id, version=seen.version)])
        if results[0].aggregate_version != seen.version + 1:  # stored before, by an earlier call
            return await self.load(seen.id)
        state = seen.state
        for event, result in zip(own, results, strict=True):
            stored = replace(event, aggregate_version=result.aggregate_version, position=result.position)
            state = self._apply(state, stored)
        return await self._kept(replace(seen, state=state, version=results[-1].aggregate_version))

    async def execute(
        self, aggregate_id: str, decide: Callable[[S], Decided | Awaitable[Decided]], *, attempts: int = 10
    ) -> Sourced[S]:
        """Loads the aggregate, appends what `decide` makes of its state, and answers it after that.

        `decide` gets the state, and answers an event, several, or none; it may be async. When somebody else appended
        meanwhile, the aggregate is loaded anew and `decide` called again, so it must do nothing else than decide; what
        it raises is raised. After so many attempts, with growing pauses and jitter, raises VersionConflict."""
        backoff = Backoff()
        for left in range(attempts - 1, -1, -1):
            seen = await self.load(aggregate_id)
            decided = decide(seen.state)
            if inspect.isawaitable(decided):
                decided = await decided
            try:
                return await self.append(seen, () if decided is None else decided)
            except VersionConflict:
                if not left:
                    raise
                await asyncio.sleep(backoff.next())
        raise ValueError("attempts must be at least 1")

    async def save_snapshot(self, seen: Sourced[S]) -> Sourced[S]:
        """Keeps the state, whenever it seems worth it. Raises EventBrokerError."""
        data = self._encode(seen.state)
        await self._broker.save_snapshot(self._type, seen.id, seen.version, data, tenant=self._tenant)
        return replace(seen, snapshot_version=seen.version)

    async def _load(
        self, aggregate_id: str, version: int | None, as_of: datetime | None, *, snapshot: bool
    ) -> Sourced[S]:
        try:
            found = await self._broker.aggregate(
                self._type, aggregate_id, version=version, as_of=as_of, snapshot=snapshot, tenant=self._tenant
            )
        except AggregateNotFound:
            if version is not None:
                raise
            return Sourced(aggregate_id, self._initial, 0)
        state = self._initial if found.snapshot is None else self._decode(found.snapshot.data)
        for event in found.events:
            state = self._apply(state, event)
        return Sourced(aggregate_id, state, found.version, found.snapshot.version if found.snapshot else 0)

    async def _kept(self, seen: Sourced[S]) -> Sourced[S]:
        """With a snapshot, if it is time for one. Its failure is none of the append, which is done."""
        if not self._every or seen.version - seen.snapshot_version < self._every:
            return seen
        try:
            return await self.save_snapshot(seen)
        except EventBrokerError as error:
            log.warning("no snapshot of %s %s was saved (%s)", self._type, seen.id, error)
            return seen

    def _own(self, event: Event, aggregate_id: str) -> Event:
        if (event.aggregate_type, event.aggregate_id) != (self._type, aggregate_id):
            raise ValueError(f"{event.aggregate_type}/{event.aggregate_id} is not {self._type}/{aggregate_id}")
        if self._tenant is None or event.tenant_id == self._tenant:
            return event
        if event.tenant_id:
            raise ValueError(f"the event is of {event.tenant_id}, the repository of {self._tenant}")
        return replace(event, tenant_id=self._tenant)

    def _fitted(self, data: Any) -> S:
        kind = type(self._initial)
        if isinstance(data, kind):
            return data
        if is_dataclass(kind) or issubclass(kind, Message):
            state: S = fitted(data, kind)
            return state
        raise PayloadMismatch(f"a snapshot is {type(data).__qualname__}, the state {kind.__qualname__}")
