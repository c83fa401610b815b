"""Processes: the command line of `vacancy`, its environment, one that runs, one that has ended, what is left of one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Self

import psutil

from tests.harness.waiting import PATIENCE, wait_until

READY_SECONDS = 180.0
"""Flink's start takes some 10 s on two idle cores, and several times that on busy ones."""
SAID_SECONDS = 60.0
END_SECONDS = 60.0


def vacancy(*arguments: str | Path) -> list[str]:
    """A command line of ours, for subprocess."""
    return [sys.executable, "-m", "vacancy", *map(str, arguments)]


_OF_JAVA = frozenset({"FLINK_LOG_DIR", "LOG4J_PROPERTIES", "HADOOP_CLASSPATH"})
"""What tests with Flink in this very process have set, by prepare_java()."""


def own_environment(**more: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("VACANCY_") and name not in _OF_JAVA
    } | more


class Ended:
    """How a command ended."""

    def __init__(self, directory: Path, *arguments: str | Path, seconds: float = 60) -> None:
        result = subprocess.run(
            vacancy(*arguments),
            cwd=directory,
            env=own_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds * PATIENCE,
        )
        self.status, self.output, self.errors = result.returncode, result.stdout, result.stderr

    def error(self) -> str:
        """The one line of stderr."""
        assert re.fullmatch(r"vacancy: [^\n]+\n", self.errors), self.errors
        return self.errors.removeprefix("vacancy: ").rstrip()


class Process:
    """A program with a process group of its own, whose output goes to a file; a context manager that kills it.

    Args:
        command: its command line.
        directory: where it runs.
        log: the file; what it says comes at the end of it.
        environment: its variables; without it those of the tests, but for settings of Vacancy.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        directory: Path,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self._command = list(map(str, command))
        self._directory = directory
        self._environment = own_environment() if environment is None else dict(environment)
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    def start(self) -> None:
        """Starts it, or starts it again."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._directory,
                env=self._environment,
                start_new_session=True,
            )

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The process of its last start."""
        assert self._process is not None, f"not started: {self._command}"
        return self._process

    @property
    def pid(self) -> int:
        """Its process id, which is that of its group too."""
        return self.process.pid

    @property
    def ended(self) -> bool:
        """Whether it does not run."""
        return self._process is None or self._process.poll() is not None

    @property
    def output(self) -> str:
        """What it has said since its last start."""
        return self.log.read_bytes()[self._log_start :].decode(errors="replace")

    def said(self, pattern: str) -> list[str]:
        """The lines of its output in which a pattern is found."""
        return re.findall(rf".*{pattern}.*", self.output)

    def wait_for(
        self,
        pattern: str,
        seconds: float = SAID_SECONDS,
        count: int = 1,
        meanwhile: Callable[[], object] = lambda: None,
    ) -> re.Match[str]:
        """Waits until a pattern is found in its output so many times, which it must be before the process ends.

        Args:
            pattern: a regular expression.
            seconds: the limit.
            count: how many times.
            meanwhile: is called again and again, to look at something else.

        Returns:
            The first match.
        """

        def found() -> bool:
            ended = self.ended  # asked first: what it says at last is seen then
            meanwhile()
            matches = len(re.findall(pattern, self.output))
            assert matches >= count or not ended, f"it ended without {pattern!r}: {self.output}"
            return matches >= count

        wait_until(found, seconds, lambda: f"{pattern!r} is not in {self.log}, which ends with {self.output[-2000:]}")
        match = re.search(pattern, self.output)
        assert match is not None
        return match

    def end(self, number: signal.Signals = signal.SIGTERM, seconds: float = END_SECONDS) -> int:
        """Sends a signal, unless it has ended, and waits for the end: its exit status."""
        self.process.send_signal(number)
        return self.process.wait(seconds * PATIENCE)

    def stop(self) -> str:
        """Ends it in good order, with status 0: all that it said."""
        assert self.end() == 0, self.output
        return self.output

    def kill(self) -> None:
        """kill -9 of the process alone, unless it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def kill_group(self) -> None:
        """kill -9 of its whole group at once, as a crash of the machine would."""
        if not self.ended or group(self.pid):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()
        self.wait_for_group()

    def wait_for_group(self) -> None:
        """Waits until no process of its group is left."""
        wait_until(lambda: not group(self.pid), END_SECONDS, lambda: f"left over: {group(self.pid)}")


def group(group_id: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group_id and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


def with_descendants(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty if it is gone, or pid is 0."""
    try:
        process = psutil.Process(pid) if pid else None
        return [process, *process.children(recursive=True)] if process else []
    except psutil.NoSuchProcess:
        return []


def command_lines(processes: Iterable[psutil.Process]) -> set[str]:
    """What those that are still there were started with."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            found.add(" ".join(process.cmdline()))
    return found


def memory_mib(processes: Mapping[str, list[psutil.Process]]) -> dict[str, float]:
    """What processes hold, in MiB by name; what several share counts once (PSS)."""
    found = {}
    for name, group in processes.items():
        total = 0
        for process in group:
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        found[name] = total / 2**20
    return found
