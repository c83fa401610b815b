"""Children end with their parent, leftover processes are found, and an ended process says why it ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.harness.waiting import wait_until
from vacancy.jobs.local import processes
from vacancy.jobs.local.processes import MARKER, Child, bound_log, end_leftovers, leftovers
from vacancy.schemas.errors import VacancyError

# A child with a child in another session, both ignoring SIGTERM; the inner child prints "ready".
DEAF_TREE = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", deaf], start_new_session=len(sys.argv) > 1)
time.sleep(600)
"""


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    end_leftovers(tmp_path, seconds=0.01)


def child_of(directory: Path, *arguments: str, stop_seconds: float = 5) -> Child:
    return Child("part", arguments, directory=directory, log=directory / "part.log", stop_seconds=stop_seconds)


def python(directory: Path, code: str, *arguments: str, stop_seconds: float = 5) -> Child:
    return child_of(directory, sys.executable, "-c", code, *arguments, stop_seconds=stop_seconds)


def test_a_child_is_asked_to_end(directory: Path) -> None:
    child = child_of(directory, "sleep", "600")
    child.start()
    assert child.running
    child.stop()
    assert child.exit_status == -signal.SIGTERM
    assert not leftovers(directory)


def test_what_does_not_end_is_killed_with_its_group(directory: Path) -> None:
    child = python(directory, DEAF_TREE, stop_seconds=0.1)
    child.start()
    child.wait_until(lambda: child.has_said("ready"), 20)
    assert len(leftovers(directory)) == 2
    child.stop()
    assert child.exit_status == -signal.SIGKILL
    wait_until(lambda: not leftovers(directory), 5, "its child is still there")


def test_a_child_ends_when_its_parent_is_killed(directory: Path) -> None:
    code = f"""
from pathlib import Path
from vacancy.jobs.local.processes import Child
child = Child("part", ["sleep", "600"], directory=Path({str(directory)!r}), log=Path({str(directory / "part.log")!r}))
child.start()
print(child.pid, flush=True)
import time
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert psutil.pid_exists(pid)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_until(lambda: not leftovers(directory), 5, f"child {pid} outlives its parent")


def test_leftovers_are_found_in_other_sessions_and_ended(directory: Path) -> None:
    child = python(directory, DEAF_TREE, "new session")
    child.start()
    child.wait_until(lambda: child.has_said("ready"), 20)
    assert end_leftovers(directory, seconds=0.1) == 2
    assert not leftovers(directory)
    child.stop()


def test_leftovers_of_another_stack_are_not_ours(directory: Path) -> None:
    other = child_of(directory / "other", "sleep", "600")
    other.log.parent.mkdir(exist_ok=True)
    other.start()
    try:
        assert not leftovers(directory)
    finally:
        other.stop()


def test_our_variables_do_not_reach_children(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACANCY_KAFKA__BOOTSTRAP_SERVERS", "elsewhere:9092")
    child = child_of(directory, "env")
    child.start()
    wait_until(lambda: not child.running, 5, "env does not end")
    assert child.has_said(f"{MARKER}={directory}")
    assert "elsewhere" not in child.log.read_text(encoding="utf-8")


def test_a_child_that_ends_before_it_is_ready_says_why(directory: Path) -> None:
    child = child_of(directory, "sh", "-c", "echo starting; echo no such topic >&2; exit 3")
    child.start()
    with pytest.raises(
        VacancyError, match=r"part ended with status 3; .*part\.log ends with: starting \| no such topic"
    ):
        child.wait_until(lambda: False, 20)


def test_a_child_that_is_not_ready_in_time_says_so(directory: Path) -> None:
    child = child_of(directory, "sleep", "600")
    child.start()
    with pytest.raises(VacancyError, match="part was not ready after 0 s"):
        child.wait_until(lambda: False, 0.01)
    child.stop()


def test_a_program_that_is_not_there_is_named(directory: Path) -> None:
    with pytest.raises(VacancyError, match="part: /no/such/program does not start: No such file"):
        child_of(directory, "/no/such/program").start()


def test_only_what_was_said_since_the_start_counts(directory: Path) -> None:
    child = child_of(directory, "echo", "ready")
    child.start()
    wait_until(lambda: not child.running, 5, "echo does not end")
    assert child.has_said("ready")
    again = child_of(directory, "sleep", "600")
    again.start()
    assert not again.has_said("ready")
    again.stop()


def test_a_log_that_has_grown_too_large_is_moved_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "MAX_LOG_BYTES", 10)
    log = tmp_path / "part.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"0123456789")
        bound_log(log)
        assert log.read_bytes() == b"0123456789"
        writer.write(b"a")
        bound_log(log)
        writer.write(b"b")
    assert log.read_bytes() == b"b"
    assert (tmp_path / "part.log.1").read_bytes() == b"0123456789a"


def test_we_are_no_leftover_of_ourselves(tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from vacancy.jobs.local.processes import leftovers;"
        f"print(leftovers(Path({str(tmp_path)!r})))"
    )
    output = subprocess.check_output(
        [sys.executable, "-c", code], env=os.environ | {MARKER: str(tmp_path)}, text=True, timeout=60
    )
    assert output.strip() == "[]"
