"""What an installation of the wheel puts into an environment: one import name, and all that the package needs."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = ("connectors", "jobs", "schemas", "topology", "vacancy")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, and that from a copy, so that nothing is left in the tree."""
    source, built = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("built")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    build("sdist", source, built)
    (archive,) = built.glob("vacancy-*.tar.gz")
    with tarfile.open(archive) as tar:
        tar.extractall(built, filter="data")
    (unpacked,) = (path for path in built.iterdir() if path.is_dir())
    build("wheel", unpacked, built)
    (wheel,) = built.glob("vacancy-*.whl")
    return wheel


def build(what: str, source: Path, into: Path) -> None:
    """Runs the build backend of pyproject.toml, without an environment of its own."""
    program = f"from setuptools import build_meta; build_meta.build_{what}({str(into)!r})"
    subprocess.run([sys.executable, "-c", program], cwd=source, check=True, capture_output=True)


def test_it_holds_each_file_of_the_four_folders(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if name.startswith("vacancy/")}
    ours = {
        f"vacancy/{file.relative_to(ROOT)}"
        for folder in ("connectors", "jobs", "schemas", "topology")
        for file in (ROOT / folder).rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and file.suffix != ".md"
    }
    ours |= {f"vacancy/{file.name}" for file in (ROOT / "vacancy").iterdir() if file.is_file()}
    assert sorted(ours - there) == []
    assert sorted(there - ours) == []


def test_an_environment_that_has_nothing_else_gets_one_import_name(wheel: Path, tmp_path: Path) -> None:
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True)
    site = Path(sysconfig.get_path("purelib", vars={"base": str(environment), "platbase": str(environment)}))
    names = {path.name for path in site.iterdir() if path.suffix != ".dist-info"}
    assert names == {"vacancy"}

    program = (
        "import vacancy\n"
        "from vacancy import Amount, Limits, Measured, fullness\n"
        "try: vacancy.Scheduler\n"
        "except ModuleNotFoundError as error: print(error.name)\n"
    )
    done = subprocess.run([python, "-I", "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("psycopg2", "tenacity")
