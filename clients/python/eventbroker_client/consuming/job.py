"""One call of a handler: from its deliveries to what settles them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from eventbroker_client.consuming.delivery import Delivery
from eventbroker_client.consuming.settling import Outcome
from eventbroker_client.consuming.verdict import Reject, Retry
from eventbroker_client.errors import EventBrokerError
from eventbroker_client.events.cause import handling

if TYPE_CHECKING:
    from eventbroker_client.consuming.handler import Handler
    from eventbroker_client.consuming.holdings import Holdings

Proceed = Callable[[], Awaitable[None]]
Middleware = Callable[[Sequence[Delivery], Proceed], Awaitable[None]]
OnLost = Callable[[Delivery], Awaitable[None] | None]

log = logging.getLogger("eventbroker_client")


RELEASE_TIMEOUT = 5.0  # seconds for giving back what is not handled


@dataclass(frozen=True, slots=True)
class Job:
    """Deliveries for one call of a handler; `released` ones are given back instead."""

    handler: Handler | None
    deliveries: tuple[Delivery, ...]
    released: bool = False


class Work:
    """Does jobs. `on_lost` is called with each delivery that was handled too late."""

    def __init__(self, holdings: Holdings, on_lost: OnLost | None) -> None:
        self.middleware: list[Middleware] = []
        self._holdings = holdings
        self._on_lost = on_lost

    async def do(self, job: Job) -> None:
        """Never raises but CancelledError, and then the events were given back as well as could be."""
        deliveries = []
        for delivery in job.deliveries:
            if self._holdings.was_handled(delivery):
                await self._settle(delivery, delivery.ack, handled=True)
            else:
                deliveries.append(delivery)
        if not deliveries:
            return
        try:
            if job.released:
                await self._settle_all(deliveries, Delivery.release)
            elif job.handler is None:
                reason = f"no handler for {deliveries[0].event_type}"
                log.error("%s", reason)
                await self._settle_all(deliveries, partial(Delivery.nack, reason=reason))
            else:
                await self._call(job.handler, deliveries)
        except asyncio.CancelledError:
            with suppress(TimeoutError):
                async with asyncio.timeout(RELEASE_TIMEOUT):
                    await self._settle_all(deliveries, Delivery.release)
            raise

    async def _call(self, handler: Handler, deliveries: list[Delivery]) -> None:
        proceed: Proceed = partial(handler.handle, deliveries)
        for middleware in reversed(self.middleware):
            proceed = partial(middleware, deliveries, proceed)
        try:
            with nullcontext() if handler.batch_events else handling(deliveries[0].event):
                await proceed()
        except Reject as verdict:
            await self._settle_all(deliveries, partial(Delivery.nack, reason=str(verdict), dead_letter=True))
        except Retry as verdict:
            await self._settle_all(deliveries, partial(Delivery.nack, reason=str(verdict), delay=verdict.delay))
        except Exception as failure:
            log.exception("the handler of %s failed with %r", handler.pattern, deliveries[0])
            reason = f"{type(failure).__qualname__}: {failure}"
            await self._settle_all(deliveries, partial(Delivery.nack, reason=reason))
        else:
            await self._settle_all(deliveries, Delivery.ack, handled=True)

    async def _settle_all(
        self,
        deliveries: Sequence[Delivery],
        settle: Callable[[Delivery], Awaitable[Outcome]],
        *,
        handled: bool = False,
    ) -> None:
        """But those that the handler settled itself."""
        for delivery in deliveries:
            self._holdings.drop(delivery)
        await asyncio.gather(
            *[
                self._settle(delivery, partial(settle, delivery), handled=handled)
                for delivery in deliveries
                if not delivery.settled
            ]
        )

    async def _settle(self, delivery: Delivery, settle: Callable[[], Awaitable[Outcome]], *, handled: bool) -> None:
        self._holdings.drop(delivery)
        try:
            outcome = await settle()
        except EventBrokerError as error:
            log.warning("%r could not be settled (%s)", delivery, error)
            outcome = Outcome.OUTDATED
        if outcome is not Outcome.OUTDATED:
            return
        log.warning("%r was lost before it was settled", delivery)
        if handled:
            self._holdings.handled_in_vain(delivery)
        if self._on_lost is not None:
            try:
                if (called := self._on_lost(delivery)) is not None:
                    await called
            except Exception:
                log.exception("on_lost failed")
