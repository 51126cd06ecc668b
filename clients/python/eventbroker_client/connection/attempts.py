"""How often, and for how long, something is tried: with exponential back-off and full jitter, until a deadline."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from eventbroker_client.errors import EventBrokerError, Overloaded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

ATTEMPT_TIMEOUT = 10.0  # seconds that one attempt may take
SHORTEST_ATTEMPT = 0.1  # seconds: with less left, there is no other
FIRST_PAUSE, LONGEST_PAUSE = 0.05, 5.0  # seconds, before jitter


class Backoff:
    """Pauses in seconds: anything between nothing and a bound that doubles up to LONGEST_PAUSE."""

    def __init__(self, draw: Callable[[float, float], float] = random.uniform) -> None:
        self._draw = draw
        self._failures = 0

    def next(self) -> float:
        bound = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** min(self._failures, 16))
        self._failures += 1
        return self._draw(0.0, bound)

    def reset(self) -> None:
        """It worked: start small again."""
        self._failures = 0


class Attempts:
    """The attempts of one call, which may be made again without harm, within `timeout` seconds."""

    def __init__(
        self,
        timeout: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        draw: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._clock = clock
        self._ends = clock() + timeout
        self._backoff = Backoff(draw)
        self.unknown: Unavailable | None = None
        """The last attempt of which nobody knows what it did."""

    def timeout(self) -> float:
        """How many seconds the next attempt may take."""
        return max(0.001, min(ATTEMPT_TIMEOUT, self._ends - self._clock()))

    def pause_after(self, error: EventBrokerError) -> float:
        """How many seconds to wait before the next attempt, the last one just before the end. Raises the error if there
        is to be none.

        When time is over, an attempt of unknown outcome outweighs a later one that did nothing. That an attempt took
        too long says less than what failed before.
        """
        if isinstance(error, Unavailable) and not (self.unknown and error.reason == "DEADLINE_EXCEEDED"):
            self.unknown = error
        if not error.retryable:
            raise error
        least = error.retry_after if isinstance(error, Overloaded) else 0.0
        most = self._ends - self._clock() - SHORTEST_ATTEMPT
        if most <= least:
            raise self.unknown or error
        return min(least + self._backoff.next(), most)
