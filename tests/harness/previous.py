"""The code of the previous release, from the history of this repository."""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.harness.process import own_environment

ROOT = Path(__file__).parents[2]
BEFORE_RELEASES = "3d013d2"
"""Stands for a release while there is none: the last commit before the import names became `vacancy.…`."""
FOLDERS = ("schemas", "connectors", "topology", "jobs", "vacancy")


class Release(NamedTuple):
    """A release's code in a directory, run by the Python and the packages of today.

    Attributes:
        revision: its tag, or a commit.
        directory: where its packages are.
    """

    revision: str
    directory: Path

    @property
    def has_one_package(self) -> bool:
        """Whether import names are `vacancy.…`."""
        return (self.directory / "vacancy").is_dir()

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables with which Python imports the release's code before that of today."""
        return own_environment(PYTHONPATH=str(self.directory))

    def command(self, *arguments: str | Path) -> list[str]:
        """A command line of its `vacancy`."""
        return [sys.executable, "-m", "vacancy" if self.has_one_package else "jobs", *map(str, arguments)]


def previous_release(directory: Path) -> Release:
    """Unpacks the newest release before this commit; skips where this copy of the repository has no history."""
    tag = _git("describe", "--tags", "--abbrev=0", "--match", "v[0-9]*", "HEAD^").decode().strip()
    revision = tag or BEFORE_RELEASES
    archive = _git("archive", revision)
    if not archive:
        pytest.skip(f"this copy of the repository does not have {revision}: git fetch --unshallow --tags")
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        files.extractall(
            directory,
            [member for member in files.getmembers() if member.name.partition("/")[0] in FOLDERS],
            filter="data",
        )
    return Release(revision, directory)


def _git(*arguments: str) -> bytes:
    """What git says; nothing if it fails."""
    ended = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    return ended.stdout if ended.returncode == 0 else b""
