"""Both decoders under structured fuzzing: tests/flink/java/vacancy/DecoderFuzz.java says what has to hold."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

from tests.harness.seeds import draws, seed_of
from vacancy.jobs.flink.job_jars import flink_home, flink_jars, functions_jar, java_home, java_sources
from vacancy.schemas.events import Event, newest

FUZZ = Path(__file__).parent / "java" / "vacancy" / "DecoderFuzz.java"
RECORDS = int(os.environ.get("VACANCY_TEST_FUZZ_RECORDS", "50000"))
"""An hour of one core takes some ten million."""


@draws()
def test_whatever_comes_gives_a_row_in_bounds_or_a_reason(tmp_path: Path, kept: int | None) -> None:
    jar = functions_jar(dict(java_sources()) | {"vacancy/DecoderFuzz.java": FUZZ.read_bytes()}, tmp_path)
    schemas = []
    for event in Event:
        schemas.append(tmp_path / f"{event.value}.avsc")
        schemas[-1].write_text(newest(event).text, encoding="utf-8")
    class_path = os.pathsep.join(map(str, [jar, *flink_jars(), flink_home() / "lib" / "*"]))
    java = [str(java_home() / "bin" / "java"), "-Xmx512m", "-cp", class_path, "vacancy.DecoderFuzz"]
    seed = seed_of(kept)
    done = subprocess.run(
        [*java, str(seed), str(RECORDS), *map(str, schemas)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    counts = [int(count) for count in re.findall(r"\d+", done.stdout)]
    assert sum(counts) == RECORDS
    assert min(counts) > RECORDS / 10, f"it tries nearly nothing but one kind: {done.stdout}"
