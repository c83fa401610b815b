"""The results: means over seeds with 95 % confidence intervals, and differences between arms with the same seeds."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from rich.table import Table

from bench.common import RESULTS

RAW = RESULTS / "decisions.csv"
# Two-sided 95 % quantiles of Student's t, by degrees of freedom.
_T = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 15: 2.13}

Runs = Sequence[Mapping[str, Any]]


def read_runs(file: Path) -> list[dict[str, Any]]:
    """The raw figures of all runs; none where there is no file."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [{name: _value(name, value) for name, value in run.items()} for run in csv.DictReader(lines)]


def _value(name: str, value: str) -> Any:
    if name in ("arm", "source"):
        return value
    return int(value) if name in ("hosts", "seed", "seconds") else float(value)


class Estimate(NamedTuple):
    """A mean over seeds and the half width of its 95 % confidence interval; infinite with one seed."""

    mean: float
    half: float
    seeds: int


def estimate(values: Sequence[float]) -> Estimate:
    """Of values, one a seed."""
    count = len(values)
    if count < 2:
        return Estimate(values[0] if values else math.nan, math.inf, count)
    t = next((value for degrees, value in sorted(_T.items()) if degrees >= count - 1), 2.1)
    return Estimate(fmean(values), t * stdev(values) / math.sqrt(count), count)


def by_fleet(
    runs: Runs, arm: str, figure: str, *, hosts: int | None = None, source: str = "traces"
) -> dict[tuple[int, int], float]:
    """A figure of an arm, by number of hosts and seed; of fleets of all sizes, or of one."""
    return {
        (run["hosts"], run["seed"]): float(run[figure])
        for run in runs
        if run["arm"] == arm and run["source"] == source and hosts in (None, run["hosts"])
    }


def of_arm(runs: Runs, arm: str, figure: str, *, hosts: int | None = None, source: str = "traces") -> Estimate:
    """The mean of a figure of an arm."""
    return estimate(list(by_fleet(runs, arm, figure, hosts=hosts, source=source).values()))


def difference(
    runs: Runs, arm: str, base: str, figure: str, *, hosts: int | None = None, source: str = "traces"
) -> Estimate:
    """How much more it is than in another arm, by the fleets that both have."""
    ours, theirs = (by_fleet(runs, name, figure, hosts=hosts, source=source) for name in (arm, base))
    return estimate([ours[fleet] - theirs[fleet] for fleet in sorted(ours.keys() & theirs.keys())])


_COLUMNS = (
    ("busy_0.8", "busy > 0.8", 100),
    ("busy_0.7", "> 0.7", 100),
    ("memory_pressed", "pressed", 100),
    ("regret", "regret", 100),
    ("refused_with_room_share", "refused", 100),
    ("turned_out_full_share", "full", 100),
    ("steal", "steal", 100),
    ("spread_p99_over_mean", "p99/mean", 1),
    ("events_a_host_s", "events/s", 1),
    ("row_error", "row off", 100),
)
BASE = "interval 1 s"


def table(runs: Runs) -> Table:
    """All arms, fleets of all sizes together: means, intervals, and how far the first figure is from that of BASE.

    Shares and points are in percent.
    """
    made = Table()
    for column in ("load", "arm", "fleets", *(title for _, title, _ in _COLUMNS), "busy, to 1 s"):
        made.add_column(column, justify="left" if column == "arm" else "right")
    for source, arm in dict.fromkeys((run["source"], run["arm"]) for run in runs):
        first = of_arm(runs, arm, "busy_0.8", source=source)
        delta = difference(runs, arm, BASE, "busy_0.8", source=source)
        cells = (_cell(of_arm(runs, arm, figure, source=source), scale) for figure, _, scale in _COLUMNS)
        made.add_row(source, arm, str(first.seeds), *cells, _cell(delta, 100))
    return made


def differences(runs: Runs, arm: str, base: str, *, hosts: int | None = None, source: str = "traces") -> Table:
    """Two arms in the fleets that both have, and by how much they differ. Shares and points are in percent."""
    made = Table()
    for column in ("figure", arm, base, "more", "fleets"):
        made.add_column(column, justify="left" if column == "figure" else "right")
    for figure, title, scale in _COLUMNS:
        ours, theirs = (by_fleet(runs, name, figure, hosts=hosts, source=source) for name in (arm, base))
        both = sorted(ours.keys() & theirs.keys())
        cells = (_cell(estimate([values[fleet] for fleet in both]), scale) for values in (ours, theirs))
        delta = difference(runs, arm, base, figure, hosts=hosts, source=source)
        made.add_row(title, *cells, _cell(delta, scale), str(delta.seeds))
    return made


def _cell(value: Estimate, scale: float) -> str:
    half = "" if math.isinf(value.half) or math.isnan(value.half) else f"±{scale * value.half:.2g}"
    return f"{scale * value.mean:.3g}{half}"
