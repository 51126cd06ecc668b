"""When a delivery that failed is tried again, and when no more."""

from __future__ import annotations

from dataclasses import dataclass

JITTER = 0.2  # of a delay, either way, so that what failed together does not come back together


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential back-off, in seconds, and how many attempts there are in all."""

    initial: float = 1.0
    multiplier: float = 2.0
    maximum: float = 300.0
    max_attempts: int = 10

    def delay(self, failed: int, chance: float) -> float | None:
        """Seconds until the next attempt after so many have failed; None after the last. `chance` is from 0 to 1."""
        if failed >= self.max_attempts:
            return None
        # The exponent is bounded, as a float is: beyond 64 doublings every delay is the maximum.
        delay = min(self.maximum, self.initial * self.multiplier ** min(failed - 1, 64))
        return delay * (1 + JITTER * (2 * chance - 1))
