"""The plots in docs/ from bench/results: freshness by fleet and emit, and each part's share of the cores by load."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.decisions.arms import SILENCES
from bench.decisions.summary import Runs, of_arm, read_runs

_PARTS = ("job JVM", "PostgreSQL", "Kafka", "simulator")


def draw(results: Path, docs: Path) -> Iterator[Path]:
    """Draws the plots that have results; returns the files, which are identical for the same results."""
    for name, plot in (("freshness", _freshness), ("ingest", _ingest)):
        result = results / f"{name}.json"
        if result.exists():
            # Text stays text, without random ids or times, so that a diff shows real changes only.
            with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9}):
                figure = Figure(figsize=(9, 4), layout="constrained")
                plot(figure, json.loads(result.read_text(encoding="utf-8")))
                figure.savefig(docs / f"{name}.svg", format="svg", metadata={"Date": None})
            yield docs / f"{name}.svg"
    if (raw := results / "decisions.csv").exists():
        with mpl.rc_context({"svg.hashsalt": "decisions", "svg.fonttype": "none", "font.size": 9}):
            figure = Figure(figsize=(11, 4), layout="constrained")
            _decisions(figure, read_runs(raw))
            figure.savefig(docs / "decisions.svg", format="svg", metadata={"Date": None})
        yield docs / "decisions.svg"


def _decisions(figure: Figure, runs: Runs) -> None:
    """Placements on busy hosts by what hosts send, by the age of rows, and by the sample; bars are 95 % intervals."""

    def line(axes: Any, arms: Sequence[str], x: Sequence[float] | str, label: str, figure: str = "busy_0.8") -> None:
        found = [of_arm(runs, arm, figure) for arm in arms]
        places = [of_arm(runs, arm, x).mean for arm in arms] if isinstance(x, str) else x
        known = [(place, one) for place, one in zip(places, found, strict=True) if one.seeds]
        axes.errorbar(
            [place for place, _ in known],
            [100 * one.mean for _, one in known],
            yerr=[100 * one.half if one.seeds > 1 else 0 for _, one in known],
            marker="o",
            markersize=4,
            capsize=2,
            label=label,
        )

    events, age, sample = figure.subplots(1, 3)
    intervals = (1, 5, 10, 30, 60, 300)
    of_interval = [f"interval {seconds} s" for seconds in intervals]
    line(events, of_interval, "events_a_host_s", "each interval")
    of_change = [f"on change {tolerance:g}, silence {silence_s} s" for tolerance, silence_s in SILENCES]
    line(
        events,
        sorted(of_change, key=lambda arm: of_arm(runs, arm, "events_a_host_s").mean),
        "events_a_host_s",
        "on change",
    )
    line(events, ["interval 60 s, promises only"], "events_a_host_s", "promises only")
    line(events, ["Nova's weighers, 60 s"], "events_a_host_s", "Nova's weighers")
    events.set(title="placed on busy hosts, %", xlabel="events a host and second", xscale="log")
    counted = (1, 10, 60, 300)
    line(age, [f"interval {seconds} s" for seconds in counted], counted, "busy, claims count")
    line(age, [f"interval {seconds} s, claims not counted" for seconds in counted], counted, "busy, they do not")
    line(
        age,
        [f"interval {seconds} s, claims not counted" for seconds in counted],
        counted,
        "turned out full, they do not",
        "turned_out_full_share",
    )
    age.set(title="claims in flight: placements, %", xlabel="interval, s", xscale="log")
    samples = (1, 2, 8, 24, 100)
    for seconds in (1, 60, 300):
        arms = [f"interval {seconds} s" + ("" if size == 24 else f", sample {size}") for size in samples]
        line(sample, arms, samples, f"interval {seconds} s")
    sample.set(title="placed on busy hosts, %", xlabel="hosts in a sample", xscale="log")
    for axes in (events, age, sample):
        axes.set_ylim(0, 40)  # intervals of two fleets reach further
        axes.grid(visible=True, alpha=0.3)
        axes.legend(frameon=False, fontsize=7)


def _freshness(figure: Figure, result: dict[str, Any]) -> None:
    axes = figure.subplots(1, 1)
    for emit in dict.fromkeys(run["emit"] for run in result["runs"]):
        runs = [run for run in result["runs"] if run["emit"] == emit]
        hosts = [run["hosts"] for run in runs]
        (line,) = axes.plot(
            hosts, [run["job"]["latency_s"]["p99"] for run in runs], marker="o", markersize=4, label=f"emit {emit}, p99"
        )
        medians = [run["job"]["latency_s"]["p50"] for run in runs]
        axes.plot(hosts, medians, linestyle="--", color=line.get_color(), label=f"emit {emit}, p50")
    axes.set(title="append to committed row, s", xlabel="hosts at 1 Hz", xscale="log", yscale="log")
    axes.set_xticks(ticks := sorted({run["hosts"] for run in result["runs"]}), [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False)


def _ingest(figure: Figure, result: dict[str, Any]) -> None:
    cores, latency = figure.subplots(1, 2)
    runs = sorted((run for run in [*result["sustained"], *result["knee"]]), key=lambda run: run["events_per_s"])
    names = [f"{run['events_per_s'] / 1000:.0f}k/s\nemit {run['emit']}" for run in runs]
    bottom = [0.0] * len(runs)
    for part in _PARTS:
        shares = [run["cores_busy"].get(part, 0.0) for run in runs]
        cores.bar(names, shares, bottom=bottom, label=part)
        bottom = [below + share for below, share in zip(bottom, shares, strict=True)]
    cores.axhline(result["cores"], color="black", linewidth=0.8)
    cores.set(title="cores busy")
    cores.legend(frameon=False)
    for name, style in (("p50", "--"), ("p99", "-")):
        latency.plot(names, [run["latency_s"][name] for run in runs], style, marker="o", markersize=4, label=name)
    latency.set(title="append to committed row, s", yscale="log")
    latency.legend(frameon=False)
    for axes in (cores, latency):
        axes.tick_params(axis="x", labelsize=7)
        axes.grid(visible=True, axis="y", alpha=0.3)
