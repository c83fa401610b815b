"""Nova's environment with Vacancy installed into it like an operator does, and databases for its schedulers."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn

from bench.placement import environment
from tests.nova.fleet import fill
from vacancy.jobs.local.postgres_server import PostgresServer

LOCK = environment.ROOT / "requirements" / "nova.lock"
PROGRAM_LIMIT_S = 240


@dataclass(frozen=True)
class Nova:
    """Nova's environment.

    Attributes:
        python: its interpreter.
        site: the directory that contains only Vacancy's distribution, installed for it.
    """

    python: Path
    site: Path

    def variables(self, **more: str) -> dict[str, str]:
        """Environment variables for its programs: Vacancy is loaded from `site`, the tests from the tree."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("OS_", "PYTHON"))}
        return ours | {"PYTHONPATH": f"{self.site}{os.pathsep}{environment.ROOT}"} | more

    def command(self, program: str) -> list[str]:
        """The command line of a program in ``tests.nova.programs``."""
        return [str(self.python), "-W", "ignore", "-m", f"tests.nova.programs.{program}"]

    def run(self, program: str, **given: Any) -> Any:
        """Runs a program with an input and returns its output."""
        done = subprocess.run(
            self.command(program),
            input=json.dumps(given),
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=PROGRAM_LIMIT_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def nova(tmp_path_factory: pytest.TempPathFactory) -> Nova:
    """Created once per lock file; Vacancy is built from a copy, so that no build files remain in the tree."""
    python = environment.python(LOCK)
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(environment.ROOT / name, source)
    for name in ("connectors", "jobs", "schemas", "topology", "vacancy"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(environment.ROOT / name, source / name, symlinks=True, ignore=ignored)
    pip = [str(python), "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", str(site)]
    subprocess.run([*pip, str(source)], check=True)
    return Nova(python, site)


@dataclass(frozen=True)
class Databases:
    """Databases on the session's server, filled with hosts on request."""

    server: PostgresServer
    names: list[str]

    def make(self, hosts: int, columns: dict[str, str] | None = None) -> str:
        """The owner's DSN of a new database; with None it has no Vacancy tables."""
        name = f"nova_{uuid.uuid4().hex}"
        with _owner(self.server) as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
        self.names.append(name)
        dsn = f"{self.server.owner_dsn.rpartition('/')[0]}/{name}"
        if columns is not None:
            fill(dsn, hosts, columns)
        return dsn


@pytest.fixture(scope="module")
def databases(postgres_server: PostgresServer) -> Iterator[Databases]:
    """The databases; they are dropped after the module's tests."""
    made = Databases(postgres_server, [])
    try:
        yield made
    finally:
        with _owner(postgres_server) as cursor:
            for name in made.names:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def scheduler_login(postgres_server: PostgresServer) -> Iterator[Callable[[str], str]]:
    """Turns the owner's DSN into that of a login with only the scheduler's rights."""
    name = f"nova_{uuid.uuid4().hex}"
    made = False

    def login(dsn: str) -> str:
        nonlocal made
        if not made:
            with _owner(postgres_server) as cursor:
                cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE vacancy_scheduler")
            made = True
        return make_dsn(dsn, user=name, password="secret")

    yield login
    if made:
        with _owner(postgres_server) as cursor:
            cursor.execute(f"DROP ROLE {name}")


@contextmanager
def _owner(server: PostgresServer) -> Iterator[Any]:
    with closing(psycopg2.connect(server.owner_dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
