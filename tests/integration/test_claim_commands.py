"""`vacancy claim`, `release`, `claims` and `hosts --why`, as a user runs them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.process import Ended
from tests.harness.rows import upsert_inventory, upsert_usage
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.request import Request


@pytest.fixture
def owner(database: str, tmp_path: Path) -> Iterator[Connection]:
    """A database with a big host, a small one and a silent one, and a settings file for it."""
    migrate(SecretStr(database))
    dsns = "".join(f'{role}_dsn = "{database}"\n' for role in ("owner", "job", "scheduler", "reader"))
    (tmp_path / "vacancy.toml").write_text(f"[postgres]\n{dsns}", encoding="utf-8")
    with closing(psycopg2.connect(database)) as connection:
        connection.autocommit = True
        now = datetime.now(UTC)
        for name, observed_at, free in (("big", now, 32), ("small", now, 2), ("silent", None, 64)):
            upsert_inventory(connection, host_id=f"id-{name}", name=name)
            at = {"observed_at": observed_at} if observed_at else {}
            upsert_usage(connection, host_id=f"id-{name}", vcpus_free=free, recent_consumers="{}", **at)
        yield connection


def vacancy_json(directory: Path, *arguments: str) -> Any:
    """What a command prints as JSON, alone."""
    ended = Ended(directory, *arguments, "--json")
    assert (ended.status, ended.errors) == (0, "")
    return json.loads(ended.output)


@pytest.mark.usefixtures("owner")
def test_claim_claims_and_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")  # as a terminal of this width: what `release` needs is not cut
    consumer = str(uuid.uuid4())
    (claim,) = vacancy_json(tmp_path, "claim", "--vcpus", "4", "--memory-mb", "8192", "--consumer", consumer)
    assert claim | {"claimed_at": 0, "expires_at": 0} == {
        "consumer": consumer,
        "host_id": "id-big",
        "host_name": "big",
        "claimed_at": 0,
        "expires_at": 0,
        "already": False,
        "held": None,
    }
    assert claim["claimed_at"].endswith("Z")
    again = Ended(tmp_path, "claim", "--vcpus", "4", "--memory-mb", "8192", "--consumer", consumer)
    assert (again.status, again.output) == (0, f"{consumer}  big  already\n")

    (listed,) = vacancy_json(tmp_path, "claims")
    assert (listed["consumer"], listed["host_name"], listed["vcpus"]) == (consumer, "big", 4)
    shown = Ended(tmp_path, "claims").output
    assert consumer in shown
    assert "1 claim in flight" in shown
    assert max(map(len, shown.splitlines())) <= 80
    host = next(host for host in vacancy_json(tmp_path, "hosts") if host["name"] == "big")
    assert (host["vcpus_free"], host["claims"]) == (28, 1)

    assert Ended(tmp_path, "release", consumer).output == f"{consumer}  released\n"
    once_more = Ended(tmp_path, "release", consumer)
    assert once_more.status == 1
    assert f"no claim of {consumer}" in once_more.error()
    assert vacancy_json(tmp_path, "claims") == []


@pytest.mark.usefixtures("owner")
def test_another_request_is_refused_in_one_line_or_moves(tmp_path: Path) -> None:
    consumer = str(uuid.uuid4())
    [claim] = vacancy_json(tmp_path, "claim", "--vcpus", "2", "--consumer", consumer, "--json")
    refused = Ended(tmp_path, "claim", "--vcpus", "3", "--consumer", consumer, "--json")
    assert refused.status == 1
    assert json.loads(refused.output) == [
        {"consumer": consumer, "host_id": claim["host_id"], "host_name": claim["host_name"], "differs": ["vcpus"]}
    ]
    assert refused.error() == (
        f"consumer {consumer} has a claim on {claim['host_name']} which is not true to the request in: vcpus; "
        "claim again with move (--move), or release it first"
    )
    [moved] = vacancy_json(tmp_path, "claim", "--vcpus", "3", "--consumer", consumer, "--move", "--json")
    assert (moved["consumer"], moved["already"]) == (consumer, False)
    [again] = vacancy_json(tmp_path, "claim", "--vcpus", "3", "--consumer", consumer, "--move", "--json")
    assert again == moved | {"already": True}
    assert Ended(tmp_path, "claim", "--vcpus", "1000000", "--consumer", consumer, "--move").status == 3
    assert [one["vcpus"] for one in vacancy_json(tmp_path, "claims", "--json")] == [3]
    assert Ended(tmp_path, "claim", "--vcpus", "3", "--move").status == 2


@pytest.mark.usefixtures("owner")
def test_no_host_fits(tmp_path: Path) -> None:
    refused = Ended(tmp_path, "claim", "--vcpus", "33")
    assert refused.status == 3
    assert (
        refused.error() == "no host fits: vcpus ruled out the last 2 of 3 hosts; nearest: big with 32 VCPUs for 33: "
        "32 VCPUs free, 33 asked for"
    )
    refused = Ended(tmp_path, "claim", "--vcpus", "2", "--count", "18", "--json")
    assert refused.status == 3
    assert json.loads(refused.output)["claimable"] == 17
    assert "no host fits for 1 of 18" in refused.error()


@pytest.mark.usefixtures("owner")
def test_why(tmp_path: Path) -> None:
    hosts = vacancy_json(tmp_path, "hosts", "--why", "--vcpus", "4", "--forbid", "HW_CPU_X86_AVX2")
    assert {host["name"]: host["ruled_out_by"] for host in hosts} == {
        "big": ["forbidden"],
        "small": ["forbidden", "vcpus_free"],
        "silent": ["forbidden", "stale"],
    }
    table = Ended(tmp_path, "hosts", "--why", "--vcpus", "4", "--limit", "1").output
    assert "1 of 3 hosts fit, 1 vcpus_free, 1 stale" in table
    assert "silent" not in table


def test_devices_cells_and_classes(tmp_path: Path, owner: Connection) -> None:
    pool = {"vendor_id": "10de", "product_id": "20b5", "numa_node": 1, "total": 2, "free": 2, "tags": {"rack": "7"}}
    upsert_inventory(
        owner,
        host_id="id-small",
        name="small",
        inventories='{"CUSTOM_FPGA": {"total": 2}}',
        numa_cells='[{"id": 1, "cpus": [4, 5], "free_cpus": [4, 5], "pages": [{"size_kb": 2048, "free": 8}]}]',
        pci_pools=json.dumps([pool]),
    )
    flags = ["--numa-cpus", "2", "--numa-pages", "2048=4", "--resource", "CUSTOM_FPGA=1"]
    (claim,) = vacancy_json(tmp_path, "claim", *flags, "--pci", "10DE:20b5,count=2,numa_node=1,same_cell,rack=7")
    assert vacancy_json(tmp_path, "claims")[0]["held"] == claim["held"]
    held = claim["held"]
    assert held.pop(next(name for name in held if name.startswith("pci "))) == 2
    assert held == {"numa 1 cpus": 2, "numa 1 pages 2048": 4, "CUSTOM_FPGA": 1}
    refused = Ended(tmp_path, "claim", "--pci", ":20b5")
    assert refused.status == 3
    assert refused.error() == (
        "no host fits: pci *:20b5 ruled out the last 2 of 3 hosts; nearest: big with 0 for 1: pci *:20b5"
    )


@pytest.mark.parametrize(
    "arguments",
    [
        ["claim"],
        ["claim", "--vcpus", "-1"],
        ["claim", "--vcpus", "1", "--count", "0"],
        ["claim", "--vcpus", "1", "--consumer", "me"],
        ["claim", "--vcpus", "1", "--count", "3", "--consumer", str(uuid.UUID(int=1))],
        ["claim", "--vcpus", "1", "--max-cpu-steal", "2"],
        ["claim", "--pci", "10de:20b5,count"],
        ["claim", "--pci", "nvidia:20b5"],
        ["claim", "--pci", "10de:20b5,count=0"],
        ["claim", "--pci", ":"],
        ["claim", "--resource", "CUSTOM_FPGA"],
        ["claim", "--resource", "CUSTOM_FPGA=0"],
        ["claim", "--resource", "CUSTOM_FPGA=1", "--resource", "CUSTOM_FPGA=2"],
        ["claim", "--numa-pages", "2048"],
        ["release"],
        ["hosts", "--vcpus", "1"],
        ["hosts", "--why", "--watch"],
    ],
)
def test_usage_errors(tmp_path: Path, arguments: list[str]) -> None:
    ended = Ended(tmp_path, *arguments)
    assert ended.status == 2
    ended.error()


def test_no_name_steers_the_terminal(tmp_path: Path, owner: Connection) -> None:
    name = "evil\x1b[2J\x9b31m\u202e\n\x1b]0;title\x07"
    upsert_inventory(owner, host_id="id-evil", name=name)
    upsert_usage(owner, host_id="id-evil", vcpus_free=128, observed_at=datetime.now(UTC), recent_consumers="{}")
    shown = r"evil\x1b[2J\x9b31m\u202e\n\x1b]0;title\x07"
    for arguments in (
        ["claim", "--vcpus", "100"],
        ["claims"],
        ["hosts"],
        ["hosts", "--why", "--vcpus", "1"],
        ["drift"],
        ["doctor"],
    ):
        ended = Ended(tmp_path, *arguments)
        for line in (ended.output + ended.errors).split("\n"):
            assert all(character.isprintable() for character in line), (arguments, line)
        if arguments[0] == "claim":  # a table cuts a name that is longer than its column
            assert shown in ended.output
    for arguments in (["hosts"], ["claims"]):
        ended = Ended(tmp_path, *arguments, "--json")
        assert all(character.isprintable() for character in ended.output.removesuffix("\n"))
        assert name in {row.get("name") or row["host_name"] for row in json.loads(ended.output)}


def test_no_consumers_are_no_claims(database: str, owner: Connection) -> None:
    scheduler = Scheduler(database)
    try:
        assert scheduler.claim(Request(vcpus=1), []) == []
        assert scheduler.claim(Request(vcpus=1), ()) == []
        assert len(scheduler.claim(Request(vcpus=1))) == 1
    finally:
        scheduler.close()
    with owner.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM vacancy.claim")
        assert cursor.fetchone() == (1,)
