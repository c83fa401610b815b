"""How fresh the table is: from the broker's append of an event to the commit of the row that shows it.

For each fleet and each `job.emit` it starts the local stack, waits until every host is in the table, and then measures
for a while. Both times come from the database alone: `observed_at` of a row is the append time of its event, and the
server keeps the commit time of each row's transaction. A random sample of hosts is read several times a second, so that
every version of their rows is seen, each once. A version that the sink left out, because the host's next event came in
the same `emit`, was never in the table and is not counted.

Right after, on the same stack and topic, the job is ended and the alternative of 2013 (bench/baseline.py) measured the
same way: each has the machine to itself, but for what it reads from, writes to, and the simulator.

    python -m bench.freshness
    python -m bench.freshness --hosts 1000 --emit 100ms --seconds 10
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg2
from confluent_kafka import Consumer, TopicPartition
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from rich.table import Table

from bench import baseline
from bench.common import CONSOLE, OTHERS, cpu_seconds, percentiles, save
from connectors.kafka import client_config
from jobs.files import exclusive
from jobs.options import DurationType
from jobs.processes import Child
from jobs.settings import Settings, load_settings
from jobs.stack import STEPS, Fleet, Stack
from schemas.errors import VacancyError
from schemas.units import format_duration

INTERVAL = timedelta(seconds=1)
SAMPLE_HOSTS = 500
POLL_S = 0.25
"""Well under the time between two events of a host."""
FILL_S = 180.0


@click.command()
@click.option("--hosts", type=click.IntRange(1), multiple=True, default=(1_000, 10_000), show_default=True)
@click.option("--emit", "emits", type=DurationType(), multiple=True, default=("1s", "100ms"), show_default=True)
@click.option("--seconds", default=30.0, show_default=True, help="Length of each measurement.")
@click.option("--warm-up", "warm_up_s", default=45.0, show_default=True, help="Seconds before it, with a full table.")
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
            with _stack(count, emit) as stack:
                run: dict[str, Any] = {
                    "hosts": count,
                    "emit": format_duration(emit),
                    "job": _measure(stack, "vacancy.host", count, seconds, warm_up_s, stack.watch),
                }
                if with_baseline:
                    _end_job()
                    with _baseline(stack, emit) as child:
                        run["baseline"] = _measure(stack, baseline.TABLE, count, seconds, 5, lambda: _check(child))
                    run["p99_to_baseline"] = round(
                        run["job"]["latency_s"]["p99"] / run["baseline"]["latency_s"]["p99"], 2
                    )
            runs.append(run)
            CONSOLE.print(_table(runs))
    if saved:
        CONSOLE.print(save("freshness", {"interval": format_duration(INTERVAL), "seconds": seconds, "runs": runs}))


@contextmanager
def _stack(hosts: int, emit: timedelta) -> Iterator[Stack]:
    """A local stack of its own with a simulated fleet, all parts running."""
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # for PostgreSQL's user
        with exclusive(directory):
            stack = Stack(directory, load_settings(None, {"job": {"emit": emit}}), Fleet(hosts, INTERVAL))
            try:
                with CONSOLE.status(f"{hosts:,} hosts, emit {format_duration(emit)}: starting"):
                    for _, step in STEPS:
                        step(stack, lambda _: None)
                yield stack
            finally:
                stack.stop()


def _measure(
    stack: Stack, table: str, hosts: int, seconds: float, warm_up_s: float, check: Callable[[], object]
) -> dict[str, Any]:
    """Waits until a table holds every host, warms up, and measures for a while."""
    with closing(psycopg2.connect(stack.settings.postgres.owner_dsn.get_secret_value())) as connection:
        connection.autocommit = True
        with CONSOLE.status(f"{table}: filling"):
            _wait_until_full(connection, table, hosts, check)
            time.sleep(warm_up_s)
        with CONSOLE.status(f"{table}: measuring for {seconds:g} s"):
            ids = [row[0] for row in _query(connection, f"SELECT host_id FROM {table}")]
            sample = random.Random(0).sample(sorted(ids), min(SAMPLE_HOSTS, len(ids)))  # noqa: S311  # no secret
            simulator_log = stack.directory / "logs" / "simulate.log"
            log_bytes = simulator_log.stat().st_size
            cpu, events, rows = cpu_seconds(), _events(stack.settings), _rows(connection, table)
            start_s = time.monotonic()
            latencies_s = _latencies(connection, table, sample, seconds)
            elapsed_s = time.monotonic() - start_s
            cpu, events = cpu_seconds(cpu), _events(stack.settings) - events
            written, updated, hot = (now - then for now, then in zip(_rows(connection, table), rows, strict=True))
            complaints = [
                line for line in simulator_log.read_text(encoding="utf-8")[log_bytes:].splitlines() if "cannot" in line
            ]
    others_s = cpu.pop(OTHERS)
    return {
        "latency_s": percentiles(latencies_s),
        "rows_sampled": len(latencies_s),
        "events_per_s": round(events / elapsed_s),
        "rows_per_s": round(written / elapsed_s),
        "hot_share": round(hot / updated, 4) if updated else None,
        "cores_busy": {part: round(cpu_s / elapsed_s, 3) for part, cpu_s in cpu.items()},
        "others_cores_busy": round(others_s / elapsed_s, 2),
        "simulator": complaints[-1] if complaints else "kept up",
    }


def _wait_until_full(connection: Connection, table: str, hosts: int, check: Callable[[], object]) -> None:
    deadline = time.monotonic() + FILL_S
    fresh = f"SELECT count(*) FROM {table} WHERE observed_at > now() - interval '10 s'"
    # Some hosts of a fleet are silent at any time.
    while (count := _query(connection, fresh)[0][0]) < 0.99 * hosts:
        check()
        if time.monotonic() > deadline:
            raise VacancyError(f"after {FILL_S:g} s only {count} of {hosts} hosts are fresh in {table}")
        time.sleep(POLL_S)


def _latencies(connection: Connection, table: str, sample: Sequence[str], seconds: float) -> list[float]:
    """Seconds from append to commit of each version of the sampled hosts' rows that is written from now on."""
    versions = f"SELECT host_id, observed_at, pg_xact_commit_timestamp(xmin) FROM {table} WHERE host_id = ANY(%s)"
    before = {(host_id, observed_at) for host_id, observed_at, _ in _query(connection, versions, sample)}
    committed_at: dict[tuple[str, datetime], datetime] = {}
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(POLL_S)
        for host_id, observed_at, at in _query(connection, versions, sample):
            committed_at.setdefault((host_id, observed_at), at)
    return [(at - version[1]).total_seconds() for version, at in committed_at.items() if version not in before]


