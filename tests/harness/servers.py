"""Database servers and databases that a test has for itself."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2

from vacancy.jobs.local.postgres_server import PostgresServer


@contextmanager
def new_database(server: PostgresServer) -> Iterator[str]:
    """A database that is dropped at the end; its owner's DSN."""
    name = f"test_{uuid.uuid4().hex}"
    connection = psycopg2.connect(server.owner_dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            try:
                yield server.owner_dsn.rpartition("/")[0] + "/" + name
            finally:
                cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
    finally:
        connection.close()


def reachable_directory() -> Path:
    """A new directory that PostgreSQL's user can reach, which pytest's own are not when root runs the tests."""
    directory = Path(tempfile.mkdtemp(prefix="vacancy-postgres-"))
    directory.chmod(0o711)
    return directory


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of one's own, to be ended and killed at will; nothing of it is left."""
    directory = reachable_directory()
    server = PostgresServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)
