"""The agent's CPU, memory and bytes, compared with a bare producer with psutil and an idle Python with its imports.

The agent runs without and with a tolerance. All run at the same time against one broker, so that other load on the
machine affects them equally: on a quiet host, and then beside a program that keeps a core busy by turns, a busy host.
CPU is user and system time from the process's own rusage between the end of a warm-up and the end of the run, as a
share of one core; memory is resident memory at the end. Bytes are the size of an event in the topic's log: for the
agent, which sends each event separately, and for a producer that batches a fleet's events, as a relay would.

    python -m bench.agent_cost
    python -m bench.agent_cost --interval 100ms --no-save
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bench.agent_parts import ROLES
from bench.backlog import broker, fill, fleet_events, records_of
from bench.common import CONSOLE, save
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.options import DurationType
from vacancy.schemas.units import format_duration

FLEET_HOSTS, FLEET_ROUNDS = 10_000, 20
WINDOW = timedelta(seconds=60)
WARM_UP_S = WINDOW.total_seconds() + 5
"""With a tolerance an agent sends each look of its first window."""


@click.command()
@click.option("--interval", type=DurationType(), default="1s", show_default=True)
@click.option("--tolerance", default=0.02, show_default=True)
@click.option("--max-silence", type=DurationType(), default="10s", show_default=True)
@click.option("--seconds", type=click.FloatRange(min=5), default=60.0, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(interval: timedelta, tolerance: float, max_silence: timedelta, seconds: float, saved: bool) -> None:
    """Runs the four twice; prints a table, writes bench/results/agent_cost.json."""
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name, broker(Path(name)) as kafka:
        # The topic is created first: a producer that finds its topic missing gives up before the broker creates it.
        fill(kafka, ["bench.bare"], ())
        runs: dict[str, dict[str, Any]] = {}
        for host in ("quiet", "busy"):
            with CONSOLE.status(f"a {host} host, for {seconds:g} s"), _load() if host == "busy" else nullcontext():
                runs[host] = _run_all(kafka, Path(name), host, interval, tolerance, max_silence, seconds)
        fleet = list(fleet_events(FLEET_HOSTS, FLEET_ROUNDS))
        fill(kafka, ["bench.fleet"], (("bench.fleet", event) for event in fleet))
        quiet = runs["quiet"]
        result = {
            "interval": format_duration(interval),
            "seconds": seconds,
            **quiet,
            "memory_ratio_to_bare_producer": round(quiet["agent"]["rss_mib"] / quiet["bare producer"]["rss_mib"], 2),
            "log_bytes_per_event": {
                "agent": quiet["agent"]["log_bytes_per_event"],
                "fleet, batched": _bytes_per_event(Path(name), kafka, "bench.fleet"),
                "fleet, payload before compression": round(statistics.fmean(len(event.value) for event in fleet), 1),
            },
            "tolerance": tolerance,
            "max_silence": format_duration(max_silence),
            "window": format_duration(WINDOW),
            "busy": runs["busy"],
        }
    CONSOLE.print(_table(result))
    if saved:
        CONSOLE.print(save("agent_cost", result))


def _run_all(
    kafka: KafkaSettings,
    directory: Path,
    host: str,
    interval: timedelta,
    tolerance: float,
    max_silence: timedelta,
    seconds: float,
) -> dict[str, Any]:
    topics = {role: f"bench.{host}.{number}" for number, role in enumerate(ROLES) if role.startswith("agent")}
    for topic in topics.values():
        ensure_topics(kafka.model_copy(update={"usage_topic": topic}))
    children = {}
    for role in ROLES:
        environment = {
            "VACANCY_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
            "VACANCY_KAFKA__USAGE_TOPIC": topics.get(role, "none"),
            "VACANCY_DATA_DIR": str(directory / role),
            "VACANCY_JOB__WINDOW": format_duration(WINDOW),
            "VACANCY_AGENT__MAX_SILENCE": format_duration(max_silence),
            "VACANCY_AGENT__TOLERANCE": str(tolerance if role == "agent with a tolerance" else 0),
        }
        part = ["-m", "bench.agent_parts", role, str(WARM_UP_S), str(seconds), str(interval.total_seconds())]
        children[role] = subprocess.Popen(
            [sys.executable, *part], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment}
        )
    # Two seconds within what the parts measure, at both ends: they do not begin at the same moment.
    time.sleep(WARM_UP_S + 2)
    before = {role: records_of(kafka, topic) for role, topic in topics.items()}
    time.sleep(seconds - 4)
    sent = {role: records_of(kafka, topic) - before[role] for role, topic in topics.items()}
    results: dict[str, Any] = {}
    for role, child in children.items():
        out, log = child.communicate(timeout=seconds + 60)
        if child.returncode:
            sys.exit(f"{role} ended with {child.returncode}: {log.decode()}")
        results[role] = json.loads(out)
    for role, topic in topics.items():
        bytes_per_event = _bytes_per_event(directory, kafka, topic)
        events_per_s = sent[role] / (seconds - 4)
        results[role] |= {
            "events_per_s": round(events_per_s, 3),
            "log_bytes_per_event": bytes_per_event,
            "log_bytes_per_s": round(events_per_s * bytes_per_event, 1),
        }
    return results


@contextmanager
def _load() -> Iterator[None]:
    """A program that keeps a core busy for a part of the time, which changes each few seconds."""
    process = subprocess.Popen([sys.executable, "-c", "from bench.agent_cost import be_busy; be_busy()"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def be_busy() -> None:
    """Runs until it is killed."""
    chance = random.Random(0)  # noqa: S311  # no secret
    while True:
        share, end_s = chance.random(), time.monotonic() + chance.uniform(1, 20)
        while time.monotonic() < end_s:
            busy_s = time.monotonic() + share / 10
            while time.monotonic() < busy_s:
                pass
            time.sleep((1 - share) / 10)


def _bytes_per_event(directory: Path, kafka: KafkaSettings, topic: str) -> float:
    logs = [file for file in directory.rglob("*.log") if file.parent.name.rpartition("-")[0] == topic]
    return round(sum(file.stat().st_size for file in logs) / records_of(kafka, topic), 1)


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"An agent, a look each {result['interval']}")
    for column in ("host", "", "CPU, % of a core", "MiB", "switches/s", "events/s", "bytes an event", "bytes/s"):
        table.add_column(column, justify="right")
    for host, runs in (("quiet", result), ("busy", result["busy"])):
        for role in ROLES:
            figures = runs[role]
            table.add_row(
                host,
                role,
                f"{figures['cpu_percent_of_one_core']:.2f}",
                f"{figures['rss_mib']:.1f}",
                f"{figures['context_switches_per_s']:.1f}",
                *(
                    f"{figures[name]:.{places}f}" if name in figures else ""
                    for name, places in (("events_per_s", 2), ("log_bytes_per_event", 0), ("log_bytes_per_s", 0))
                ),
            )
    for name in list(result["log_bytes_per_event"])[1:]:
        table.add_row("", name, "", "", "", "", f"{result['log_bytes_per_event'][name]:.0f}")
    return table


if __name__ == "__main__":
    main()