def _events(settings: Settings) -> int:
    """How many events the usage topic has taken so far."""
    topic = settings.kafka.usage_topic
    with closing(Consumer(client_config(settings.kafka) | {"group.id": "bench"})) as consumer:
        partitions = consumer.list_topics(topic).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions)


def _rows(connection: Connection, table: str) -> tuple[int, int, int]:
    """How many rows of a table have been written, updated, and updated in place (HOT) so far."""
    counts = (
        "SELECT n_tup_ins + n_tup_upd, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = %s::regclass"
    )
    written, updated, hot = _query(connection, counts, table)[0]
    return written, updated, hot


def _check(child: Child) -> None:
    if not child.running:
        raise VacancyError(child.describe_end())


def _end_job() -> None:
    """Ends the job's process and waits for it; the rest of the stack goes on."""
    (job,) = (child for child in psutil.Process().children() if child.cmdline()[1:5] == ["-m", "jobs", "job", "run"])
    below = job.children(recursive=True)
    job.terminate()
    psutil.wait_procs([job, *below], timeout=60)


@contextmanager
def _baseline(stack: Stack, emit: timedelta) -> Iterator[Child]:
    """The alternative of 2013, running on the stack."""
    with closing(psycopg2.connect(stack.settings.postgres.owner_dsn.get_secret_value())) as connection, connection:
        connection.cursor().execute(baseline.MAKE_TABLE)
    # By its path: children of the stack have no working directory to find this package in.
    command: list[str | Path]
    command = [sys.executable, Path(baseline.__file__), "--config", stack.config_file, "--emit", format_duration(emit)]
    child = Child("baseline", command, directory=stack.directory, log=stack.directory / "logs" / "baseline.log")
    child.start()
    try:
        yield child
    finally:
        child.stop()


def _query(connection: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


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
