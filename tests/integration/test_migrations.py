"""The migration runner against a real server."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.errors import DuplicateObject, UniqueViolation
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.rows import LIMIT_SECONDS, query
from tests.harness.waiting import wait_until
from vacancy.connectors.postgres.migrations import migrate, schema_state
from vacancy.jobs.local import postgres_server
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas import tables
from vacancy.schemas.errors import VacancyError

MIGRATIONS = tuple(tables.migrations())
APPLIED = "\n".join(f"applied: {name}" for name in MIGRATIONS)
BEFORE_SQUASH = Path(__file__).with_name("data") / "before_squash.sql"
PG_DUMP = postgres_server._wheel_binaries() / "pg_dump"
TABLES = ("host", "host_inventory", "claim", "drift")
NEW = [
    "anomalies",
    "disabled_at",
    "disabled_reason",
    "told_status",
    "told_status_reason",
    "uncertain",
    "disk_id",
    "asked",
    "resized",
    "latest_at",
    "topic_offset",
    "topic_partition",
    "clock_ahead",
    "disk_pool",
    "pool_id",
    "settled_xid",
    "memory_mb_not_in_pages",
]
"""Columns that a database of the earlier version does not have."""
SLOW = "CREATE TABLE vacancy.half (); SELECT pg_sleep(300)"
ADD_SLOW = f"""
import sys
from vacancy.schemas import tables
texts = tables.{{of}}()
tables.{{of}} = lambda: {{{{**texts, "9999_slow": {SLOW!r}}}}}
from vacancy.jobs.commands.cli import main
main()
"""
"""A release with a migration, or a file of functions, that does not end."""


def start_migrate(
    database: str, directory: Path, *arguments: str, program: str = "from vacancy.jobs.commands.cli import main; main()"
) -> subprocess.Popen[str]:
    """`vacancy migrate` as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", program, "migrate", *arguments],
        env={
            **os.environ,
            "VACANCY_POSTGRES__OWNER_DSN": database,
        },
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run_migrate(database: str, directory: Path, *arguments: str) -> str:
    """What `vacancy migrate` prints; it has to succeed."""
    runner = start_migrate(database, directory, *arguments)
    output, errors = runner.communicate(timeout=LIMIT_SECONDS)
    assert (runner.returncode, errors) == (0, "")
    return output


def with_extra(monkeypatch: pytest.MonkeyPatch, of: str, **extra: str) -> None:
    """A release with more migrations, or other ones of the same name; or with other sources."""
    texts = {**getattr(tables, of)(), **extra}
    monkeypatch.setattr(tables, of, lambda: texts)


