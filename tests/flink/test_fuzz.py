"""Both decoders under structured fuzzing: tests/flink/java/vacancy/DecoderFuzz.java says what has to hold."""

from __future__ import annotations

import os
from pathlib import Path

from tests.harness.fuzz import fuzz
from tests.harness.seeds import draws, seed_of

RECORDS = int(os.environ.get("VACANCY_TEST_FUZZ_RECORDS", "50000"))
"""Ten million take some seven minutes of one core."""


@draws()
def test_whatever_comes_gives_a_row_in_bounds_or_a_reason(tmp_path: Path, kept: int | None) -> None:
    counts = fuzz(tmp_path, seed_of(kept), RECORDS)
    assert sum(counts) == RECORDS
    assert min(counts) > RECORDS / 10, f"it tries nearly nothing but one kind: {counts}"
