"""`vacancy doctor`: what is wrong is found, and one broken part hides no other."""

from __future__ import annotations

import http.server
import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.rows import upsert_inventory, upsert_usage
from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.commands import doctor
from vacancy.jobs.commands.doctor import Finding, diagnose
from vacancy.jobs.settings import Settings, load_settings

LIMIT_SECONDS = 60.0
NO_BROKER = "127.0.0.1:1"


@pytest.fixture
def dsns(database: str) -> Iterator[dict[str, str]]:
    """A migrated database with a login per role."""
    migrate(SecretStr(database))
    suffix = uuid.uuid4().hex
    with closing(psycopg2.connect(database)) as owner, owner.cursor() as cursor:
        owner.autocommit = True
        made = {"owner_dsn": database}
        for role in ("job", "scheduler", "reader"):
            cursor.execute(f"CREATE ROLE {role}_{suffix} LOGIN PASSWORD 'secret' IN ROLE vacancy_{role}")
            made[f"{role}_dsn"] = make_dsn(database, user=f"{role}_{suffix}", password="secret")
        yield made
        for role in ("job", "scheduler", "reader"):
            cursor.execute(f"DROP OWNED BY {role}_{suffix}")
            cursor.execute(f"DROP ROLE {role}_{suffix}")


def settings(dsns: dict[str, str], **sections: Any) -> Settings:
    """Settings with a broker that is not there."""
    return load_settings(None, {"kafka": {"bootstrap_servers": NO_BROKER}, "postgres": dsns, **sections})


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not there is given up on soon."""
    monkeypatch.setattr(doctor, "TIMEOUT_SECONDS", 1.0)


def wrong(findings: list[Finding], check: str) -> list[str]:
    return [finding.message for finding in findings if finding.check == check and finding.remedy is not None]


def test_a_healthy_database_is_healthy_though_the_broker_is_away(dsns: dict[str, str]) -> None:
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner:
        upsert_inventory(owner)
        upsert_usage(owner, observed_at=datetime.now(UTC))
    findings = diagnose(settings(dsns))
    assert [finding.check for finding in findings if finding.remedy is not None] == ["broker"]
    assert {finding.check for finding in findings} >= {"schemas", "tables", "table", "postgres.job_dsn"}


def test_an_unreachable_database_fails_its_checks_and_no_other() -> None:
    dsn = "postgresql://u:hush@127.0.0.1:1/x"
    findings = diagnose(settings({f"{role}_dsn": dsn for role in ("owner", "job", "scheduler", "reader")}))
    for check in ("postgres.owner_dsn", "postgres.job_dsn", "tables", "table"):
        assert "cannot be reached" in wrong(findings, check)[0]
    assert not wrong(findings, "schemas")
    assert "hush" not in repr(findings)


def test_missing_and_excess_rights_are_named(dsns: dict[str, str]) -> None:
    swapped = dsns | {"job_dsn": dsns["reader_dsn"], "scheduler_dsn": dsns["job_dsn"], "reader_dsn": dsns["owner_dsn"]}
    findings = diagnose(settings(swapped))
    job, scheduler = wrong(findings, "postgres.job_dsn"), wrong(findings, "postgres.scheduler_dsn")
    assert "may not INSERT vacancy.host, UPDATE vacancy.host, INSERT vacancy.host_inventory" in job[0]
    assert "SELECT vacancy.schedulable_host" in job[1]
    assert "may not EXECUTE vacancy.candidates(), EXECUTE vacancy.claim()" in scheduler[0]
    assert "SELECT vacancy.schedulable_host" in scheduler[0]
    assert "superuser" in wrong(findings, "postgres.reader_dsn")[0]


def test_a_table_that_stands_still_is_said(dsns: dict[str, str]) -> None:
    assert "no host is in the table" in wrong(diagnose(settings(dsns)), "table")[0]
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner:
        with owner:
            upsert_inventory(owner)
            upsert_usage(owner, observed_at=datetime.now(UTC) - timedelta(hours=1))
            upsert_usage(owner, host_id="nameless", observed_at=datetime.now(UTC))
        nameless, stale = wrong(diagnose(settings(dsns)), "table")
        assert "1 hosts sent usage but no inventory" in nameless
        assert "every host is stale" in stale
        with owner:
            upsert_usage(owner, observed_at=datetime.now(UTC) + timedelta(hours=1))
        assert "say times ahead of this database's" in wrong(diagnose(settings(dsns)), "clocks")[0]


def test_hosts_whose_events_contradict_each_other_are_named_and_counted(dsns: dict[str, str]) -> None:
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner:
        for host, anomalies in (("cloned", 1), ("restored", 2), ("ticks", 4), ("all", 7), ("sound", 0)):
            upsert_inventory(owner, host_id=host, name=f"{host}\x1b[2J")
            upsert_usage(owner, host_id=host, anomalies=anomalies, observed_at=datetime.now(UTC))
    findings = diagnose(settings(dsns))
    said = [finding.message for finding in findings if finding.check == "anomalies"]
    assert said == [
        "several nodes report under the id of 2 hosts, which are out: all\\x1b[2J, cloned\\x1b[2J",
        "the monotonic clock of 2 hosts went back since they booted, as after a restored snapshot: "
        "all\\x1b[2J, restored\\x1b[2J",
        "the counters of 2 hosts say that they were busy for more than all of the time: all\\x1b[2J, ticks\\x1b[2J",
    ]
    assert wrong(findings, "anomalies") == [said[0], said[2]]


def test_figures_that_are_not_certain_are_said_and_are_no_fault(dsns: dict[str, str]) -> None:
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner:
        for host, uncertain in (
            ("hung\x1b[2J", "{disk_gb_available,cpu_busy_ns}"),
            ("busy", "{cpu_busy_ns}"),
            ("sound", None),
        ):
            upsert_inventory(owner, host_id=host, name=host)
            upsert_usage(owner, host_id=host, uncertain=uncertain, observed_at=datetime.now(UTC))
    findings = diagnose(settings(dsns))
    assert [finding.message for finding in findings if finding.check == "figures"] == [
        "cpu_busy_ns of 2 hosts is not known for certain: busy, hung\\x1b[2J; the logs of their agents say why",
        "disk_gb_available of 1 hosts is not known for certain: hung\\x1b[2J; the logs of their agents say why",
    ]
    assert wrong(findings, "figures") == []


def test_hosts_that_report_too_rarely_are_named(dsns: dict[str, str]) -> None:
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner:
        for host, seconds in (("often", 1), ("half", 15), ("rare\x1b[2J", 16), ("never", 61)):
            upsert_inventory(owner, host_id=host, name=host, reporting_interval_ms=seconds * 1000)
            upsert_usage(owner, host_id=host, observed_at=datetime.now(UTC))
        total, traits = '{"DISK_GB": {"total": 1, "allocation_ratio": 1.0}}', "{MISC_SHARES_VIA_AGGREGATE}"
        pool = {"inventories": total, "traits": traits, "reporting_interval_ms": 120_000}
        upsert_inventory(owner, host_id="pool", name="pool", **pool)
        upsert_usage(owner, host_id="pool", observed_at=datetime.now(UTC))
    assert wrong(diagnose(settings(dsns)), "intervals") == [
        "3 hosts let up to 2 min pass between two reports, so one event that is lost makes them stale: "
        "never, pool, rare\\x1b[2J",
        "1 hosts let up to 61.0 s pass between two reports, which gives no rates: never",
    ]
    wide = settings(dsns, scheduler={"max_age": "4min"}, job={"window": "5min"})
    assert wrong(diagnose(wide), "intervals") == []


def test_a_disk_that_several_hosts_promise_is_found(dsns: dict[str, str]) -> None:
    """Not one that is a host's own, nor one of which each host promises a part."""
    nfs, parted = "nfs:0a000005:1:2", "ceph:a,b"
    disks = {
        "one": nfs,
        "two": nfs,
        "own": "local:1",
        "other": "local:2",
        "left": parted,
        "right": parted,
        "unknown": None,
    }
    total = '{"DISK_GB": {"total": 1024, "allocation_ratio": 1.0}}'
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner:
        for host, disk_id in disks.items():
            capacity = 512 if disk_id == parted else 1024
            upsert_inventory(owner, host_id=host, name=host, disk_id=disk_id, inventories=total)
            upsert_usage(owner, host_id=host, disk_gb_capacity=capacity, observed_at=datetime.now(UTC))
        upsert_inventory(owner, host_id="gone", name="gone", disk_id="local:1", inventories=total)
        upsert_usage(owner, host_id="gone", observed_at=datetime.now(UTC) - timedelta(days=1))
    found = wrong(diagnose(settings(dsns)), "disks")
    assert found == ["2 hosts promise 2,048 GiB of one disk of 1,024 GiB, nfs:0a000005:1:2: one, two"]


