"""A histogram of durations."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate

BOUNDS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)
"""Upper bounds of the buckets in seconds; one more bucket counts the durations above the last bound."""


class Histogram:
    """Counts durations. One thread at a time may add; any thread may read meanwhile.

    Attributes:
        seconds: the sum of all durations.
    """

    def __init__(self) -> None:
        self._counts = [0] * (len(BOUNDS_S) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """Counts one."""
        self._counts[bisect_left(BOUNDS_S, seconds)] += 1
        self.seconds += seconds

    def at_most(self) -> list[int]:
        """The number of durations up to each bound, and last the number of all."""
        return list(accumulate(self._counts))
