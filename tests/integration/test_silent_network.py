"""A network that swallows packets, and a table that is locked: whoever waits for the database waits for so long only.

The packets are dropped on their way, by the kernel. A paused process would still acknowledge what it is sent.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.firewall import silence
from tests.harness.process import Ended
from tests.harness.rows import add_roomy_host
from tests.harness.servers import running_postgres
from tests.harness.waiting import wait_until
from vacancy.connectors.kubernetes.extender import Extender
from vacancy.connectors.kubernetes.nodes import Nodes
from vacancy.connectors.nova.hot_traits import hosts
from vacancy.connectors.nova.table import Fault, Table
from vacancy.connectors.postgres.connection import UnreachableError
from vacancy.connectors.postgres.migrations import migrate, schema_state
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import TimedOutError
from vacancy.connectors.scheduler.ranking import Limits
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.local.postgres_server import PostgresServer

SECOND = timedelta(seconds=1)
SMALL = Request(vcpus=1, max_age=timedelta(hours=1))
QUICK = SchedulerSettings(statement_timeout=SECOND, retry_for=2 * SECOND)
"""A call with these ends after 4 s: what it is retried for, what the last try may take, and a second."""
COMMANDS = (
    "hosts",
    "hosts --why --vcpus 1",
    "host a",
    "claims",
    "claim --vcpus 1",
    f"release {uuid.uuid4()}",
    "disable a --reason silent",
    "enable a",
    "doctor",
    "drift",
    "migrate",
    "status",
)
BUSY_S = 20.0
"""How much longer a busy machine may take; without limits the kernel gives up after 15 minutes."""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        migrate(SecretStr(server.owner_dsn))
        with closing(psycopg2.connect(server.owner_dsn)) as owner:
            owner.autocommit = True
            add_roomy_host(owner, "a")
        yield server


def ends_within(seconds: float, call: Callable[[], object], *errors: type[Exception]) -> None:
    """The call fails with one of these errors, and in time."""
    began = time.monotonic()
    with pytest.raises(errors):
        call()
    assert time.monotonic() - began < seconds + BUSY_S


@pytest.mark.timeout(240)
def test_in_a_silent_network_every_call_ends(server: PostgresServer) -> None:
    dsn = SecretStr(server.owner_dsn)
    with (
        closing(Scheduler(dsn, QUICK)) as scheduler,
        closing(Scheduler(make_dsn(server.owner_dsn, host="localhost"), QUICK)) as new,
        closing(Table(server.owner_dsn, 0.2)) as table,
        closing(Nodes(dsn, SECOND, timedelta(hours=1))) as nodes,
        ThreadPoolExecutor(16) as threads,
    ):
        extender = Extender(nodes)
        pods = {"Pod": {"spec": {}}, "NodeNames": ["a"]}
        scheduler.claim(SMALL)
        wait_until(lambda: known(extender), BUSY_S, "the extender's table is not read")
        wait_until(lambda: reads(table), BUSY_S, "Nova's table is not read")
        with silence(server.port):
            began = time.monotonic()
            calls = [
                *(threads.submit(ends_within, 4.0, lambda: scheduler.claim(SMALL), UnreachableError) for _ in range(3)),
                threads.submit(ends_within, 4.0, lambda: new.release(uuid.uuid4()), UnreachableError),
                threads.submit(ends_within, 4.0, lambda: new.hosts(), UnreachableError),
                threads.submit(ends_within, 0.2, lambda: table.read(["id-a"]), Fault),
                threads.submit(ends_within, 5.0, lambda: schema_state(dsn), UnreachableError),
                threads.submit(ends_within, 10.0, lambda: hosts(server.owner_dsn, 30.0, Limits()), psycopg2.Error),
                *(threads.submit(lambda: extender.filter(pods)["NodeNames"]) for _ in range(4)),
            ]
            for call in calls:
                assert call.result() in (None, ["a"])
            assert time.monotonic() - began < 12.0 + BUSY_S
        assert scheduler.claim(SMALL)
        assert new.release(uuid.uuid4()) == []
        wait_until(lambda: reads(table), BUSY_S, "Nova's table is not read again")
        wait_until(lambda: known(extender), BUSY_S, "the extender's table is not read again")


def known(extender: Extender) -> bool:
    return bool(extender._known(["a"], None))


def reads(table: Table) -> bool:
    with suppress(Fault):
        return bool(table.read(["id-a"]))
    return False


@pytest.mark.timeout(240)
def test_in_a_silent_network_every_command_ends(server: PostgresServer, tmp_path: Path) -> None:
    config = settings_file(server, tmp_path)
    with silence(server.port), ThreadPoolExecutor(len(COMMANDS)) as threads:
        for ended in threads.map(lambda c: Ended(tmp_path, *c.split(), "--config", config, seconds=90), COMMANDS):
            assert ended.status in (1, 2)
            assert "does not answer in " in ended.errors + ended.output


@pytest.mark.timeout(240)
def test_a_locked_table_holds_nobody_up(server: PostgresServer, tmp_path: Path) -> None:
    dsn = SecretStr(server.owner_dsn)
    config = settings_file(server, tmp_path)
    with (
        closing(psycopg2.connect(server.owner_dsn)) as migration,
        closing(Scheduler(dsn, QUICK)) as scheduler,
        closing(Nodes(dsn, SECOND, timedelta(hours=1))) as nodes,
        closing(Table(server.owner_dsn, 0.2)) as table,
        ThreadPoolExecutor(24) as threads,
    ):
        wait_until(lambda: reads(table), BUSY_S, "Nova's table is not read")
        with migration.cursor() as cursor:
            for locked in ("host", "host_inventory", "claim"):
                cursor.execute(f"LOCK TABLE vacancy.{locked} IN ACCESS EXCLUSIVE MODE")
        extender = Extender(nodes)
        pods = {"Pod": {"spec": {}}, "NodeNames": ["a"]}
        began = time.monotonic()
        answers = [threads.submit(extender.filter, pods) for _ in range(23)]
        calls = [
            threads.submit(ends_within, 1.0, lambda: scheduler.claim(SMALL), TimedOutError),
            threads.submit(ends_within, 1.0, lambda: scheduler.candidates(SMALL), TimedOutError),
            threads.submit(ends_within, 1.0, lambda: scheduler.release(uuid.uuid4()), TimedOutError),
            threads.submit(ends_within, 0.2, lambda: table.read(["id-a"]), Fault),
        ]
        for call in calls:
            call.result()
        assert [answer.result()["NodeNames"] for answer in answers] == [["a"]] * 23
        assert time.monotonic() - began < 4.0 + BUSY_S
        ended = Ended(tmp_path, "doctor", "--config", config, seconds=90)
        assert "if a table is locked, as by VACUUM FULL or a migration, pg_stat_activity shows by whom" in ended.output
        migration.rollback()
        assert scheduler.claim(SMALL)
        wait_until(lambda: known(extender), BUSY_S, "the extender's table is not read again")
        # No statement is left behind that waits for a lock.
        wait_until(lambda: not waiting(server), BUSY_S, "a statement still waits")


def waiting(server: PostgresServer) -> int:
    with closing(psycopg2.connect(server.owner_dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
        return int(cursor.fetchall()[0][0])


def test_a_name_service_that_is_silent_is_not_waited_for() -> None:
    with silence(53), closing(Scheduler("host=db.vacancy.test user=u", QUICK)) as scheduler:
        ends_within(4.0, scheduler.hosts, UnreachableError)


def settings_file(server: PostgresServer, directory: Path) -> Path:
    config = directory / "vacancy.toml"
    roles = "".join(f'{role}_dsn = "{server.owner_dsn}"\n' for role in ("owner", "job", "scheduler", "reader"))
    config.write_text(
        f'[kafka]\nbootstrap_servers = "127.0.0.1:1"\n[postgres]\nconnect_timeout = "2s"\n{roles}'
        '[scheduler]\nretry_for = "2s"\nstatement_timeout = "1s"\n',
        encoding="utf-8",
    )
    return config
