"""A fleet in a database and the fleet page's server before it, for the benchmark of the page and its pictures."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg2
from playwright.sync_api import Page
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from bench.common import CONSOLE, postgres_server
from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs import ports

CHROMIUM = "/usr/bin/chromium"
FLEET = Path(__file__).with_name("web_fleet.sql")
WAIT_SECONDS = 120.0


class WebStack(NamedTuple):
    """What runs.

    Attributes:
        owner_dsn: the database.
        address: of the page.
        pid: the page's server.
    """

    owner_dsn: str
    address: str
    pid: int

    def connect(self) -> Connection:
        """The owner's connection; each statement commits."""
        connection = psycopg2.connect(self.owner_dsn)
        connection.autocommit = True
        return connection


@contextmanager
def web_stack(hosts: int, max_age: str = "30 s") -> Iterator[WebStack]:
    """A database with so many hosts (web_fleet.sql), and `vacancy web`, which has seen them all."""
    with postgres_server(synchronous_commit="off") as server, tempfile.TemporaryDirectory() as name:
        owner_dsn = server.owner_dsn.rpartition("/")[0] + "/vacancy"
        with closing(psycopg2.connect(server.owner_dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute("CREATE DATABASE vacancy")
            migrate(SecretStr(owner_dsn))
            cursor.execute("CREATE ROLE page LOGIN PASSWORD 'page' IN ROLE vacancy_reader")
        with closing(psycopg2.connect(owner_dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            with CONSOLE.status(f"{hosts:,} hosts"):
                cursor.execute(FLEET.read_text("utf-8"), {"hosts": hosts})
                cursor.execute("VACUUM ANALYZE")
        config = Path(name) / "vacancy.toml"
        reader_dsn = server.dsn("page", "vacancy", "page")
        config.write_text(
            f'[postgres]\nreader_dsn = "{reader_dsn}"\n[scheduler]\nmax_age = "{max_age}"\n', encoding="utf-8"
        )
        port = ports.free_port()
        command = [sys.executable, "-m", "vacancy", "web", "--config", str(config), "--listen", f"127.0.0.1:{port}"]
        with subprocess.Popen(command) as process:
            try:
                deadline = time.monotonic() + WAIT_SECONDS
                while not ports.answers(port):
                    assert process.poll() is None and time.monotonic() < deadline, "vacancy web does not answer"
                    time.sleep(0.1)
                yield WebStack(owner_dsn, f"http://127.0.0.1:{port}", process.pid)
            finally:
                process.terminate()
                process.wait(20)


def wait_for(page: Page, script: str) -> None:
    """Waits until an expression in the page is true."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not page.evaluate(f"() => ({script})"):
        assert time.monotonic() < deadline, f"not in the page: {script}"
        time.sleep(0.05)
