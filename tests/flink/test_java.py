"""The dataflow's Java: what the compiler makes of it, and its window held to a plain list of events."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.harness.seeds import draws, seed_of
from vacancy.jobs.flink.job_jars import flink_home, functions_jar, java_home, java_sources
from vacancy.jobs.jars import ensure_jars
from vacancy.schemas.errors import VacancyError

JAVA = Path(__file__).parent / "java" / "vacancy"
STATE = Path(__file__).parent / "state"
"""Windows as releases have stored them, and what they hold."""
HOSTS = 1000


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
    run_java(tmp_path, "HostWindowCheck", seed_of(kept), HOSTS)


@pytest.mark.parametrize("stored", sorted(STATE.glob("host_window_*.bin")), ids=lambda file: str(file.stem))
def test_a_window_that_a_release_stored_is_restored_and_goes_on(tmp_path: Path, stored: Path) -> None:
    """The bytes are never changed: who changes the format adds those of the next version and reads both.

    Those of version 1 were made by ``HostWindowState write``. The figures beside them are what it held by name, so a
    counter that is not added behind the others shows.
    """
    assert_holds(run_java(tmp_path, "HostWindowState", "show", stored), stored)


def test_a_window_of_this_release_holds_what_the_newest_that_is_stored_does(tmp_path: Path) -> None:
    run_java(tmp_path, "HostWindowState", "write", tmp_path / "window.bin")
    shown = run_java(tmp_path, "HostWindowState", "show", tmp_path / "window.bin")
    assert_holds(shown, max(STATE.glob("host_window_*.bin")))


def assert_holds(shown: str, stored: Path) -> None:
    found = figures(shown)
    for name, value in figures(stored.with_suffix(".txt").read_text(encoding="utf-8")).items():
        assert found[name] == value, name


def figures(shown: str) -> dict[str, str]:
    """What HostWindowState shows, by when and name."""
    found: dict[str, str] = {}
    when = ""
    for line in shown.splitlines():
        if line.startswith("  "):
            name, _, value = line.strip().partition(" ")
            found[f"{when}: {name}"] = value
        else:
            when = line
    return found


def run_java(directory: Path, program: str, *arguments: object) -> str:
    """What a program of this folder prints."""
    source = JAVA / f"{program}.java"
    jar = functions_jar(dict(java_sources()) | {f"vacancy/{source.name}": source.read_bytes()}, directory)
    class_path = os.pathsep.join(map(str, [jar, *ensure_jars("flink"), flink_home() / "lib" / "*"]))
    command = [str(java_home() / "bin" / "java"), "-cp", class_path, f"vacancy.{program}", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
