"""`vacancy job run` as a process, and what Flink's REST interface says of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.harness.installation import config_file
from tests.harness.process import END_SECONDS, READY_SECONDS, group, own_environment, vacancy
from tests.harness.waiting import wait_until
from vacancy.jobs import ports
from vacancy.jobs.settings import Settings


class Job:
    """`vacancy job run` in a process group of its own; a context manager that kills what is left at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "job.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._former_checkpoints = self._checkpoints()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                vacancy("job", "run", "--config", config_file(directory)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=own_environment(),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """What it said since it was started."""
        return self._log.read_bytes()[self._log_start :].decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Waits until it says that it runs."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the job ended: {self.output}"
            return "ready" in self.output.splitlines()

        wait_until(ready, READY_SECONDS, f"the job is not ready; see {self._log}")

    def wait_for_checkpoint(self) -> None:
        """Waits until it has completed one more checkpoint, which it does when all of it works."""
        wait_until(
            lambda: self._checkpoints() - self._former_checkpoints,
            READY_SECONDS,
            f"the job makes no checkpoint; see {self._log}",
        )
        self._former_checkpoints |= self._checkpoints()

    def _checkpoints(self) -> set[Path]:
        return set(self._directory.glob("checkpoints/*/chk-*/_metadata"))

    def stop(self) -> None:
        """Ends it in good order; nothing of its group is left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(END_SECONDS) == 0, self.output
        wait_until(lambda: not group(self.process.pid), END_SECONDS, f"left over: {group(self.process.pid)}")

    def kill(self) -> None:
        """Kills its whole group at once, as a crash of the machine would."""
        if self.process.poll() is None or group(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not group(self.process.pid), END_SECONDS, f"left over: {group(self.process.pid)}")


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
