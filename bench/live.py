"""Shared by the benchmarks of a running system: the local stack with a simulated fleet, and how fresh its table is.

Both times of a row come from the database alone: `observed_at` is the append time of its event, and the server keeps
the commit time of each row's transaction. A random sample of hosts is read several times a second, so that every
version of their rows is seen, each once. The sink skips a version if the host's next event comes in the same `emit`;
such a version was never in the table and is not counted.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from bench.backlog import records_of
from bench.common import CONSOLE, OTHERS, cpu_seconds, percentiles
from vacancy.jobs.local.files import exclusive
from vacancy.jobs.local.stack import STEPS, Fleet, Stack
from vacancy.jobs.settings import load_settings
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration

T = TypeVar("T")
INTERVAL = timedelta(seconds=1)
SAMPLE_HOSTS = 500
POLL_S = 0.25
"""Much shorter than the time between two events of a host."""
SILENCE = timedelta(seconds=10)
"""Far longer than a host that sends each look is silent."""
FILL_S = 180.0
CATCH_UP_S = 120.0


@contextmanager
def stack_of(hosts: int, emit: timedelta, settings: Mapping[str, Any] | None = None) -> Iterator[Stack]:
    """A new local stack with a simulated fleet, all parts running; with 0 hosts there is no fleet, and no fleet page.

    Args:
        hosts: of the fleet.
        emit: the job's.
        settings: other sections.
    """
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # for PostgreSQL's user
        with exclusive(directory):
            of_all = load_settings(None, {"job": {"emit": emit}, **(settings or {})})
            stack = Stack(directory, of_all, Fleet(hosts, INTERVAL) if hosts else None)
            try:
                with CONSOLE.status(f"{hosts:,} hosts, emit {format_duration(emit)}: starting"):
                    for name_, step in STEPS:
                        if hosts or name_ != "Fleet page":
                            step(stack, lambda _: None)
                yield stack
            finally:
                stack.stop()


def with_tolerance(tolerance: float, max_silence: timedelta) -> dict[str, Any]:
    """Settings with which hosts send only what is new; with a tolerance of 0 none."""
    agent = {"tolerance": tolerance, "max_silence": max_silence}
    return {"agent": agent, "scheduler": {"max_age": 2 * max_silence}} if tolerance else {}


def measure(
    stack: Stack,
    table: str,
    hosts: int,
    seconds: float,
    warm_up_s: float,
    check: Callable[[], object],
    *,
    caught_up: timedelta | None = None,
    silence: timedelta = SILENCE,
) -> dict[str, Any]:
    """Waits until a table holds every host, warms up, and measures for a while.

    With ``caught_up``, the time between two rows of a host, it also waits, up to a limit, until the events that came
    during the start are processed. Hosts are silent for ``silence`` at most.
    """
    with closing(psycopg2.connect(stack.settings.postgres.owner_dsn.get_secret_value())) as connection:
        connection.autocommit = True
        with CONSOLE.status(f"{table}: filling"):
            wait_until_full(connection, table, hosts, check, silence)
            time.sleep(warm_up_s)
            if caught_up is not None:
                wait_until_caught_up(connection, table, hosts, caught_up, check)
        with CONSOLE.status(f"{table}: measuring for {seconds:g} s"):
            ids = [row[0] for row in _query(connection, f"SELECT host_id FROM {table}")]
            sample = random.Random(0).sample(sorted(ids), min(SAMPLE_HOSTS, len(ids)))  # noqa: S311  # no secret
            return counted(stack, connection, table, lambda: (_latencies(connection, table, sample, seconds), None))[0]


def counted(
    stack: Stack, connection: Connection, table: str, watch: Callable[[], tuple[list[float], T]]
) -> tuple[dict[str, Any], T]:
    """What the stack does and uses while rows are watched, with their latencies; and what else was seen.

    Args:
        stack: with a fleet, whose simulator has a log.
        connection: in autocommit mode.
        table: of the rows.
        watch: takes as long as is measured; seconds from append to commit of the rows that it saw, and whatever else.
    """
    kafka, log = stack.settings.kafka, stack.directory / "logs" / "simulate.log"
    size = log.stat().st_size
    cpu, events, rows = cpu_seconds(), records_of(kafka, kafka.usage_topic), rows_of(connection, table)
    start_s = time.monotonic()
    latencies_s, seen = watch()
    elapsed_s = time.monotonic() - start_s
    cpu, events = cpu_seconds(cpu), records_of(kafka, kafka.usage_topic) - events
    written, updated, hot = (now - then for now, then in zip(rows_of(connection, table), rows, strict=True))
    complaints = [line for line in log.read_text(encoding="utf-8")[size:].splitlines() if "cannot" in line]
    others_s = cpu.pop(OTHERS)
    return {
        "latency_s": percentiles(latencies_s),
        "latency_p99_s_of_thirds": [percentiles(part)["p99"] for part in thirds(latencies_s)],
        "rows_sampled": len(latencies_s),
        "events_per_s": round(events / elapsed_s),
        "rows_per_s": round(written / elapsed_s),
        "hot_share": round(hot / updated, 4) if updated else None,
        "cores_busy": {part: round(cpu_s / elapsed_s, 3) for part, cpu_s in cpu.items()},
        "others_cores_busy": round(others_s / elapsed_s, 2),
        "simulator": complaints[-1] if complaints else "kept up",
    }, seen


def wait_until_full(
    connection: Connection, table: str, hosts: int, check: Callable[[], object], silence: timedelta = SILENCE
) -> None:
    """Waits until nearly every host's row is fresh: not older than hosts are silent at most.

    Raises:
        VacancyError: that took too long. A job that is behind by more than the silence has no fresh row at all.
    """
    began, cpu = time.monotonic(), cpu_seconds()
    deadline = began + FILL_S
    fresh = f"SELECT count(*) FROM {table} WHERE observed_at > now() - %s"
    # Some hosts of a fleet are silent at any time.
    while (count := _query(connection, fresh, silence)[0][0]) < 0.99 * hosts:
        check()
        if time.monotonic() > deadline:
            rows, age_s = _query(
                connection, f"SELECT count(*), date_part('epoch', now() - max(observed_at)) FROM {table}"
            )[0]
            others = cpu_seconds(cpu)[OTHERS] / (time.monotonic() - began)
            raise VacancyError(
                f"after {FILL_S:g} s only {count} of {hosts} hosts are fresh in {table}; its newest of {rows} rows is"
                f" {age_s or 0:.0f} s old; other programs took {others:.2f} of {os.cpu_count()} cores"
            )
        time.sleep(POLL_S)


def wait_until_caught_up(
    connection: Connection, table: str, hosts: int, emit: timedelta, check: Callable[[], object]
) -> None:
    """Waits until nearly every row is as fresh as possible, or the time limit is over."""
    deadline = time.monotonic() + CATCH_UP_S
    fresh = f"SELECT count(*) FROM {table} WHERE observed_at > now() - %s"
    while time.monotonic() < deadline:
        if _query(connection, fresh, emit + 2 * INTERVAL)[0][0] >= 0.98 * hosts:
            return
        check()
        time.sleep(POLL_S)


def _latencies(connection: Connection, table: str, sample: Sequence[str], seconds: float) -> list[float]:
    """Seconds from append to commit, for each new version of the sampled hosts' rows."""
    versions = f"SELECT host_id, observed_at, pg_xact_commit_timestamp(xmin) FROM {table} WHERE host_id = ANY(%s)"
    before = {(host_id, observed_at) for host_id, observed_at, _ in _query(connection, versions, sample)}
    committed_at: dict[tuple[str, datetime], datetime] = {}
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        time.sleep(POLL_S)
        for host_id, observed_at, at in _query(connection, versions, sample):
            committed_at.setdefault((host_id, observed_at), at)
    return [(at - version[1]).total_seconds() for version, at in committed_at.items() if version not in before]


def thirds(values: Sequence[float]) -> list[Sequence[float]]:
    """The first, second and last third of some values."""
    size = len(values) // 3
    return [values[:size], values[size:-size], values[-size:]]


def held(run: Mapping[str, Any], emit: timedelta) -> bool:
    """Whether the job kept up in a measurement.

    There was no backlog at the end: rows came before their hosts' next row was due. And no backlog grew: the latency
    rose by less than a quarter of that time, the amount by which garbage collections and checkpoints move a p99.
    """
    first_s, _, last_s = run["latency_p99_s_of_thirds"]
    due_s = (emit + INTERVAL).total_seconds()
    return bool(last_s <= due_s and last_s - first_s < 0.25 * due_s) and run["simulator"] == "kept up"


def rows_of(connection: Connection, table: str) -> tuple[int, int, int]:
    """The numbers of rows of a table written, updated, and updated in place (HOT) so far."""
    counts = (
        "SELECT n_tup_ins + n_tup_upd, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = %s::regclass"
    )
    written, updated, hot = _query(connection, counts, table)[0]
    return written, updated, hot


def _query(connection: Connection, statement: str, *values: object) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())
