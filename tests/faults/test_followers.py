"""Those who follow the log while it is written, and a broker dies under them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import grpc
from eventbroker.v1 import event_store_service_pb2 as pb

from tests.client import TIMEOUT, Client, event
from tests.waiting import eventually

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.conftest import BrokerProcess

PUBLISHERS, CALLS, FOLLOWERS = 3, 150, 4


class Follower:
    """Reads through one broker, and when that is gone through the next, from where it was."""

    def __init__(self, brokers: list[Client]) -> None:
        self.positions: list[int] = []
        self.moves = 0
        self._brokers = brokers
        self._at = 0

    async def follow(self) -> None:
        while True:
            broker = self._brokers[self.moves % len(self._brokers)]
            request = pb.ReadEventsRequest(tenant_id="acme", after_position=self._at, follow=True)
            try:
                async for response in broker.event_store.ReadEvents(request, timeout=TIMEOUT * 4):
                    self.positions += [each.position for each in response.events.events]
                    self._at = response.position
            except grpc.aio.AioRpcError:
                self.moves += 1


async def test_followers_miss_nothing_and_see_nothing_twice_when_their_broker_is_killed(
    spawn_broker: Callable[..., Awaitable[BrokerProcess]],
) -> None:
    doomed, living = await spawn_broker(), await spawn_broker()
    async with Client(doomed.target) as one, Client(living.target) as other:
        followers = [Follower([one, other] if number % 2 else [other, one]) for number in range(FOLLOWERS)]
        following = [asyncio.create_task(follower.follow()) for follower in followers]

        async def publish(first: Client) -> None:
            brokers = [first, other]
            for _ in range(CALLS):
                sent = [event() for _ in range(3)]
                while True:
                    try:
                        await brokers[0].publish(*sent)
                        break
                    except grpc.aio.AioRpcError:  # not known: again, with the same ids
                        brokers.reverse()

        async with asyncio.TaskGroup() as tasks:
            for number in range(PUBLISHERS):
                tasks.create_task(publish(one if number else other))
            await eventually(lambda: min(len(follower.positions) for follower in followers) > CALLS)
            await doomed.kill()
        stored = list(range(1, PUBLISHERS * CALLS * 3 + 1))
        await eventually(lambda: all(len(follower.positions) >= len(stored) for follower in followers))
        assert [follower.positions for follower in followers] == [stored] * FOLLOWERS
        assert sum(follower.moves > 0 for follower in followers) >= FOLLOWERS // 2
        for task in following:
            task.cancel()
