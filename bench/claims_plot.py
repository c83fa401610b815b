"""docs/claims.svg from bench/results/claims.json: claims per second and their p99, by the number of hosts."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

FILE = Path(__file__).resolve().parents[1] / "docs" / "claims.svg"


class _Line(NamedTuple):
    label: str
    style: dict[str, Any]
    hosts: list[int]
    claims_per_s: list[float]
    p99_ms: list[float]


def draw(result: Path) -> Path:
    """Draws a result; returns the file, which is identical for the same result."""
    lines = list(_lines(json.loads(result.read_text(encoding="utf-8"))))
    # Text stays text, without random ids or times, so that a diff shows real changes only.
    with mpl.rc_context({"svg.hashsalt": "claims", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(9, 4), layout="constrained")
        rate, latency = figure.subplots(1, 2)
        for line in lines:
            rate.plot(line.hosts, line.claims_per_s, label=line.label, marker="o", markersize=4, **line.style)
            latency.plot(line.hosts, line.p99_ms, marker="o", markersize=4, **line.style)
        for axes, title in ((rate, "claims per second"), (latency, "p99 of a claim, ms")):
            axes.set(title=title, xlabel="hosts", xscale="log", yscale="log")
            axes.set_xticks(ticks := sorted({hosts for line in lines for hosts in line.hosts}))
            axes.set_xticklabels([f"{hosts:,}" for hosts in ticks])
            axes.minorticks_off()
            axes.grid(visible=True, alpha=0.3)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        figure.savefig(FILE, format="svg", metadata={"Date": None})
    return FILE


def _lines(document: dict[str, Any]) -> Iterator[_Line]:
    runs = [run for run in document["runs"] if run["latency_ms"]]
    for clients, colour in ((1, "tab:blue"), (8, "tab:green")):
        for writer in (False, True):
            chosen = [
                run for run in runs if run["clients"] == clients and (run["writer_rows_per_s"] is not None) == writer
            ]
            yield _Line(
                f"Vacancy, {clients} client{'s' * (clients > 1)}{', beside a writer' * writer}",
                {"color": colour, "linestyle": "--" if writer else "-"},
                [run["hosts"] for run in chosen],
                [run["claims_per_s"] for run in chosen],
                [run["latency_ms"]["p99"] for run in chosen],
            )
    pairs = [
        (pair["hosts"], turns)
        for pair in document["beside_placement"]
        if (turns := [turn for turn in pair["placement"] if turn["latency_ms"]])
    ]
    if pairs:
        yield _Line(
            "Placement, 4 clients",
            {"color": "tab:red"},
            [hosts for hosts, _ in pairs],
            [statistics.fmean(turn["claims_per_s"] for turn in turns) for _, turns in pairs],
            [max(turn["latency_ms"]["p99"] for turn in turns) for _, turns in pairs],
        )
