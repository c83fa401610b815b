"""`vacancy up` as a process, and the parts of a stack that are alive."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from tests.harness.process import READY_SECONDS, Process, own_environment, vacancy
from vacancy.jobs.local.processes import end_leftovers, leftovers


class Up(Process):
    """`vacancy up` on a directory; a context manager that leaves no part of it running.

    Args:
        directory: the stack's.
        arguments: further flags.
        prefix: a command that runs it, such as ``ip netns exec``.
        environment: further variables.
    """

    def __init__(self, directory: Path, *arguments: str, prefix: Sequence[str] = (), **environment: str) -> None:
        super().__init__(
            [*prefix, *vacancy("up", "--data-dir", directory, *arguments)],
            directory.parent,
            directory.with_name(f"{directory.name}-{uuid.uuid4().hex[:8]}.output"),
            own_environment(**environment),
        )
        self._stack = directory

    def __exit__(self, *exception: object) -> None:
        if not self.ended:
            try:
                self.end()
            except subprocess.TimeoutExpired:
                self.kill()
        end_leftovers(self._stack, seconds=1)

    def wait_until_up(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Waits until its first row is in the table, looking at something else meanwhile."""
        self.wait_for("Settings file  ", 2 * READY_SECONDS, meanwhile=meanwhile)

    def stop(self) -> str:
        """Ends it in good order; no part of it is left."""
        said = super().stop()
        assert all_parts(self._stack) == []
        return said


def all_parts(directory: Path) -> list[psutil.Process]:
    """The living processes of a stack."""
    parts = leftovers(directory)
    for process in psutil.process_iter(["name"]):
        try:
            # PostgreSQL's processes overwrite their environment, but they work in their data directory.
            if process.info["name"] == "postgres" and Path(process.cwd()).is_relative_to(directory):
                parts.append(process)
        except psutil.Error:
            continue
    return [process for process in dict.fromkeys(parts) if process.is_running()]
