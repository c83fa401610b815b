"""How far rows are off the truth, and how many events that takes, by `agent.tolerance` and `agent.max_silence`.

Hosts look at themselves each second, and send what vacancy.schemas.shown says. The truth is the row that sending each
look would give, at each second. The load is that of virtual machines, 8 a host, with noise each second: real ones from
a file (bench/decisions/traces.py says how it looks), or drawn from the generator that is fitted to them.

    python -m bench.accuracy
    python -m bench.accuracy --traces planetlab_cpu.npz
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt
from rich.table import Table

from bench.common import CONSOLE, save
from bench.decisions import traces as levels_of
from bench.decisions.traces import STEP_S
from vacancy.schemas.shown import Reports
from vacancy.schemas.usage import COUNTERS

VMS = 8
CPUS = 32
MOVES_S = 30
"""A machine's load moves from one step's level to the next within this time."""
MEMORY_S = 120
"""Memory that is in use follows the load as slowly as that."""
FILL = 2.5
"""Virtual CPUs of the machines by CPUs of the host, so that hosts are busy for 0.28 of the time."""
S = 1_000_000_000
TOLERANCES = (0.01, 0.02, 0.05)
SILENCES_S = {10: 60, 30: 60, 60: 120}
"""The longest silence, and the window with it, which is twice that or more."""
FIGURES = {"cpu_utilization": "cpu_busy_ns", "cpu_pressure": "cpu_pressure_us"}
AMOUNTS = {"memory": "memory_mb", "disk": "disk_gb"}

Reals = npt.NDArray[np.float64]


@click.command()
@click.option("--traces", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A file of real loads.")
@click.option("--hosts", default=10, show_default=True)
@click.option("--seconds", default=1800, show_default=True)
@click.option("--noise", default=0.05, show_default=True, help="Standard deviation of a host's load each second.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(traces: Path | None, hosts: int, seconds: int, noise: float, saved: bool) -> None:
    """Measures each tolerance with each silence; prints a table, writes bench/results/accuracy….json."""
    chance = np.random.default_rng(0)
    levels = levels_of.load(traces) if traces else levels_of.generate(1000, 24 * 3600 // STEP_S, 0)
    loads = [load(chance, levels, seconds, noise) for _ in range(hosts)]
    runs = [
        measure(loads, tolerance, silence_s, window_s)
        for tolerance in TOLERANCES
        for silence_s, window_s in SILENCES_S.items()
    ]
    CONSOLE.print(_table(runs))
    if saved:
        name = "accuracy_traces" if traces else "accuracy"
        busy = round(float(np.mean(loads)), 3)
        CONSOLE.print(save(name, {"hosts": hosts, "seconds": seconds, "noise": noise, "busy": busy, "runs": runs}))


def load(chance: np.random.Generator, levels: Reals, seconds: int, noise: float) -> Reals:
    """A host's CPU load each second, 0 to 1."""
    steps = seconds // STEP_S + 2
    start = chance.integers(0, levels.shape[1] - steps)
    machines = levels[chance.integers(0, len(levels), VMS), start : start + steps]
    second = np.arange(seconds)
    moved = np.clip(second % STEP_S / MOVES_S, 0, 1)
    step = second // STEP_S + 1
    host = FILL * (machines[:, step - 1] + (machines[:, step] - machines[:, step - 1]) * moved).mean(axis=0)
    return np.asarray(np.clip(host + chance.normal(0, noise, seconds), 0, 1))


def looks(load_: Reals) -> Iterator[dict[str, Any]]:
    """A host's looks."""
    busy_ns = pressure_us = 0
    used = float(load_[:60].mean())
    for second, share in enumerate(load_.tolist(), 1):
        used += (share - used) / MEMORY_S
        busy_ns += round(share * CPUS * S)
        pressure_us += round(max(0.0, share - 0.6) * 1e6)
        yield dict.fromkeys((counter.field for counter in COUNTERS), 0) | {
            "boot_id": "boot",
            "monotonic_ns": second * S,
            "cpu_count": CPUS,
            "cpu_busy_ns": busy_ns,
            "cpu_pressure_us": pressure_us,
            "vcpus_capacity": CPUS,
            "vcpus_allocated": 0,
            "memory_mb_capacity": 262_144,
            "memory_mb_allocated": 0,
            "memory_mb_available": round(262_144 * (0.9 - 0.6 * used)),
            "disk_gb_capacity": 2_000,
            "disk_gb_allocated": 0,
            "disk_gb_available": 1_500 - second // 60,
            "instances": VMS,
            "recent_consumers": (),
            "uncertain": None,
            "unknown": None,
        }


def measure(loads: list[Reals], tolerance: float, silence_s: int, window_s: int) -> dict[str, Any]:
    """The errors of the figures, and events a second and host, once a window has passed."""
    sent = 0
    number_of = {counter.field: number for number, counter in enumerate(COUNTERS)}
    errors: dict[str, list[float]] = {name: [] for name in (*FIGURES, *AMOUNTS)}
    for load_ in loads:
        reports: Reports[dict[str, Any]] = Reports(window_s * S, tolerance, silence_s * S)
        row: dict[str, Any] = {}
        for number, look in enumerate(looks(load_)):
            due = reports.take(look, look)
            row = due[-1] if due else row
            if number <= window_s:
                continue
            sent += len(due)
            shown, true = reports.rates()
            for name, field in FIGURES.items():
                counter = number_of[field]
                errors[name].append(abs((shown[counter] or 0.0) - (true[counter] or 0.0)))
            for name, field in AMOUNTS.items():
                off = row[f"{field}_available"] - look[f"{field}_available"]
                errors[name].append(abs(off) / look[f"{field}_capacity"])
    quantiles = {
        name: [round(float(value), 4) for value in np.quantile(values, (0.5, 0.99, 1))]
        for name, values in errors.items()
    }
    return {
        "tolerance": tolerance,
        "silence_s": silence_s,
        "window_s": window_s,
        "events_per_s": round(sent / len(errors["memory"]), 4),
        "off": quantiles,
    }


def _table(runs: list[dict[str, Any]]) -> Table:
    table = Table(title="Off the truth: p50 / p99 / most")
    for column in ("tolerance", "silence", "window", "events/s a host", *FIGURES, *AMOUNTS):
        table.add_column(column, justify="right")
    for run in runs:
        off = (" / ".join(f"{value:.4f}" for value in values) for values in run["off"].values())
        times = (f"{run[name]} s" for name in ("silence_s", "window_s"))
        table.add_row(f"{run['tolerance']:g}", *times, f"{run['events_per_s']:.3f}", *off)
    return table


if __name__ == "__main__":
    main()
