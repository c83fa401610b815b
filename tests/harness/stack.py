"""`vacancy up` as a process, and the parts of a stack that are alive."""

from __future__ import annotations

import signal
import subprocess
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import psutil

from tests.harness.process import END_SECONDS, READY_SECONDS, own_environment, vacancy
from tests.harness.waiting import wait_until
from vacancy.jobs.local.processes import end_leftovers, leftovers


class Up:
    """`vacancy up` on a directory, in a session of its own; a context manager that leaves nothing running.

    Args:
        directory: the stack's.
        arguments: further flags.
        prefix: a command that runs it, such as ``ip netns exec``.
    """

    def __init__(self, directory: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self._directory = directory
        self._output = directory.with_name(f"{directory.name}-{uuid.uuid4().hex[:8]}.output")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, *vacancy("up", "--data-dir", directory, *arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory.parent,
                env=own_environment(),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        end_leftovers(self._directory, seconds=1)

    @property
    def output(self) -> str:
        """What it said."""
        return self._output.read_text(encoding="utf-8")

    def wait_until_up(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Waits until its first row is in the table, looking at something else meanwhile."""
        self.wait_for("Settings file  ", meanwhile)

    def wait_for(self, text: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Waits until it says something."""

        def said() -> bool:
            assert self.process.poll() is None, f"vacancy up ended: {self.output}"
            meanwhile()
            return text in self.output

        wait_until(said, 2 * READY_SECONDS, f"vacancy up does not say {text!r}")

    def stop(self) -> None:
        """Ends it in good order; no part of it is left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(END_SECONDS) == 0, self.output
        assert all_parts(self._directory) == []


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
