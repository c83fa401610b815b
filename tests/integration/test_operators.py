"""What operators do with hosts: `vacancy host`, `disable`, `enable`, `retire`, `status`, and `hosts --why` in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import query, retire, upsert_inventory, upsert_usage
from tests.harness.topic import own_topics
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.jobs.commands import retire as retire_command
from vacancy.jobs.commands.cli import cli
from vacancy.schemas.errors import VacancyError

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

Run = Callable[..., Result]
MARKS = "SELECT status, status_reason, disabled_reason, told_status, told_status_reason FROM vacancy.host_inventory"
ROOMY = '{"VCPU": {"total": 64, "min_unit": 1, "max_unit": 8, "step_size": 1}, "MEMORY_MB": {}, "DISK_GB": {}}'


@pytest.fixture
def run(owner: Connection, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command with the owner's rights; there are the hosts `one` and `two`, which have just reported."""
    for role in ("OWNER", "SCHEDULER", "READER"):
        monkeypatch.setenv(f"VACANCY_POSTGRES__{role}_DSN", database)
    monkeypatch.setenv("VACANCY_SCHEDULER__MAX_AGE", "30 min")
    monkeypatch.setenv("VACANCY_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    now = datetime.now(UTC)
    for name in ("one", "two"):
        upsert_inventory(owner, host_id=f"id-{name}", name=name, observed_at=now, inventories=ROOMY)
        upsert_usage(owner, host_id=f"id-{name}", observed_at=now)
    return lambda *arguments: CliRunner().invoke(cli, arguments, standalone_mode=False)


def said(result: Result) -> str:
    if result.exception is not None:
        raise result.exception
    return result.output


def claimed(run: Run) -> set[str]:
    """Where 20 claims of a VCPU go."""
    said(run("claim", "--vcpus", "1", "--count", "20", "--ttl", "10min"))
    hosts = {claim["host_name"] for claim in json.loads(said(run("claims", "--json")))}
    for claim in json.loads(said(run("claims", "--json"))):
        said(run("release", claim["consumer"]))
    return hosts


def test_a_disabled_host_is_out_until_it_is_enabled_whatever_it_says(run: Run, owner: Connection) -> None:
    assert claimed(run) == {"one", "two"}
    assert said(run("disable", "one", "--reason", "new disks")) == "one is disabled: new disks\n"
    later = datetime.now(UTC) + timedelta(milliseconds=1)
    for status, reason in (("ENABLED", None), ("DISABLED", "nova says so"), ("ENABLED", None)):
        assert claimed(run) == {"two"}
        row = json.loads(said(run("host", "one", "--json")))["row"]
        assert (row["status"], row["reason"]) == ("DISABLED", "disabled: new disks")
        upsert_inventory(
            owner,
            host_id="id-one",
            name="one",
            observed_at=later,
            status=status,
            status_reason=reason,
            inventories=ROOMY,
        )
        assert query(owner, f"{MARKS} WHERE host_id = 'id-one'") == [
            ("DISABLED", "new disks", "new disks", status, reason)
        ]
    said(run("disable", "id-one", "--reason", "it takes longer"))
    query(owner, "UPDATE vacancy.host_inventory SET host_id = host_id RETURNING 1")  # as a migration rewrites rows
    assert query(owner, f"{MARKS} WHERE host_id = 'id-one'") == [
        ("DISABLED", "it takes longer", "it takes longer", "ENABLED", None)
    ]
    assert said(run("enable", "one")) == "one is enabled\n"
    assert query(owner, f"{MARKS} WHERE host_id = 'id-one'") == [("ENABLED", None, None, None, None)]
    assert claimed(run) == {"one", "two"}
    assert "was not disabled" in said(run("enable", "one"))


def test_enabling_leaves_what_the_host_says_itself(run: Run, owner: Connection) -> None:
    said(run("disable", "one", "--reason", "ours"))
    upsert_inventory(
        owner, host_id="id-one", name="one", observed_at=datetime.now(UTC), status="DISABLED", status_reason="theirs"
    )
    assert said(run("enable", "one")) == "one is enabled; it is still out: disabled: theirs\n"


def test_a_disabled_host_may_be_retired_and_comes_back_enabled_when_its_tombstone_is_gone(
    run: Run, owner: Connection
) -> None:
    said(run("disable", "one", "--reason", "ours"))
    retire(owner, host_id="id-one", observed_at=datetime.now(UTC))
    assert query(owner, f"{MARKS} WHERE host_id = 'id-one'") == [(None, None, "ours", None, None)]
    with pytest.raises(VacancyError, match="no host one"):
        said(run("disable", "one", "--reason", "again"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("disable", "tow", "--reason", "x"), r"no host tow \(is it two\?\)"),
        (("enable", "nowhere-near"), "no host nowhere-near; `vacancy hosts` lists them"),
        (("disable", "one", "--reason", " "), "--reason has 1 to 255 characters"),
        (("host", "'; DROP TABLE"), "no host '; DROP TABLE"),
    ],
)
def test_who_is_meant_is_said(run: Run, arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(Exception, match=words):
        said(run(*arguments))


def test_a_name_that_several_hosts_have_needs_an_id(run: Run, owner: Connection) -> None:
    upsert_inventory(owner, host_id="id-other", name="one", observed_at=datetime.now(UTC))
    with pytest.raises(VacancyError, match="2 hosts have the name one; say which by its id: id-one, id-other"):
        said(run("host", "one"))
    assert "id-other" in said(run("host", "id-other"))


def test_a_host_is_shown_whole(run: Run) -> None:
    said(run("claim", "--vcpus", "2", "--include", "one", "--consumer", "5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11"))
    shown = said(run("host", "one"))
    for words in (
        "one  id-one",
        "zone nova, from host, agent",
        "schedulable",
        "HW_CPU_X86_AVX2",
        "50% busy",
        "1.5 MB/s",
    ):
        assert words in shown
    assert "5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11" in shown
    assert "2 VCPUs, 0 MiB, 0 GiB" in shown
    said(run("disable", "one", "--reason", "\x1b[31mred"))
    assert r"out: disabled: \x1b[31mred" in said(run("host", "one"))


def test_what_rules_hosts_out_is_said_in_words(run: Run) -> None:
    shown = said(run("hosts", "--why", "--vcpus", "9", "--require", "CUSTOM_X", "--include", "one", "--avoid", "tow"))
    assert "lacks CUSTOM_X; takes 1 to 8 VCPUs at once, 9 asked for" in shown
    assert "not among the hosts of --include" in shown
    assert "no host is called tow (is it two?)" in shown
    with pytest.raises(VacancyError, match=r"nearest: one: lacks CUSTOM_X; no host is called tow"):
        said(run("claim", "--vcpus", "1", "--require", "CUSTOM_X", "--include", "one", "--avoid", "tow"))


def test_a_zone_may_be_looked_at_alone(run: Run) -> None:
    assert "one" in said(run("hosts", "--zone", "nova"))
    assert "one" not in said(run("hosts", "--zone", "az-9"))


def test_topics_are_made_checked_and_a_host_is_retired(
    run: Run, owner: Connection, kafka_broker: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    kafka = own_topics(kafka_broker.bootstrap_servers, partitions=1)
    monkeypatch.setenv("VACANCY_KAFKA__BOOTSTRAP_SERVERS", kafka.bootstrap_servers)
    for name in ("usage_topic", "inventory_topic", "dead_letter_topic"):
        monkeypatch.setenv(f"VACANCY_KAFKA__{name.upper()}", getattr(kafka, name))
    checked = run("topics", "--check")
    assert f"topic {kafka.usage_topic} does not exist" in checked.output
    assert f"made {kafka.usage_topic}" in said(run("topics"))
    assert "all is well" in said(run("topics", "--check"))
    ensure_topics(kafka)
    with pytest.raises(VacancyError, match=r"one has reported .* ago, so its agent would bring it back"):
        said(run("retire", "one"))
    upsert_usage(owner, host_id="id-one", observed_at=datetime.now(UTC) - timedelta(hours=1))
    monkeypatch.setattr(retire_command, "_READ_SECONDS", 0.1)  # no job reads here
    with pytest.raises(VacancyError, match="the job has not read them"):
        said(run("retire", "one", "--even-if-reporting"))
    retire(owner, host_id="id-one", observed_at=datetime.now(UTC))
    assert run("retire", "one").exception is not None


def test_status_has_a_line_for_each_part(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VACANCY_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("VACANCY_JOB__FLINK_URL", "http://127.0.0.1:1")
    shown = run("status").output.splitlines()
    marks = {line[3:14].strip(): line[:2] for line in shown}
    assert marks == {
        "broker": "!!",
        "database": "ok",
        "job": "!!",
        "hosts": "ok",
        "sources": "ok",
        "claims": "ok",
        "fleet page": "  ",
    }
    assert json.loads(run("status", "--json").output)["hosts"]["well"] is True
