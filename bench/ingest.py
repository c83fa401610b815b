"""How many events per second the whole system sustains, with one event per second from each host.

For each emit one fleet runs for a long time: the lag must stay flat. Then, with an emit that writes a row for each
event and with a longer one, larger and larger fleets are tried until the system does not keep up: events wait longer at
the end of a run than at its start. Each run has its own stack, whose job must first catch up with the events that came
during the start. Simulator, broker, job and database share the machine; `cores_busy` shows how much each uses.

    python -m bench.ingest
    python -m bench.ingest --emit 1s --seconds 60 --try 45000 --try-emit 1s --try-seconds 30 --no-save
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click
from rich.table import Table

from bench.common import CONSOLE, save
from bench.live import held, measure, stack_of
from vacancy.jobs.options import DurationType
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration

WARM_UP_S = 120.0
"""Java compiles hot code, which takes minutes under load."""
TRY_WARM_UP_S = 30.0
"""The fleets that are tried must also catch up first."""


@click.command()
@click.option("--hosts", type=click.IntRange(1), default=30_000, show_default=True, help="Of the long runs.")
@click.option("--emit", "emits", type=DurationType(), multiple=True, default=("1s", "100ms"), show_default=True)
@click.option("--seconds", default=600.0, show_default=True, help="Length of each long run.")
@click.option("--try", "tries", multiple=True, type=int, default=(60_000, 75_000, 100_000), help="Sizes to try.")
@click.option("--try-emit", "try_emits", type=DurationType(), multiple=True, default=("1s", "5s"), show_default=True)
@click.option("--try-seconds", default=60.0, show_default=True, help="Length of each.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(
    hosts: int,
    emits: Sequence[timedelta],
    seconds: float,
    tries: Sequence[int],
    try_emits: Sequence[timedelta],
    try_seconds: float,
    saved: bool,
) -> None:
    """Measures; prints a table, writes bench/results/ingest.json."""
    sustained: list[dict[str, Any]] = []
    knee: list[dict[str, Any]] = []
    for emit in emits:
        sustained.append(_run(hosts, emit, seconds, WARM_UP_S))
        CONSOLE.print(_table(sustained))
    for emit in try_emits:
        # A longer emit causes less work.
        most = max((run["hosts"] for run in knee if run["held"]), default=0)
        for size in (size for size in tries if size > most):
            try:
                knee.append(_run(size, emit, try_seconds, TRY_WARM_UP_S))
            except VacancyError as error:
                # The job was so far behind that the table never held the whole fleet.
                CONSOLE.print(f"{size:,} hosts, emit {format_duration(emit)}: {error}")
                break
            CONSOLE.print(_table(knee))
            if not knee[-1]["held"]:
                break
    if saved:
        CONSOLE.print(save("ingest", {"sustained": sustained, "knee": knee}))


def _run(hosts: int, emit: timedelta, seconds: float, warm_up_s: float) -> dict[str, Any]:
    with stack_of(hosts, emit) as stack:
        run = measure(stack, "vacancy.host", hosts, seconds, warm_up_s, stack.watch, caught_up=emit)
    return {"hosts": hosts, "emit": format_duration(emit), "seconds": seconds, "held": held(run, emit), **run}


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Events at 1 Hz a host; seconds from append to committed row")
    for column in ("hosts", "emit", "seconds", "events/s", "rows/s", "p50", "p99", "p99 by thirds", "kept up", "cores"):
        table.add_column(column, justify="right")
    for run in runs:
        cores = sorted(run["cores_busy"].items(), key=lambda part: -part[1])
        table.add_row(
            f"{run['hosts']:,}",
            run["emit"],
            f"{run['seconds']:g}",
            f"{run['events_per_s']:,}",
            f"{run['rows_per_s']:,}",
            f"{run['latency_s']['p50']:.2f}",
            f"{run['latency_s']['p99']:.2f}",
            " ".join(f"{each:.2f}" for each in run["latency_p99_s_of_thirds"]),
            "yes" if run["held"] else "no",
            ", ".join(f"{part} {share:.2f}" for part, share in [*cores[:4], ("others", run["others_cores_busy"])]),
        )
    return table


if __name__ == "__main__":
    main()
