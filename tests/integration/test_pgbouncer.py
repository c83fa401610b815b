"""Every part through PgBouncer, and the limits of connections: PgBouncer's, of a role, of a database."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Literal

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.firewall import silence
from tests.harness.pgbouncer import running_pgbouncer
from tests.harness.process import Ended
from tests.harness.rows import add_roomy_host, query
from tests.harness.servers import new_database, running_postgres
from tests.harness.waiting import wait_until
from vacancy.connectors.kubernetes.nodes import Nodes
from vacancy.connectors.nova.hot_traits import hosts
from vacancy.connectors.nova.table import Table
from vacancy.connectors.postgres.connection import UnreachableError, dial
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.ranking import Amount, Limits
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.local.postgres_server import PostgresServer

SECOND = timedelta(seconds=1)
SMALL = Request(vcpus=1, max_age=timedelta(hours=1))
BUSY_S = 30.0
THREADS, CLAIMS = 12, 10
STATE = """
SELECT current_setting('statement_timeout'), current_setting('lock_timeout'),
  current_setting('default_transaction_read_only'), current_setting('transaction_read_only'),
  current_setting('client_connection_check_interval'), coalesce(current_setting('vacancy.max_age', true), ''),
  (SELECT count(*) FROM pg_prepared_statements), (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory')
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with running_postgres() as server:
        yield server


@pytest.mark.parametrize("mode", ["transaction", "session"])
def test_every_part_works_through_it_and_leaves_nothing_in_a_session(
    server: PostgresServer, mode: Literal["transaction", "session"], tmp_path: Path
) -> None:
    """With one server connection, so that every client meets what the one before it left."""
    pool = {"default_pool_size": "1" if mode == "transaction" else "8"}
    with new_database(server) as database, running_pgbouncer(server, mode, **pool) as pooler:
        dsn = make_dsn(pooler, dbname=database.rpartition("/")[2])
        before = state_of(dsn)
        migrate(SecretStr(dsn))
        with closing(psycopg2.connect(database)) as owner:
            owner.autocommit = True
            for number in range(10):
                add_roomy_host(owner, f"host-{number}")
        settings = SchedulerSettings(max_age=timedelta(hours=1), connections=4)
        with (
            closing(Scheduler(dsn, settings)) as scheduler,
            closing(Table(dsn, 5.0)) as table,
            closing(Nodes(SecretStr(dsn), 5 * SECOND, timedelta(hours=1), 30 * SECOND)) as nodes,
            ThreadPoolExecutor(THREADS) as threads,
        ):
            claims = list(threads.map(lambda _: scheduler.claim(SMALL)[0], range(THREADS * CLAIMS)))
            assert len({claim.consumer for claim in claims}) == THREADS * CLAIMS
            assert scheduler.counters.reconnects == 0
            assert len(scheduler.hosts()) == 10
            assert scheduler.candidates(SMALL)
            assert nodes.read(["host-1"])
            assert table.read(["id-host-1"])
            table.note(str(uuid.uuid4()), "id-host-1", Amount(4, 8192), 60)
            assert table.read(["id-host-1"])["id-host-1"].vcpus_claimed
            assert hosts(dsn, 3600.0, Limits())
            assert len(scheduler.release(*(claim.consumer for claim in claims))) == THREADS * CLAIMS
            if mode == "transaction":
                assert state_of(dsn) == before
        config = tmp_path / "vacancy.toml"
        uri = dsn_uri(dsn)
        config.write_text(
            "[postgres]\n" + "".join(f'{role}_dsn = "{uri}"\n' for role in ("owner", "scheduler", "reader")),
            encoding="utf-8",
        )
        for command in ("hosts", "claims", "drift", "migrate", "hosts --why --vcpus 1"):
            ended = Ended(tmp_path, *command.split(), "--config", config)
            assert ended.status == 0, ended.errors
        assert state_of(dsn) == before


def state_of(dsn: str) -> list[tuple[object, ...]]:
    """What a client of the pooler finds in the session that it is given."""
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        return query(connection, STATE)


def dsn_uri(dsn: str) -> str:
    """A connection string without quotes and spaces, for a settings file."""
    parts = psycopg2.extensions.parse_dsn(dsn)
    return f"postgresql://{parts['user']}:{parts['password']}@{parts['host']}:{parts['port']}/{parts['dbname']}"


def test_a_server_that_restarts_or_falls_silent_behind_it_is_waited_for_so_long_only() -> None:
    with running_postgres() as server, running_pgbouncer(server, "transaction", server_login_retry="1") as dsn:
        migrate(SecretStr(dsn))
        with closing(psycopg2.connect(server.owner_dsn)) as owner:
            owner.autocommit = True
            add_roomy_host(owner, "a")
        with closing(Scheduler(dsn, SchedulerSettings(retry_for=timedelta(minutes=1)))) as scheduler:
            scheduler.claim(SMALL)
            server.child.kill()
            server.start()
            assert scheduler.claim(SMALL)
        quick = SchedulerSettings(statement_timeout=SECOND, retry_for=SECOND)
        with closing(Scheduler(dsn, quick)) as scheduler:
            scheduler.claim(SMALL)
            # PgBouncer acknowledges what it is sent, so that no time-out of the network ends the wait.
            with silence(server.port), pytest.raises(UnreachableError, match=r"no answer in|does not answer in"):
                scheduler.claim(SMALL)
        with closing(Scheduler(dsn, SchedulerSettings(retry_for=timedelta(minutes=1)))) as scheduler:
            assert scheduler.claim(SMALL)


def test_a_pooler_that_is_full_is_tried_again(server: PostgresServer) -> None:
    with (
        running_pgbouncer(server, "transaction", max_client_conn="2") as dsn,
        new_database(server) as database,
    ):
        migrate(SecretStr(database))
        full(make_dsn(dsn, dbname=database.rpartition("/")[2]), 2, "no more connections allowed")


def test_the_limit_of_a_role_or_of_a_database_is_tried_again(server: PostgresServer) -> None:
    with new_database(server) as database, closing(psycopg2.connect(server.owner_dsn)) as superuser:
        migrate(SecretStr(database))
        superuser.autocommit = True
        name = database.rpartition("/")[2]
        query_none(superuser, "CREATE ROLE limited LOGIN PASSWORD 'hush' IN ROLE vacancy_scheduler CONNECTION LIMIT 1")
        try:
            limited = make_dsn(database, user="limited", password="hush")  # no secret
            full(limited, 1, 'too many connections for role "limited"')
            query_none(superuser, "ALTER ROLE limited CONNECTION LIMIT -1")
            query_none(superuser, f"ALTER DATABASE {name} CONNECTION LIMIT 1")
            full(limited, 1, f'too many connections for database "{name}"')
        finally:
            query_none(superuser, "DROP ROLE limited")


def full(dsn: str, places: int, says: str) -> None:
    """With all places taken a call says so at its end; a place that becomes free meanwhile is taken."""
    secret = SecretStr(dsn)
    others = [dial(secret, connect_timeout=5 * SECOND, application_name="other") for _ in range(places)]
    with (
        closing(Scheduler(secret, SchedulerSettings(retry_for=SECOND))) as scheduler,
        pytest.raises(UnreachableError, match=says),
    ):
        scheduler.candidates(SMALL)
    with closing(Scheduler(secret, SchedulerSettings(retry_for=timedelta(minutes=1)))) as scheduler:
        done = threading.Event()

        def call() -> None:
            scheduler.candidates(SMALL)
            done.set()

        thread = threading.Thread(target=call)
        thread.start()
        wait_until(lambda: scheduler.counters.reconnects > 0, BUSY_S, "the limit holds nobody off")
        assert not done.is_set()
        for other in others:
            other.close()
        thread.join(BUSY_S)
        assert done.is_set()


def query_none(connection: psycopg2.extensions.connection, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
