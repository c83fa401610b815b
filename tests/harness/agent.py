"""`vacancy agent` as a process."""

from __future__ import annotations

from pathlib import Path

from tests.harness.installation import config_file
from tests.harness.process import READY_SECONDS, Process, vacancy


def what_an_agent_says(directory: Path, *arguments: str | Path) -> tuple[list[str], str]:
    """The first three lines of an agent, and what follows once it is asked to end, which it does with status 0."""
    with Process(vacancy("agent", *arguments), directory, directory / "agent.log") as agent:
        agent.wait_for(r"(.*\n){3}", READY_SECONDS)
        lines = agent.stop().splitlines(keepends=True)
    return lines[:3], "".join(lines[3:])


class Agent(Process):
    """`vacancy agent` with the settings file of an installation; a context manager that kills it."""

    def __init__(self, directory: Path) -> None:
        super().__init__(vacancy("agent", "--config", config_file(directory)), directory, directory / "agent.log")
