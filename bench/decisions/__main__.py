"""What an older scheduling table costs: decisions by the real `vacancy.claim` before fleets whose true state is known.

Each arm is a way to run the system (arms.py), each seed a fleet with its requests, the same for all arms. All arms
run with the first seed, then all with the second, until the time is over; each run is saved at once, and what is
there is not run again.

    python -m bench.decisions --traces planetlab_cpu.npz --minutes 9
    python -m bench.decisions --hosts 200 --seed 0 --arms 3 --no-save      # by the generator
    python -m bench.decisions summary
    python -m bench.decisions live --traces planetlab_cpu.npz    # one arm on the live stack in real time
    python -m bench.decisions compare "interval 300 s" "interval 60 s"
    python -m bench.decisions advice        # jobs/advice.json, the tables of docs/freshness.md, docs/decisions.svg
    python -m bench.decisions fit planetlab_cpu.npz                                     # bench/decisions/planetlab.json
"""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import numpy as np

from bench import plots
from bench.common import CONSOLE, RESULTS, postgres_server, save
from bench.decisions import traces
from bench.decisions.advice import ADVICE, advice_of
from bench.decisions.arms import ARMS, MEASURED_S, Run, interval, run
from bench.decisions.live import live_table
from bench.decisions.page import PAGE, with_tables
from bench.decisions.summary import RAW, differences, estimate, read_runs, table
from bench.decisions.table import database

NAME = "decisions"
_GENERATED = (4_000, 288)
_SERVER = {"fsync": "off", "shared_buffers": "512MB"}  # how long a claim takes is not measured


@click.group(invoke_without_command=True)
@click.option("--hosts", type=click.IntRange(50), default=1_000, show_default=True)
@click.option("--seed", "seeds", type=click.IntRange(0), multiple=True, default=tuple(range(8)), show_default=True)
@click.option("--arms", "arms_to_run", type=click.IntRange(1), help="Only the first so many arms.")
@click.option("--minutes", default=10.0, show_default=True, help="No run begins that would end later.")
@click.option(
    "--seconds", default=MEASURED_S, show_default=True, help="Simulated time in which decisions are measured."
)
@click.option(
    "--traces",
    "traces_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Measured traces instead of the generator.",
)
@click.option("--only", multiple=True, help="Arms whose name contains this; may be repeated.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
@click.pass_context
def main(
    context: click.Context,
    hosts: int,
    seeds: tuple[int, ...],
    arms_to_run: int | None,
    minutes: float,
    seconds: int,
    traces_file: Path | None,
    only: tuple[str, ...],
    saved: bool,
) -> None:
    """Runs what is missing; prints a table, adds to bench/results/decisions.csv."""
    if context.invoked_subcommand:
        return
    runs = read_runs(RAW) if saved else []
    arms = [arm for arm in ARMS[:arms_to_run] if not only or any(part in arm.name for part in only)]
    until_s, longest_s = time.monotonic() + 60 * minutes, 0.0
    source = "traces" if traces_file else "generator"
    with ExitStack() as stack:
        dsn = None
        if not all(arm.nova for arm in arms):
            dsn = stack.enter_context(database(stack.enter_context(postgres_server(**_SERVER))))
        for seed in seeds:
            levels = traces.load(traces_file) if traces_file else traces.generate(*_GENERATED, seed)
            for arm in arms:
                key = {"arm": arm.name, "hosts": hosts, "seed": seed, "source": source, "seconds": seconds}
                began_s = time.monotonic()
                if any(one.items() >= key.items() for one in runs) or began_s + longest_s > until_s:
                    continue
                figures = run(arm, None if arm.nova else dsn, hosts, levels, seed, seconds)
                longest_s = max(longest_s, time.monotonic() - began_s)
                runs.append({**key, **figures})
                CONSOLE.print(f"seed {seed} {arm.name}: busy {figures['busy_0.8']:.4f}, took {figures['took_s']:.0f} s")
                if saved:
                    _add(runs[-1])
    CONSOLE.print(table(runs))


@main.command()
def summary() -> None:
    """Prints the table of what is saved."""
    CONSOLE.print(table(read_runs(RAW)))


@main.command()
@click.argument("arm")
@click.argument("base")
@click.option("--hosts", type=int, help="Fleets of this size alone.")
@click.option("--source", type=click.Choice(["traces", "generator"]), default="traces", show_default=True)
def compare(arm: str, base: str, hosts: int | None, source: str) -> None:
    """Prints by how much an arm differs from another one in the fleets that both have."""
    runs = read_runs(RAW)
    for name in (arm, base):
        if name not in {run["arm"] for run in runs}:
            raise click.BadParameter(f"no such arm: {name}; `summary` lists those that ran")
    CONSOLE.print(differences(runs, arm, base, hosts=hosts, source=source))


@main.command()
@click.option("--hosts", default=150, show_default=True)
@click.option("--seconds", default=120, show_default=True, help="Time in which decisions are measured.")
@click.option("--seeds", default=6, show_default=True, help="Runs in simulated time beside the one in real time.")
@click.option("--traces", "traces_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def live(hosts: int, seconds: int, seeds: int, traces_file: Path | None, saved: bool) -> None:
    """Runs the arm of 1 s on the live stack in real time, and the same simulated; some 5 minutes."""
    levels = traces.load(traces_file) if traces_file else traces.generate(*_GENERATED, 0)
    arm = interval(1)
    real = Run(arm, hosts, levels, 0, measured_s=seconds)
    with live_table(real.world, real.request) as made:
        in_real_time = real.result(made)
        rows_off = np.concatenate(made.rows_off[-seconds // 10 :])
        late_s = made.late_s
    with postgres_server(**_SERVER) as server, database(server) as dsn:
        simulated = [run(arm, dsn, hosts, levels, seed, seconds) for seed in range(seeds)]
    compared = {
        name: {
            "in_real_time": in_real_time[name],
            "simulated_same_seed": simulated[0][name],
            "simulated": estimate([figures[name] for figures in simulated])._asdict(),
        }
        for name in ("asked", "busy_0.7", "busy_0.8", "cpu_next_minute", "regret", "refused", "turned_out_full")
    }
    off = {"mean": float(np.nanmean(rows_off)), "p99": float(np.nanquantile(rows_off, 0.99))}
    result = {"hosts": hosts, "seconds": seconds, "compared": compared, "rows_off": off, "late_s": round(late_s, 2)}
    CONSOLE.print(result)
    if saved:
        CONSOLE.print(save(f"{NAME}_live", result))


@main.command()
def advice() -> None:
    """Writes what `vacancy advise` knows, and the tables and plots of docs/freshness.md, from what is saved."""
    runs = read_runs(RAW)
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8"), runs), encoding="utf-8")
    ADVICE.write_text(json.dumps(advice_of(runs), indent=1) + "\n", encoding="utf-8")
    CONSOLE.print(PAGE, ADVICE, *plots.draw(RESULTS, RESULTS.parents[1] / "docs"))


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def fit(file: Path) -> None:
    """Fits the generator to traces and writes bench/decisions/planetlab.json."""
    levels = traces.load(file)
    document = json.loads(traces.FITTED.read_text(encoding="utf-8"))
    document["statistics"] = {name: round(value, 4) for name, value in traces.statistics(levels).items()}
    document["fit"] = traces.fit(levels)
    traces.FITTED.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _add(run: Mapping[str, Any]) -> None:
    """Adds a run's raw figures as a line, and writes what they were measured with."""
    new = not RAW.exists()
    with RAW.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, run, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(run)
    save(NAME, {"raw": RAW.name})


if __name__ == "__main__":
    main()
