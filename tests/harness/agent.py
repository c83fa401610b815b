"""`vacancy agent` as a process."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path
from typing import Self

from tests.harness.installation import config_file
from tests.harness.process import END_SECONDS, own_environment, vacancy


def what_an_agent_says(directory: Path, *arguments: str | Path) -> tuple[list[str], str]:
    """The first three lines on an agent's stderr, and what follows once it is asked to end, which it does well."""
    with subprocess.Popen(
        vacancy("agent", *arguments),
        cwd=directory,
        env=own_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            assert agent.stderr is not None
            lines = [agent.stderr.readline() for _ in range(3)]
            agent.send_signal(signal.SIGTERM)
            rest = agent.communicate(timeout=END_SECONDS)[1]
        finally:
            agent.kill()
    assert agent.returncode == 0
    return lines, rest


class Agent:
    """`vacancy agent`; a context manager that ends it well."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "agent.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                vacancy("agent", "--config", config_file(directory)),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=own_environment(),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def said(self, pattern: str) -> list[str]:
        """Its lines that a pattern matches."""
        assert self._process.poll() is None, self._log.read_text()
        return re.findall(rf".*{pattern}.*", self._log.read_text())

    def stop(self) -> str:
        """Ends it in good order; all that it said."""
        self._process.terminate()
        assert self._process.wait(END_SECONDS) == 0, self._log.read_text()
        return self._log.read_text()
