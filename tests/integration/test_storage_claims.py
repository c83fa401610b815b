"""Pools of storage in the table: never picked, and hosts near one."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from rich.console import Console

from tests.harness.installation import config_file
from tests.harness.process import Ended
from tests.harness.rows import query, upsert_inventory, upsert_usage
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError, Refusal
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.commands.host_table import render, summarize
from vacancy.schemas.errors import ConfigError

RACK_1, RACK_2 = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
POOL = "node-1@lvm#fast"


@pytest.fixture
def scheduler(owner: Connection, database: str) -> Iterator[Scheduler]:
    del owner  # the tables have to be there
    made = Scheduler(database, SchedulerSettings(max_age=timedelta(minutes=5), sample=1))
    yield made
    made.close()


def add(owner: Connection, name: str, *aggregates: str, **inventory: Any) -> None:
    now = datetime.now(UTC)
    among = "{" + ",".join(aggregates) + "}"
    upsert_inventory(owner, host_id=f"id-{name}", name=name, observed_at=now, aggregates=among, **inventory)
    upsert_usage(owner, host_id=f"id-{name}", observed_at=now, recent_consumers="{}")


def add_pool(owner: Connection, *aggregates: str, **inventory: Any) -> None:
    """A pool as `vacancy storage` sends it, but with CPUs and memory, so that nothing else keeps a claim away."""
    pool = {"status": "ENABLED", "status_reason": "pool 20x, 10% reserved", "traits": "{MISC_SHARES_VIA_AGGREGATE}"}
    add(owner, POOL, *aggregates, **pool | {"source": "cinder"} | inventory)


def refusal_of(scheduler: Scheduler, request: Request) -> tuple[Refusal, str]:
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(request)
    return caught.value.refusal, str(caught.value)


@pytest.mark.parametrize("status", ["DISABLED", "ENABLED"])
def test_a_pool_is_never_picked_and_counts_as_no_host(owner: Connection, scheduler: Scheduler, status: str) -> None:
    add_pool(owner, RACK_1, status=status)
    refusal, _ = refusal_of(scheduler, Request(disk_gb=1))
    assert (refusal.hosts, refusal.dimension) == (0, "hosts")
    assert scheduler.candidates(Request(disk_gb=1)) == []
    refusal, _ = refusal_of(scheduler, Request(disk_gb=1, include=(POOL,)))
    assert refusal.hosts == 0
    add(owner, "a")
    assert {claim.host_name for claim in scheduler.claim(Request(disk_gb=1), count=20)} == {"a"}


def test_a_claim_near_a_pool_gets_a_host_that_shares_an_aggregate(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner, RACK_1, "elsewhere")
    for number in range(200):
        add(owner, f"far-{number}", RACK_2)
    for name in ("near-1", "near-2"):
        add(owner, name, RACK_2, RACK_1)
    for pool in (POOL, f"id-{POOL}"):
        claims = scheduler.claim(Request(vcpus=1, near=pool), count=8)
        assert {claim.host_name for claim in claims} <= {"near-1", "near-2"}
    assert {host.host_name for host in scheduler.candidates(Request(vcpus=1, near=POOL))} <= {"near-1", "near-2"}
    claims = scheduler.claim(Request(vcpus=1, near=POOL, distinct_hosts=True), count=2)
    assert {claim.host_name for claim in claims} == {"near-1", "near-2"}
    with pytest.raises(NoHostFitsError):
        scheduler.claim(Request(vcpus=1, near=POOL, distinct_hosts=True), count=3)


def test_a_refusal_names_the_pool(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner, RACK_1)
    add(owner, "far", RACK_2)
    request = Request(vcpus=1, near=POOL)
    refusal, text = refusal_of(scheduler, request)
    assert (refusal.dimension, refusal.ruled_out) == (f"near {POOL}", {f"near {POOL}": 1})
    assert f"no aggregate shared with the storage pool {POOL} ruled out the last 1 of 1 hosts; nearest: far" in text
    why = query(owner, "SELECT host_name, ruled_out_by FROM vacancy.why(%s)", f'{{"near": "{POOL}"}}')
    assert why == [("far", [f"near {POOL}"])]
    add(owner, "full", RACK_1)
    refusal, _ = refusal_of(scheduler, Request(vcpus=1000, near=POOL))
    assert refusal.dimension == "vcpus_free"  # as far as any came
    add_pool(owner)  # that nobody shares
    refusal, _ = refusal_of(scheduler, request)
    assert refusal.ruled_out == {f"near {POOL}": 2}


def test_near_goes_with_other_demands(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner, RACK_1)
    inventories = '{"CUSTOM_FPGA": {"total": 1, "allocation_ratio": 1.0, "max_unit": 1}}'
    add(owner, "near", RACK_1)
    add(owner, "fpga", RACK_2, inventories=inventories)
    add(owner, "both", RACK_1, inventories=inventories)
    request = Request(resources={"CUSTOM_FPGA": 1}, near=POOL)
    assert scheduler.claim(request)[0].host_name == "both"
    refusal, _ = refusal_of(scheduler, request)
    assert (refusal.dimension, refusal.ruled_out) == ("CUSTOM_FPGA", {f"near {POOL}": 1, "CUSTOM_FPGA": 2})


@pytest.mark.parametrize("near", ["nowhere", "a"])
def test_what_is_no_pool_is_said(owner: Connection, scheduler: Scheduler, near: str) -> None:
    add_pool(owner, RACK_1)
    add(owner, "a", RACK_1)
    with pytest.raises(ConfigError, match=f"near: no such storage pool: {near}"):
        scheduler.claim(Request(vcpus=1, near=near))
    # The aggregates are the pool's, not the asker's.
    with pytest.raises(psycopg2.Error, match="no such part of a request: near_aggregates"):
        query(owner, "SELECT vacancy.why(%s)", '{"near_aggregates": ["x"]}')


def test_a_pool_shows_its_free_room_its_ratio_and_its_reserve(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner, RACK_1, inventories='{"DISK_GB": {"total": 4000, "reserved": 400, "allocation_ratio": 20.0}}')
    (row,) = scheduler.hosts()
    assert (row.disk_gb_free, row.disk_gb_capacity, row.disk_gb_available) == (2000, 4000, 3000)
    assert row.reason == "pool 20x, 10% reserved"
    console = Console(width=120, file=io.StringIO())
    with console.capture() as capture:
        console.print(render([row], summarize(owner), width=120))
    shown = capture.get()
    assert "pool 20x, 10% reserved" in shown
    assert "2000 (1000) / 4000" in shown
    assert "0 hosts, 0 schedulable, 1 storage pool" in shown
    assert query(owner, "SELECT hosts, hosts_disabled, hosts_stale FROM vacancy.freshness") == [(0, 0, 0)]
    with owner.cursor() as cursor:
        cursor.execute("SET vacancy.max_age = '1 us'")
    assert query(owner, "SELECT reason FROM vacancy.schedulable_host") == [("stale",)]


def test_the_command_takes_a_pool(owner: Connection, database: str, tmp_path: Path) -> None:
    config_file(tmp_path).write_text(f"[postgres]\nscheduler_dsn = {json.dumps(database)}\n", encoding="utf-8")
    add_pool(owner, RACK_1)
    add(owner, "far", RACK_2)
    refused = Ended(tmp_path, "claim", "--vcpus", "1", "--near", POOL)
    assert refused.status == 3
    assert f"no aggregate shared with the storage pool {POOL}" in refused.error()
    wrong = Ended(tmp_path, "claim", "--vcpus", "1", "--near", "far")
    assert (wrong.status, "near: no such storage pool: far" in wrong.error()) == (2, True)
    add(owner, "near", RACK_1)
    assert Ended(tmp_path, "claim", "--vcpus", "1", "--near", POOL).output.endswith("  near\n")
