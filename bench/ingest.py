"""How many events a second the whole system takes, at 1 Hz a host, and how long it keeps that up.

For each emit a long run of one fleet: the lag must stay flat. Then, with an emit that makes a row of each event and
with a longer one, more and more hosts come to a running system, until it does not keep up with them: events wait longer
at the end of a run than at its start.
Simulator, broker, job and database share the machine; `cores_busy` says who takes what.

    python -m bench.ingest
    python -m bench.ingest --emit 1s --seconds 60 --step 15000 --step-seconds 30 --no-save
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import click
from rich.table import Table

from bench.common import CONSOLE, save
from bench.live import held, measure, more_hosts, stack_of
from jobs.options import DurationType
from jobs.stack import Stack
from schemas.units import format_duration

WARM_UP_S = 150.0
"""Java compiles what is hot; under load that takes it minutes."""
SETTLE_S = 30.0
"""After more hosts have come."""
MOST_HOSTS = 200_000


@click.command()
@click.option("--hosts", type=click.IntRange(1), default=30_000, show_default=True, help="Of the long runs.")
@click.option("--emit", "emits", type=DurationType(), multiple=True, default=("1s", "100ms"), show_default=True)
@click.option("--seconds", default=600.0, show_default=True, help="Length of each long run.")
@click.option("--step", type=click.IntRange(1), default=15_000, show_default=True, help="Hosts that come at a time.")
@click.option("--step-emit", "step_emits", type=DurationType(), multiple=True, default=("1s", "5s"), show_default=True)
@click.option("--step-seconds", default=60.0, show_default=True, help="Length of the run with each.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(
    hosts: int,
    emits: Sequence[timedelta],
    seconds: float,
    step: int,
    step_emits: Sequence[timedelta],
    step_seconds: float,
    saved: bool,
) -> None:
    """Measures; prints a table, writes bench/results/ingest.json."""
    sustained: list[dict[str, Any]] = []
    knee: list[dict[str, Any]] = []
    for emit in dict.fromkeys([*emits, *step_emits]):
        with stack_of(hosts, emit) as stack:
            warm_up_s = WARM_UP_S
            if emit in emits:
                warm_up_s = SETTLE_S
                sustained.append(_run(stack, hosts, emit, seconds, WARM_UP_S))
                CONSOLE.print(_table([*sustained, *knee]))
            for run in _steps(stack, hosts, emit, step, step_seconds, warm_up_s) if emit in step_emits else ():
                knee.append(run)
                CONSOLE.print(_table([*sustained, *knee]))
    if saved:
        CONSOLE.print(save("ingest", {"sustained": sustained, "knee": knee}))


def _steps(
    stack: Stack, hosts: int, emit: timedelta, step: int, seconds: float, warm_up_s: float
) -> Iterator[dict[str, Any]]:
    """Runs with more and more hosts; the last one is not held."""
    with ExitStack() as fleets:
        for number, count in enumerate(range(hosts + step, MOST_HOSTS, step), 1):
            fleets.enter_context(more_hosts(stack, step, number))
            run = _run(stack, count, emit, seconds, warm_up_s if number == 1 else SETTLE_S)
            yield run
            if not run["held"]:
                return


def _run(stack: Stack, hosts: int, emit: timedelta, seconds: float, warm_up_s: float) -> dict[str, Any]:
    run = measure(stack, "vacancy.host", hosts, seconds, warm_up_s, stack.watch)
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
