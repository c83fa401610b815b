"""The plots in docs/ from bench/results: freshness by fleet and emit, and each part's share of the cores by load."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

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
