"""Waiting for a condition, in place of sleeping and hoping."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

PATIENCE = float(os.environ.get("VACANCY_TEST_PATIENCE", "1"))
"""How many times as long as its limit a wait may take, for machines that are slow or busy."""


def wait_until(
    condition: Callable[[], object], seconds: float, message: str | Callable[[], str], *, every_s: float = 0.02
) -> None:
    """Waits until a condition is true; fails with the message when it takes longer.

    Args:
        condition: is asked again and again; it may fail the test itself.
        seconds: the limit, which says that something is broken and asserts nothing about time; times PATIENCE.
        message: what is wrong then; a function, if that is known only then.
        every_s: how long it waits before it asks again; longer where the answer costs those who are waited for.
    """
    limit = seconds * PATIENCE
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"after {limit:g} s: {message if isinstance(message, str) else message()}"
        time.sleep(every_s)


def wait_until_time(at_s: float) -> None:
    """Waits until a time of time.monotonic(), for what must last a while, such as a cut network."""
    wait_until(lambda: time.monotonic() >= at_s, 30 + max(0.0, at_s - time.monotonic()), "time stands still")
