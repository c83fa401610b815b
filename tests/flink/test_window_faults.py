"""What misbehaves costs itself alone: each counter, the node's clock, the broker's, two nodes with one id.

One run of the graph for all: a host each, whose newest row is compared with figures worked out by hand.
"""

from __future__ import annotations

import tempfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.flink.bounded import TopicRecord, run_graph
from tests.harness.histories import BASE_MS, LAST, encode_usage, usage_event
from tests.harness.oracle import CLOCK_WENT_BACK, CLONED_ID, COUNTERS, FRACTION_BOUNDED
from vacancy.topology.settings import JobSettings

WINDOW = timedelta(seconds=60)
S = 1_000_000_000
START_NS = 1_000 * S
RATES = {
    column: {"bytes": 1.0 * S, "ns": 0.25, "us": 1000.0}[counter.rpartition("_")[2]]
    for counter, column in COUNTERS.items()
}
"""The rates of counters that grow by 1e9 a second on 4 CPUs; those of pressure are bounded to 1."""

Moment = tuple[float, dict[str, Any]]
"""Seconds since the start, by which the node's clock and the broker's go, and what the event says otherwise."""


def steady(seconds: float) -> dict[str, int]:
    """Counters that all grow by 1e9 a second; those of pressure by 1e5, a tenth of the time."""
    return {name: round((1e5 if name.endswith("_us") else 1e9) * (100 + seconds)) for name in COUNTERS}


def moments(*events: Moment) -> list[Moment]:
    return [(seconds, steady(seconds) | more) for seconds, more in events]


def with_counter(counter: str, *values: int | None) -> list[Moment]:
    """An event each second in which one counter has such values and all others are steady."""
    return moments(*((second, {counter: value}) for second, value in enumerate(values)))


def clock(seconds: float) -> dict[str, int]:
    return {"monotonic_ns": START_NS + round(seconds * S)}


def boot(number: int, seconds: float) -> dict[str, Any]:
    return clock(seconds) | {"boot_id": f"boot-{number}"}


