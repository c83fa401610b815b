"""How fast the job processes a backlog, what each part of it costs, and what the cost depends on.

The production graph reads a topic to its end and writes rows into PostgreSQL on the same machine. It is compared, in
the same rounds, with:

- the same graph with its rows in Flink's blackhole: the cost of the sink;
- the latter with Flink's own Avro format, which has no dead letters: the cost of safe decoding;
- the plain batch writer of 2013 (bench/baseline.py), and the same job on Quix Streams (bench/peer);
- fleets of 1,000 and 100,000 hosts and windows of 10 s and 300 s, into the blackhole: the cost of an event there.

    python -m bench.catch_up
    python -m bench.catch_up --events 10000000 --rounds 1 --only production --save-as catch_up_10m
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import psutil
import psycopg2
from pydantic import SecretStr
from rich.table import Table

from bench import baseline, peer
from bench.backlog import TIMED_FROM, Record, Run, broker, fill, fleet_events, run_job
from bench.common import CONSOLE, OTHERS, cpu_seconds, postgres_server, save
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import KafkaSettings, PostgresSettings
from vacancy.jobs.flink.mini_cluster import prepare_java
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import SINGLE_OBJECT_HEADER_BYTES, Event, newest
from vacancy.schemas.usage import DECODED_COLUMNS
from vacancy.topology.graph import insert_set, statements
from vacancy.topology.settings import JobSettings

WINDOW = timedelta(seconds=60)
PLAIN = "bench.plain"
"""The topic of 10,000 hosts without the single-object header, which Flink's own format cannot read."""
PYTHON_SHARE = 0.1
"""Share of the events that the Python programs get, since they are slow."""
LIMIT_S = 900.0
END_S = 60.0


@dataclass(frozen=True)
class Case:
    """One way to process a backlog; its ratio is relative to the named case."""

    name: str
    hosts: int
    window: timedelta
    to: str | None = None

    @property
    def topic(self) -> str:
        """The case's topic; each fleet size has one."""
        return f"bench.{self.hosts}"


PRODUCTION = Case("production", 10_000, WINDOW)
BLACKHOLE = Case("into a blackhole", 10_000, WINDOW, "production")
FLINKS_AVRO = Case("Flink's avro format, no dead letters", 10_000, WINDOW, "production")
BATCH_WRITER = Case("a batch writer in Python", 10_000, WINDOW, "production")
QUIX = Case("Quix Streams", 10_000, WINDOW, "production")
FEW = Case("1,000 hosts, window 10 s", 1_000, timedelta(seconds=10))
MANY = Case("100,000 hosts, window 10 s", 100_000, timedelta(seconds=10), FEW.name)
LONG = Case("1,000 hosts, window 300 s", 1_000, timedelta(seconds=300), FEW.name)
CASES = (PRODUCTION, BLACKHOLE, FLINKS_AVRO, BATCH_WRITER, QUIX, FEW, MANY, LONG)


