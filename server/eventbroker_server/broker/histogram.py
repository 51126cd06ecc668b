"""How long things took, in buckets whose widths grow with their bounds."""

from __future__ import annotations

import math
from itertools import accumulate

A_DECADE = 24  # buckets for each power of ten: every bound is 10.07 % above the one before
_FIRST, _LAST = -5, 5  # powers of ten, in seconds: what is shorter or longer is counted in the outermost buckets
_BUCKETS = (_LAST - _FIRST) * A_DECADE + 1


class Histogram:
    """Durations in seconds. The average is exact; a percentile is at most one bucket's width too high."""

    __slots__ = ("_buckets", "count", "total")

    def __init__(self) -> None:
        self.count = 0
        self.total = 0.0
        self._buckets = [0] * _BUCKETS

    def add(self, seconds: float, times: int = 1) -> None:
        """Count a duration, so many times. A negative one, as clocks differ, counts as 0."""
        seconds = max(0.0, seconds)
        self.count += times
        self.total += seconds * times
        bucket = math.ceil((math.log10(seconds) - _FIRST) * A_DECADE) if seconds > 0 else 0
        self._buckets[min(max(bucket, 0), _BUCKETS - 1)] += times

    @property
    def average(self) -> float | None:
        return self.total / self.count if self.count else None

    def percentile(self, share: float) -> float | None:
        """What so large a share, from 0 to 1, took at most; None of nothing."""
        wanted = math.ceil(share * self.count)
        for bucket, counted in enumerate(accumulate(self._buckets)):
            if counted and counted >= wanted:
                return _bound(bucket)
        return None

    def cumulative(self, low: int, high: int, a_decade: int) -> list[tuple[float, int]]:
        """How many took at most this long, for so many bounds in each power of ten from `low` to `high`; a divisor of
        A_DECADE, so that the counts are exact."""
        counted = list(accumulate(self._buckets))
        step = A_DECADE // a_decade
        buckets = range((low - _FIRST) * A_DECADE, (high - _FIRST) * A_DECADE + 1, step)
        return [(_bound(bucket), counted[bucket]) for bucket in buckets]


def _bound(bucket: int) -> float:
    return float(f"{10 ** (bucket / A_DECADE + _FIRST):.4g}")
