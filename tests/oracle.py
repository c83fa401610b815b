"""What the table must hold: a plain batch computation over histories, written apart from the topology.

It follows the prose of docs/semantics.md, event by event in plain Python, and shares no code with the dataflow.
"""

from __future__ import annotations

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


@dataclass(frozen=True)
class Record:
    """One usage event as it stands in its partition."""

    append_ms: int
    event: dict[str, Any]


def rows(history: list[Record], window_ms: int) -> list[dict[str, Any]]:
    """The row that each event of one host gives, in the order of its partition; late and repeated events give none."""
    by_boot: dict[str, list[Record]] = {}
    taken = []
    for record in history:
        boot = by_boot.setdefault(record.event["boot_id"], [])
        if not boot or record.event["monotonic_ns"] > boot[-1].event["monotonic_ns"]:
            boot.append(record if not boot else replace(record, append_ms=max(record.append_ms, boot[-1].append_ms)))
            taken.append(boot[-1])
    return [_row(record, by_boot[record.event["boot_id"]], window_ms) for record in taken]


def _row(newest: Record, boot: list[Record], window_ms: int) -> dict[str, Any]:
    window = [
        index
        for index, record in enumerate(boot)
        if newest.append_ms - window_ms <= record.append_ms <= newest.append_ms
    ]
    steps = [(boot[index - 1].event, boot[index].event) for index in window if index > 0]
    steps = [step for step in steps if _whole(*step, window_ms)]
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
        free = [
            boot[index].event[f"{resource}_capacity"] - boot[index].event[f"{resource}_allocated"] for index in window
        ]
        row[f"{resource}_capacity"] = newest.event[f"{resource}_capacity"]
        row[f"{resource}_free"] = newest.event[f"{resource}_capacity"] - newest.event[f"{resource}_allocated"]
        row[f"{resource}_free_min"] = min(free)
    for counter, column in COUNTERS.items():
        row[column] = _rate(counter, steps)
    return row


def _whole(before: dict[str, Any], after: dict[str, Any], window_ms: int) -> bool:
    """Whether two events of a boot give a step: no more than the window apart, no counter back, come or gone."""
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