class Setting:
    """The environment of the cases: a broker, a database, topics."""

    def __init__(self, directory: Path, kafka: KafkaSettings, dsn: str, counts: Mapping[str, int]) -> None:
        self._directory = directory
        self._kafka = kafka
        self._dsn = dsn
        self._counts = counts

    def run(self, case: Case) -> Run:
        """Runs a case."""
        settings = JobSettings(window=case.window)
        events = self._counts[case.topic]
        if case is BATCH_WRITER:
            return self._processes(case, events, 1, self._batch_writer)
        if case is QUIX:
            return self._processes(case, events, os.cpu_count() or 1, self._quix)
        if case in (PRODUCTION, FLINKS_AVRO):
            # Rows of the previous run would be newer than all new ones.
            self._execute("TRUNCATE vacancy.host")
            dsn = SecretStr(self._dsn)
            if case is PRODUCTION:
                return run_job(self._kafka, case.topic, events, settings, job_dsn=dsn)
            return run_job(self._kafka, PLAIN, self._counts[PLAIN], settings, job_dsn=dsn, graph=on_flinks_avro)
        return run_job(self._kafka, case.topic, events, settings)

    def _execute(self, statement: str) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statement)

    def _batch_writer(self) -> list[str | Path]:
        self._execute(baseline.MAKE_TABLE)
        dsn = SecretStr(self._dsn)
        settings = Settings().model_copy(
            update={
                "kafka": self._kafka.model_copy(update={"usage_topic": PRODUCTION.topic}),
                "postgres": PostgresSettings(owner_dsn=dsn, job_dsn=dsn, scheduler_dsn=dsn, reader_dsn=dsn),
            }
        )
        file = self._directory / "baseline.toml"
        file.write_text(settings_file.dumps(settings), encoding="utf-8")
        return [sys.executable, baseline.__file__, "--config", file, "--emit", "1s", "--from-start"]

    def _quix(self) -> list[str | Path]:
        self._execute(f"DROP TABLE IF EXISTS {peer.TABLE}")
        schema = self._directory / "usage.avsc"
        schema.write_text(newest(Event.USAGE).text, encoding="utf-8")
        window_ms = round(QUIX.window.total_seconds() * 1000)
        return [
            *(peer.python(), peer.PROGRAM, self._kafka.bootstrap_servers, QUIX.topic),
            *(schema, self._dsn, str(window_ms), "1"),
        ]

    def _processes(self, case: Case, events: int, count: int, prepare: Callable[[], list[str | Path]]) -> Run:
        """Runs processes that print the number of events done, until they have done a share of all."""
        command = prepare()
        share = round(PYTHON_SHARE * events)
        logs = [self._directory / f"{number}.log" for number in range(count)]
        processes = []
        deadline = time.monotonic() + LIMIT_S
        try:
            for log in logs:
                with log.open("wb") as output:
                    processes.append(subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT))
            start: tuple[float, float, int] | None = None
            while True:
                done, now_s = sum(map(_last_number, logs)), time.monotonic()
                if start is None and done >= TIMED_FROM * share:
                    start = now_s, _cpu_seconds(processes), done
                if start is not None and done >= share:
                    timed = done - start[2]
                    return Run(timed / (now_s - start[0]), (_cpu_seconds(processes) - start[1]) / timed * 1e6)
                if now_s > deadline or any(process.poll() is not None for process in processes):
                    raise VacancyError(f"{case.name}: {done} of {share} events; {logs[0].read_text()[-500:]}")
                time.sleep(0.1)
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(END_S)


def _last_number(log: Path) -> int:
    last = log.read_text(encoding="utf-8").rpartition("\n")[0].rpartition("\n")[2]
    return int(last) if last.isdigit() else 0


def _cpu_seconds(processes: list[subprocess.Popen[bytes]]) -> float:
    times = [psutil.Process(process.pid).cpu_times() for process in processes]
    return float(sum(each.user + each.system for each in times))


def on_flinks_avro(environment: Any, settings: JobSettings, edges: list[str]) -> Any:
    """The production graph with another decoder: the usage topic is in Flink's own format, without dead letters."""
    columns = {field["name"]: _sql_type(field["type"]) for field in newest(Event.USAGE).document["fields"]}
    values = {name: f"COALESCE({name}, -1)" if columns[name] == "BIGINT" else name for name in DECODED_COLUMNS}
    values["recent_consumers"] = "'{' || ARRAY_JOIN(recent_consumers, ',') || '}'"
    types = ", ".join(f"{name} {kind}" for name, kind in DECODED_COLUMNS.items())
    for statement in edges:
        if "TABLE usage_topic" in statement:
            start = statement.index("  payload BYTES")
            end = statement.index("  topic AS")
            declared = "".join(f"  {name} {kind},\n" for name, kind in columns.items())
            statement = (
                statement[:start]
                + declared
                + statement[end:].replace("'value.format' = 'raw'", "'value.format' = 'avro'")
            )
        environment.execute_sql(statement)
    decoded = (
        "CREATE TEMPORARY VIEW usage_decoded AS SELECT topic, `partition`, `offset`, append_time,"
        f" CAST(ROW(CAST(NULL AS STRING), {', '.join(values.values())}) AS"
        f" ROW<reason STRING, {types}>) AS event FROM usage_topic"
    )
    dataflow = [
        decoded if "VIEW usage_decoded" in statement else statement
        for statement in statements()
        if "inventory" not in statement and "INSERT INTO dead_letters" not in statement
    ]
    return insert_set(environment, settings, dataflow)


