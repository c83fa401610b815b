"""What Flink leaves in its directory for temporary files goes with the job, or with the next one if that was killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.process import own_environment
from vacancy.jobs.flink.mini_cluster import prepare_java
from vacancy.schemas.errors import VacancyError

JOB = """
import os, sys
from pathlib import Path
from vacancy.jobs.flink.mini_cluster import prepare_java
prepare_java(Path(sys.argv[1]))
option = os.environ["JVM_ARGS"].split()[-1]
Path(option.removeprefix("-Djava.io.tmpdir="), "left").touch()
print("ready", flush=True)
sys.stdin.read()
"""


class Job:
    """A process that leaves a file; a pipe that is closed ends it."""

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", JOB, str(directory)],
            env=own_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self) -> None:
        self.process.communicate(timeout=60)

    def kill(self) -> None:
        self.process.kill()
        self.end()


def left(directory: Path) -> int:
    return len(list(directory.glob("tmp/*/left")))


def test_temporary_files_go_with_the_job_or_with_the_next_one(tmp_path: Path) -> None:
    first, second = Job(tmp_path), Job(tmp_path)
    assert left(tmp_path) == 2
    first.kill()
    assert left(tmp_path) == 2
    second.end()
    assert left(tmp_path) == 1
    third = Job(tmp_path)
    assert left(tmp_path) == 1
    third.end()
    assert left(tmp_path) == 0


def test_a_directory_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tmp").write_text("a file")
    with pytest.raises(VacancyError, match=r"made in .*/tmp: File exists; set job\.checkpoint_dir"):
        prepare_java(tmp_path)
