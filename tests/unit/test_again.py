"""The second run of .ci/run: only tests marked `timing` run again."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = """
import pathlib
import pytest

def fails_once(name):
    file = pathlib.Path(__file__).with_name(name)
    first = not file.exists()
    file.touch()
    assert not first, "the first time"

def test_passes(): pass
@pytest.mark.timing
def test_slow(): fails_once("slow")
"""
RARE = """
def test_rare(): fails_once("rare")
"""


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", "pytest.ini"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [*command, *arguments], cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def second_run(directory: Path, test: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """What .ci/run does."""
    (directory / "pytest.ini").write_text("[pytest]\naddopts = -ra --strict-markers\nmarkers = timing\n")
    (directory / "test_sample.py").write_text(test)
    assert run(directory, *arguments).returncode == pytest.ExitCode.TESTS_FAILED
    return run(directory, *arguments, "--last-failed", "--last-failed-no-failures", "none", "--again")


def test_what_is_about_time_may_pass_the_second_time(tmp_path: Path) -> None:
    again = second_run(tmp_path, TEST)
    assert again.returncode == pytest.ExitCode.OK, again.stdout
    assert again.stdout.splitlines()[-1].startswith("1 passed")


def test_what_else_has_failed_stays_failed_and_is_named(tmp_path: Path) -> None:
    again = second_run(tmp_path, TEST + RARE, "--numprocesses", "2")
    assert again.returncode == pytest.ExitCode.TESTS_FAILED, again.stdout
    assert "test_sample.py::test_rare - Failed: it failed in the first run" in again.stdout
    assert again.stdout.splitlines()[-1].startswith("1 passed, 1 error")


def test_the_ci_runs_just_that() -> None:
    text = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(
        r"^\./test\.sh .*\|\| exec \./test\.sh .*--last-failed --last-failed-no-failures none --again$", text, re.M
    )
