"""A primary that is killed and its standby that is promoted: every part finds the new primary by itself."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import timedelta
from pathlib import Path

import psycopg2
import pytest
from pydantic import SecretStr

from tests.harness.process import Ended
from tests.harness.replication import Pair, running_pair
from tests.harness.rows import add_roomy_host, query
from tests.harness.waiting import wait_until
from vacancy.connectors.kubernetes.nodes import Nodes
from vacancy.connectors.nova.table import Fault, Table
from vacancy.connectors.postgres.connection import UnreachableError, dial
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.ranking import Amount
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.commands import doctor
from vacancy.jobs.settings import load_settings

FOUND_SECONDS = 60.0
SMALL = Request(vcpus=1, max_age=timedelta(hours=1))
SECOND = timedelta(seconds=1)
BACKEND_XMIN = "SELECT count(*) FROM pg_stat_replication WHERE backend_xmin IS NOT NULL"


@pytest.fixture
def pair() -> Iterator[Pair]:
    with running_pair() as pair:
        migrate(SecretStr(pair.dsn(standby_first=True)))
        with closing(psycopg2.connect(pair.primary.owner_dsn)) as owner:
            owner.autocommit = True
            for number in range(5):
                add_roomy_host(owner, f"host-{number}")
        pair.wait_until_replayed()
        yield pair


@pytest.mark.timeout(300)
def test_everything_finds_the_new_primary(pair: Pair, tmp_path: Path) -> None:
    consumer = str(uuid.uuid4())
    dsns = [
        pair.dsn(standby_first=True),
        pair.dsn(target_session_attrs="read-write"),
        pair.dsn(standby_first=True, target_session_attrs="any"),
        pair.dsn(target_session_attrs="primary"),
    ]
    schedulers = [Scheduler(dsn, SchedulerSettings(retry_for=timedelta(minutes=1))) for dsn in dsns]
    table, nodes = Table(pair.dsn(), 5.0), Nodes(SecretStr(pair.dsn()), 5 * SECOND, timedelta(hours=1), 30 * SECOND)
    for scheduler in schedulers:
        assert not scheduler.claim(SMALL)[0].already
    assert table.read(["id-host-0"])
    assert nodes.read(["host-0"])
    schedulers[0].claim(SMALL, [consumer])
    pair.wait_until_replayed()

    pair.primary.child.kill()
    pair.promote()
    for scheduler in schedulers:
        # The same objects go on, and what was acknowledged and replicated is there.
        assert scheduler.claim(SMALL, [consumer])[0].already
        assert not scheduler.claim(SMALL)[0].already
        scheduler.close()

    def ranked() -> bool:
        with suppress(Fault):
            return bool(table.read(["id-host-0"]))
        return False

    wait_until(ranked, FOUND_SECONDS, lambda: f"Nova's table stays away: {table.counts}")
    table.note(consumer, "id-host-1", Amount(4, 8192), 60)
    assert table.read(["id-host-1"])["id-host-1"].vcpus_claimed
    assert nodes.read(["host-0"])
    table.close()
    nodes.close()
    config = tmp_path / "vacancy.toml"
    roles = "".join(f'{role}_dsn = "{pair.dsn()}"\n' for role in ("owner", "scheduler", "reader"))
    config.write_text(f"[postgres]\n{roles}", encoding="utf-8")
    for command in ("hosts --json", "claims --json", "migrate --status", "claim --vcpus 1", "drift --json"):
        ended = Ended(tmp_path, *command.split(), "--config", config)
        assert ended.status in (0, 3), ended.errors


@pytest.mark.timeout(300)
def test_a_server_that_becomes_a_standby_is_left(pair: Pair) -> None:
    """Without a word on the wire: the connection stays, and the server takes no more writes."""
    with (
        closing(Scheduler(pair.dsn(target_session_attrs="any"))) as scheduler,
        closing(Table(pair.dsn(target_session_attrs="any"), 5.0)) as table,
    ):
        scheduler.claim(SMALL)
        assert table.read(["id-host-0"])
        with closing(psycopg2.connect(pair.primary.owner_dsn)) as owner:
            owner.autocommit = True
            owner.cursor().execute("ALTER SYSTEM SET default_transaction_read_only = on")
            query(owner, "SELECT pg_reload_conf()")
        pair.promote()
        consumer = uuid.uuid4()
        assert scheduler.claim(SMALL, [consumer])
        with closing(psycopg2.connect(pair.standby.owner_dsn)) as promoted:
            assert query(promoted, "SELECT count(*) FROM vacancy.claim WHERE consumer = %s", str(consumer)) == [(1,)]
        table.note(str(uuid.uuid4()), "id-host-1", Amount(4, 8192), 60)
        table.read(["id-host-1"])
        table.note(str(uuid.uuid4()), "id-host-1", Amount(5, 8192), 60)
        assert (table.read(["id-host-1"])["id-host-1"].vcpus_claimed or 0) >= 5


@pytest.mark.timeout(300)
def test_doctor_names_what_holds_back_old_rows(pair: Pair) -> None:
    settings = load_settings(None, {"postgres": {"owner_dsn": pair.primary.owner_dsn}})

    def found() -> str:
        return "\n".join(f"{finding.message}: {finding.remedy}" for finding in doctor._transactions(settings))

    assert "none is open for longer than 5 s: None" in found()
    with (
        closing(psycopg2.connect(pair.primary.owner_dsn, application_name="left open")) as left_open,
        closing(psycopg2.connect(pair.primary.owner_dsn)) as preparing,
        closing(psycopg2.connect(pair.standby.owner_dsn)) as reading,
        closing(psycopg2.connect(pair.primary.owner_dsn)) as owner,
    ):
        owner.autocommit = True
        query(left_open, "SELECT count(*) FROM vacancy.host")
        preparing.cursor().execute("UPDATE vacancy.host SET samples = samples")
        preparing.cursor().execute("PREPARE TRANSACTION 'for''gotten'")
        reading.set_session("REPEATABLE READ")
        query(reading, "SELECT count(*) FROM vacancy.host")
        wait_until(lambda: query(owner, BACKEND_XMIN) == [(1,)], FOUND_SECONDS, "the standby says nothing of its query")
        with owner.cursor() as cursor:
            for _ in range(1100):
                cursor.execute("SELECT pg_current_xact_id()")
        words = (
            f"postgres (left open at 127.0.0.1/32, process {left_open.info.backend_pid}) has had a transaction open",
            "now idle in transaction: ",
            f"SELECT pg_terminate_backend({left_open.info.backend_pid})",
            "postgres has prepared the transaction for'gotten and not committed it since ",
            "the standby walreceiver holds back the last 1,",
            "turn hot_standby_feedback off there",
        )
        wait_until(lambda: all(each in found() for each in words), FOUND_SECONDS, lambda: found())
        query(owner, "SELECT pg_create_physical_replication_slot('kept')")
        pair.standby.stop()
        with owner.cursor() as cursor:
            cursor.execute("ROLLBACK PREPARED 'for''gotten'")
        left_open.rollback()
        assert "none is open for longer than 5 s: None" in found()


@pytest.mark.timeout(300)
def test_a_standby_alone_says_what_it_is(pair: Pair) -> None:
    with closing(Scheduler(pair.standby.owner_dsn, SchedulerSettings(retry_for=SECOND))) as scheduler:
        assert scheduler.candidates(SMALL)
        with pytest.raises(UnreachableError, match=r"read-only transaction; is it a standby\? name all servers"):
            scheduler.claim(SMALL)
    wanted = f"{pair.standby.owner_dsn}?target_session_attrs=read-write"
    with pytest.raises(
        UnreachableError, match="wait until a standby has been promoted, or correct target_session_attrs"
    ):
        dial(SecretStr(wanted), connect_timeout=5 * SECOND, application_name="test")
    for standby in ("standby", "prefer-standby", "read-only"):
        with (
            closing(
                dial(
                    SecretStr(pair.dsn(target_session_attrs=standby)),
                    connect_timeout=5 * SECOND,
                    application_name="test",
                )
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SELECT pg_is_in_recovery()")
            assert cursor.fetchall() == [(True,)]
