"""`vacancy hosts` against a real database."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from click.testing import CliRunner
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr
from rich.console import Console
from rich.text import Text

from tests.harness.rows import query, retire, upsert_inventory, upsert_usage
from tests.harness.servers import running_postgres
from tests.harness.waiting import wait_until
from vacancy.connectors.postgres.connection import connect
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.postgres.schedulable_hosts import FIGURES, LISTS, HostRow, Selection, fetch
from vacancy.jobs.commands.cli import cli
from vacancy.jobs.commands.host_table import LiveTable, summarize
from vacancy.jobs.local.postgres_server import PostgresServer

LIMIT_SECONDS = 30.0


@pytest.fixture
def connection(database: str) -> Iterator[Connection]:
    """A migrated database with four hosts: two that are up, one stale and disabled each; and a retired one."""
    migrate(SecretStr(database))
    now = datetime.now(UTC)
    with closing(psycopg2.connect(database)) as opened:
        opened.autocommit = True
        for host in ("b", "a", "stale", "disabled", "retired"):
            status = {"status": "DISABLED", "status_reason": "repair"} if host == "disabled" else {}
            upsert_inventory(opened, host_id=f"id-{host}", name=host, **status)
            age = timedelta(hours=1) if host == "stale" else timedelta()
            upsert_usage(opened, host_id=f"id-{host}", observed_at=now - age)
        retire(opened, host_id="id-retired", observed_at=now)
        query(opened, "SELECT set_config('vacancy.max_age', '30 min', false)")
        yield opened


def vacancy_hosts(database: str, directory: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command as a process."""
    return subprocess.Popen(
        [sys.executable, "-c", "from vacancy.jobs.commands.cli import main; main()", "hosts", *arguments],
        # Without a terminal a line is as wide as it has to be, unless somebody says otherwise by this.
        env={name: value for name, value in os.environ.items() if name != "COLUMNS"}
        # A busy machine must not make the others stale.
        | {"VACANCY_POSTGRES__READER_DSN": database, "VACANCY_SCHEDULER__MAX_AGE": "30 min"},
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_schedulable_hosts_come_first_then_by_name(connection: Connection) -> None:
    assert [row.name for row in fetch(connection)] == ["a", "b", "disabled", "stale"]
    assert [row.name for row in fetch(connection, 1)] == ["a"]


@pytest.mark.parametrize(
    ("selection", "names"),
    [
        (Selection(out=True), ["disabled", "stale"]),
        (Selection(reason="disabled"), ["disabled"]),
        (Selection(reason="no such"), []),
        (Selection(name="?"), ["a", "b"]),
        (Selection(name="*a*"), ["a", "disabled", "stale"]),
        (Selection(name="%"), []),
        (Selection(name="_"), []),
        (Selection(name="\\"), []),
        (Selection(sort="name", descending=True), ["stale", "disabled", "b", "a"]),
        (Selection(sort="age", descending=True, offset=1), ["disabled", "a", "b"]),
        (Selection(offset=3), ["stale"]),
        (Selection(first="id-stale"), ["stale", "a", "b", "disabled"]),
        (Selection(first="id-stale", out=True, sort="name"), ["stale", "disabled"]),
        (Selection(first="id-elsewhere"), ["a", "b", "disabled", "stale"]),
    ],
)
def test_a_selection(connection: Connection, selection: Selection, names: list[str]) -> None:
    found = [row.name for row in fetch(connection, selection=selection)]
    assert found == names if selection.sort != "age" else set(found) == set(names)


def test_the_command_selects(
    connection: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del connection
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    environment = {"VACANCY_POSTGRES__READER_DSN": database, "VACANCY_SCHEDULER__MAX_AGE": "30 min"}

    def said(*arguments: str) -> str:
        ended = CliRunner().invoke(cli, ["hosts", *arguments], env=environment)
        assert (ended.exit_code, ended.stderr) == (0, ""), ended.output
        return ended.stdout

    for arguments, names in (
        (("--out", "--json"), ["disabled", "stale"]),
        (("--reason", "stale", "--json"), ["stale"]),
        (("--name", "?", "--sort", "name", "--descending", "--json"), ["b", "a"]),
        (("--why", "--vcpus", "1", "--out", "--json"), ["disabled", "stale"]),
    ):
        assert [row["name"] for row in json.loads(said(*arguments))] == names, arguments
    assert [list(row) for row in json.loads(said("--columns", "zone,name,traits", "--name", "a", "--json"))] == [
        ["zone", "name", "traits"]
    ]
    lines = said("--columns", "zone,name,traits").splitlines()
    assert [line.split()[1] for line in lines[3:7]] == ["a", "b", "disabled", "stale"]
    assert "(2 match, 1 shown)" in said("--limit", "1", "--out")
    assert "(3 more not shown; `vacancy hosts --out` shows the 2 that are out)" in " ".join(
        said("--limit", "1").split()
    )


def test_the_summary_counts_all_and_adds_up_the_schedulable(connection: Connection) -> None:
    summary = summarize(connection)
    assert (summary.hosts, summary.schedulable, summary.disabled, summary.stale) == (4, 2, 1, 1)
    assert summary.vcpus_free == 2 * 32
    assert summary.oldest_age is not None
    assert summary.oldest_age >= timedelta(hours=1)


def test_json_is_the_view_and_nothing_else(connection: Connection, database: str, tmp_path: Path) -> None:
    output, errors = vacancy_hosts(database, tmp_path, "--json").communicate(timeout=LIMIT_SECONDS)
    assert errors == ""
    documents = json.loads(output)
    columns = [
        name
        for (name,) in query(
            connection,
            "SELECT attname FROM pg_attribute WHERE attrelid = 'vacancy.schedulable_host'::regclass ORDER BY attnum",
        )
    ]
    assert [list(document) for document in documents] == [columns] * 4
    assert {field.name for field in fields(HostRow)} <= set(columns)
    assert sorted(FIGURES + LISTS) == sorted(columns)
    first, disabled = documents[0], documents[2]
    assert datetime.fromisoformat(first["observed_at"]).utcoffset() == timedelta()
    assert 0 <= first["age"] < LIMIT_SECONDS
    assert first["recent_consumers"] == ["e19c4b3a-5b9c-4b52-a6d2-1e2f5c0a9b77"]
    assert first["inventories"]["VCPU"]["total"] == 64
    assert first["cpu_iowait"] is None
    assert disabled["reason"] == "disabled: repair"


def test_the_table_names_who_is_out_and_why(connection: Connection, database: str, tmp_path: Path) -> None:
    del connection
    output, errors = vacancy_hosts(database, tmp_path).communicate(timeout=LIMIT_SECONDS)
    assert errors == ""
    assert "disabled: repair" in output
    assert "4 hosts, 2 schedulable, 1 stale, 1 disabled" in output
    assert "\x1b" not in output


@pytest.mark.parametrize(
    ("dsn", "message"),
    [
        ("postgresql://u:hush@127.0.0.1:1/x", "PostgreSQL at 127.0.0.1:1, database x as u cannot be reached"),
        ("postgresql://u:hu@sh@127.0.0.1/x", "percent-encoded"),
        ("hush", "cannot be parsed"),
    ],
)
def test_no_server_is_one_line_without_the_password(tmp_path: Path, dsn: str, message: str) -> None:
    runner = vacancy_hosts(dsn, tmp_path)
    output, errors = runner.communicate(timeout=LIMIT_SECONDS)
    assert runner.returncode == 1
    assert output == ""
    assert len(errors.splitlines()) == 1
    assert message in errors
    assert "hush" not in errors
    assert "sh@" not in errors


@pytest.mark.parametrize(
    ("user", "password", "dbname", "message"),
    [
        ("postgres", "wrong-secret", "postgres", "check the user and the password"),
        ("nobody_there", "wrong-secret", "postgres", "check the user and the password"),
        ("postgres", None, "no_such_database", "createdb"),
        ("postgres", None, "template1", "run `vacancy migrate`"),
    ],
)
def test_refusals_say_what_to_do(
    postgres_server: PostgresServer, tmp_path: Path, user: str, password: str | None, dbname: str, message: str
) -> None:
    dsn = postgres_server.owner_dsn.rpartition("/")[0] + "/" + dbname
    if password is not None:
        dsn = postgres_server.dsn(user, dbname, password)
    _, errors = vacancy_hosts(dsn, tmp_path).communicate(timeout=LIMIT_SECONDS)
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert "wrong-secret" not in errors


def test_watch_and_json_exclude_each_other(tmp_path: Path) -> None:
    runner = vacancy_hosts("", tmp_path, "--watch", "--json")
    _, errors = runner.communicate(timeout=LIMIT_SECONDS)
    assert runner.returncode == 2
    assert len(errors.splitlines()) == 1


def test_watch_goes_on_until_ctrl_c(connection: Connection, database: str, tmp_path: Path) -> None:
    del connection
    runner = vacancy_hosts(database, tmp_path, "--watch")
    assert runner.stdout is not None
    for _ in range(2):
        assert "4 hosts, 2 schedulable" in runner.stdout.readline()
    runner.send_signal(signal.SIGINT)
    _, errors = runner.communicate(timeout=LIMIT_SECONDS)
    assert (runner.returncode, errors) == (0, "")


def test_the_live_table_shows_what_fits_and_survives_a_restart_of_the_database() -> None:
    with running_postgres() as server:
        dsn = SecretStr(server.owner_dsn)
        migrate(dsn)
        with closing(psycopg2.connect(server.owner_dsn)) as writer, writer:
            for index in range(100):
                upsert_inventory(writer, host_id=f"id-{index}", name=f"compute-{index:03}")
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=160, height=20, color_system=None)

        def redrawn() -> str:
            screen.seek(0)
            screen.truncate()
            table.refresh()
            return screen.getvalue()

        with LiveTable(
            lambda: connect(dsn, connect_timeout=timedelta(seconds=2), application_name="test", read_only=True),
            console,
            selection=Selection(first="id-50"),
            head=lambda: Text("broker ok, database ok"),
        ) as table:
            picture = redrawn()
            assert "broker ok, database ok" in picture
            assert picture.index("compute-050") < picture.index("compute-000")
            assert picture.count("compute-") == 20 - 8 - 1
            assert "89 more not shown" in picture
            assert len(picture.splitlines()) <= 20
            server.stop()
            picture = redrawn()
            assert "figures stand still" in picture
            assert "compute-000" in picture
            server.start()
            wait_until(lambda: "figures stand still" not in redrawn(), LIMIT_SECONDS, "the table does not come back")
            assert "compute-000" in redrawn()
