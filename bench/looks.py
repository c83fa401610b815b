"""What the whole system does with hosts that look at themselves each second and send what is new.

For each tolerance a fleet runs on a stack of its own: how fresh rows are, how soon a change of instances is in the
table, what each part uses, and how far rows are off what the hosts see at that moment. The simulator writes down each
look of some hosts, whether it is sent or not (bench.witness); once a second their rows are read. The truth is the row
that sending each look would give, at the looks of the last two seconds before a row is read, since no row can be newer
than its event.

    python -m bench.looks --hosts 100000
    python -m bench.looks --hosts 1000000 --tolerance 0.05 --checkpoint-interval 1min --begin-within 900
    python -m bench.looks --hosts 2000 --tolerance 0.02 --seconds 20 --warm-up 40 --no-save
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from rich.table import Table

from bench.common import CONSOLE, memory_mib, percentiles, save
from bench.live import POLL_S, SAMPLE_HOSTS, counted, held, rows_of, stack_of
from vacancy.jobs.local import postgres_server
from vacancy.jobs.local.stack import Stack
from vacancy.jobs.options import DurationType
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.shown import LEAST_BYTES_PER_S, MEASURED, Look, Window
from vacancy.schemas.units import format_duration
from vacancy.schemas.usage import COUNTERS

EMIT = timedelta(seconds=1)
WINDOW = timedelta(seconds=60)
FRESH_S = 2.0
"""A row is compared with the looks of so long before it was read: it cannot show those after its event."""
SLIPPED_S = 1.0
"""A simulator that is late makes its nodes' clocks stand still; the row is then of a shorter window than the truth."""
FIGURES = (*(counter.rate for counter in COUNTERS), *MEASURED)
SERVER = {"shared_buffers": "1GB", "max_wal_size": "8GB"}
"""The table of a million hosts, and no checkpoints because of the WAL alone."""
_NS_PER_S = 1_000_000_000


class Reading(NamedTuple):
    """A host's row as it was read, or as a look makes it.

    Attributes:
        at_s: seconds since 1970.
        clock_s: the node's own clock at a look.
        host_id: the host.
        instances: on it.
        figures: in the order of FIGURES, amounts by their capacity.
    """

    at_s: float
    clock_s: float
    host_id: str
    instances: int
    figures: Sequence[float | None]


@click.command()
@click.option("--hosts", type=click.IntRange(1, 1_000_000), default=100_000, show_default=True)
@click.option("--tolerance", "tolerances", type=float, multiple=True, default=(0.02, 0.0), show_default=True)
@click.option("--max-silence", type=DurationType(), default="30s", show_default=True)
@click.option("--checkpoint-interval", type=DurationType(), default="10s", show_default=True, help="The job's.")
@click.option("--seconds", default=180.0, show_default=True, help="Length of the measurement.")
@click.option("--warm-up", default=90.0, show_default=True, help="Seconds before it, once all hosts have a row.")
@click.option("--begin-within", default=180.0, show_default=True, help="Most seconds until all hosts have a row.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(
    hosts: int,
    tolerances: Sequence[float],
    max_silence: timedelta,
    checkpoint_interval: timedelta,
    seconds: float,
    warm_up: float,
    begin_within: float,
    saved: bool,
) -> None:
    """Measures each tolerance; prints a table, writes bench/results/looks_HOSTS.json."""
    runs: list[dict[str, Any]] = []
    postgres_server.OPTIONS |= SERVER
    for tolerance in tolerances:
        try:
            runs.append(_run(hosts, tolerance, max_silence, checkpoint_interval, seconds, warm_up, begin_within))
        except VacancyError as error:
            runs.append({"tolerance": tolerance, "held": False, "ended": str(error)})
        CONSOLE.print(_table(hosts, runs))
        CONSOLE.print_json(data=runs[-1])
        if saved:
            what = {
                "hosts": hosts,
                "max_silence": format_duration(max_silence),
                "window": format_duration(WINDOW),
                "checkpoint_interval": format_duration(checkpoint_interval),
            }
            CONSOLE.print(save(f"looks_{hosts}", {**what, "runs": runs}))


