"""How the simulator handles a fleet's events before they reach a broker."""

from __future__ import annotations

import pytest

from vacancy.jobs.simulator.fleet import NS_PER_S, PRESSURE, Behaviour, Fleet
from vacancy.jobs.simulator.simulation import MAX_LAG_S, InventoryEncoder, PoolEncoder, Schedule, UsageEncoder
from vacancy.schemas.codec import decode

NOW_MS = 1_700_000_000_000


def test_encoded_usage_reads_as_the_fleet_has_it() -> None:
    fleet = Fleet(200, NS_PER_S, 5, NOW_MS, behaviour=Behaviour(changes_per_s=0.5))
    encoder = UsageEncoder()
    recent = events = 0
    for tick in range(3 * fleet.slices):
        report = fleet.advance(NOW_MS + tick)
        messages = encoder.messages(report)
        assert len(messages) == len(report.rows)
        for position, message in enumerate(messages):
            record = decode(message["value"]).record
            expected = {name: values.tolist()[position] for name, values in report.usage.items()}
            if report.without_pressure[position]:
                expected |= dict.fromkeys(PRESSURE)
            assert round(record.pop("agent_time").timestamp() * 1000) == expected.pop("agent_time")
            expected |= {"unknown": None, "uncertain": None}
            assert record == expected | {"recent_consumers": list(expected["recent_consumers"])}
            assert message["key"] == expected["host_id"].encode()
            recent += len(record["recent_consumers"])
            events += 1
    assert events > 500
    assert recent > 50


def test_encoded_inventory_reads_as_the_fleet_has_it() -> None:
    fleet = Fleet(20, NS_PER_S, 5, NOW_MS)
    encoder = InventoryEncoder()
    names = set()
    for _ in range(fleet.slices):
        report = fleet.advance(NOW_MS)
        for row, message in zip(report.inventory_rows, encoder.messages(fleet, report, NOW_MS), strict=True):
            record = decode(message["value"]).record
            assert message["key"].decode() == record["host_id"] == fleet.host_id[row]
            names.add(record["name"])
    assert len(names) == 20


def test_pools_hold_what_their_hosts_do_and_nobody_has_a_disk_twice() -> None:
    fleet = Fleet(200, NS_PER_S, 5, NOW_MS, behaviour=Behaviour(changes_per_s=0.5), pools=3)
    inventories = InventoryEncoder()
    hosts, pool_of = {}, {}
    for turn in range(3):
        for _ in range(fleet.slices):
            report = fleet.advance(NOW_MS)
            for position, host_id in enumerate(report.usage["host_id"].tolist() if len(report.rows) else []):
                hosts[host_id] = {name: values.tolist()[position] for name, values in report.usage.items()}
            for message in inventories.messages(fleet, report, NOW_MS):
                record = decode(message["value"]).record
                pool_of[record["host_id"]] = record["disk_pool"]
                assert ("DISK_GB" in record["inventories"]) == (record["disk_pool"] is None)
        usages, told = (
            [decode(each["value"]).record for each in kind] for kind in PoolEncoder().messages(fleet, NOW_MS)
        )
        for usage, inventory in zip(usages, told, strict=True):
            mine = [
                hosts[host_id] for host_id, pool in pool_of.items() if pool == inventory["name"] and host_id in hosts
            ]
            assert len(mine) > 30
            assert usage["disk_gb_allocated"] >= sum(host["disk_gb_allocated"] for host in mine) > 0
            assert {(host["disk_gb_capacity"], host["disk_gb_available"]) for host in mine} == {(0, 0)}
            assert inventory["inventories"]["DISK_GB"]["total"] == usage["disk_gb_capacity"] > 0
            assert 0 < usage["disk_gb_available"] <= usage["disk_gb_capacity"]
            assert (usage["seq"], usage["host_id"]) == (turn, inventory["host_id"])
            assert inventory["traits"] == ["MISC_SHARES_VIA_AGGREGATE"]
    assert set(pool_of.values()) == {None, *fleet.pools}
    own = [host for host_id, host in hosts.items() if pool_of[host_id] is None]
    assert all(host["disk_gb_capacity"] > 0 for host in own)


def test_a_schedule_waits_for_a_tick_and_catches_up_after_a_short_lag() -> None:
    schedule = Schedule(100.0)
    assert schedule.wait_s(tick_at_s=2.0, now_s=101.5) == pytest.approx(0.5)
    assert schedule.wait_s(tick_at_s=2.0, now_s=102.0 + MAX_LAG_S / 2) == 0.0
    assert schedule.wait_s(tick_at_s=4.0, now_s=103.0) == pytest.approx(1.0)
    assert schedule.lost_s == 0.0


def test_a_schedule_gives_up_the_time_of_a_long_lag() -> None:
    schedule = Schedule(100.0)
    assert schedule.wait_s(tick_at_s=2.0, now_s=107.0) == 0.0
    assert schedule.lost_s == pytest.approx(5.0)
    assert schedule.wait_s(tick_at_s=3.0, now_s=107.0) == pytest.approx(1.0)
