"""What the table must hold: a plain batch computation over histories, written apart from the topology.

It follows the prose of docs/semantics.md, event by event in plain Python, and shares no code with the dataflow.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
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
BOOTS = 8
"""So many boots of a host have their late events known for what they are."""
CLONED_ID, CLOCK_WENT_BACK, FRACTION_BOUNDED = 1, 2, 4
"""The bits of anomalies."""
NOW_MS = round(time.time() * 1000)
"""What was appended after that is from the future."""


@dataclass(frozen=True)
class Record:
    """One usage event as it stands in its partition."""

    append_ms: int
    event: dict[str, Any]
    partition: int = 0


@dataclass(frozen=True)
class _Taken:
    """An event that is neither late nor repeated.

    Attributes:
        append_ms: the append time that it counts with in the window.
        observed_ms: the append time that it has.
        partition: where it stands.
        event: what it says.
        alone: whether nothing before it counts any more in a window.
        stepless: whether no step leads to it: it is the first of its boot, or the boot's clock has gone back.
        cloned_ms: append_ms when a former boot last went on; None if none has.
        went_back: whether the clock of its boot has gone back for good.
        growth: by counter, what it grew by in the step to the event, of those that the step is not void for.
        fell_from: by counter that fell in the step, where it had been.
        is_back: counters that fell in the step before and are now where they had been, or beyond.
    """

    append_ms: int
    observed_ms: int
    partition: int
    event: dict[str, Any]
    alone: bool
    stepless: bool
    cloned_ms: int | None
    went_back: bool
    growth: dict[str, int]
    fell_from: dict[str, int]
    is_back: frozenset[str]


def rows(history: Sequence[Record], window_ms: int) -> list[dict[str, Any]]:
    """The row that each event of one host gives, in the order of its partition; late and repeated events give none."""
    taken = _taken(history, window_ms)
    return [_row(taken[: index + 1], window_ms) for index in range(len(taken))]


def newest_row(history: Sequence[Record], window_ms: int) -> dict[str, Any] | None:
    """The row of one host's newest event; None if there is no event."""
    taken = _taken(history, window_ms)
    return _row(taken, window_ms) if taken else None


def rows_at(history: Sequence[Record], window_ms: int, observed_ms: int) -> list[dict[str, Any]]:
    """The rows of one host's events that say a time, the last one's first."""
    taken = _taken(history, window_ms)
    ends = [index + 1 for index, record in enumerate(taken) if record.observed_ms == observed_ms]
    return [_row(taken[:end], window_ms) for end in reversed(ends)]


def _taken(history: Sequence[Record], window_ms: int) -> list[_Taken]:
    clocks: dict[str, int] = {}
    behind: list[Record] = []
    taken: list[_Taken] = []
    new_boots_since_ms, new_boots = -1, 0
    for record in history:
        boot_id, monotonic_ns = record.event["boot_id"], record.event["monotonic_ns"]
        before = taken[-1] if taken else None
        reboot = before is None or before.event["boot_id"] != boot_id
        if (
            before
            and reboot
            and record.partition != before.partition
            and record.append_ms < before.observed_ms <= NOW_MS
        ):
            continue  # Of the partition in which the host was before it moved.
        back = boot_id in clocks and monotonic_ns <= clocks[boot_id]
        if back:
            behind = _behind(behind, record)
            if behind[-1] is not record or not _reaches_over_half(behind, window_ms):
                continue
        behind = []
        append_ms, restart = record.append_ms, False
        if before and append_ms < before.append_ms:
            restart = append_ms < before.append_ms - window_ms
            append_ms = append_ms if restart else before.append_ms
        cloned_ms = before.cloned_ms if before else None
        if restart and cloned_ms is not None:
            cloned_ms = min(cloned_ms, append_ms)
        if reboot and boot_id not in clocks:
            if not new_boots_since_ms <= append_ms <= new_boots_since_ms + window_ms:
                new_boots_since_ms, new_boots = append_ms, 0
            new_boots += 1
        if reboot and not back and (boot_id in clocks or new_boots > BOOTS):
            cloned_ms = append_ms
        went_back = back or (before is not None and before.went_back and not reboot)
        alone = reboot or back or restart
        place = (record.append_ms, record.partition)
        stepless = reboot or back
        growth, fell_from, is_back = (
            _step(before, record.event, window_ms, restart) if before and not stepless else _NO_STEP
        )
        taken.append(
            _Taken(append_ms, *place, record.event, alone, stepless, cloned_ms, went_back, growth, fell_from, is_back)
        )
        clocks.pop(boot_id, None)
        clocks[boot_id] = monotonic_ns
        if len(clocks) > BOOTS:
            del clocks[next(iter(clocks))]
    return taken


_NO_STEP: tuple[dict[str, int], dict[str, int], frozenset[str]] = ({}, {}, frozenset())


