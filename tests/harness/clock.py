"""A clock that a test advances by hand."""

from __future__ import annotations


class Clock:
    """Seconds in ``now``, which a test sets; stands in for time.monotonic() and time.time()."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """The present time in seconds."""
        return self.now
