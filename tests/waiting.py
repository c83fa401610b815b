"""Waiting for a condition, in place of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float, message: str) -> None:
    """Waits until a condition is true; fails with the message when it takes longer."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} s: {message}"
        time.sleep(0.02)