def test_a_silent_source_is_named_and_a_partly_silent_one_is_said(dsns: dict[str, str]) -> None:
    now = datetime.now(UTC)
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner:
        for number in range(8):
            # The notifications' hosts are all silent, one of the hosts' is, and so is a disabled one, as it may be.
            for source, silent in (
                ("host", number == 7),
                ("notifications", True),
                ("lxc", False),
                ("libvirt", number == 7),
            ):
                off = source == "libvirt" and number == 7
                host = f"{source}-{number}"
                status = "DISABLED" if off else "ENABLED"
                upsert_inventory(owner, host_id=host, name=host, source=source, status=status)
                observed_at = now - timedelta(minutes=4) if silent else now
                upsert_usage(owner, host_id=host, observed_at=observed_at, recent_consumers="{}")
        upsert_inventory(owner, host_id="pool", name="pool", source="cinder", status="DISABLED", traits="{}")
        for name in ("pool-1", "pool-2"):
            traits = "{MISC_SHARES_VIA_AGGREGATE}"
            upsert_inventory(owner, host_id=name, name=name, source="cinder", status="DISABLED", traits=traits)
    findings = {
        finding.message.split()[0]: finding for finding in diagnose(settings(dsns)) if finding.check == "sources"
    }
    assert set(findings) == {"host", "notifications", "lxc", "libvirt", "cinder"}
    assert "is silent: 8 of the 8 hosts it speaks for, last heard 4 min ago" in findings["notifications"].message
    assert "RabbitMQ" in str(findings["notifications"].remedy)
    assert findings["cinder"].message == "cinder is silent: 2 of the 3 hosts it speaks for, never heard"
    assert findings["host"].message.endswith("but 1 of them are silent")
    assert "`vacancy hosts` names them" in str(findings["host"].remedy)
    assert (findings["lxc"].remedy, findings["libvirt"].remedy) == (None, None)


