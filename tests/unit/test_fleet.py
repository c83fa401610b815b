"""The simulated fleet: what always holds, for any seed, size and behaviour."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness.ranges import out_of_range
from vacancy.jobs.simulator.fleet import NS_PER_S, PRESSURE, RECENT_NS, Behaviour, Fleet
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

STARTED_MS = 1_700_000_000_000
CALM = Behaviour(changes_per_s=0.0, reboots_per_s=0.0, silences_per_s=0.0)
COUNTERS = (
    "cpu_busy_ns",
    "cpu_iowait_ns",
    "cpu_steal_ns",
    "disk_read_bytes",
    "disk_write_bytes",
    "disk_read_ops",
    "disk_write_ops",
    "net_rx_bytes",
    "net_tx_bytes",
    "net_rx_packets",
    "net_tx_packets",
    *PRESSURE,
)

behaviours = st.builds(
    Behaviour,
    changes_per_s=st.floats(0.0, 2.0),
    reboots_per_s=st.floats(0.0, 0.2),
    reboot_s=st.just((1.0, 10.0)),
    silences_per_s=st.floats(0.0, 0.2),
    silence_s=st.just((0.5, 20.0)),
    lost=st.floats(0.0, 1.0),
)
intervals_ns = st.sampled_from([40_000_000, NS_PER_S, 60 * NS_PER_S])


def make_fleet(hosts: int = 50, interval_ns: int = NS_PER_S, seed: int = 7, **more: Any) -> Fleet:
    return Fleet(hosts, interval_ns, seed, more.pop("started_ms", STARTED_MS), **more)


def events_of(fleet: Fleet, rounds: int) -> Iterator[dict[str, Any]]:
    """One dict per usage event, in the order sent."""
    for _ in range(rounds * fleet.slices):
        report = fleet.advance(STARTED_MS + fleet.tick_at_ns(fleet.ticks) // 1_000_000)
        columns = {name: values.tolist() for name, values in report.usage.items()}
        for position, bare in enumerate(report.without_pressure.tolist()):
            event = {name: values[position] for name, values in columns.items()}
            yield event | dict.fromkeys(PRESSURE) if bare else event


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), intervals_ns, st.integers(0, 2**40), behaviours)
def test_events_of_a_host_make_sense_one_by_one_and_in_sequence(
    hosts: int, interval_ns: int, seed: int, behaviour: Behaviour
) -> None:
    last: dict[str, dict[str, Any]] = {}
    boots_seen: set[str] = set()
    for event in events_of(make_fleet(hosts, interval_ns, seed, behaviour=behaviour), rounds=12):
        assert all(event[name] >= 0 for name in event if isinstance(event[name], int))
        for resource in ("vcpus", "memory_mb", "disk_gb"):
            assert event[f"{resource}_allocated"] <= event[f"{resource}_capacity"]
        assert event["cpu_count"] >= 1
        before = last.get(event["host_id"])
        if before is None or before["boot_id"] != event["boot_id"]:
            assert event["boot_id"] not in boots_seen
            boots_seen.add(event["boot_id"])
            assert event["seq"] == 0
        else:
            assert event["seq"] == before["seq"] + 1
            elapsed_ns = event["monotonic_ns"] - before["monotonic_ns"]
            assert elapsed_ns > 0
            assert elapsed_ns % interval_ns == 0
            moved = {name: event[name] - before[name] for name in COUNTERS if event[name] is not None}
            assert all(amount >= 0 for amount in moved.values())
            cpu_ns = moved["cpu_busy_ns"] + moved["cpu_iowait_ns"] + moved["cpu_steal_ns"]
            assert cpu_ns <= event["cpu_count"] * elapsed_ns
            assert all(moved[name] * 1000 <= elapsed_ns for name in PRESSURE if name in moved)
        last[event["host_id"]] = event


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 40), intervals_ns, st.integers(0, 2**40), behaviours)
def test_two_fleets_of_a_seed_are_equal(hosts: int, interval_ns: int, seed: int, behaviour: Behaviour) -> None:
    one, other = (make_fleet(hosts, interval_ns, seed, behaviour=behaviour) for _ in range(2))
    assert list(events_of(one, 5)) == list(events_of(other, 5))
    assert [one.inventory(row, 0) for row in range(hosts)] == [other.inventory(row, 0) for row in range(hosts)]


def test_a_second_run_differs_in_its_boots_alone() -> None:
    behaviour = Behaviour(reboots_per_s=0.05, reboot_s=(1.0, 5.0))
    first = list(events_of(make_fleet(behaviour=behaviour), 20))
    second = list(events_of(make_fleet(behaviour=behaviour, started_ms=STARTED_MS + 1), 20))
    assert not {event["boot_id"] for event in first} & {event["boot_id"] for event in second}
    assert [event | {"boot_id": ""} for event in first] == [event | {"boot_id": ""} for event in second]


def test_seeds_have_hosts_of_their_own() -> None:
    assert not set(make_fleet(seed=1).host_id) & set(make_fleet(seed=2).host_id)


def test_more_hosts_only_add_to_the_fleet() -> None:
    def hardware(fleet: Fleet) -> dict[str, Any]:
        return {
            fleet.host_id[row]: (fleet.capacity[row].tolist(), int(fleet.zone[row]), int(fleet.skew_ms[row]))
            for row in range(len(fleet))
        }

    assert hardware(make_fleet(hosts=20)).items() <= hardware(make_fleet(hosts=300)).items()


def test_every_host_reports_once_an_interval_spread_over_all_of_it() -> None:
    fleet = make_fleet(hosts=4000, behaviour=CALM)
    for _ in range(3):
        reports = [fleet.advance(0).rows for _ in range(fleet.slices)]
        assert sorted(np.concatenate(reports).tolist()) == list(range(4000))
        assert max(map(len, reports)) < 2 * 4000 / fleet.slices


def test_a_reboot_counts_from_near_zero_after_a_pause_and_brings_an_inventory() -> None:
    fleet = make_fleet(
        hosts=200, behaviour=Behaviour(reboots_per_s=0.02, reboot_s=(5.0, 10.0), silences_per_s=0.0), seed=3
    )
    last_at_ns: dict[int, int] = {}
    boot_ids: dict[int, str] = {}
    reboots = 0
    for _ in range(60 * fleet.slices):
        at_ns = fleet.tick_at_ns(fleet.ticks)
        report = fleet.advance(0)
        for position, row in enumerate(report.rows.tolist()):
            if boot_ids.get(row) not in (None, report.usage["boot_id"][position]):
                reboots += 1
                pause_ns = at_ns - last_at_ns[row]
                assert pause_ns >= 5 * NS_PER_S
                assert report.usage["monotonic_ns"][position] < pause_ns
                assert report.usage["cpu_busy_ns"][position] < pause_ns * int(report.usage["cpu_count"][position])
                assert row in report.inventory_rows
            boot_ids[row], last_at_ns[row] = report.usage["boot_id"][position], at_ns
    assert reboots > 50


def test_silent_hosts_come_back_with_their_boot_and_counters_or_never() -> None:
    silences = Behaviour(reboots_per_s=0.0, silences_per_s=0.05, silence_s=(3.0, 5.0), lost=0.0)
    last: dict[str, dict[str, Any]] = {}
    gaps = 0
    for event in events_of(make_fleet(behaviour=silences), 60):
        if (before := last.get(event["host_id"])) is not None:
            assert event["boot_id"] == before["boot_id"]
            gaps += event["monotonic_ns"] - before["monotonic_ns"] > 2 * NS_PER_S
        last[event["host_id"]] = event
    assert gaps > 20

    ends = Behaviour(reboots_per_s=0.0, silences_per_s=0.5, lost=1.0)
    fleet = make_fleet(behaviour=ends)
    assert list(events_of(fleet, 30))
    assert not list(events_of(fleet, 2))


def test_a_new_instance_is_a_recent_consumer_for_five_minutes() -> None:
    fleet = make_fleet(hosts=100, interval_ns=10 * NS_PER_S, behaviour=Behaviour(0.05, 0.0, silences_per_s=0.0))
    seen_ns: dict[tuple[str, str], list[int]] = {}
    for event in events_of(fleet, rounds=100):
        for consumer in event["recent_consumers"]:
            assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", consumer)
            seen_ns.setdefault((event["host_id"], consumer), []).append(event["monotonic_ns"])
    assert len(seen_ns) > 500
    assert len({consumer for _, consumer in seen_ns}) == len(seen_ns)
    longest_ns = max(max(times) - min(times) for times in seen_ns.values())
    assert RECENT_NS - 10 * NS_PER_S <= longest_ns < RECENT_NS


def test_instances_come_and_go() -> None:
    counts: dict[str, set[int]] = {}
    for event in events_of(make_fleet(behaviour=Behaviour(changes_per_s=0.5)), rounds=60):
        counts.setdefault(event["host_id"], set()).add(event["instances"])
    assert np.mean([len(values) for values in counts.values()]) > 3


def test_load_moves_with_the_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vacancy.jobs.simulator.fleet.SLICE_NS", 100 * NS_PER_S)  # a day in only a few ticks
    fleet = make_fleet(hosts=300, interval_ns=600 * NS_PER_S, behaviour=CALM)
    busy_ns = []
    for _ in range(24 * 6 + 1):
        for _ in range(fleet.slices):
            fleet.advance(0)
        busy_ns.append(int(fleet.counters["cpu_busy_ns"].sum()))
    utilization = np.diff(busy_ns) / (600 * NS_PER_S * int(fleet.cpu_count.sum()))
    assert 0.05 < utilization.min() < 0.8 * utilization.max() < 0.8


def test_first_inventories_come_soon_and_then_evenly_each_interval() -> None:
    fleet = make_fleet(
        hosts=1000, behaviour=CALM, inventory_interval_ns=20 * NS_PER_S, inventory_spread_ns=5 * NS_PER_S
    )
    sent: list[list[int]] = [[] for _ in range(60)]
    for second in sent:
        for _ in range(fleet.slices):
            second += fleet.advance(0).inventory_rows.tolist()
    assert {row for second in sent[:6] for row in second} == set(range(1000))
    assert sorted(row for second in sent[20:40] for row in second) == list(range(1000))
    assert max(map(len, sent[20:])) < 2 * 1000 / 20
    assert [sorted(second) for second in sent[40:]] == [sorted(second) for second in sent[20:40]]


def test_inventory_agrees_with_usage_and_its_schema() -> None:
    fleet = make_fleet(hosts=300, behaviour=CALM)
    encoder = Encoder(Event.INVENTORY)
    usage = {event["host_id"]: event for event in events_of(fleet, 1)}
    for row in range(len(fleet)):
        inventory = fleet.inventory(row, STARTED_MS)
        assert encoder.encode(inventory)
        event = usage[inventory["host_id"]]
        assert inventory["boot_id"] == event["boot_id"]
        for resource, name in (("VCPU", "vcpus"), ("MEMORY_MB", "memory_mb"), ("DISK_GB", "disk_gb")):
            entry = inventory["inventories"][resource]
            capacity = (entry["total"] - entry["reserved"]) * entry["allocation_ratio"]
            assert event[f"{name}_capacity"] == int(capacity)
        cells = inventory["numa_cells"]
        assert sum(len(cell["cpus"]) for cell in cells) == event["cpu_count"]
        assert all(set(cell["free_cpus"]) <= set(cell["cpus"]) for cell in cells)
        if inventory["inventories"]["VCPU"]["allocation_ratio"] == 1.0:  # pinned
            free = sum(len(cell["free_cpus"]) for cell in cells)
            assert free == event["vcpus_capacity"] - event["vcpus_allocated"]
        for pages in (pages for cell in cells for pages in cell["pages"]):
            assert 0 <= pages["free"] <= pages["total"]


@pytest.mark.parametrize(
    ("what", "least", "most"), [("pressure", 0.8, 0.99), ("disabled", 0.001, 0.03), ("skewed", 0.05, 0.15)]
)
def test_odd_hosts_are_some_of_the_fleet(what: str, least: float, most: float) -> None:
    fleet = make_fleet(hosts=3000)
    shares = {"pressure": fleet.pressure, "disabled": fleet.disabled, "skewed": np.abs(fleet.skew_ms) >= 1000}
    assert least < shares[what].mean() < most


@given(st.integers(0, 2**32), behaviours)
@settings(max_examples=20)
def test_whatever_is_simulated_is_within_the_schemas_bounds(seed: int, behaviour: Behaviour) -> None:
    fleet = make_fleet(hosts=40, seed=seed, behaviour=behaviour)
    for event in events_of(fleet, 3):
        assert out_of_range(Event.USAGE, event) == []
    for row in range(40):
        assert out_of_range(Event.INVENTORY, fleet.inventory(row, STARTED_MS)) == []