HOSTS: dict[str, list[Moment]] = {
    # A step is void for a counter alone.
    **{f"gone-{name}": with_counter(name, 5 * S, 6 * S, None) for name in COUNTERS if name != "cpu_busy_ns"},
    **{f"reset-{name}": with_counter(name, 500 * S, 501 * S, 0, 2 * S) for name in COUNTERS},
    **{f"wild-{name}": with_counter(name, 5 * S, LAST, 0, LAST, 7) for name in COUNTERS},
    **{f"flaps-{name}": with_counter(name, *(10 * S, 9 * S) * 20, 10 * S) for name in COUNTERS},
    "unplugged": moments(*((t, {"net_rx_bytes": (100 * S if t < 3 else 80 * S) + t * S}) for t in range(6))),
    # All busy, but for what a CPU that has gone takes out of the sum.
    "busy-cpu-gone": moments(*((t, {"cpu_busy_ns": (1100 if t < 30 else 900) * S + t * 4 * S}) for t in range(60))),
    "iowait-leaps": with_counter("cpu_iowait_ns", *(10 * S, 4 * S + 1, 10 * S, 9 * S, 8 * S) * 9, 10 * S),
    "iowait-back": with_counter("cpu_iowait_ns", 100, 110, 105, 120),
    "iowait-less": with_counter("cpu_iowait_ns", 10 * S, 9 * S),
    # A rate is over the steps that have its counter.
    "pressure-comes": moments(
        *((t, {"cpu_pressure_us": None}) for t in range(50)),
        (50, {"cpu_pressure_us": 7}),
        (51, {"cpu_pressure_us": 1_000_007}),
    ),
    "one-cpu-more": moments(
        (0, {"cpu_busy_ns": 0}), (1, {"cpu_busy_ns": 4 * S}), (2, {"cpu_busy_ns": 8 * S, "cpu_count": 8})
    ),
    # Of a step that crosses the window's beginning the part counts that is within; the counter grew evenly in it.
    "crosses": moments((0, {"cpu_busy_ns": 0}), (40, {"cpu_busy_ns": 0}), (80, {"cpu_busy_ns": 160 * S})),
    "crosses-busy": moments((0, {"cpu_busy_ns": 0}), (40, {"cpu_busy_ns": 160 * S}), (80, {"cpu_busy_ns": 160 * S})),
    "crosses-void": moments((0, {"cpu_busy_ns": 999 * S}), (40, {"cpu_busy_ns": 0}), (80, {"cpu_busy_ns": 160 * S})),
    "always-busy": moments(*((t * 7, dict.fromkeys(COUNTERS, 7_000_000 * t)) for t in range(30))),
    # Fractions are between 0 and 1, sums do not overflow.
    "ticks": moments((0, {"cpu_busy_ns": 0}), (0.05, {"cpu_busy_ns": 240_000_000})),
    "forged": moments((0, {"cpu_busy_ns": 0}), (1, {"cpu_busy_ns": LAST})),
    "widest": moments(*((t / 5, dict.fromkeys(COUNTERS, LAST * (t % 3 == 2))) for t in range(300))),
    # The node's clock.
    "clock-back-for-a-moment": moments((0, {}), (1, {}), (1.5, clock(-100)), (2, {})),
    "restored": moments(*((t, {}) for t in range(10)), *((t, clock(t - 500)) for t in range(10, 45))),
    "restored-again": moments(
        *((t, {}) for t in range(10)),
        *((t, clock(t - 500)) for t in range(10, 20)),
        *((t, clock(t - 900)) for t in range(20, 55)),
    ),
    "restored-to-the-boot-before": moments(
        (0, boot(1, 0)), (10, boot(2, 5)), *((t, boot(1, t - 100)) for t in range(20, 55))
    ),
    "replayed": moments(*((t, {}) for t in range(100)), *((100 + t / 100, clock(t)) for t in range(100)), (102, {})),
    # Two nodes with one id.
    "rebooted": moments((0, boot(1, 0)), (10, boot(2, 5))),
    "cloned": moments(*((t, boot(t % 2, t)) for t in range(20))),
    "cloned-five-times": moments(*((t, boot(t % 5, t)) for t in range(20))),
    "cloned-twelve-times": moments(*((t / 10, boot(t % 12, t)) for t in range(36))),
    "booted-eight-times": moments(*((t, boot(t, t)) for t in range(8))),
    "cloned-once": moments(*((t, boot(t % 2, t)) for t in range(20)), *((t, boot(1, t)) for t in range(20, 100))),
}
BROKERS: dict[str, list[tuple[float, Moment]]] = {
    # The first number is when the broker says that an event was appended.
    "broker-back-for-good": [
        (3_600, (0, steady(0))),
        (5, (1, steady(1))),
        (6, (2, steady(2) | {"vcpus_allocated": 4})),
    ],
    # What a node could not send for minutes comes at once: idle for five of them, then busy.
    "caught-up": [(t / 1000, (t, {"cpu_busy_ns": max(0, t - 300) * 4 * S})) for t in range(331)],
    "caught-up-after-a-gap": [
        (t / 1000, (t, {"cpu_busy_ns": max(0, t - 300) * 4 * S})) for t in (*range(300), 400, 401, 402)
    ],
}


@pytest.fixture(scope="module")
def newest() -> dict[str, dict[str, Any]]:
    """The newest row of each host."""
    brokers = BROKERS | {host: [(moment[0], moment) for moment in history] for host, history in HOSTS.items()}
    records = [
        TopicRecord(BASE_MS + round(at * 1000), encode_usage(usage_event(host_id=host) | clock(seconds) | fields))
        for host, history in brokers.items()
        for at, (seconds, fields) in history
    ]
    with tempfile.TemporaryDirectory() as directory:
        output = run_graph(Path(directory) / "graph", JobSettings(window=WINDOW, parallelism=1), records)
    assert output.dead_letters == []
    return {row["host_id"]: row for row in output.host}


def test_a_counter_that_is_gone_or_begins_anew_costs_its_own_rate_alone(newest: dict[str, dict[str, Any]]) -> None:
    expected = {column: 0.1 if column.endswith("pressure") else RATES[column] for column in COUNTERS.values()}
    for counter, column in COUNTERS.items():
        for fault in ("gone", "reset", "wild", "flaps"):
            if row := newest.get(f"{fault}-{counter}"):
                others = {name: row[name] for name in expected if name != column}
                assert others == pytest.approx({name: expected[name] for name in others}), (fault, counter)
        if counter != "cpu_busy_ns":
            # Null, though there is a step before in the window: the newest event lacks it.
            assert newest[f"gone-{counter}"][column] is None
        # Of the last step, and of the one before it began anew.
        grown = newest[f"reset-{counter}"][column]
        assert grown == pytest.approx(1 if column.endswith("pressure") else RATES[column] * 1.5), counter
        assert newest[f"flaps-{counter}"][column] == 0, counter


