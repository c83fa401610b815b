"""With what is left unsent the table stays within the tolerance of what it would show if each look were sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.harness import oracle
from tests.harness.histories import BASE_MS, usage_event
from tests.harness.oracle import Record
from vacancy.schemas.shown import LEAST_BYTES_PER_S, Reports

S = 1_000_000_000
WINDOW_S = 10
LENGTH_S = 100
AMOUNTS = {"memory_mb_available": 8192, "disk_gb_available": 100}
EXACT = ("vcpus_free", "memory_mb_free", "disk_gb_free", "instances", "recent_consumers", "uncertain")
CHANGES: list[dict[str, Any]] = [
    {"boot_id": "boot-1"},
    {"monotonic_ns": 50 * S},
    {"vcpus_allocated": 1},
    {"memory_mb_capacity": 8000},
    {"instances": 1},
    {"cpu_count": 8},
    {"recent_consumers": ["5b1f1c3e-94d6-4bd4-9c1c-3f3f6a0a0001"]},
    {"uncertain": ["disk_gb_allocated"]},
    {"unknown": ["disk_read_ops"]},
    {"io_pressure_us": None},
    {"cpu_busy_ns": 7},
    {"memory_mb_available": 1},
]
KINDS = ("idle", "full", "noise", "square", "ramp", "spikes")


def looks(random: Random) -> list[Record]:
    """A host that looks at itself each second: load of every kind, instances, reboots, counters that begin anew."""
    event = usage_event(monotonic_ns=S, memory_mb_available=6000)
    history = []
    kind, period = "idle", 10
    for second in range(LENGTH_S):
        if random.random() < 0.03:
            kind, period = random.choice(KINDS), random.randint(2, 40)
        share = {
            "idle": 0.0,
            "full": 1.0,
            "noise": random.random(),
            "square": float(second // period % 2),
            "ramp": second % period / period,
            "spikes": float(second % period == 0),
        }[kind]
        event = event | {"monotonic_ns": event["monotonic_ns"] + S, "seq": second}
        event["cpu_busy_ns"] += round(4 * S * share)
        event["net_rx_bytes"] += round(50_000_000 * share)
        event["cpu_pressure_us"] += round(1_000_000 * share)
        event["memory_mb_available"] = round(8000 - 7000 * share)
        if random.random() < 0.02:
            event |= {"vcpus_allocated": random.randint(0, 4), "instances": random.randint(0, 4)}
        if random.random() < 0.01:
            event |= {"boot_id": f"boot-{second}", "monotonic_ns": S, "cpu_busy_ns": 0, "net_rx_bytes": 0}
        if random.random() < 0.01:
            event["net_rx_bytes"] = 0
        if random.random() < 0.02:
            event["io_pressure_us"] = None if event["io_pressure_us"] is not None else 0
        if event["io_pressure_us"] is not None:
            event["io_pressure_us"] += round(500_000 * share)
        if random.random() < 0.02:
            event["cpu_busy_ns"] -= random.randint(0, event["cpu_busy_ns"])
        fallen = {"net_rx_bytes": random.randint(0, event["net_rx_bytes"])} if random.random() < 0.02 else {}
        history.append(Record(BASE_MS + second * 1000, event | fallen))
    return history


def off(rows: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> dict[str, float]:
    """How far each figure of the last row is off the true one, as its tolerance is counted.

    Args:
        rows: what was shown, and what was true, at each second of the last window.
    """
    shown, true = rows[-1]
    found = {}
    for column in oracle.COUNTERS.values():
        if shown[column] is None or true[column] is None:
            found[column] = 0.0 if shown[column] is true[column] else 1.0
        else:
            largest = max(row[column] or 0.0 for both in rows for row in both)
            scale = max(largest, LEAST_BYTES_PER_S) if column.endswith("_per_s") else 1.0
            found[column] = abs(shown[column] - true[column]) / scale
    for name, capacity in AMOUNTS.items():
        found[name] = abs(shown[name] - true[name]) / capacity
    for name in EXACT:
        found[name] = float(shown[name] != true[name])
    return found


@pytest.mark.parametrize("loss", [0.0, 0.05])
@pytest.mark.parametrize("tolerance", [0.01, 0.05])
@pytest.mark.parametrize("silence_s", [3, 5])
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 2**32))
def test_each_second_each_figure_is_within_the_tolerance(
    tolerance: float, silence_s: int, loss: float, seed: int
) -> None:
    """At each second, of the row that the job has made by then. An event that is lost costs no more than a window."""
    random = Random(seed)
    history = looks(random)
    reports: Reports[Record] = Reports(WINDOW_S * S, tolerance, silence_s * S)
    sent: list[Record] = []
    rows: deque[tuple[dict[str, Any], dict[str, Any]]] = deque(maxlen=WINDOW_S + 1)
    lost_at, told_at = -LENGTH_S, 0
    for number, look in enumerate(history):
        for due in reports.take(look.event, look):
            if number > 0 and random.random() < loss:
                lost_at = number
            else:
                sent.append(Record(look.append_ms, due.event))
                told_at = number
        # What was more than a few windows ago counts for nothing.
        recent = history[max(0, number - 2 * WINDOW_S) : number + 1]
        true = oracle.newest_row(recent, WINDOW_S * 1000)
        shown = oracle.newest_row(sent[-2 * WINDOW_S :], WINDOW_S * 1000)
        assert shown is not None
        assert true is not None
        since_lost_s = number - lost_at
        if since_lost_s > 2 * silence_s:
            assert number - told_at < silence_s, "it fell silent"
        rows.append((shown, true))
        for name, far in off(rows).items():
            # A rate is right again when the step over what was lost has left the window.
            spoilt_s = WINDOW_S + silence_s if name in oracle.COUNTERS.values() else silence_s
            if since_lost_s > spoilt_s:
                assert far <= tolerance + 1e-9, (number, name, far, shown[name], true[name])
        if told_at == number and since_lost_s > WINDOW_S + silence_s:
            # What is sent a look later leaves the window a look later.
            longer = oracle.newest_row(recent, (WINDOW_S + 1) * 1000)
            assert longer is not None
            for name in ("vcpus_free_min", "memory_mb_free_min", "disk_gb_free_min"):
                assert longer[name] <= shown[name] <= true[name], (number, name)
    assert len(sent) >= (1 - loss) * LENGTH_S / silence_s - 3


def test_an_idle_host_is_silent_but_for_its_heartbeat_once_the_job_knows_a_window() -> None:
    reports: Reports[int] = Reports(WINDOW_S * S, 0.02, 5 * S)
    event = usage_event()
    sent = [
        due
        for second in range(60)
        for due in reports.take(event | {"monotonic_ns": (100 + second) * S, "cpu_busy_ns": second * S}, second)
    ]
    # What an agent before this one has sent within the window is not known to it.
    assert sent == [*range(WINDOW_S), *range(WINDOW_S + 4, 60, 5)]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_exact_is_sent_at_once(change: dict[str, Any]) -> None:
    reports: Reports[int] = Reports(WINDOW_S * S, 0.5, 5 * S)
    event = usage_event(cpu_busy_ns=500 * S, io_pressure_us=10)
    due: list[int] = []
    for second in range(WINDOW_S + 2):
        due = reports.take(event | {"monotonic_ns": (100 + second) * S}, second)
    assert due == []
    due = reports.take(event | {"monotonic_ns": (100 + WINDOW_S + 2) * S} | change, WINDOW_S + 2)
    assert due[-1] == WINDOW_S + 2


def test_looks_that_are_as_far_apart_as_the_silence_are_all_sent_though_they_are_not_quite_on_time() -> None:
    reports: Reports[int] = Reports(6 * WINDOW_S * S, 0.5, WINDOW_S * S)
    event = usage_event()
    times_ns = [number * WINDOW_S * S + number % 3 * 1_000_000 for number in range(1, 12)]
    sent = [due for time_ns in times_ns for due in reports.take(event | {"monotonic_ns": time_ns}, time_ns)]
    assert sent == times_ns


@pytest.mark.parametrize("silent_s", [3, 6, 8, 12])
def test_after_looks_were_missed_each_figure_is_within_the_tolerance(silent_s: int) -> None:
    """The look before them is sent where the step over them would be longer than the window, and so would not count."""
    reports: Reports[Record] = Reports(WINDOW_S * S, 0.02, 5 * S)
    looked: list[Record] = []
    sent: list[Record] = []
    for second in range(5 * WINDOW_S):
        if 3 * WINDOW_S + 4 <= second < 3 * WINDOW_S + 4 + silent_s:
            continue
        event = usage_event(monotonic_ns=(second + 1) * S, cpu_busy_ns=second * S, seq=second)
        looked.append(Record(BASE_MS + second * 1000, event))
        sent += reports.take(event, looked[-1])
        rows = [oracle.newest_row(records[-3 * WINDOW_S :], WINDOW_S * 1000) for records in (sent, looked)]
        assert rows[0] is not None
        assert rows[1] is not None
        assert max(off([(rows[0], rows[1])]).values()) <= 0.02 + 1e-9, second


def test_without_a_tolerance_each_look_is_sent() -> None:
    reports: Reports[int] = Reports(WINDOW_S * S, 0, 5 * S)
    event = usage_event()
    assert [reports.take(event, number) for number in range(9)] == [[number] for number in range(9)]
