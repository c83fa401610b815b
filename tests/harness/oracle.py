"""What the table must hold: a plain batch computation over histories, written apart from the topology.

It follows the prose of docs/semantics.md, event by event in plain Python, and shares no code with the dataflow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

COUNTERS = {
    "cpu_busy_ns": "cpu_utilization",
    "cpu_iowait_ns": "cpu_iowait",
    "cpu_steal_ns": "cpu_steal",
    "disk_read_bytes": "disk_read_bytes_per_s",
    "disk_write_bytes": "disk_write_bytes_per_s",
    "net_rx_bytes": "net_rx_bytes_per_s",
    "net_tx_bytes": "net_tx_bytes_per_s",
    "cpu_pressure_us": "cpu_pressure",
    "memory_pressure_us": "memory_pressure",
    "io_pressure_us": "io_pressure",
}
CPU_FRACTIONS = ("cpu_busy_ns", "cpu_iowait_ns", "cpu_steal_ns")
RESOURCES = ("vcpus", "memory_mb", "disk_gb")
BOOTS = 4
"""So many boots of a host have their late events known for what they are."""


@dataclass(frozen=True)
class Record:
    """One usage event as it stands in its partition."""

    append_ms: int
    event: dict[str, Any]


def rows(history: Sequence[Record], window_ms: int) -> list[dict[str, Any]]:
    """The row that each event of one host gives, in the order of its partition; late and repeated events give none."""
    taken = _taken(history)
    return [_row(taken[: index + 1], window_ms) for index in range(len(taken))]


def newest_row(history: Sequence[Record], window_ms: int) -> dict[str, Any] | None:
    """The row of one host's newest event; None if there is no event."""
    taken = _taken(history)
    return _row(taken, window_ms) if taken else None


def rows_at(history: Sequence[Record], window_ms: int, observed_ms: int) -> list[dict[str, Any]]:
    """The rows of one host's events with an append time, the last one's first."""
    taken = _taken(history)
    ends = [index + 1 for index, record in enumerate(taken) if record.append_ms == observed_ms]
    return [_row(taken[:end], window_ms) for end in reversed(ends)]


def _taken(history: Sequence[Record]) -> list[Record]:
    """The events that are neither late nor repeated, each with the append time that it counts with."""
    clocks: dict[str, int] = {}
    taken: list[Record] = []
    for record in history:
        boot_id, monotonic_ns = record.event["boot_id"], record.event["monotonic_ns"]
        if boot_id in clocks and monotonic_ns <= clocks[boot_id]:
            continue
        if taken and record.append_ms < taken[-1].append_ms:
            record = replace(record, append_ms=taken[-1].append_ms)
        taken.append(record)
        clocks.pop(boot_id, None)
        clocks[boot_id] = monotonic_ns
        if len(clocks) > BOOTS:
            del clocks[next(iter(clocks))]
    return taken


def _row(taken: Sequence[Record], window_ms: int) -> dict[str, Any]:
    """The row of the last of a host's events, given all up to it."""
    newest = taken[-1]
    window: list[Record] = []
    steps: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for before, record in zip([*reversed(taken[:-1]), None], reversed(taken), strict=True):
        if record.append_ms < newest.append_ms - window_ms or record.event["boot_id"] != newest.event["boot_id"]:
            break
        window.append(record)
        if before and _whole(before.event, record.event, window_ms):
            steps.append((before.event, record.event))
    row: dict[str, Any] = {
        "host_id": newest.event["host_id"],
        "observed_ms": newest.append_ms,
        "samples": len(window),
        "instances": newest.event["instances"],
        "memory_mb_available": newest.event["memory_mb_available"],
        "disk_gb_available": newest.event["disk_gb_available"],
        "recent_consumers": list(newest.event["recent_consumers"]),
    }
    for resource in RESOURCES:
        free = [record.event[f"{resource}_capacity"] - record.event[f"{resource}_allocated"] for record in window]
        row[f"{resource}_capacity"] = newest.event[f"{resource}_capacity"]
        row[f"{resource}_free"] = newest.event[f"{resource}_capacity"] - newest.event[f"{resource}_allocated"]
        row[f"{resource}_free_min"] = min(free)
    for counter, column in COUNTERS.items():
        row[column] = _rate(counter, steps)
    return row


def _whole(before: dict[str, Any], after: dict[str, Any], window_ms: int) -> bool:
    """Whether two events give a step: of one boot, no more than the window apart, no counter back, come or gone."""
    if before["boot_id"] != after["boot_id"]:
        return False
    if after["monotonic_ns"] - before["monotonic_ns"] > window_ms * 1_000_000:
        return False
    for counter in COUNTERS:
        if (before[counter] is None) != (after[counter] is None):
            return False
        if before[counter] is not None and after[counter] < before[counter]:
            return False
    return True


def _rate(counter: str, steps: list[tuple[dict[str, Any], dict[str, Any]]]) -> float | None:
    counted = [(before, after) for before, after in steps if after[counter] is not None]
    if not counted:
        return None
    amount = sum(after[counter] - before[counter] for before, after in counted)
    if counter in CPU_FRACTIONS:
        time = sum(
            (after["monotonic_ns"] - before["monotonic_ns"]) // 1000 * after["cpu_count"] for before, after in steps
        )
        return float(amount / 1e3 / time) if time else None
    time = sum(after["monotonic_ns"] - before["monotonic_ns"] for before, after in steps)
    return float(amount * (1e3 if counter.endswith("_us") else 1e9) / time)
