"""Waiting for a condition, in place of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], seconds: float, message: str | Callable[[], str]) -> None:
    """Waits until a condition is true; fails with the message when it takes longer.

    Args:
        condition: is asked again and again; it may fail the test itself.
        seconds: the limit.
        message: what is wrong then; a function, if that is known only then.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"after {seconds:g} s: {message if isinstance(message, str) else message()}"
        time.sleep(0.02)


def wait_until_time(at_s: float) -> None:
    """Waits until a time of time.monotonic(), for what must last a while, such as a cut network."""
    wait_until(lambda: time.monotonic() >= at_s, 30 + max(0.0, at_s - time.monotonic()), "time stands still")
