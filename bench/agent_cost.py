"""The agent's CPU and memory, compared with a bare producer with psutil and an idle Python with the agent's imports.

All three run at the same time against their own broker, so that other load on the machine affects them equally. CPU is
user and system time from the process's own rusage between the end of a warm-up and the end of the run, as a share of
one core; memory is resident memory at the end. Bytes are the size of an event in the topic's log: for the agent, which
sends each event separately, and for a producer that batches a fleet's events, as a relay would.

    python -m bench.agent_cost
    python -m bench.agent_cost --interval 100ms --no-save
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
from rich.table import Table

from bench.agent_parts import ROLES
from bench.backlog import broker, fill, fleet_events, records_of
from bench.common import CONSOLE, save
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.options import DurationType
from vacancy.schemas.units import format_duration

FLEET_HOSTS, FLEET_ROUNDS = 10_000, 20


@click.command()
@click.option("--interval", type=DurationType(), default="1s", show_default=True)
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(interval: timedelta, seconds: float, saved: bool) -> None:
    """Runs the three; prints a table, writes bench/results/agent_cost.json."""
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name, broker(Path(name)) as kafka:
        # The topic is created first: a producer that finds its topic missing gives up before the broker creates it.
        fill(kafka, ["bench.bare"], ())
        with CONSOLE.status(f"for {seconds:g} s"):
            results = _run_all(kafka, Path(name), interval.total_seconds(), seconds)
        agent_bytes = _bytes_per_event(Path(name), kafka, kafka.usage_topic)
        fleet = list(fleet_events(FLEET_HOSTS, FLEET_ROUNDS))
        fill(kafka, ["bench.fleet"], (("bench.fleet", event) for event in fleet))
        result = {
            "interval": format_duration(interval),
            "seconds": seconds,
            **results,
            "memory_ratio_to_bare_producer": round(
                results["agent"]["rss_mib"] / results["bare producer"]["rss_mib"], 2
            ),
            "log_bytes_per_event": {
                "agent": agent_bytes,
                "fleet, batched": _bytes_per_event(Path(name), kafka, "bench.fleet"),
                "fleet, payload before compression": round(statistics.fmean(len(event.value) for event in fleet), 1),
            },
        }
    CONSOLE.print(_table(result))
    if saved:
        CONSOLE.print(save("agent_cost", result))


def _run_all(kafka: KafkaSettings, directory: Path, interval_s: float, seconds: float) -> dict[str, Any]:
    environment = {**os.environ, "VACANCY_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers}
    children = {
        role: subprocess.Popen(
            [sys.executable, "-m", "bench.agent_parts", role, str(seconds), str(interval_s)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment | {"VACANCY_DATA_DIR": str(directory / role)},
        )
        for role in ROLES
    }
    results: dict[str, Any] = {}
    for role, child in children.items():
        out, log = child.communicate(timeout=seconds + 60)
        if child.returncode:
            sys.exit(f"{role} ended with {child.returncode}: {log.decode()}")
        results[role] = json.loads(out)
    return results


def _bytes_per_event(directory: Path, kafka: KafkaSettings, topic: str) -> float:
    logs = [file for file in directory.rglob("*.log") if file.parent.name.rpartition("-")[0] == topic]
    return round(sum(file.stat().st_size for file in logs) / records_of(kafka, topic), 1)


def _table(result: dict[str, Any]) -> Table:
    table = Table(title=f"An agent, an event each {result['interval']}")
    for column in ("", "CPU, % of a core", "MiB", "switches/s", "bytes an event"):
        table.add_column(column, justify="right")
    sizes = result["log_bytes_per_event"]
    for role in ROLES:
        figures = result[role]
        table.add_row(
            role,
            f"{figures['cpu_percent_of_one_core']:.2f}",
            f"{figures['rss_mib']:.1f}",
            f"{figures['context_switches_per_s']:.1f}",
            f"{sizes[role]:.0f}" if role in sizes else "",
        )
    for name in list(sizes)[1:]:
        table.add_row(name, "", "", "", f"{sizes[name]:.0f}")
    return table


if __name__ == "__main__":
    main()
