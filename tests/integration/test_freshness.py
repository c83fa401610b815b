"""The view `vacancy.freshness`, and the exporter's query that brings it to Prometheus."""

from __future__ import annotations

import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn

from tests.harness.debian import program
from tests.harness.process import Process
from tests.harness.rows import query, retire, upsert_inventory, upsert_usage
from tests.harness.waiting import wait_until
from vacancy.jobs import ports

QUERIES = Path(__file__).parents[2] / "deploy" / "prometheus" / "postgres-exporter.yml"
COLUMNS = (
    "SELECT column_name FROM information_schema.columns WHERE (table_schema, table_name) = ('vacancy', 'freshness')"
)

COUNTS = (
    "SELECT hosts, hosts_schedulable, hosts_disabled, hosts_silent, hosts_stale, hosts_without_inventory,"
    " claims_in_flight, hosts_duplicate_id FROM vacancy.freshness"
)
AGES = "SELECT age_min_seconds, age_p50_seconds, age_p99_seconds, age_max_seconds FROM vacancy.freshness"


def execute(owner: Connection, statement: str) -> None:
    with owner.cursor() as cursor:
        cursor.execute(statement)


def add(owner: Connection, name: str, *, seconds_ago: float, **inventory: object) -> None:
    """A host that reported some seconds ago."""
    now = datetime.now(UTC)
    upsert_inventory(owner, host_id=name, name=name, observed_at=now, **inventory)
    upsert_usage(owner, host_id=name, observed_at=now - timedelta(seconds=seconds_ago), recent_consumers="{}")


def test_an_empty_table_is_one_row_without_ages(owner: Connection) -> None:
    assert query(owner, COUNTS) == [(0, 0, 0, 0, 0, 0, 0, 0)]
    assert query(owner, AGES) == [(None, None, None, None)]


def test_every_host_counts_once_by_the_reason_why_it_is_out(owner: Connection) -> None:
    add(owner, "fresh", seconds_ago=0)
    add(owner, "stale", seconds_ago=100)
    add(owner, "disabled", seconds_ago=1000, status="DISABLED")
    upsert_inventory(owner, host_id="silent", name="silent")
    upsert_usage(owner, host_id="nameless")
    add(owner, "cloned", seconds_ago=0)
    upsert_usage(owner, host_id="cloned", observed_at=datetime.now(UTC), anomalies=1)
    add(owner, "retired", seconds_ago=0)
    retire(owner, host_id="retired", observed_at=datetime.now(UTC) + timedelta(seconds=1))
    claim = "SELECT consumer FROM vacancy.claim(%s::uuid[], '{\"vcpus\": 1}')"
    query(owner, claim, [str(uuid.uuid4()), str(uuid.uuid4())])
    assert query(owner, COUNTS) == [(5, 1, 1, 1, 1, 1, 2, 1)]


def test_ages_are_those_of_enabled_hosts(owner: Connection) -> None:
    for number in range(100):
        add(owner, f"host-{number}", seconds_ago=number)
    add(owner, "off", seconds_ago=10_000, status="DISABLED")
    (ages,) = query(owner, AGES)
    assert ages == pytest.approx((0, 49, 98, 99), abs=5)
    assert 0 <= ages[0] < ages[1] < ages[2] < ages[3]


def test_stale_means_what_the_session_says(owner: Connection) -> None:
    add(owner, "host", seconds_ago=100)
    query(owner, "SELECT set_config('vacancy.max_age', '1 h', false)")
    assert query(owner, "SELECT hosts_schedulable, hosts_stale FROM vacancy.freshness") == [(1, 0)]


def test_the_exporter_brings_every_column_to_prometheus(owner: Connection, database: str, tmp_path: Path) -> None:
    """As postgres_exporter logs in: with the rights of a reader and no others."""
    command = program("prometheus-postgres-exporter", "usr/bin/prometheus-postgres-exporter", tmp_path)
    add(owner, "fresh", seconds_ago=0)
    add(owner, "stale", seconds_ago=100)
    upsert_inventory(owner, host_id="silent", name="silent")
    login, port = f"exporter_{uuid.uuid4().hex}", ports.free_port()
    execute(owner, f"CREATE ROLE {login} LOGIN PASSWORD 'secret' IN ROLE vacancy_reader")
    exporter = Process(
        [
            command,
            f"--extend.query-path={QUERIES}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--disable-default-metrics",
            "--disable-settings-metrics",
        ],
        tmp_path,
        tmp_path / "exporter.log",
        {"DATA_SOURCE_NAME": make_dsn(database, user=login, password="secret", sslmode="disable")},
    )
    try:
        with exporter:
            wait_until(lambda: ports.answers(port), 30, f"no exporter; see {exporter.log}")
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
                families = list(text_string_to_metric_families(response.read().decode()))
    finally:
        execute(owner, f"DROP ROLE {login}")
    figures = {
        sample.name: sample.value for family in families for sample in family.samples if "freshness" in sample.name
    }
    columns = [name for (name,) in query(owner, COLUMNS)]
    assert figures.keys() == {f"vacancy_freshness_{column}" for column in columns}
    assert figures["vacancy_freshness_hosts"] == 3
    assert figures["vacancy_freshness_hosts_stale"] == figures["vacancy_freshness_hosts_silent"] == 1
    assert figures["vacancy_freshness_age_max_seconds"] == pytest.approx(100, abs=60)