def test_what_goes_back_does_not_multiply(newest: dict[str, dict[str, Any]]) -> None:
    assert newest["iowait-back"]["cpu_iowait"] == pytest.approx(20 / (3 * S * 4))
    assert newest["iowait-less"]["cpu_iowait"] is None  # it is not known: that is not idle
    assert newest["iowait-leaps"]["cpu_iowait"] == 0
    assert newest["unplugged"]["net_rx_bytes_per_s"] == pytest.approx(S)
    assert newest["busy-cpu-gone"]["cpu_utilization"] == pytest.approx(1)
    assert newest["unplugged"]["net_tx_bytes_per_s"] == pytest.approx(S)
    assert newest["unplugged"]["cpu_utilization"] == pytest.approx(0.25)


def test_a_rate_is_over_the_steps_that_have_its_counter(newest: dict[str, dict[str, Any]]) -> None:
    assert newest["pressure-comes"]["cpu_pressure"] == 1
    assert newest["pressure-comes"]["cpu_utilization"] == pytest.approx(0.25)
    assert newest["one-cpu-more"]["cpu_utilization"] == pytest.approx(8 / 12)


def test_a_step_counts_with_the_part_that_is_within_the_window(newest: dict[str, dict[str, Any]]) -> None:
    assert newest["crosses"]["cpu_utilization"] == pytest.approx(40 / 60)
    assert newest["crosses-busy"]["cpu_utilization"] == pytest.approx(20 / 60)
    assert newest["crosses-void"]["cpu_utilization"] == pytest.approx(1)
    # A step counts in part, and what was rounded is no fraction above 1.
    assert newest["always-busy"]["cpu_pressure"] == 1
    assert newest["always-busy"]["anomalies"] == 0


def test_rates_of_what_came_late_are_of_the_window_by_the_clock_of_the_node(newest: dict[str, dict[str, Any]]) -> None:
    assert newest["caught-up"]["samples"] == 331
    assert newest["caught-up"]["cpu_utilization"] == pytest.approx(30 / 60)
    # The step over the gap is longer than the window: there is none, and what is before it counts no more.
    assert newest["caught-up-after-a-gap"]["cpu_utilization"] == pytest.approx(1)


def test_fractions_are_bounded_and_sums_do_not_overflow(newest: dict[str, dict[str, Any]]) -> None:
    for host in ("ticks", "forged"):
        assert newest[host]["cpu_utilization"] == 1
        assert newest[host]["anomalies"] == FRACTION_BOUNDED
    widest = newest["widest"]
    assert widest["cpu_utilization"] == widest["cpu_pressure"] == 1
    # Of 299 steps 100 grow by the widest there is, 100 by nothing; the others fall.
    assert widest["net_rx_bytes_per_s"] == pytest.approx(LAST / 0.4)
    assert newest["gone-net_rx_bytes"]["anomalies"] == 0


def test_a_clock_that_goes_back_for_good_is_followed_within_a_window(newest: dict[str, dict[str, Any]]) -> None:
    assert newest["clock-back-for-a-moment"]["anomalies"] == 0
    assert newest["clock-back-for-a-moment"]["samples"] == 3
    # From 30 s after the first event of the earlier clock on.
    assert newest["restored"]["anomalies"] == newest["restored-again"]["anomalies"] == CLOCK_WENT_BACK
    assert newest["restored"]["samples"] == newest["restored-again"]["samples"] == 5
    assert newest["restored"]["cpu_utilization"] == pytest.approx(0.25)
    assert newest["restored-to-the-boot-before"]["anomalies"] == CLOCK_WENT_BACK
    assert newest["replayed"]["anomalies"] == 0
    assert newest["replayed"]["samples"] == 59  # of 42 s and later but one: 100 and 101 are missing


def test_a_former_boot_that_goes_on_is_another_node(newest: dict[str, dict[str, Any]]) -> None:
    assert newest["rebooted"]["anomalies"] == 0
    assert newest["booted-eight-times"]["anomalies"] == 0
    for host in ("cloned", "cloned-five-times", "cloned-twelve-times"):
        assert newest[host]["anomalies"] == CLONED_ID, host
    assert newest["cloned"]["cpu_utilization"] is None
    # It is forgotten a window after the other one has fallen silent.
    assert newest["cloned-once"]["anomalies"] == 0


def test_a_row_has_the_append_time_of_its_newest_event(newest: dict[str, dict[str, Any]]) -> None:
    row = newest["broker-back-for-good"]
    assert row["vcpus_free"] == 0
    assert row["samples"] == 2
    assert datetime.fromisoformat(row["observed_at"]).timestamp() * 1000 == BASE_MS + 6_000
