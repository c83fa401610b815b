"""`vacancy job run` as a process, and what Flink's REST interface says of it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from tests.harness.installation import config_file
from tests.harness.process import READY_SECONDS, Process, vacancy
from tests.harness.waiting import wait_until
from vacancy.jobs import ports
from vacancy.jobs.settings import Settings


class Job(Process):
    """`vacancy job run` with the settings file of an installation; a context manager that kills its whole group."""

    def __init__(self, directory: Path) -> None:
        super().__init__(vacancy("job", "run", "--config", config_file(directory)), directory, directory / "job.log")
        self._former_checkpoints = self._checkpoints()

    def __exit__(self, *exception: object) -> None:
        self.kill_group()

    def wait_until_ready(self) -> None:
        """Waits until it says that it runs."""
        self.wait_for("(?m)^ready$", READY_SECONDS)

    def wait_for_checkpoint(self) -> None:
        """Waits until it has completed one more checkpoint, which it does when all of it works."""
        wait_until(
            lambda: self._checkpoints() - self._former_checkpoints,
            READY_SECONDS,
            f"the job makes no checkpoint; see {self.log}",
        )
        self._former_checkpoints |= self._checkpoints()

    def _checkpoints(self) -> set[Path]:
        return set(self._directory.glob("checkpoints/*/chk-*/_metadata"))

    def stop(self) -> str:
        """Ends it in good order; nothing of its group is left."""
        said = super().stop()
        self.wait_for_group()
        return said


class FlinkFailure(NamedTuple):
    """What a job failed for, in one line, and when, in ms since 1970."""

    at_ms: int
    text: str


class FlinkJob(NamedTuple):
    """What Flink's REST interface says of the one job of a cluster; each failure made it restart."""

    state: str
    failures: list[FlinkFailure]


def ask_flink(settings: Settings) -> FlinkJob:
    """The job's state, and the failures that it went through; Flink answers as of up to 3 s ago."""
    jobs = f"http://{ports.HOST}:{settings.local.flink_port}/jobs"
    (job,) = _get(f"{jobs}/overview")["jobs"]
    history = _get(f"{jobs}/{job['jid']}/exceptions")["exceptionHistory"]
    assert not history["truncated"]
    failures = [FlinkFailure(entry["timestamp"], entry["stacktrace"].splitlines()[0]) for entry in history["entries"]]
    return FlinkJob(job["state"], failures)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  # our own
        return json.load(response)
