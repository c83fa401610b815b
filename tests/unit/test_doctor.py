"""`vacancy doctor`: the order of its findings, and where it runs without a package."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vacancy.jobs.commands.doctor import Finding, by_cause

BROKER = Finding("broker", "k:9092 does not answer", "start it", "broker")
JOB = Finding("job", "the job is restarting", "see its log", "job")
DATABASE = [Finding(f"postgres.{role}_dsn", "refused", "start it", "database") for role in ("owner", "job")]
STALE = Finding("table", "every host is stale", "look at the agents")
SILENT = Finding("sources", "host is silent", "look at the agents")
DISKS = Finding("disks", "2 hosts promise one disk", "set agent.disk_pool")
WELL = Finding("schemas", "HostUsage v1")


def lines(*findings: Finding) -> list[tuple[str, str | None]]:
    return [(finding.check, cause) for finding, cause in by_cause(findings)]


def test_a_dead_part_is_first_and_what_follows_from_it_second() -> None:
    assert lines(WELL, JOB, STALE, SILENT, DISKS) == [
        ("job", None),
        ("table", "job"),
        ("sources", "job"),
        ("disks", None),
        ("schemas", None),
    ]


def test_the_part_that_feeds_others_is_before_them() -> None:
    assert lines(JOB, STALE, BROKER) == [("broker", None), ("job", None), ("table", "broker")]


def test_the_checks_of_a_database_that_is_dead_are_one_line() -> None:
    found = by_cause([*DATABASE, Finding("tables", "refused", "start it", "database"), WELL])
    assert [(finding.check, cause) for finding, cause in found] == [
        ("postgres.owner_dsn", None),
        ("database", "database"),
        ("schemas", None),
    ]
    assert found[1][0].message == "not checked: postgres.job_dsn, tables"


def test_without_a_dead_part_nothing_follows() -> None:
    assert lines(WELL, STALE, DISKS) == [("table", None), ("disks", None), ("schemas", None)]


@pytest.mark.parametrize("package", ["psycopg2", "confluent_kafka"])
def test_what_cannot_be_checked_for_want_of_a_package_is_no_fault(tmp_path: Path, package: str) -> None:
    """On a compute node there is no psycopg2, on a scheduler's machine no Kafka client."""
    program = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from vacancy.jobs.commands.cli import main; main(['doctor', '--json'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("VACANCY_")}
    servers = {"VACANCY_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1", "VACANCY_DATA_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment | servers,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.stderr == ""
    (found,) = [one for one in json.loads(ended.stdout) if package in one["message"]]
    assert found["ok"]
    assert "not checked" in found["message"]
