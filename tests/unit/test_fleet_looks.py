"""With what a simulated fleet leaves unsent each row stays within the tolerance, as for an agent's host."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vacancy.jobs.simulator.fleet import NS_PER_S, PRESSURE, Behaviour, Fleet, Report, Reporting
from vacancy.schemas.shown import EXACT, LEAST_BYTES_PER_S, Look, Reports, Window
from vacancy.schemas.usage import COUNTERS

WINDOW_S = 10
SILENCE_S = 5
LENGTH_S = 40
CALM = Behaviour(changes_per_s=0.0, reboots_per_s=0.0, silences_per_s=0.0)
behaviours = st.builds(
    Behaviour,
    changes_per_s=st.sampled_from([0.0, 0.05, 0.5]),
    reboots_per_s=st.sampled_from([0.0, 0.02, 0.2]),
    reboot_s=st.just((1.0, 10.0)),
    silences_per_s=st.sampled_from([0.0, 0.02, 0.2]),
    silence_s=st.just((1.0, 20.0)),
    lost=st.just(0.02),
)


def make_fleet(hosts: int, seed: int, behaviour: Behaviour, tolerance: float, **more: Any) -> Fleet:
    reporting = Reporting(WINDOW_S * NS_PER_S, tolerance, SILENCE_S * NS_PER_S)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vacancy.jobs.simulator.fleet.SLICE_NS", NS_PER_S // 2)  # few ticks, whose costs hardly grow
        return Fleet(hosts, NS_PER_S, seed, 0, behaviour=behaviour, reporting=reporting, **more)


def events(report: Report) -> Iterator[dict[str, Any]]:
    """The usage events of a tick, in order."""
    columns = {name: values.tolist() for name, values in report.usage.items()}
    for position, bare in enumerate(report.without_pressure.tolist()):
        event = {name: values[position] for name, values in columns.items()}
        yield event | {"unknown": None, "uncertain": None} | (dict.fromkeys(PRESSURE) if bare else {})


class Host:
    """The rates of a host's row by some of its looks, and the largest ones lately."""

    def __init__(self) -> None:
        self._window = Window(WINDOW_S * NS_PER_S)
        self.event: dict[str, Any] = {}

    def take(self, event: dict[str, Any]) -> None:
        """Takes a look that is sent."""
        if self.event and self.event["boot_id"] != event["boot_id"]:
            self._window.clear()
        self._window.add(Look.of(event))
        self.event = event

    def rates(self) -> list[float | None]:
        """The rates, in the order of COUNTERS."""
        return self._window.rates()


def off(shown: Host, true: Host, largest: list[float]) -> dict[str, float]:
    """How far each figure is off, as its tolerance is counted."""
    found = {name: float(shown.event[name] != true.event[name]) for name in EXACT}
    for number, (counter, here, there) in enumerate(zip(COUNTERS, shown.rates(), true.rates(), strict=True)):
        if here is None or there is None:
            found[counter.rate] = float(here is not there)
            continue
        largest[number] = max(here, there, largest[number])
        scale = max(largest[number], LEAST_BYTES_PER_S) if counter.per == "second" else 1.0
        found[counter.rate] = abs(here - there) / scale
    for name in ("memory_mb", "disk_gb"):
        amount = abs(shown.event[f"{name}_available"] - true.event[f"{name}_available"])
        found[f"{name}_available"] = amount / max(1, true.event[f"{name}_capacity"])
    return found


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 2**32), tolerance=st.sampled_from([0.005, 0.02, 0.1]), behaviour=behaviours)
def test_each_second_each_figure_is_within_the_tolerance(seed: int, tolerance: float, behaviour: Behaviour) -> None:
    """With instances, reboots and silences of the agent. A fleet of the seed that sends each look says what is true."""
    each, few = (make_fleet(50, seed, behaviour, some) for some in (0.0, tolerance))
    true: dict[str, Host] = defaultdict(Host)
    shown: dict[str, Host] = defaultdict(Host)
    largest: dict[str, list[float]] = defaultdict(lambda: [0.0] * len(COUNTERS))
    sent = looks = 0
    for _ in range(LENGTH_S * each.slices):
        for event in events(few.advance(0)):
            host = shown[event["host_id"]]
            if host.event and host.event["boot_id"] == event["boot_id"]:
                assert event["seq"] == host.event["seq"] + 1
                assert event["monotonic_ns"] > host.event["monotonic_ns"]
            host.take(event)
            sent += 1
        for event in events(each.advance(0)):
            host_id = event["host_id"]
            true[host_id].take(event)
            looks += 1
            assert event["monotonic_ns"] - shown[host_id].event["monotonic_ns"] < SILENCE_S * NS_PER_S
            for name, far in off(shown[host_id], true[host_id], largest[host_id]).items():
                assert far <= tolerance + 1e-9, (looks, host_id, name, far)
    assert sent < looks


def test_it_sends_hardly_more_than_an_agent_would() -> None:
    each, few = (make_fleet(60, 1, Behaviour(reboots_per_s=0.0), tolerance) for tolerance in (0.0, 0.02))
    agents: dict[str, Reports[None]] = defaultdict(lambda: Reports(WINDOW_S * NS_PER_S, 0.02, SILENCE_S * NS_PER_S))
    sent = by_agents = 0
    for tick in range(60 * each.slices):
        of_fleet = len(few.advance(0).rows)
        of_agents = sum(len(agents[event["host_id"]].take(event, None)) for event in events(each.advance(0)))
        if tick >= 20 * each.slices:
            sent += of_fleet
            by_agents += of_agents
    assert 0.9 * by_agents < sent < 1.5 * by_agents


def test_a_quiet_fleet_sends_its_first_two_looks_and_then_its_heartbeat() -> None:
    fleet = make_fleet(50, 1, CALM, 1.0)
    counts = [sum(len(fleet.advance(0).rows) for _ in range(fleet.slices)) for _ in range(20)]
    # A host's first look is in the first second, whatever its phase is.
    assert counts == [50, 50, *[0, 0, 0, 0, 50] * 3, 0, 0, 0]


def test_the_first_looks_of_a_large_fleet_are_spread() -> None:
    fleet = make_fleet(1000, 1, CALM, 0.5, inventory_spread_ns=20 * NS_PER_S)
    looks = [sum(len(fleet.advance(0).looks) for _ in range(fleet.slices)) for _ in range(22)]
    assert looks[0] < 100
    assert np.diff(looks).max() < 100
    assert looks[-1] == 1000


def test_the_points_that_it_keeps_do_not_grow_without_end() -> None:
    fleet = make_fleet(100, 1, Behaviour(changes_per_s=2.0), 0.001)
    for _ in range(100 * fleet.slices):
        fleet.advance(0)
    assert fleet._looks is not None
    # At most two a look; twice that, since it doubles.
    assert 2000 < len(fleet._looks._points) <= 2 * 2 * 100 * (2 * WINDOW_S + 2)


def test_its_inventory_says_how_long_it_may_be_silent() -> None:
    assert make_fleet(1, 1, CALM, 0.02).inventory(0, 0)["reporting_interval_ms"] == 5000
    assert make_fleet(1, 1, CALM, 0.0).inventory(0, 0)["reporting_interval_ms"] == 1000
