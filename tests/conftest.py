"""Real servers for the tests: one broker and one database server a session, in directories of their own."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer
    from vacancy.jobs.local.postgres_server import PostgresServer

# A machine that is busy is no failure: no test is timed.
hypothesis.settings.register_profile("vacancy", deadline=None)
hypothesis.settings.load_profile("vacancy")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaServer]:
    """A Kafka broker; ``stop()`` and ``start()`` bounce it on its port with its data."""
    from vacancy.jobs.jars import ensure_jars
    from vacancy.jobs.local.kafka_server import KafkaServer

    directory = Path(tempfile.mkdtemp(prefix="vacancy-kafka-"))
    server = KafkaServer(directory, 0, ensure_jars("kafka"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The owner's DSN of a fresh, empty database."""
    import psycopg2

    name = f"test_{uuid.uuid4().hex}"
    connection = psycopg2.connect(postgres_server.owner_dsn)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            yield postgres_server.owner_dsn.rpartition("/")[0] + "/" + name
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
    from vacancy.jobs.local.postgres_server import PostgresServer

    directory = reachable_directory()
    server = PostgresServer(directory)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(directory)
