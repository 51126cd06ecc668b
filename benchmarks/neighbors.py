"""What a subscriber that takes nothing does to the latency of others: the loads, and the figures of one run."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from statistics import quantiles
from typing import TYPE_CHECKING, NamedTuple

from eventbroker.v1 import publisher_service_pb2 as publishing
from eventbroker.v1 import subscriber_service_pb2 as subscribing
from eventbroker.v1.publisher_service_pb2_grpc import PublisherServiceStub
from eventbroker.v1.subscriber_service_pb2_grpc import SubscriberServiceStub

from benchmarks.events import requests
from benchmarks.loads import CALL_TIMEOUT, channel_to, subscribed, wish
from benchmarks.worker import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from benchmarks.stage import Broker
    from benchmarks.worker import Line

OWN = ("near-1", "near-2", "near-3")  # groups of one healthy subscriber each
SHARED, HEALTHY = "near-shared", 2  # the group that the stalled one is in, and how many others are
PACE = 100.0  # events per second
TURNS = 2  # without and with, so that a slow minute meets both
_LAST = 0.3  # seconds for what is still on its way in the shared group


class Found(NamedTuple):
    """Seconds from the moment an event was due to its arrival; and how many the shared group did not hand to a healthy
    one."""

    own: list[float]
    shared: list[float]
    withheld: int


async def stall(line: Line, target: str) -> None:
    """Open a stream, and never read what comes."""
    async with channel_to(target) as channel:
        call = SubscriberServiceStub(channel).Subscribe(wish(SHARED))
        await call.read()  # opened
        line.say("ready")
        await line.hear()


async def keep_pace_beside(line: Line, target: str, rate: float, events: int) -> Found:
    """Publish an event a call on a fixed schedule, and take and ack it in every group."""
    due: dict[str, float] = {}
    arrived: dict[str, dict[str, float]] = {group: {} for group in (*OWN, SHARED)}
    all_here = asyncio.Event()
    async with AsyncExitStack() as stack:
        publisher = PublisherServiceStub(await stack.enter_async_context(channel_to(target)))
        subscriber = SubscriberServiceStub(await stack.enter_async_context(channel_to(target)))

        def handler(group: str) -> Callable[[list[subscribing.Delivery]], Coroutine[None, None, None]]:
            async def handle(deliveries: list[subscribing.Delivery]) -> None:
                now = time.monotonic()
                for delivery in deliveries:
                    if delivery.event.event_id in due and delivery.attempt == 1:
                        arrived[group].setdefault(delivery.event.event_id, now)
                await subscriber.Ack(
                    subscribing.AckRequest(ack_ids=[delivery.ack_id for delivery in deliveries]), timeout=CALL_TIMEOUT
                )
                if all(len(arrived[own]) == events for own in OWN):
                    all_here.set()

            return handle

        async def send(request: publishing.PublishRequest) -> None:
            await publisher.Publish(request, timeout=CALL_TIMEOUT)

        for group, streams in (*((own, 1) for own in OWN), (SHARED, HEALTHY)):
            await stack.enter_async_context(subscribed(subscriber, wish(group), streams, handler(group)))
        async with asyncio.TaskGroup() as calls:
            supply = requests(1)
            line.say("ready")
            await line.hear()
            began = time.monotonic()
            for number in range(events):
                request = next(supply)
                at = due[request.events[0].event_id] = began + number / rate
                await asyncio.sleep(at - time.monotonic())
                calls.create_task(send(request))
            await all_here.wait()
            await asyncio.sleep(_LAST)
    own = [at - due[event_id] for group in OWN for event_id, at in arrived[group].items()]
    shared = [at - due[event_id] for event_id, at in arrived[SHARED].items()]
    return Found(own, shared, events - len(shared))


async def beside_a_stalled_one(broker: Broker, seconds: float) -> dict[str, float]:
    """The p99 of healthy subscribers beside a stalled one and without it, in turns, and the ratio of the two."""
    turns: dict[bool, list[Found]] = {False: [], True: []}
    for _ in range(TURNS):
        turns[False].append(await _turn(broker, seconds))
        async with worker(stall, broker.target):
            turns[True].append(await _turn(broker, seconds))
    figures: dict[str, float] = {"withheld": max(found.withheld for found in turns[True])}
    for where in ("own", "shared"):
        without, beside = (
            _p99([latency for found in turns[stalled] for latency in getattr(found, where)]) * 1e3
            for stalled in (False, True)
        )
        figures |= {f"{where}_alone_p99_ms": without, f"{where}_p99_ms": beside, f"{where}_ratio": beside / without}
    return figures


async def _turn(broker: Broker, seconds: float) -> Found:
    async with worker(keep_pace_beside, broker.target, PACE, round(seconds * PACE)) as line:
        line.say("go")
        found: Found = await line.hear()
    return found


def _p99(seconds: list[float]) -> float:
    return quantiles(seconds, n=100, method="inclusive")[98]
