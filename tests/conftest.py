"""Real servers for the tests: one broker and one database server a session, in directories of their own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer
    from vacancy.jobs.local.postgres_server import PostgresServer

# A machine that is busy is no failure: no example is timed. One that fails says how to have it again.
hypothesis.settings.register_profile("vacancy", deadline=None, print_blob=True)
hypothesis.settings.load_profile("vacancy")


def pytest_configure() -> None:
    """Sets how Java and Python run, and gives each worker its own ports: two could be told that one port is free."""
    # Tests are short: half of what their JVMs used was the second compiler and the threads of the collector.
    os.environ["JVM_ARGS"] = "-XX:MaxRAMPercentage=20 -XX:+UseSerialGC -XX:TieredStopAtLevel=1"
    # Tests start a thousand Pythons, most of them ours: where the environment forbids to keep compiled modules, each of
    # them takes twice as long.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    worker, workers = os.environ.get("PYTEST_XDIST_WORKER"), os.environ.get("PYTEST_XDIST_WORKER_COUNT")
    if worker and workers:
        from vacancy.jobs import ports

        ports._CANDIDATES = ports._CANDIDATES[int(worker.removeprefix("gw")) :: int(workers)]


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds what the second run of .ci/run needs."""
    parser.addoption(
        "--again", action="store_true", help="fail the tests that are not about time, instead of running them"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers begin with the slow layers, so that none is left with minutes of work while the others are done."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        layers = ("faults", "nova", "cinder", "web", "integration", "flink")
        slow_first = {layer: place for place, layer in enumerate(layers)}
        items.sort(key=lambda item: slow_first.get(item.path.parent.name, len(slow_first)))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """What has failed once and is not about time stays failed: it may be a fault that shows only now and then."""
    if item.config.getoption("--again") and item.get_closest_marker("timing") is None:
        pytest.fail("it failed in the first run and has no marker `timing`, so it is not run again", pytrace=False)


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
    """A PostgreSQL server that survives a kill of its own and not one of the machine: it does not sync."""
    import psycopg2

    from tests.harness.servers import running_postgres

    with running_postgres() as server:
        with closing(psycopg2.connect(server.owner_dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                # Each database that is dropped makes a checkpoint, and that takes half a second of syncing.
                cursor.execute("ALTER SYSTEM SET fsync = off")
                cursor.execute("SELECT pg_reload_conf()")
        yield server


@pytest.fixture
def database(postgres_server: PostgresServer) -> Iterator[str]:
    """The owner's DSN of a fresh, empty database."""
    from tests.harness.servers import new_database

    with new_database(postgres_server) as dsn:
        yield dsn
