"""A host collector in a process of its own, for namespaces and control groups: a line on stdin, a reading on stdout.

The argument is the settings of the agent as JSON. The end of stdin ends it.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from vacancy.connectors.collectors.machine import HostCollector
from vacancy.connectors.settings import AgentSettings


class Reader:
    """Asks such a process."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def __call__(self) -> dict[str, Any]:
        """A usage reading, and under ``unknown`` what is not known."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(file=self._process.stdin, flush=True)
        line = self._process.stdout.readline()
        assert line, "it has ended"
        reading: dict[str, Any] = json.loads(line)
        return reading


@contextmanager
def reader(prefix: Sequence[str], **settings: Any) -> Iterator[Reader]:
    """One that a command runs, such as ``ip netns exec NAME``."""
    command = [*prefix, sys.executable, "-m", "tests.harness.reading", json.dumps(settings)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Reader(process)
    finally:
        process.communicate(timeout=60)


def main() -> None:
    """The process."""
    collector = HostCollector(AgentSettings.model_validate_json(sys.argv[1]))
    for _ in sys.stdin:
        print(json.dumps(dataclasses.asdict(collector.usage()) | {"unknown": collector.unknown}), flush=True)


if __name__ == "__main__":
    main()
