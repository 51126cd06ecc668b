"""How often something is tried."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

import pytest
from eventbroker_client import (
    BlockingPublisher,
    Event,
    EventBrokerError,
    InvalidArgument,
    Overloaded,
    Unavailable,
    connect,
)
from eventbroker_client.connection.attempts import (
    ATTEMPT_TIMEOUT,
    LONGEST_PAUSE,
    SHORTEST_ATTEMPT,
    Attempts,
    Backoff,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

NOBODY = "127.0.0.1:1"


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def longest(low: float, high: float) -> float:
    assert low == 0.0
    return high


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_pauses_double_up_to_a_bound_and_begin_anew_after_success() -> None:
    backoff = Backoff(longest)
    assert [backoff.next() for _ in range(4)] == [0.05, 0.1, 0.2, 0.4]
    assert [backoff.next() for _ in range(100)][-1] == LONGEST_PAUSE
    backoff.reset()
    assert backoff.next() == 0.05


def test_an_attempt_takes_no_longer_than_what_is_left(clock: Clock) -> None:
    attempts = Attempts(30, clock=clock)
    assert attempts.timeout() == ATTEMPT_TIMEOUT
    clock.now += 27
    assert attempts.timeout() == pytest.approx(3)


def test_what_cannot_succeed_is_not_tried_again(clock: Clock) -> None:
    error = InvalidArgument("no")
    with pytest.raises(InvalidArgument) as caught:
        Attempts(30, clock=clock).pause_after(error)
    assert caught.value is error


def test_who_is_overloaded_is_left_alone_for_as_long_as_it_says(clock: Clock) -> None:
    assert Attempts(30, clock=clock, draw=longest).pause_after(Overloaded(retry_after=2)) == 2.05


def test_when_time_is_over_the_last_error_is_raised(clock: Clock) -> None:
    attempts = Attempts(10, clock=clock, draw=longest)
    attempts.pause_after(Unavailable("one"))
    clock.now += 9.95
    with pytest.raises(Unavailable, match="two"):
        attempts.pause_after(Unavailable("two"))


@pytest.mark.parametrize("error", [Unavailable("gone"), Overloaded(retry_after=0.2)])
def test_all_of_the_time_is_used_however_long_the_next_pause_would_be(clock: Clock, error: EventBrokerError) -> None:
    attempts = Attempts(2, clock=clock, draw=longest)

    def go_on() -> None:
        while True:
            clock.now += attempts.pause_after(error)

    with pytest.raises(type(error)):
        go_on()
    assert attempts.timeout() <= SHORTEST_ATTEMPT + getattr(error, "retry_after", 0.0)


def test_that_an_attempt_took_too_long_does_not_hide_what_failed_before(clock: Clock) -> None:
    attempts = Attempts(2, clock=clock, draw=longest)
    attempts.pause_after(Unavailable("connection refused"))
    clock.now += 2
    with pytest.raises(Unavailable, match="connection refused"):
        attempts.pause_after(Unavailable("too late", reason="DEADLINE_EXCEEDED"))


async def test_where_nobody_listens_calls_fail_at_the_end_of_their_time_and_say_why() -> None:
    timeout, event = 1.0, Event("a.b", "A", "1")

    async def failed(call: Awaitable[Any]) -> tuple[float, str]:
        begun = time.monotonic()
        with pytest.raises(Unavailable) as caught:
            await call
        return time.monotonic() - begun, str(caught.value)

    async with connect(NOBODY, tenant="t", timeout=timeout) as sdk:
        with BlockingPublisher.connect(NOBODY, tenant="t", timeout=timeout) as publisher:
            ends = await asyncio.gather(
                failed(sdk.publish(event)),
                failed(sdk.publish_many([event])),
                failed(sdk.get_event("e1")),
                failed(anext(sdk.read())),
                failed(asyncio.to_thread(publisher.publish, event)),
            )
    for took, why in ends:
        assert took >= timeout - SHORTEST_ATTEMPT
        assert "Connection refused" in why


def test_an_unknown_outcome_outweighs_a_later_refusal_that_would_say_that_nothing_was_done(clock: Clock) -> None:
    attempts = Attempts(1, clock=clock, draw=longest)
    attempts.pause_after(Unavailable("maybe"))
    with pytest.raises(Unavailable, match="maybe"):
        attempts.pause_after(Overloaded(retry_after=2))
