"""The migration runner against a real server."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.integration.upserts import LIMIT_SECONDS, query, wait_until
from vacancy.connectors.postgres import migrations
from vacancy.connectors.postgres.migrations import migrate, schema_state
from vacancy.schemas.errors import VacancyError

NAMES = sorted(file.stem for file in Path(migrations.__file__).parents[1].glob("schemas/migrations/*.sql"))


def run_migrate(database: str, directory: Path) -> subprocess.Popen[str]:
    """`vacancy migrate` as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", "from vacancy.jobs.commands.cli import main; main()", "migrate"],
        env={**os.environ, "VACANCY_POSTGRES__OWNER_DSN": database},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def with_extra(monkeypatch: pytest.MonkeyPatch, **extra: str) -> None:
    """A release with more migrations, or other ones of the same name."""
    files = {**migrations._files(), **extra}
    monkeypatch.setattr(migrations, "_files", lambda: dict(sorted(files.items())))


def test_applies_all_in_order_and_then_nothing(database: str) -> None:
    dsn = SecretStr(database)
    assert schema_state(dsn).pending == tuple(NAMES)
    assert migrate(dsn) == NAMES
    assert migrate(dsn) == []
    state = schema_state(dsn)
    assert state.applied == tuple(NAMES)
    assert not (state.pending or state.unknown or state.changed)


def test_two_processes_at_once_apply_each_once(database: str, tmp_path: Path) -> None:
    runners = [run_migrate(database, tmp_path) for _ in range(2)]
    applied: list[str] = []
    for runner in runners:
        output, errors = runner.communicate(timeout=LIMIT_SECONDS)
        assert runner.returncode == 0, errors
        applied += [line.removeprefix("applied ") for line in output.splitlines() if line.startswith("applied")]
    assert sorted(applied) == NAMES


def test_the_command_says_when_there_is_nothing_to_do(database: str, tmp_path: Path) -> None:
    migrate(SecretStr(database))
    output, errors = run_migrate(database, tmp_path).communicate(timeout=LIMIT_SECONDS)
    assert (output, errors) == ("the tables are up to date\n", "")


def test_a_database_of_a_newer_version_is_refused(database: str, tmp_path: Path) -> None:
    migrate(SecretStr(database))
    with psycopg2.connect(database) as connection, connection.cursor() as cursor:
        cursor.execute("INSERT INTO vacancy.schema_migration (name, sha256) VALUES ('9999_future', '')")
    connection.close()
    runner = run_migrate(database, tmp_path)
    output, errors = runner.communicate(timeout=LIMIT_SECONDS)
    assert runner.returncode == 1
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert "newer version" in errors
    assert "9999_future" in errors
    assert "upgrade vacancy" in errors


def test_a_changed_file_is_refused_by_name(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(SecretStr(database))
    with_extra(monkeypatch, **{NAMES[1]: "SELECT 1"})
    assert schema_state(SecretStr(database)).changed == (NAMES[1],)
    with pytest.raises(VacancyError, match=NAMES[1]):
        migrate(SecretStr(database))


def test_a_file_that_fails_changes_nothing_and_can_be_tried_again(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(SecretStr(database))
    with monkeypatch.context() as patch:
        with_extra(patch, **{"9999_bad": "CREATE TABLE vacancy.half (); SELECT 1 / 0"})
        with pytest.raises(VacancyError, match=r"9999_bad failed and changed nothing: division by zero"):
            migrate(SecretStr(database))
    connection = psycopg2.connect(database)
    assert query(connection, "SELECT to_regclass('vacancy.half')") == [(None,)]
    connection.close()
    with_extra(monkeypatch, **{"9999_bad": "CREATE TABLE vacancy.half ()"})
    assert migrate(SecretStr(database)) == ["9999_bad"]


def test_a_runner_that_dies_leaves_neither_lock_nor_half_a_file(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(SecretStr(database))
    errors: list[VacancyError] = []

    def die() -> None:
        try:
            migrate(SecretStr(database))
        except VacancyError as error:
            errors.append(error)

    with monkeypatch.context() as patch:
        with_extra(patch, **{"9999_slow": "CREATE TABLE vacancy.half (); SELECT pg_sleep(300)"})
        runner = threading.Thread(target=die)
        runner.start()
        connection = psycopg2.connect(database)
        connection.autocommit = True
        kill = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE wait_event = 'PgSleep' AND datname = current_database()"
        )
        wait_until(lambda: bool(query(connection, kill)), "the slow migration did not start")
        runner.join(LIMIT_SECONDS)
    assert len(errors) == 1
    assert query(connection, "SELECT to_regclass('vacancy.half')") == [(None,)]
    connection.close()
    assert migrate(SecretStr(database)) == []


def test_an_owner_without_superuser_needs_the_roles_made_before(database: str) -> None:
    """Roles belong to the cluster: where they exist, whoever owns the database can migrate it."""
    migrate(SecretStr(database))  # makes the roles
    owner, name = f"owner_{uuid.uuid4().hex}", f"plain_{uuid.uuid4().hex}"
    connection = psycopg2.connect(database)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {owner} LOGIN PASSWORD 'x'")
        cursor.execute(f"CREATE DATABASE {name} OWNER {owner}")
        try:
            assert migrate(SecretStr(make_dsn(database, dbname=name, user=owner, password="x"))) == NAMES
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
            cursor.execute(f"DROP ROLE {owner}")
    connection.close()
