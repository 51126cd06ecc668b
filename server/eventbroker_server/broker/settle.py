"""Settling: acks and extensions, fenced, through any broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventbroker_server.domain.group import GroupKey
from eventbroker_server.ports import Outcome

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from eventbroker_server.broker.subscriptions import Subscriptions
    from eventbroker_server.domain.ack_id import AckId, Lane, Signer
    from eventbroker_server.domain.principal import Principal
    from eventbroker_server.ports import Streams


class Settling:
    """Each id gets one outcome. UNKNOWN is what is not an ack id, and what is another tenant's: none can tell which."""

    def __init__(self, signer: Signer, streams: Streams, subscriptions: Subscriptions) -> None:
        self._signer = signer
        self._streams = streams
        self._subscriptions = subscriptions

    async def ack(self, principal: Principal, ack_ids: Sequence[str]) -> list[Outcome]:
        """Settle deliveries. Raises StreamsUnavailable: some may be settled."""

        async def settle(deliveries: list[AckId]) -> list[Outcome]:
            outcomes = await self._streams.settle(deliveries)
            over = [
                delivery.position
                for delivery, outcome in zip(deliveries, outcomes, strict=True)
                if outcome in (Outcome.DONE, Outcome.ALREADY_SETTLED)
            ]
            lane = deliveries[0].lane
            self._subscriptions.settled(lane.group, lane.consumer, lane.shard, over)
            return outcomes

        return await self._each_lane(principal, ack_ids, settle)

    async def extend(self, principal: Principal, ack_ids: Sequence[str], seconds: float) -> list[Outcome]:
        """Give deliveries so many seconds from now. Raises StreamsUnavailable: some may have them."""

        async def extend(deliveries: list[AckId]) -> list[Outcome]:
            outcomes = await self._streams.extend(deliveries, seconds)
            done = [d.position for d, outcome in zip(deliveries, outcomes, strict=True) if outcome is Outcome.DONE]
            lane = deliveries[0].lane
            self._subscriptions.extended(lane.group, lane.consumer, lane.shard, done, seconds)
            return outcomes

        return await self._each_lane(principal, ack_ids, extend)

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