@contextmanager
def connected(dsn: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        yield connection


def load_earlier(database: str) -> None:
    """Makes a database what the last version with fourteen migrations left."""
    with connected(database) as connection, connection.cursor() as cursor:
        for role in ("vacancy_job", "vacancy_scheduler", "vacancy_reader"):
            try:
                cursor.execute(f"CREATE ROLE {role} NOLOGIN")
            except (DuplicateObject, UniqueViolation):
                continue  # roles belong to the server, which other tests use as well
        cursor.execute(BEFORE_SQUASH.read_text("utf-8"))


def catalog(database: str) -> list[str]:
    """All that is in the schema, as statements of pg_dump: with comments, defaults, triggers and privileges."""
    dumped = subprocess.run(
        [PG_DUMP, "--schema-only", "--no-owner", f"--dbname={database}"],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = [line for line in dumped.stdout.splitlines() if not line.startswith(("--", "\\"))]
    return sorted("\n".join(lines).split("\n\n\n"))


def contents(database: str) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables but the records of migrations; all columns, generated ones, too, but for those of NEW."""
    with connected(database) as connection:
        return {
            table: query(connection, f"SELECT to_jsonb(t) - %s::text[] FROM vacancy.{table} AS t ORDER BY 1", NEW)
            for table in TABLES
        }


@pytest.fixture
def second_database(postgres_server: PostgresServer) -> Iterator[str]:
    """Another fresh, empty database."""
    name = f"test_{uuid.uuid4().hex}"
    with connected(postgres_server.owner_dsn) as connection:
        query_none(connection, f"CREATE DATABASE {name}")
        yield make_dsn(postgres_server.owner_dsn, dbname=name)
        query_none(connection, f"DROP DATABASE {name} WITH (FORCE)")


def query_none(connection: Connection, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def test_applies_all_and_then_nothing(database: str) -> None:
    dsn = SecretStr(database)
    assert schema_state(dsn).pending == MIGRATIONS
    changes = migrate(dsn)
    assert (changes.migrations, changes.sources) == (MIGRATIONS, tables.SOURCES)
    assert not migrate(dsn)
    state = schema_state(dsn)
    assert state.applied == MIGRATIONS
    assert not (state.pending or state.unknown or state.changed or state.replaced or state.missing or state.outdated)


def test_every_file_of_functions_and_views_is_listed_and_every_object_is_defined_once() -> None:
    root = Path(tables.__file__).parent
    files = {
        f"{file.parent.name}/{file.stem}" for folder in ("functions", "views") for file in root.glob(f"{folder}/*")
    }
    assert files == set(tables.SOURCES)
    assert len(tables.SOURCES) == len(set(tables.SOURCES))
    defined = [
        " ".join(line.replace("OR REPLACE ", "").split("(")[0].split()[:3])
        for text in (*tables.migrations().values(), *tables.sources().values())
        for line in text.splitlines()
        if line.startswith("CREATE ")
    ]
    assert len(defined) > 60
    assert sorted(set(defined)) == sorted(defined)


def test_a_database_of_the_earlier_version_becomes_what_a_new_one_is(database: str, second_database: str) -> None:
    load_earlier(database)
    before = contents(database)
    assert all(before.values())
    assert schema_state(SecretStr(database)).pending == MIGRATIONS
    changes = migrate(SecretStr(database))
    assert changes.migrations == MIGRATIONS
    assert len(changes.replaced) == 14
    assert contents(database) == before
    migrate(SecretStr(second_database))
    assert catalog(database) == catalog(second_database)
    assert not migrate(SecretStr(database))
    with connected(database) as connection:
        assert query(connection, "SELECT name FROM vacancy.schema_migration") == [(name,) for name in MIGRATIONS]
        # What claims hold still counts: one of devices in flight, one that is settled and not shown yet.
        assert query(connection, "SELECT host_id, claimed FROM vacancy.pci_pool WHERE claimed > 0 ORDER BY 1") == [
            ("host-4", 2),
            ("host-8", 1),
        ]
        assert query(connection, "SELECT vcpus_claimed FROM vacancy.host_free WHERE host_id = 'host-1'") == [(7,)]


def test_an_unfinished_or_altered_earlier_version_is_left_alone(database: str) -> None:
    load_earlier(database)
    with connected(database) as connection:
        query_none(connection, "UPDATE vacancy.schema_migration SET sha256 = '' WHERE name = '0008_claim_functions'")
        with pytest.raises(VacancyError, match="has another 0008_claim_functions than this release"):
            migrate(SecretStr(database))
        query_none(connection, "DELETE FROM vacancy.schema_migration WHERE name >= '0008'")
    before = catalog(database)
    with pytest.raises(VacancyError, match=r"lacks its 0008_claim_functions: run `vacancy migrate` of that version"):
        migrate(SecretStr(database))
    assert catalog(database) == before


@pytest.mark.parametrize("earlier", [False, True])
def test_two_processes_at_once_apply_all_once(
    database: str, second_database: str, tmp_path: Path, earlier: bool
) -> None:
    if earlier:
        load_earlier(database)
    runners = [start_migrate(database, tmp_path) for _ in range(2)]
    outputs = []
    for runner in runners:
        output, errors = runner.communicate(timeout=LIMIT_SECONDS)
        assert runner.returncode == 0, errors
        outputs.append(output)
    first, second = sorted(outputs)
    assert first.startswith(f"applied {MIGRATIONS[0]}\napplied {MIGRATIONS[1]}")
    assert second == "the tables are up to date\n"
    migrate(SecretStr(second_database))
    assert catalog(database) == catalog(second_database)


@pytest.mark.parametrize("of", ["migrations", "sources"])
@pytest.mark.parametrize("earlier", [False, True])
def test_a_runner_killed_in_the_middle_leaves_all_as_it_was(
    database: str, second_database: str, tmp_path: Path, of: str, earlier: bool
) -> None:
    if earlier:
        load_earlier(database)
    before = catalog(database)
    runner = start_migrate(database, tmp_path, program=ADD_SLOW.format(of=of))
    with connected(database) as connection:
        sleeping = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: bool(query(connection, sleeping)), LIMIT_SECONDS, "the slow migration did not start")
        runner.send_signal(signal.SIGKILL)
        runner.communicate(timeout=LIMIT_SECONDS)
        wait_until(
            lambda: not query(connection, sleeping), LIMIT_SECONDS, "the server did not notice that the runner is gone"
        )
        assert catalog(database) == before
    assert migrate(SecretStr(database)).migrations == MIGRATIONS
    migrate(SecretStr(second_database))
    assert catalog(database) == catalog(second_database)


def test_changed_functions_and_views_are_applied_again_and_keep_what_was_granted(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(SecretStr(database))
    role = f"reader_{uuid.uuid4().hex}"
    with connected(database) as connection:
        query_none(connection, f"CREATE ROLE {role}")
        try:
            query_none(connection, f"GRANT SELECT ON vacancy.source TO {role}")
            query_none(connection, f"GRANT EXECUTE ON FUNCTION vacancy.claim(uuid[], jsonb, boolean) TO {role}")
            query_none(connection, "CREATE VIEW of_mine AS SELECT * FROM vacancy.schedulable_host")
            before = catalog(database)
            changed = tables.sources()["functions/max_age"].replace("interval '30 s'", "interval '40 s'")
            with_extra(monkeypatch, "sources", **{"functions/max_age": changed})
            assert schema_state(SecretStr(database)).outdated == ("functions/max_age",)
            assert migrate(SecretStr(database)).sources == ("functions/max_age",)
            assert query(connection, "SELECT vacancy.max_age()::text") == [("00:00:40",)]
            after = catalog(database)
            assert [statement for statement in before if statement not in after] == [
                statement for statement in before if "FUNCTION vacancy.max_age() RETURNS" in statement
            ]
            assert sum(role in statement for statement in after) == 2
        finally:
            query_none(connection, f"DROP OWNED BY {role}; DROP ROLE {role}")


def test_functions_and_views_are_applied_again_after_each_migration(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of a signature or of columns drops in a migration, and must not leave a hole."""
    migrate(SecretStr(database))
    before = catalog(database)
    drop = "DROP VIEW vacancy.source; DROP FUNCTION vacancy.why(jsonb)"
    with_extra(monkeypatch, "migrations", **{"9999_drop": drop})
    changes = migrate(SecretStr(database))
    assert (changes.migrations, changes.sources) == (("9999_drop",), ())
    assert catalog(database) == before


def test_a_file_that_is_gone_is_noticed(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        with_extra(patch, "sources", **{"views/gone": "CREATE OR REPLACE VIEW vacancy.gone AS SELECT 1 AS one"})
        migrate(SecretStr(database))
    assert schema_state(SecretStr(database)).outdated == ("views/gone",)
    migrate(SecretStr(database))
    assert schema_state(SecretStr(database)).outdated == ()


def test_whoever_reads_is_not_held_up_while_others_hold_a_view(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that waits for one reader must not make all others wait behind it."""
    migrate(SecretStr(database))
    with_extra(monkeypatch, "sources", **{"functions/max_age": tables.sources()["functions/max_age"] + "\n"})
    with closing(psycopg2.connect(database)) as holder, connected(database) as reader:
        with holder.cursor() as cursor:
            cursor.execute("SELECT * FROM vacancy.schedulable_host")  # and its transaction stays open
        runner = threading.Thread(target=migrate, args=(SecretStr(database),))
        runner.start()
        try:
            waiting = (
                "SELECT 1 FROM pg_stat_activity WHERE application_name = 'vacancy migrate' AND wait_event_type = 'Lock'"
            )
            for _ in range(3):  # it tries again and again
                wait_until(lambda: bool(query(reader, waiting)), LIMIT_SECONDS, "the runner does not wait for the view")
                query(reader, "SET statement_timeout = '10 s'; SELECT count(*) FROM vacancy.schedulable_host")
                wait_until(lambda: not query(reader, waiting), LIMIT_SECONDS, "the runner does not give way")
            assert runner.is_alive()
        finally:
            holder.rollback()
            runner.join(LIMIT_SECONDS)
    assert not runner.is_alive()
    assert schema_state(SecretStr(database)).outdated == ()


def test_the_command_says_what_it_did_and_when_there_is_nothing_to_do(database: str, tmp_path: Path) -> None:
    *first, last = run_migrate(database, tmp_path).splitlines()
    assert first == [f"applied {name}" for name in MIGRATIONS]
    assert last.startswith("applied functions and views (functions/max_age, ")
    assert run_migrate(database, tmp_path) == "the tables are up to date\n"


def test_status_says_what_is_applied_and_what_would_be(database: str, tmp_path: Path) -> None:
    fresh = run_migrate(database, tmp_path, "--status").splitlines()
    assert fresh[: len(MIGRATIONS) + 1] == [*(f"pending: {name}" for name in MIGRATIONS), "differs: functions/max_age"]
    load_earlier(database)
    earlier = run_migrate(database, tmp_path, "--status").splitlines()
    assert earlier[:2] == [f"pending: {MIGRATIONS[0]}", "to be replaced: 0001_host"]
    migrate(SecretStr(database))
    assert run_migrate(database, tmp_path, "--status") == f"{APPLIED}\nup to date\n"
    with connected(database) as connection:
        query_none(connection, "UPDATE vacancy.schema_source SET sha256 = '' WHERE name = 'views/source'")
    assert run_migrate(database, tmp_path, "--status").splitlines() == [
        *APPLIED.splitlines(),
        "differs: views/source",
    ]


@pytest.mark.parametrize("earlier", [False, True])
def test_a_dry_run_says_what_it_would_do_and_changes_nothing(database: str, tmp_path: Path, earlier: bool) -> None:
    if earlier:
        load_earlier(database)
    before = catalog(database)
    lines = run_migrate(database, tmp_path, "--dry-run").splitlines()
    *names, sources, last = lines
    assert names[: len(MIGRATIONS)] == [f"would apply {name}" for name in MIGRATIONS]
    assert names[len(MIGRATIONS) :] == ["in place of 0001_host to 0014_storage_and_drift"] * earlier
    assert sources.startswith("would apply functions and views (functions/max_age, ")
    assert last == "nothing was changed"
    assert catalog(database) == before
    migrate(SecretStr(database))
    assert run_migrate(database, tmp_path, "--dry-run") == "the tables are up to date\n"


def test_a_dry_run_finds_what_would_fail(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(SecretStr(database))
    with_extra(monkeypatch, "migrations", **{"9999_bad": "SELECT 1 / 0"})
    with pytest.raises(VacancyError, match=r"9999_bad failed and changed nothing: division by zero"):
        migrate(SecretStr(database), dry_run=True)


def test_a_database_of_a_newer_version_is_refused(database: str, tmp_path: Path) -> None:
    migrate(SecretStr(database))
    with connected(database) as connection:
        query_none(connection, "INSERT INTO vacancy.schema_migration (name, sha256) VALUES ('9999_future', '')")
    for arguments in ((), ("--dry-run",), ("--status",)):
        runner = start_migrate(database, tmp_path, *arguments)
        output, errors = runner.communicate(timeout=LIMIT_SECONDS)
        assert runner.returncode == 1
        assert output == (f"{APPLIED}\nunknown: 9999_future\n" if "--status" in arguments else "")
        assert len(errors.splitlines()) == 1
        assert "newer version" in errors
        assert "9999_future" in errors
        assert "upgrade vacancy" in errors


def test_a_changed_migration_is_refused_by_name(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    migrate(SecretStr(database))
    with_extra(monkeypatch, "migrations", **{MIGRATIONS[0]: "SELECT 1"})
    assert schema_state(SecretStr(database)).changed == (MIGRATIONS[0],)
    with pytest.raises(VacancyError, match=MIGRATIONS[0]):
        migrate(SecretStr(database))


@pytest.mark.parametrize("of", ["migrations", "sources"])
def test_a_file_that_fails_changes_nothing_and_can_be_tried_again(
    database: str, monkeypatch: pytest.MonkeyPatch, of: str
) -> None:
    """Nothing at all, also not what came before it in the same run."""
    migrate(SecretStr(database))
    with monkeypatch.context() as patch:
        with_extra(patch, "migrations", **{"9998_good": "CREATE TABLE vacancy.good ()"})
        with_extra(patch, of, **{"9999_bad": "CREATE TABLE vacancy.half (); SELECT 1 / 0"})
        with pytest.raises(VacancyError, match=r"9999_bad(\.sql)? failed and changed nothing: division by zero"):
            migrate(SecretStr(database))
    with connected(database) as connection:
        assert query(connection, "SELECT to_regclass('vacancy.half'), to_regclass('vacancy.good')") == [(None, None)]
    with_extra(monkeypatch, "migrations", **{"9999_bad": "CREATE TABLE vacancy.half ()"})
    assert migrate(SecretStr(database)).migrations == ("9999_bad",)


def test_an_owner_without_superuser_needs_the_roles_made_before(database: str) -> None:
    """Roles belong to the cluster: where they exist, whoever owns the database can migrate it."""
    migrate(SecretStr(database))  # makes the roles
    owner, name = f"owner_{uuid.uuid4().hex}", f"plain_{uuid.uuid4().hex}"
    with connected(database) as connection:
        query_none(connection, f"CREATE ROLE {owner} LOGIN PASSWORD 'x'")
        query_none(connection, f"CREATE DATABASE {name} OWNER {owner}")
        try:
            dsn = SecretStr(make_dsn(database, dbname=name, user=owner, password="x"))
            assert migrate(dsn).migrations == MIGRATIONS
        finally:
            query_none(connection, f"DROP DATABASE {name} WITH (FORCE)")
            query_none(connection, f"DROP ROLE {owner}")


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII", "EUC_JP"])
def test_a_database_that_is_not_utf8_is_refused_in_one_line(database: str, encoding: str) -> None:
    name = f"{database.rpartition('/')[2]}_{encoding.lower()}"
    with closing(psycopg2.connect(database)) as owner, owner.cursor() as cursor:
        owner.autocommit = True
        cursor.execute(f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
        try:
            other = f"{database.rpartition('/')[0]}/{name}"
            for dry_run in (True, False):
                with pytest.raises(VacancyError, match=rf"its encoding is {encoding}, and Vacancy needs UTF8; nothing"):
                    migrate(SecretStr(other), dry_run=dry_run)
            with closing(psycopg2.connect(other)) as there:
                assert query(there, "SELECT count(*) FROM pg_namespace WHERE nspname = 'vacancy'") == [(0,)]
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")