def test_missing_outdated_and_newer_tables_are_said(dsns: dict[str, str]) -> None:
    with closing(psycopg2.connect(dsns["owner_dsn"])) as owner, owner.cursor() as cursor:
        with owner:
            cursor.execute("UPDATE vacancy.schema_source SET sha256 = '' WHERE name = 'functions/claim'")
        assert wrong(diagnose(settings(dsns)), "tables") == [
            "functions or views are not those of this release: functions/claim"
        ]
        with owner:
            cursor.execute("DELETE FROM vacancy.schema_migration WHERE name = '0002_tables'")
        assert wrong(diagnose(settings(dsns)), "tables") == ["1 migrations are missing"]
        with owner:
            cursor.execute("INSERT INTO vacancy.schema_migration (name, sha256) VALUES ('9999_future', '')")
        assert "newer version" in wrong(diagnose(settings(dsns)), "tables")[0]


class _Flink(http.server.BaseHTTPRequestHandler):
    """Flink's REST interface, as far as the check reads it."""

    state = "RUNNING"

    def do_GET(self) -> None:
        body = json.dumps({"jobs": [{"state": self.state}] if self.path == "/jobs/overview" else []}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the base class's name
        del format, args


@pytest.mark.parametrize(("state", "message"), [("RUNNING", None), ("RESTARTING", "the job is restarting")])
def test_the_job_is_asked_for_its_state(
    dsns: dict[str, str], monkeypatch: pytest.MonkeyPatch, state: str, message: str | None
) -> None:
    monkeypatch.setattr(_Flink, "state", state)
    with http.server.HTTPServer(("127.0.0.1", 0), _Flink) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        findings = diagnose(settings(dsns, local={"flink_port": server.server_port}))
        server.shutdown()
        thread.join()
    assert wrong(findings, "job") == ([] if message is None else [message])
    findings = diagnose(settings(dsns, local={"flink_port": 1}))
    assert "does not answer" in wrong(findings, "job")[0]


def test_a_check_that_breaks_is_a_finding(dsns: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "schema_state", lambda *_, **__: 1 / 0)
    findings = diagnose(settings(dsns))
    assert "ZeroDivisionError" in wrong(findings, "tables")[0]
    assert not wrong(findings, "postgres.job_dsn")


def test_the_command_prints_json_alone_and_fails(dsns: dict[str, str], tmp_path: Path) -> None:
    variables = {f"VACANCY_POSTGRES__{name.upper()}": dsn for name, dsn in dsns.items()}
    environment = {**os.environ, **variables, "VACANCY_KAFKA__BOOTSTRAP_SERVERS": NO_BROKER}
    command = [sys.executable, "-c", "from vacancy.jobs.commands.cli import main; main()", "doctor"]
    for arguments in ([], ["--json"]):
        result = subprocess.run(
            [*command, *arguments],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=LIMIT_SECONDS,
        )
        assert (result.returncode, result.stderr) == (1, "")
        if arguments:
            assert any(not finding["ok"] and finding["check"] == "broker" for finding in json.loads(result.stdout))
        else:
            assert all(line.startswith(("ok ", "!! ")) for line in result.stdout.splitlines())


def test_wrong_settings_are_the_only_finding(tmp_path: Path) -> None:
    (tmp_path / "vacancy.toml").write_text("[kafka]\nbootstrap = 'x'\n", encoding="utf-8")
    result = subprocess.run(
        [sys.executable, "-c", "from vacancy.jobs.commands.cli import main; main()", "doctor"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=LIMIT_SECONDS,
    )
    assert result.returncode == 1
    assert result.stdout.startswith("!! settings: ")
    assert "kafka.bootstrap" in result.stdout
    assert len(result.stdout.splitlines()) == 1
