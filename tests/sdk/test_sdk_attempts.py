"""How often something is tried."""

from __future__ import annotations

import pytest
from eventbroker_client import InvalidArgument, Overloaded, Unavailable
from eventbroker_client.connection.attempts import ATTEMPT_TIMEOUT, LONGEST_PAUSE, Attempts, Backoff


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


def test_the_last_attempt_is_made_shortly_before_time_is_over_however_long_the_pauses_are(clock: Clock) -> None:
    attempts = Attempts(2, clock=clock, draw=longest)

    def try_again() -> None:
        while True:
            clock.now += attempts.pause_after(Unavailable("away"))

    with pytest.raises(Unavailable):
        try_again()
    assert clock.now == pytest.approx(101.9)


def test_an_unknown_outcome_outweighs_a_later_refusal_that_would_say_that_nothing_was_done(clock: Clock) -> None:
    attempts = Attempts(1, clock=clock, draw=longest)
    attempts.pause_after(Unavailable("maybe"))
    with pytest.raises(Unavailable, match="maybe"):
        attempts.pause_after(Overloaded(retry_after=2))
