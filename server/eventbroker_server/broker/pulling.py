"""Pulling: consumers without a stream, which are handed events by one call after another.

What a call handed out stays with its consumer after the call, until it is settled or its deadline passes. So a puller
keeps a subscription open in a task of its own. It lets go when it holds nothing and was not asked for a while, and at
once when the subscription is closed: what it holds then is given back without counting an attempt.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from eventbroker_server.broker.consumer import ClosingReason
from eventbroker_server.broker.tasks import wait_for
from eventbroker_server.domain.errors import GroupNotFound, ShuttingDown

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from eventbroker_server.broker.subscription import HandedOver, Subscription
    from eventbroker_server.broker.subscriptions import Subscriptions, Wish
    from eventbroker_server.domain.group import GroupKey

log = logging.getLogger(__name__)

_AGAIN = 5.0  # seconds after which a call that waits asks once more
_LOOK = 0.25  # seconds that a call waits at least: so long one look at Redis may take


class Puller:
    """One consumer of a group. Calls take turns. It stays for `idle` seconds without a call."""

    def __init__(self, key: GroupKey, consumer_id: str, idle: float) -> None:
        self.key = key
        self.consumer_id = consumer_id  # empty for one that serves whoever does not say who it is
        self.opened: asyncio.Future[Subscription] = asyncio.get_running_loop().create_future()
        self.calls = 0
        self._idle = idle
        self._turn = asyncio.Lock()
        self._used_at = asyncio.get_running_loop().time()

    @property
    def over(self) -> bool:
        """Whether it cannot be pulled any more."""
        if not self.opened.done():
            return False
        return self.opened.exception() is not None or self.opened.result().consumer.closing is not None

    async def next(self, most: int, wait: float) -> HandedOver | None:
        """Up to so many events, as soon as there is one; None if none came within `wait` seconds. Raises what opening
        a subscription does, ShuttingDown, and GroupNotFound if the group was deleted meanwhile."""
        self.calls += 1
        try:
            async with asyncio.timeout(max(wait, _LOOK)):
                subscription = await asyncio.shield(self.opened)
                async with self._turn:
                    return await self._next(subscription, most)
        except TimeoutError:
            return None
        finally:
            self.calls -= 1
            self._used_at = asyncio.get_running_loop().time()

    async def _next(self, subscription: Subscription, most: int) -> HandedOver | None:
        consumer = subscription.consumer
        try:
            while consumer.closing is None:
                consumer.ask(most)
                if batch := await consumer.next(_AGAIN):
                    return subscription.hand_over(batch)
        finally:
            consumer.ask(0)
        if consumer.closing is ClosingReason.GROUP_DELETED:
            raise GroupNotFound(self.key.name, self.key.tenant_id)
        raise ShuttingDown

    async def kept(self, subscription: Subscription) -> None:
        """Wait until nobody needs it any more."""
        consumer, loop = subscription.consumer, asyncio.get_running_loop()
        while not consumer.closed.is_set():
            if not self.calls and not consumer.holds and loop.time() >= self._used_at + self._idle:
                return
            await wait_for(consumer.closed, self._idle / 5)


class Pulling:
    """All pullers of this broker. Each stays for `idle` seconds without a call; `spawn` starts a task for it."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        idle: float,
        spawn: Callable[[Coroutine[None, None, None], str], asyncio.Task[None]],
    ) -> None:
        self._subscriptions = subscriptions
        self._idle = idle
        self._spawn = spawn
        self._pullers: list[Puller] = []

    async def pull(self, wish: Wish, most: int, wait: float) -> HandedOver | None:
        """Hand events of a named group over: as Puller.next."""
        group = await self._subscriptions.group_for(wish)
        return await self._puller(group.key, wish).next(most, wait)

    def _puller(self, key: GroupKey, wish: Wish) -> Puller:
        """That of the consumer; for one that does not say who it is, any that is free."""
        for puller in self._pullers:
            same = puller.key == key and puller.consumer_id == wish.consumer_id and not puller.over
            if same and (wish.consumer_id or not puller.calls):
                return puller
        puller = Puller(key, wish.consumer_id, self._idle)
        self._pullers.append(puller)
        self._spawn(self._keep(puller, wish), f"puller {key}")
        return puller

    async def _keep(self, puller: Puller, wish: Wish) -> None:
        # What follows the + is unique: a consumer may pull through several brokers at once, and hold a stream besides,
        # and none of them takes over from the others.
        unique = f"{wish.consumer_id or 'puller'}+{uuid.uuid4().hex[:12]}"
        try:
            async with self._subscriptions.open(replace(wish, consumer_id=unique, asks=True)) as subscription:
                puller.opened.set_result(subscription)
                await puller.kept(subscription)
                self._pullers.remove(puller)  # before it gives back: who comes now gets another
        except Exception as exc:
            if puller.opened.done():
                log.exception("a puller failed", extra={"group": str(puller.key)})
            else:
                puller.opened.set_exception(exc)  # to those who wait for it
        finally:
            if puller in self._pullers:
                self._pullers.remove(puller)
