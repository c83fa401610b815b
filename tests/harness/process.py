"""Processes: a command line of `vacancy`, its environment, how it ended, and what it left running."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil

READY_SECONDS = 180.0
"""Flink's start takes some 10 s on two idle cores, and several times that on busy ones."""
END_SECONDS = 60.0


def vacancy(*arguments: str | Path) -> list[str]:
    """A command line of ours, for subprocess."""
    return [sys.executable, "-m", "vacancy", *map(str, arguments)]


_OF_JAVA = frozenset({"FLINK_LOG_DIR", "LOG4J_PROPERTIES", "JVM_ARGS", "HADOOP_CLASSPATH"})
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
            timeout=seconds,
        )
        self.status, self.output, self.errors = result.returncode, result.stdout, result.stderr

    def error(self) -> str:
        """The one line of stderr."""
        assert re.fullmatch(r"vacancy: [^\n]+\n", self.errors), self.errors
        return self.errors.removeprefix("vacancy: ").rstrip()


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