def _step(
    before: _Taken, event: dict[str, Any], window_ms: int, restart: bool
) -> tuple[dict[str, int], dict[str, int], frozenset[str]]:
    """What counters did in a step: growth, fell_from and is_back of the event that it leads to."""
    if event["monotonic_ns"] - before.event["monotonic_ns"] > window_ms * 1_000_000:
        return _NO_STEP
    growth, fell_from, is_back = {}, {}, set()
    for counter in COUNTERS:
        was, now = _told(counter, before.event), _told(counter, event)
        if was is None or now is None:
            continue
        fell = not restart and counter in before.fell_from
        reached = max(was, before.fell_from[counter]) if fell else was
        if now < was:
            fell_from[counter] = reached
        elif fell and now >= reached:
            growth[counter] = now - reached
            is_back.add(counter)
        else:
            growth[counter] = now - was
    return growth, fell_from, frozenset(is_back)


def _behind(run: list[Record], record: Record) -> list[Record]:
    """The run of events behind their boot's clock, each later than the one before, once another has come."""
    boot_id, monotonic_ns = record.event["boot_id"], record.event["monotonic_ns"]
    if not run or run[0].event["boot_id"] != boot_id or monotonic_ns < run[0].event["monotonic_ns"]:
        return [record]
    return [*run, record] if monotonic_ns > run[-1].event["monotonic_ns"] else run


def _reaches_over_half(run: list[Record], window_ms: int) -> bool:
    """Whether a run reaches over half a window, by the broker's clock and by the node's; of one event it does not."""
    appended_ms = run[-1].append_ms - min(record.append_ms for record in run)
    elapsed_ns = run[-1].event["monotonic_ns"] - run[0].event["monotonic_ns"]
    return len(run) > 1 and appended_ms >= window_ms // 2 and elapsed_ns >= window_ms * 1_000_000 // 2


def _row(taken: Sequence[_Taken], window_ms: int) -> dict[str, Any]:
    """The row of the last of a host's events, given all up to it."""
    newest = taken[-1]
    window: list[_Taken] = []
    steps: list[tuple[int, _Taken, frozenset[str]]] = []
    is_back: frozenset[str] = frozenset()
    for before, record in zip([*reversed(taken[:-1]), None], reversed(taken), strict=True):
        if record.append_ms < newest.append_ms - window_ms:
            break
        window.append(record)
        if before and not record.stepless:
            elapsed_ns = record.event["monotonic_ns"] - before.event["monotonic_ns"]
            if elapsed_ns <= window_ms * 1_000_000:
                steps.append((elapsed_ns, record, is_back))
        is_back = record.is_back
        if record.alone:
            break
    row: dict[str, Any] = {
        "host_id": newest.event["host_id"],
        "observed_ms": newest.observed_ms,
        "samples": len(window),
        "instances": newest.event["instances"],
        "memory_mb_available": newest.event["memory_mb_available"],
        "disk_gb_available": newest.event["disk_gb_available"],
        "recent_consumers": list(newest.event["recent_consumers"]),
        "uncertain": sorted({*(newest.event["unknown"] or []), *(newest.event["uncertain"] or [])}) or None,
    }
    for resource in RESOURCES:
        free = [record.event[f"{resource}_capacity"] - record.event[f"{resource}_allocated"] for record in window]
        row[f"{resource}_capacity"] = newest.event[f"{resource}_capacity"]
        row[f"{resource}_free"] = newest.event[f"{resource}_capacity"] - newest.event[f"{resource}_allocated"]
        row[f"{resource}_free_min"] = min(free)
    begin_ns = newest.event["monotonic_ns"] - window_ms * 1_000_000
    anomalies = CLOCK_WENT_BACK if newest.went_back else 0
    if newest.cloned_ms is not None and newest.append_ms - newest.cloned_ms <= window_ms:
        anomalies |= CLONED_ID
    for counter, column in COUNTERS.items():
        rate = None if _told(counter, newest.event) is None else _rate(counter, steps, begin_ns)
        if rate is not None and not column.endswith("_per_s") and rate > 1:
            rate = Fraction(1)
            anomalies |= FRACTION_BOUNDED
        row[column] = None if rate is None else float(rate)
    return row | {"anomalies": anomalies}


def _rate(counter: str, steps: list[tuple[int, _Taken, frozenset[str]]], begin_ns: int) -> Fraction | None:
    """What a counter grew by, exactly, over the time of the steps that are not void for it; None: not known.

    Args:
        counter: its name.
        steps: each with its time in ns, the event that it leads to, and the counters that are back after the next step.
        begin_ns: of each step that part counts which is after it on the node's clock.
    """
    amount = time_ns = Fraction(0)
    for elapsed_ns, record, is_back in steps:
        if counter not in record.growth and counter not in is_back:
            continue
        within_ns = max(0, min(elapsed_ns, record.event["monotonic_ns"] - begin_ns))
        cpus = record.event["cpu_count"] if counter in CPU_FRACTIONS else 1
        amount += record.growth.get(counter, 0) * Fraction(within_ns, elapsed_ns)
        time_ns += within_ns * cpus
    if not time_ns:
        return None
    unit = 1_000_000_000 if "bytes" in counter else {"ns": 1, "us": 1_000}[counter[-2:]]
    return amount * unit / time_ns


def _told(counter: str, event: dict[str, Any]) -> int | None:
    """A counter as an event has it; None: not known."""
    value: int | None = event[counter]
    return None if counter in (event["unknown"] or ()) else value
