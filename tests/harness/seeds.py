"""Seeds of tests that draw for themselves.

A test is called with each seed that is kept for it, because it failed once, and with None, for which it draws one::

    @draws(4711)
    def test_something(kept: int | None) -> None:
        random = Random(seed_of(kept))
"""

from __future__ import annotations

import os
from random import Random

import pytest


def draws(*kept: int) -> pytest.MarkDecorator:
    """Has a test called with its parameter `kept`."""
    return pytest.mark.parametrize("kept", [None, *kept])


def seed_of(kept: int | None = None) -> int:
    """A seed that is kept, that of VACANCY_TEST_SEED, or a new one; pytest shows it where the test fails."""
    seed = kept if kept is not None else int(os.environ.get("VACANCY_TEST_SEED") or Random().getrandbits(32))
    print(f"VACANCY_TEST_SEED={seed}")
    return seed