def _run(
    hosts: int,
    tolerance: float,
    max_silence: timedelta,
    checkpoint_interval: timedelta,
    seconds: float,
    warm_up_s: float,
    begin_within_s: float,
) -> dict[str, Any]:
    settings = {
        "job": {"emit": EMIT, "window": WINDOW, "checkpoint_interval": checkpoint_interval},
        "agent": {"tolerance": tolerance, "max_silence": max_silence, "inventory_interval": "1 h"},
        "scheduler": {"max_age": 2 * max_silence},
    }
    with stack_of(0, EMIT, settings) as stack:
        witnessed = stack.directory / "looks"
        dsn = stack.settings.postgres.owner_dsn.get_secret_value()
        with _fleet(stack, hosts, witnessed), closing(psycopg2.connect(dsn)) as connection:
            connection.autocommit = True
            began_s = time.monotonic()
            with CONSOLE.status(f"{hosts:,} hosts, tolerance {tolerance:g}: beginning"):
                sample = _sample(witnessed, begin_within_s)
                beginning = _begin(connection, sample, hosts, begin_within_s, stack)
                begun_s = time.monotonic() - began_s
                written, updated, _ = rows_of(connection, "vacancy.host")
                time.sleep(warm_up_s)
            with CONSOLE.status(f"{hosts:,} hosts, tolerance {tolerance:g}: measuring for {seconds:g} s"):
                measured, readings = _measure(connection, stack, sample, seconds)
        looks = _looks(witnessed, readings[0].at_s - 2 * WINDOW.total_seconds())
    return {
        "tolerance": tolerance,
        "seconds": seconds,
        "all_hosts_after_s": round(begun_s, 1),
        "hosts_with_a_row": written - updated,
        "beginning": beginning,
        "held": held(measured, EMIT),
        **measured,
        "events_per_s_a_host": round(measured["events_per_s"] / hosts, 4),
        "off": _off(looks, readings, tolerance),
    }


