"""How fresh the table is: from the broker's append of an event to the commit of the row that shows it.

For each fleet and each `job.emit` it starts the local stack, waits until every host is in the table, and then measures
for a while (bench/live.py says how).

Directly afterwards, on the same stack and topic, the job is ended and the alternative of 2013 (bench/baseline.py) is
measured the same way: each shares the machine only with the broker, the database and the simulator.

    python -m bench.freshness
    python -m bench.freshness --hosts 1000 --emit 100ms --seconds 10
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg2
from rich.table import Table

from bench import baseline
from bench.common import CONSOLE, save
from bench.live import INTERVAL, measure, stack_of
from vacancy.jobs.local.processes import Child
from vacancy.jobs.local.stack import Stack
from vacancy.jobs.options import DurationType
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration


@click.command()
@click.option("--hosts", type=click.IntRange(1), multiple=True, default=(1_000, 10_000), show_default=True)
@click.option("--emit", "emits", type=DurationType(), multiple=True, default=("1s", "100ms"), show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="Length of each measurement.")
@click.option(
    "--warm-up", "warm_up_s", default=45.0, show_default=True, help="Warm-up in seconds before it, with a full table."
)
@click.option("--baseline/--no-baseline", "with_baseline", default=True, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(
    hosts: Sequence[int],
    emits: Sequence[timedelta],
    seconds: float,
    warm_up_s: float,
    with_baseline: bool,
    saved: bool,
) -> None:
    """Measures each fleet with each emit; prints a table, writes bench/results/freshness.json."""
    runs = []
    for emit in emits:
        for count in hosts:
            with stack_of(count, emit) as stack:
                run: dict[str, Any] = {
                    "hosts": count,
                    "emit": format_duration(emit),
                    "job": measure(stack, "vacancy.host", count, seconds, warm_up_s, stack.watch),
                }
                if with_baseline:
                    _end_job()
                    with _baseline(stack, emit) as child:
                        run["baseline"] = measure(stack, baseline.TABLE, count, seconds, 5, lambda: _check(child))
                    run["p99_to_baseline"] = round(
                        run["job"]["latency_s"]["p99"] / run["baseline"]["latency_s"]["p99"], 2
                    )
            runs.append(run)
            CONSOLE.print(_table(runs))
    if saved:
        CONSOLE.print(save("freshness", {"interval": format_duration(INTERVAL), "seconds": seconds, "runs": runs}))


def _check(child: Child) -> None:
    if not child.running:
        raise VacancyError(child.describe_end())


def _end_job() -> None:
    """Ends the job's process and waits for it; the rest of the stack keeps running."""
    (job,) = (child for child in psutil.Process().children() if child.cmdline()[1:5] == ["-m", "vacancy", "job", "run"])
    below = job.children(recursive=True)
    job.terminate()
    psutil.wait_procs([job, *below], timeout=60)


@contextmanager
def _baseline(stack: Stack, emit: timedelta) -> Iterator[Child]:
    """Runs the alternative of 2013 on the stack."""
    with closing(psycopg2.connect(stack.settings.postgres.owner_dsn.get_secret_value())) as connection, connection:
        connection.cursor().execute(baseline.MAKE_TABLE)
    # Started by its path: children of the stack do not run in a directory where this package can be found.
    command: list[str | Path]
    command = [sys.executable, Path(baseline.__file__), "--config", stack.config_file, "--emit", format_duration(emit)]
    child = Child("baseline", command, directory=stack.directory, log=stack.directory / "logs" / "baseline.log")
    child.start()
    try:
        yield child
    finally:
        child.stop()


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Seconds from append to committed row")
    for column in (
        "hosts",
        "emit",
        "",
        "p50",
        "p90",
        "p99",
        "max",
        "events/s",
        "rows/s",
        "HOT",
        "cores",
        "others",
        "simulator",
    ):
        table.add_column(column, justify="right")
    for run in runs:
        for who in ("job", "baseline"):
            if figures := run.get(who):
                table.add_row(
                    f"{run['hosts']:,}",
                    run["emit"],
                    who,
                    *(f"{figures['latency_s'][name]:.3f}" for name in ("p50", "p90", "p99", "max")),
                    f"{figures['events_per_s']:,}",
                    f"{figures['rows_per_s']:,}",
                    f"{figures['hot_share']:.2%}",
                    f"{sum(figures['cores_busy'].values()):.2f}",
                    f"{figures['others_cores_busy']:.2f}",
                    figures["simulator"],
                )
        if ratio := run.get("p99_to_baseline"):
            table.add_row("", "", "ratio", "", "", f"{ratio:.2f}", end_section=True)
    return table


if __name__ == "__main__":
    main()
