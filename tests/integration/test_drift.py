"""What drifts, since when: the view, record_drift() and `vacancy drift`, on a real PostgreSQL."""

from __future__ import annotations

import itertools
import json
import signal
import subprocess
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn

from tests.harness.process import Ended, own_environment, vacancy
from tests.harness.rows import query, retire, upsert_inventory, upsert_usage

LIMIT_S = 60.0
KINDS = "SELECT host_id, kind FROM vacancy.host_drift ORDER BY host_id, kind"
SINCE = "SELECT since FROM vacancy.host_drift"
RECORD = "SELECT begun, ended FROM vacancy.record_drift()"
PLAIN: dict[str, Any] = {
    "vcpus_capacity": 64,
    "vcpus_free": 64,
    "memory_mb_capacity": 100_000,
    "memory_mb_free": 100_000,
    "memory_mb_available": 95_000,
    "instances": 0,
    "recent_consumers": "{}",
}
"""A host without instances that is as it says."""
PROMISES = PLAIN | {"vcpus_free": 60}


def add(owner: Connection, name: str, usage: dict[str, Any], *, seconds_ago: float = 0, **inventory: Any) -> datetime:
    """A host; when it reported."""
    at = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    # Of a hypervisor's collector, unless the test says another.
    upsert_inventory(owner, host_id=name, name=name, observed_at=at, **({"source": "libvirt"} | inventory))
    upsert_usage(owner, host_id=name, observed_at=at, **usage)
    return at


@pytest.mark.parametrize(
    ("usage", "ratio", "kinds"),
    [
        (PLAIN, 1.0, []),
        (PROMISES, 1.0, ["allocations_without_instances"]),
        (PLAIN | {"memory_mb_free": 90_000, "memory_mb_available": 85_000}, 1.0, ["allocations_without_instances"]),
        (PROMISES | {"instances": 1}, 1.0, []),
        (PLAIN | {"instances": 1}, 1.0, ["instances_without_allocations"]),
        (PLAIN | {"disk_gb_free": 5}, 1.0, []),  # of instances that are shut off
        (PLAIN | {"memory_mb_available": 90_000}, 1.0, []),
        (PLAIN | {"memory_mb_available": 89_999}, 1.0, ["memory_missing"]),
        # A tenth of what can be promised twice is half as much, and so is what has to be there.
        (PLAIN | {"memory_mb_available": 45_000}, 2.0, []),
        (PLAIN | {"memory_mb_available": 44_999}, 2.0, ["memory_missing"]),
        (
            PROMISES | {"memory_mb_available": 0},
            1.0,
            ["allocations_without_instances", "memory_missing"],
        ),
    ],
)
def test_what_drifts(owner: Connection, usage: dict[str, Any], ratio: float, kinds: list[str]) -> None:
    inventories = json.dumps({"MEMORY_MB": {"total": 100_000, "allocation_ratio": ratio}})
    add(owner, "a", usage, inventories=inventories)
    assert query(owner, KINDS) == [("a", kind) for kind in kinds]


@pytest.mark.parametrize(("instances", "kinds"), [(0, []), (1, ["memory_missing"])])
def test_what_a_plain_machine_s_own_programs_use_is_no_drift(
    owner: Connection, instances: int, kinds: list[str]
) -> None:
    held = {"vcpus_free": 60, "memory_mb_free": 99_000} if instances else {}
    add(owner, "a", PLAIN | {"memory_mb_available": 10_000, "instances": instances} | held, source="host")
    assert query(owner, KINDS) == [("a", kind) for kind in kinds]


def test_the_tolerance_is_a_setting_of_the_database(owner: Connection) -> None:
    add(owner, "a", PLAIN | {"memory_mb_available": 85_000})
    assert query(owner, KINDS) == [("a", "memory_missing")]
    with owner.cursor() as cursor:
        cursor.execute("SET vacancy.drift_tolerance = '0.2'")
    assert query(owner, KINDS) == []


def test_since_when_is_noted_and_forgotten_when_it_is_over(owner: Connection) -> None:
    first = add(owner, "a", PROMISES, seconds_ago=20)
    assert query(owner, SINCE) == [(None,)]
    assert query(owner, RECORD) == [(1, 0)]
    assert query(owner, SINCE) == [(first,)]
    add(owner, "a", PROMISES)
    assert query(owner, RECORD) == [(0, 0)]
    assert query(owner, SINCE) == [(first,)]
    ((lasted,),) = query(owner, "SELECT lasted FROM vacancy.host_drift")
    assert timedelta(seconds=20) <= lasted < timedelta(minutes=5)
    add(owner, "a", PLAIN)
    assert query(owner, KINDS) == []
    assert query(owner, RECORD) == [(0, 1)]
    again = add(owner, "a", PROMISES)
    assert query(owner, RECORD) == [(1, 0)]
    assert query(owner, SINCE) == [(again,)]


