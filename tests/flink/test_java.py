"""The dataflow's Java: what the compiler makes of it, and its window held to a plain list of events."""

from __future__ import annotations

import os
import subprocess
from importlib import util
from pathlib import Path

import pytest

from tests.harness.seeds import draws, seed_of
from vacancy.jobs.flink.job_jars import functions_jar, java_home, java_sources
from vacancy.schemas.errors import VacancyError

CHECK = Path(__file__).parent / "java" / "vacancy" / "HostWindowCheck.java"
HOSTS = 2000


def test_equal_sources_give_equal_jars(tmp_path: Path) -> None:
    first, second = (functions_jar(java_sources(), tmp_path / name) for name in ("first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_what_does_not_compile_is_one_line(tmp_path: Path) -> None:
    sources = {"vacancy/Broken.java": b"package vacancy;\nclass Broken { int a = none; }\n"}
    with pytest.raises(VacancyError, match=r"^the dataflow's Java does not compile: Broken\.java:2: error: none .*$"):
        functions_jar(sources, tmp_path)
    assert not list(tmp_path.rglob("*.jar"))


@draws()
def test_a_window_equals_a_list_of_its_events_also_restored_or_copied(tmp_path: Path, kept: int | None) -> None:
    jar = functions_jar(dict(java_sources()) | {"vacancy/HostWindowCheck.java": CHECK.read_bytes()}, tmp_path)
    flink = util.find_spec("pyflink")
    assert flink is not None
    assert flink.origin is not None
    class_path = f"{jar}{os.pathsep}{Path(flink.origin).with_name('lib') / '*'}"
    seed = seed_of(kept)
    command = [str(java_home() / "bin" / "java"), "-cp", class_path, "vacancy.HostWindowCheck", str(seed), str(HOSTS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
