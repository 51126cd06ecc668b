"""Settling: acks, nacks and extensions, fenced, through any broker."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from eventbroker_server.broker.figures import label
from eventbroker_server.domain.ack_id import BACKFILL, RETRY
from eventbroker_server.domain.errors import StoreUnavailable
from eventbroker_server.domain.group import GroupKey
from eventbroker_server.ports import Holding, Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from eventbroker_server.broker.figures import Figures
    from eventbroker_server.broker.retry import Retries
    from eventbroker_server.broker.subscriptions import Subscriptions
    from eventbroker_server.domain.ack_id import AckId, Lane, Signer
    from eventbroker_server.domain.principal import Principal
    from eventbroker_server.ports import Streams


class NackAction(Enum):
    """What is to become of a delivery that was not handled. The numbers are those of the protocol."""

    RETRY = 1
    DEAD_LETTER = 2
    RELEASE = 3


class Nack(NamedTuple):
    """How deliveries are nacked. A retry waits for so many seconds, or as the group's policy says."""

    action: NackAction
    error: str = ""
    delay: float | None = None


class Settling:
    """Each id gets one outcome. UNKNOWN is what is not an ack id, and what is another tenant's: none can tell which."""

    def __init__(
        self, signer: Signer, streams: Streams, subscriptions: Subscriptions, retries: Retries, figures: Figures
    ) -> None:
        self._figures = figures
        self._signer = signer
        self._streams = streams
        self._subscriptions = subscriptions
        self._retries = retries

    async def ack(self, principal: Principal, ack_ids: Sequence[str]) -> list[Outcome]:
        """Settle deliveries. Raises StreamsUnavailable: some may be settled."""

        async def settle(deliveries: list[AckId]) -> list[Outcome]:
            outcomes = await self._streams.settle(deliveries)
            self._count(deliveries, outcomes)
            return await self._told(deliveries, outcomes)

        return await self._each_lane(principal, ack_ids, settle)

    async def nack(self, principal: Principal, ack_ids: Sequence[str], nack: Nack) -> list[Outcome]:
        """Give deliveries back, each as one of them is. Raises StreamsUnavailable: some may be given back; and
        StoreUnavailable: all count as failed, some without their error."""

        async def give_back(deliveries: list[AckId]) -> list[Outcome]:
            lane = deliveries[0].lane
            holdings = [Holding(d.position, d.lane.stream, lane.consumer, d.number, d.retry) for d in deliveries]
            if nack.action is NackAction.RELEASE:
                outcomes = await self._streams.hand_back(lane.shard, lane.group, lane.generation, holdings, tell=True)
            elif (group := await self._subscriptions.group(GroupKey.parse(lane.group))) is not None:
                outcomes = await self._retries.fail(
                    group,
                    lane.shard,
                    lane.generation,
                    holdings,
                    nack.error,
                    self._types_of(deliveries),
                    delay=nack.delay,
                    rejected=nack.action is NackAction.DEAD_LETTER,
                    tell=True,
                )
            else:
                outcomes = [Outcome.OUTDATED] * len(deliveries)
            return await self._told(deliveries, outcomes)

        return await self._each_lane(principal, ack_ids, give_back)

    async def extend(self, principal: Principal, ack_ids: Sequence[str], seconds: float) -> list[Outcome]:
        """Give deliveries so many seconds from now. Raises StreamsUnavailable: some may have them."""

        async def extend(deliveries: list[AckId]) -> list[Outcome]:
            outcomes = await self._true(deliveries, await self._streams.extend(deliveries, seconds))
            done = [d.position for d, outcome in zip(deliveries, outcomes, strict=True) if outcome is Outcome.DONE]
            lane = deliveries[0].lane
            self._subscriptions.extended(lane.group, lane.consumer, lane.shard, done, seconds)
            return outcomes

        return await self._each_lane(principal, ack_ids, extend)

    def _count(self, deliveries: list[AckId], outcomes: list[Outcome]) -> None:
        """Count what was acked. A consumer elsewhere knows the types of what is of its group's own streams; from here
        they are counted as other."""
        types = self._types_of(deliveries)
        group = label(GroupKey.parse(deliveries[0].lane.group))
        acked = Counter(
            [
                types.get(delivery.position, "") if delivery.lane.stream in (BACKFILL, RETRY) else delivery.lane.stream
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
                if outcome is Outcome.DONE
            ]
        )
        for event_type, count in acked.items():
            self._figures.of(event_type, group).acked += count

    def _types_of(self, deliveries: list[AckId]) -> dict[int, str]:
        """The types of those from the group's own streams, as far as they are known."""
        lane = deliveries[0].lane
        positions = [delivery.position for delivery in deliveries if delivery.lane.stream in (BACKFILL, RETRY)]
        return self._subscriptions.types_of(lane.group, lane.consumer, lane.shard, positions) if positions else {}

    async def _told(self, deliveries: list[AckId], outcomes: list[Outcome]) -> list[Outcome]:
        """Reopen the credit of a consumer that is connected here, and answer the true outcomes."""
        lane = deliveries[0].lane
        done = [d.position for d, outcome in zip(deliveries, outcomes, strict=True) if outcome is Outcome.DONE]
        self._subscriptions.settled(lane.group, lane.consumer, lane.shard, done)
        return await self._true(deliveries, outcomes)

    async def _true(self, deliveries: list[AckId], outcomes: list[Outcome]) -> list[Outcome]:
        """Tell what was settled from what failed: Redis knows of both only that they are not pending."""
        if Outcome.ALREADY_SETTLED not in outcomes:
            return outcomes
        lane = deliveries[0].lane
        by_outcome: dict[Outcome, set[int]] = {}
        for delivery, outcome in zip(deliveries, outcomes, strict=True):
            by_outcome.setdefault(outcome, set()).add(delivery.position)
        gone = by_outcome[Outcome.ALREADY_SETTLED] - by_outcome.get(Outcome.DONE, set())
        if not gone:
            return outcomes
        with suppress(StoreUnavailable):  # then it stays untold
            failed = await self._retries.unsettled(GroupKey.parse(lane.group), lane.shard, sorted(gone))
            return [
                Outcome.OUTDATED if outcome is Outcome.ALREADY_SETTLED and delivery.position in failed else outcome
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
            ]
        return outcomes

    async def _each_lane(
        self,
        principal: Principal,
        ack_ids: Sequence[str],
        do: Callable[[list[AckId]], Awaitable[list[Outcome]]],
    ) -> list[Outcome]:
        outcomes = [Outcome.UNKNOWN] * len(ack_ids)
        lanes: dict[Lane, list[tuple[int, AckId]]] = {}
        for number, text in enumerate(ack_ids):
            if (ack_id := self._signer.verify(text)) is not None:
                lanes.setdefault(ack_id.lane, []).append((number, ack_id))
        calls: dict[Lane, list[tuple[int, AckId]]] = {}  # one for all streams of a consumer
        for lane, asked in lanes.items():
            if principal.owns(GroupKey.parse(lane.group).tenant):
                calls.setdefault(lane._replace(stream=""), []).extend(asked)
        for asked in calls.values():
            for (number, _), outcome in zip(asked, await do([ack_id for _, ack_id in asked]), strict=True):
                outcomes[number] = outcome
        return outcomes