@contextmanager
def _fleet(stack: Stack, hosts: int, witnessed: Path) -> Iterator[None]:
    """The simulator, with the looks of some hosts written to a file."""
    command = [sys.executable, "-m", "bench.witness", str(hosts), str(stack.config_file), str(SAMPLE_HOSTS)]
    with (stack.directory / "logs" / "simulate.log").open("w") as log:
        process = subprocess.Popen([*command, str(witnessed)], stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(60)


def _sample(witnessed: Path, within_s: float) -> list[str]:
    """The hosts whose looks are written down; waits until the simulator has said which."""
    deadline = time.monotonic() + within_s
    while not (witnessed.exists() and (text := witnessed.read_text(encoding="utf-8")).count("\n")):
        if time.monotonic() > deadline:
            raise VacancyError(f"the simulator has not begun after {within_s:g} s; its log is {witnessed.parent}/logs")
        time.sleep(1.0)
    sample: list[str] = json.loads(text.splitlines()[0])
    return sample


def _begin(
    connection: Connection, sample: Sequence[str], hosts: int, within_s: float, stack: Stack
) -> list[dict[str, Any]]:
    """Waits until nearly all hosts have a row, or for a time; how many had one each few seconds, how late rows were."""
    deadline = time.monotonic() + within_s
    inserted = "SELECT n_tup_ins FROM pg_stat_user_tables WHERE relid = 'vacancy.host'::regclass"
    late = (
        "SELECT extract(epoch FROM pg_xact_commit_timestamp(xmin) - observed_at)::float8 FROM vacancy.host"
        " WHERE host_id = ANY(%s) AND pg_xact_commit_timestamp(xmin) > now() - interval '5 s'"
    )
    steps: list[dict[str, Any]] = []
    while (count := _query(connection, inserted)[0][0]) < 0.98 * hosts:
        stack.watch()
        if time.monotonic() > deadline:
            break  # it is measured as it is
        if lags_s := [row[0] for row in _query(connection, late, sample)]:
            steps.append({"hosts": count, "p99_s": percentiles(lags_s)["p99"], "rows_sampled": len(lags_s)})
        time.sleep(5.0)
    return steps


def _measure(
    connection: Connection, stack: Stack, sample: Sequence[str], seconds: float
) -> tuple[dict[str, Any], list[Reading]]:
    measured, (changes_s, readings) = counted(
        stack, connection, "vacancy.host", lambda: _watch(connection, sample, seconds)
    )
    stack.watch()
    return {
        **measured,
        "instance_changes_s": percentiles(changes_s) if changes_s else None,
        "instance_changes_sampled": len(changes_s),
        "memory_mib": memory_mib(),
    }, readings


def _watch(
    connection: Connection, sample: Sequence[str], seconds: float
) -> tuple[list[float], tuple[list[float], list[Reading]]]:
    """Watches rows: seconds from append to commit of each version and of those with other instances, and readings."""
    shares = (f"{name}::float8 / greatest(1, {capacity})" for name, capacity in MEASURED.items())
    columns = ", ".join([*(counter.rate for counter in COUNTERS), *shares])
    statement = (
        "SELECT host_id, observed_at, pg_xact_commit_timestamp(xmin), instances,"
        f" extract(epoch FROM clock_timestamp())::float8, {columns} FROM vacancy.host WHERE host_id = ANY(%s)"
    )
    before = {(row[0], row[1]): row[3] for row in _query(connection, statement, sample)}
    instances = {host_id: count for (host_id, _), count in before.items()}
    seen: set[tuple[str, datetime]] = set(before)
    latencies_s, changes_s, readings = [], [], []
    end_s = time.monotonic() + seconds
    read_s = 0.0
    while (now_s := time.monotonic()) < end_s:
        rows = _query(connection, statement, sample)
        for host_id, observed_at, committed_at, count, _, *_ in rows:
            if (host_id, observed_at) not in seen:
                seen.add((host_id, observed_at))
                latencies_s.append((committed_at - observed_at).total_seconds())
                if count != instances.get(host_id, count):
                    changes_s.append(latencies_s[-1])
                instances[host_id] = count
        if now_s - read_s >= 1.0:
            read_s = now_s
            readings += [Reading(at_s, 0.0, host_id, count, figures) for host_id, _, _, count, at_s, *figures in rows]
        time.sleep(POLL_S)
    return latencies_s, (changes_s, readings)


def _lines(file: Path) -> Iterator[tuple[float, dict[str, Any]]]:
    with file.open(encoding="utf-8") as lines:
        next(lines)  # the ids
        for line in lines:
            if line.endswith("\n"):  # the last one may be half written
                at_s, look = json.loads(line)
                yield at_s, look


def _looks(file: Path, since_s: float) -> dict[str, list[Reading]]:
    """What each host's row would show if each look were sent, at each look since a time, in order."""
    window_ns = int(WINDOW.total_seconds()) * _NS_PER_S
    windows: dict[str, Window] = defaultdict(lambda: Window(window_ns))
    boots: dict[str, str] = {}
    found: dict[str, list[Reading]] = defaultdict(list)
    for at_s, look in _lines(file):
        host_id = look["host_id"]
        window = windows[host_id]
        if boots.get(host_id) != look["boot_id"]:
            boots[host_id] = look["boot_id"]
            window.clear()
        window.add(Look.of(look))
        if at_s < since_s:
            continue
        scaled = [look[name] / max(1, look[capacity]) for name, capacity in MEASURED.items()]
        clock_s = look["monotonic_ns"] / _NS_PER_S
        found[host_id].append(Reading(at_s, clock_s, host_id, look["instances"], [*window.rates(), *scaled]))
    return found


def _off(looks: dict[str, list[Reading]], readings: Sequence[Reading], tolerance: float) -> dict[str, Any]:
    """Quantiles of how far each figure is off, as its tolerance is counted, and how often the instances were."""
    beyond: Counter[str] = Counter()
    off: dict[str, list[float]] = {name: [] for name in FIGURES}
    wrong = late = 0
    times = {host_id: [look.at_s for look in found] for host_id, found in looks.items()}
    for reading in readings:
        of_host = looks[reading.host_id]
        seen_s = times.get(reading.host_id, [])
        end = bisect_right(seen_s, reading.at_s)
        begin = bisect_right(seen_s, reading.at_s - FRESH_S)
        if begin == end:
            continue  # the host does not look at itself
        window = of_host[max(0, end - round(WINDOW.total_seconds())) : end]
        if (window[-1].at_s - window[0].at_s) - (window[-1].clock_s - window[0].clock_s) > SLIPPED_S:
            late += 1
            continue
        wrong += all(look.instances != reading.instances for look in of_host[begin:end])
        for number, name in enumerate(FIGURES):
            true = [look.figures[number] for look in of_host[begin:end]]
            largest = max(look.figures[number] or 0.0 for look in window)
            scale = max(LEAST_BYTES_PER_S, largest) if name.endswith("_bytes_per_s") else 1.0
            off[name].append(min(_apart(reading.figures[number], each) / scale for each in true))
            beyond[name] += off[name][-1] > tolerance + 1e-6
    quantiles = {
        name: [round(float(value), 4) for value in np.quantile(values or [0.0], (0.5, 0.99, 1))]
        for name, values in off.items()
    }
    return {
        "rows_read": len(off[FIGURES[0]]),
        "rows_read_while_the_simulator_was_late": late,
        "wrong_instances": wrong,
        "beyond_tolerance": dict(beyond),
        "p50_p99_most": quantiles,
    }


def _apart(shown: float | None, true: float | None) -> float:
    if shown is None or true is None:
        return 0.0 if shown is true else 1.0
    return abs(shown - true)


def _query(connection: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def _table(hosts: int, runs: Sequence[dict[str, Any]]) -> Table:
    table = Table(title=f"{hosts:,} hosts looked at each second; seconds from append to committed row")
    for column in (
        "tolerance",
        "events/s",
        "p50",
        "p99",
        "p99 by thirds",
        "instances p99",
        "held",
        "off, most",
        "cores",
    ):
        table.add_column(column, justify="right")
    for run in runs:
        if "ended" in run:
            table.add_row(f"{run['tolerance']:g}", run["ended"])
            continue
        cores = sorted(run["cores_busy"].items(), key=lambda part: -part[1])
        most = max(quantiles[2] for quantiles in run["off"]["p50_p99_most"].values())
        table.add_row(
            f"{run['tolerance']:g}",
            f"{run['events_per_s']:,}",
            f"{run['latency_s']['p50']:.2f}",
            f"{run['latency_s']['p99']:.2f}",
            " ".join(f"{each:.2f}" for each in run["latency_p99_s_of_thirds"]),
            f"{run['instance_changes_s']['p99']:.2f}" if run["instance_changes_s"] else "",
            "yes" if run["held"] else "no",
            f"{most:.4f}",
            ", ".join(f"{part} {share:.2f}" for part, share in [*cores[:4], ("others", run["others_cores_busy"])]),
        )
    return table


if __name__ == "__main__":
    main()