def test_a_silent_host_keeps_its_note_and_a_retired_one_does_not(owner: Connection) -> None:
    at = add(owner, "a", PROMISES)
    add(owner, "b", PROMISES)
    assert query(owner, RECORD) == [(2, 0)]
    with owner.cursor() as cursor:
        cursor.execute("SET vacancy.max_age = '1 us'")
    assert query(owner, KINDS) == []
    retire(owner, host_id="b", observed_at=datetime.now(UTC))
    assert query(owner, RECORD) == [(0, 1)]
    with owner.cursor() as cursor:
        cursor.execute("RESET vacancy.max_age")
    assert query(owner, "SELECT host_id, since FROM vacancy.host_drift") == [("a", at)]


def test_a_disk_that_several_hosts_promise_drifts_on_each_of_them(owner: Connection) -> None:
    """Until there is one of them, or they promise no more than there is."""
    disk = '{"DISK_GB": {"total": 1024, "allocation_ratio": 1.0}}'
    for name, disk_id in (("a", "nfs:1"), ("b", "nfs:1"), ("c", "local:c"), ("d", None)):
        add(owner, name, PLAIN | {"disk_gb_capacity": 1024}, disk_id=disk_id, inventories=disk)
    assert query(owner, KINDS) == [("a", "shared_disk"), ("b", "shared_disk")]
    assert query(owner, "SELECT DISTINCT promised, measured FROM vacancy.host_drift") == [(2048, 1024)]
    assert query(owner, "SELECT disk_id, hosts, names FROM vacancy.shared_disk") == [("nfs:1", 2, ["a", "b"])]
    add(owner, "b", PLAIN | {"disk_gb_capacity": 0}, disk_id="nfs:1", inventories=disk)
    assert query(owner, KINDS) == []
    add(owner, "b", PLAIN | {"disk_gb_capacity": 1024}, disk_id="nfs:1", inventories=disk)
    assert len(query(owner, KINDS)) == 2
    retire(owner, host_id="b", observed_at=datetime.now(UTC))
    assert query(owner, KINDS) == []


def test_no_figure_breaks_the_sum_of_a_disk(owner: Connection) -> None:
    for total, ratio in itertools.product((0, 10**12, -(10**18), 10**300), (1.5, -1, 1e308)):
        inventories = json.dumps({"DISK_GB": {"total": total, "allocation_ratio": ratio}})
        for name, capacity in (("a", 2**63 - 1), ("b", -(2**63)), ("c", 2**63 - 1)):
            add(owner, name, PLAIN | {"disk_gb_capacity": capacity}, disk_id="nfs:1", inventories=inventories)
        assert len(query(owner, "SELECT * FROM vacancy.shared_disk")) <= 1
        assert query(owner, RECORD)


def test_storage_pools_do_not_drift(owner: Connection) -> None:
    add(owner, "pool", PROMISES, traits="{MISC_SHARES_VIA_AGGREGATE}", status="DISABLED")
    assert query(owner, KINDS) == []


def test_the_command_notes_and_tells_with_the_readers_rights(owner: Connection, database: str, tmp_path: Path) -> None:
    role = f"reader_{uuid.uuid4().hex}"
    with owner.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret' IN ROLE vacancy_reader")
    try:
        dsn = make_dsn(database, user=role, password="secret")
        (tmp_path / "vacancy.toml").write_text(f"[postgres]\nreader_dsn = {json.dumps(dsn)}\n", encoding="utf-8")
        at = add(owner, "a", PROMISES)
        (row,) = json.loads(Ended(tmp_path, "drift", "--json").output)
        assert row["kind"] == "allocations_without_instances"
        assert datetime.fromisoformat(row["since"]) == at
        assert (row["name"], row["promised"], row["measured"]) == ("a", 4, 0)
        add(owner, "a", PROMISES)
        shown = Ended(tmp_path, "drift").output
        assert "allocations without instances" in shown
        assert "1 drift" in shown
        watching = subprocess.Popen(
            vacancy("drift", "--watch", "--every", "20ms", "--json"),
            cwd=tmp_path,
            env=own_environment(),
            stdout=subprocess.PIPE,
            text=True,
        )
        with watching:
            assert watching.stdout
            assert json.loads(watching.stdout.readline())[0]["since"] == row["since"]
            add(owner, "a", PLAIN)
            assert any(json.loads(line) == [] for line in watching.stdout)
            watching.send_signal(signal.SIGINT)
            watching.communicate(timeout=LIMIT_S)
        assert watching.returncode == 130
        with psycopg2.connect(dsn) as reader, pytest.raises(psycopg2.errors.InsufficientPrivilege):
            query(reader, "DELETE FROM vacancy.drift RETURNING 1")
        reader.close()
    finally:
        with owner.cursor() as cursor:
            cursor.execute(f"DROP ROLE {role}")
