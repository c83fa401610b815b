"""Programs from Debian's packages, unpacked for a test and not installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def program(package: str, path: str, directory: Path) -> Path:
    """A program: the one that is installed, or else the package's, unpacked below a directory.

    Skips the test where there is neither the program nor APT. Fails where APT cannot get the package.
    """
    if installed := shutil.which(Path(path).name):
        return Path(installed)
    if not shutil.which("apt-get"):
        pytest.skip(f"neither {Path(path).name} nor APT to get it with is here")
    try:
        _apt(directory, "download", package)
    except AssertionError:
        # A new machine has no lists of packages, and the machine's own are root's to write.
        lists = directory / "lists"
        (lists / "partial").mkdir(parents=True)
        own = ("-o", f"Dir::State::Lists={lists}", "-o", "APT::Sandbox::User=")
        _apt(directory, *own, "update")
        _apt(directory, *own, "download", package)
    (archive,) = directory.glob(f"{package}_*.deb")
    subprocess.run(["dpkg", "-x", archive, directory], check=True, timeout=60)
    return directory / path


def _apt(directory: Path, *arguments: str) -> None:
    ended = subprocess.run(
        ["apt-get", "-q", *arguments], cwd=directory, capture_output=True, text=True, check=False, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