def _sql_type(kind: Any) -> str:
    """Flink's type of a field of the usage event."""
    if isinstance(kind, list):
        return _sql_type(kind[1]).removesuffix(" NOT NULL")
    if isinstance(kind, dict):
        return "ARRAY<STRING NOT NULL> NOT NULL" if kind["type"] == "array" else "TIMESTAMP(3) NOT NULL"
    return {"string": "STRING NOT NULL", "long": "BIGINT NOT NULL", "int": "INT NOT NULL"}[kind]


@click.command()
@click.option("--events", type=click.IntRange(100_000), default=2_000_000, show_default=True, help="Of each topic.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--only", "names", multiple=True, help="Cases, by name.  [default: all]")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
@click.option("--save-as", "name_of_result", default="catch_up", show_default=True, help="Name of the result.")
def main(events: int, rounds: int, names: tuple[str, ...], saved: bool, name_of_result: str) -> None:
    """Measures each case in each round; prints a table, writes a file in bench/results."""
    cases = [case for case in CASES if not names or case.name in names]
    runs: dict[str, list[Run]] = {case.name: [] for case in cases}
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name, postgres_server() as postgres:
        prepare_java(Path(name))
        cpu, start_s = cpu_seconds(), time.monotonic()
        migrate(SecretStr(postgres.owner_dsn))
        with broker(Path(name)) as kafka:
            topics = sorted({case.topic for case in cases} | {PLAIN if FLINKS_AVRO in cases else PRODUCTION.topic})
            with CONSOLE.status(f"filling {len(topics)} topics"):
                counts = fill(kafka, topics, _records(topics, events))
            setting = Setting(Path(name), kafka, postgres.owner_dsn, counts)
            for number in range(rounds):
                for case in cases if number % 2 == 0 else reversed(cases):
                    with CONSOLE.status(f"round {number + 1} of {rounds}: {case.name}"):
                        run = setting.run(case)
                    runs[case.name].append(run)
                    CONSOLE.print(
                        f"{case.name:>40}: {run.events_per_s:>9,.0f} events/s, {run.cpu_s_per_million:.1f} CPU s"
                    )
        others = cpu_seconds(cpu)[OTHERS] / (time.monotonic() - start_s)
    figures = [_figures(case, runs) for case in cases]
    CONSOLE.print(_table(figures))
    if saved:
        CONSOLE.print(save(name_of_result, {"events": events, "others_cores_busy": round(others, 2), "cases": figures}))


def _records(topics: list[str], events: int) -> Iterator[tuple[str, Record]]:
    for hosts in sorted({case.hosts for case in CASES}):
        topic = f"bench.{hosts}"
        for event in fleet_events(hosts, events // hosts) if topic in topics else ():
            yield topic, event
            if hosts == PRODUCTION.hosts and PLAIN in topics:
                yield PLAIN, event._replace(value=event.value[SINGLE_OBJECT_HEADER_BYTES:])


def _figures(case: Case, runs: Mapping[str, list[Run]]) -> dict[str, Any]:
    of_case = runs[case.name]
    figures: dict[str, Any] = {
        "case": case.name,
        "events_per_s": round(statistics.median(run.events_per_s for run in of_case)),
        "events_per_s_of_rounds": [round(run.events_per_s) for run in of_case],
        "cpu_s_per_million": round(statistics.median(run.cpu_s_per_million for run in of_case), 1),
    }
    if case.to and case.to in runs:
        # Ratios are taken within a round, since the machine's speed changes from minute to minute.
        pairs = list(zip(of_case, runs[case.to], strict=True))
        figures["to"] = case.to
        figures["events_per_s_ratio"] = round(statistics.median(a.events_per_s / b.events_per_s for a, b in pairs), 3)
        figures["cpu_ratio"] = round(statistics.median(a.cpu_s_per_million / b.cpu_s_per_million for a, b in pairs), 3)
    return figures


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table(title=f"Through a backlog, {os.cpu_count()} cores")
    for column in ("", "events/s", "CPU s per million", "compared with", "events/s ratio", "CPU ratio"):
        table.add_column(column, justify="right")
    for row in figures:
        table.add_row(
            row["case"],
            f"{row['events_per_s']:,}",
            f"{row['cpu_s_per_million']:.1f}",
            row.get("to", ""),
            *(f"{row[name]:.2f}" if name in row else "" for name in ("events_per_s_ratio", "cpu_ratio")),
        )
    return table


if __name__ == "__main__":
    main()
