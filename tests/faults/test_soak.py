"""Ten minutes under load, 1 % poison and a fault every 20 s; `python -m tests.faults.soak` goes on for hours."""

from __future__ import annotations

import os

import pytest

from tests.faults.soak import soak
from tests.harness.seeds import seed_of

MINUTES = float(os.environ.get("VACANCY_TEST_SOAK_MINUTES", "0"))


@pytest.mark.skipif(not MINUTES, reason="ten minutes: VACANCY_TEST_SOAK_MINUTES=10 runs it")
@pytest.mark.timeout(60 * MINUTES + 900)
def test_nothing_is_lost_and_nothing_grows(capsys: pytest.CaptureFixture[str]) -> None:
    def tell(line: str) -> None:
        with capsys.disabled():
            print(line)

    soaked = soak(2000, MINUTES, seed_of(), tell)
    tell("\n".join(soaked.lines()))
    assert soaked.grown() == []
