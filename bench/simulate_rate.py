"""How many events per second `vacancy simulate` sends on one core, and the cost of an event.

Three runs on one core within about a minute: the simulator at a given rate (30,000/s), the simulator as fast as it can,
and, as the baseline, only producing the same bytes, encoded in advance. Prints JSON.

    python bench/simulate_rate.py > bench/results/simulate_rate.json
"""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import click
import confluent_kafka
from confluent_kafka.admin import AdminClient

from vacancy.connectors.kafka.client import client_config, ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.simulator.fleet import NS_PER_S, Fleet
from vacancy.jobs.simulator.simulation import Outbox, Simulation, Totals, UsageEncoder

HOSTS = 30_000
MAX_QUEUED = 100_000


@click.command()
@click.option("--bootstrap-servers", help="An existing broker, which is not measured.  [default: a new one]")
@click.option("--core", default=0, show_default=True, help="The core to run on.")
@click.option("--seconds", default=15.0, show_default=True, help="Length of each run.")
def main(bootstrap_servers: str | None, core: int, seconds: float) -> None:
    """Prints the rates, the cost of an event and the ratio against the baseline as JSON."""
    with _broker(bootstrap_servers) as servers, _topics(servers) as kafka:
        os.sched_setaffinity(0, {core})
        load_average = os.getloadavg()[0]
        told = _simulate(kafka, NS_PER_S, seconds)
        # A tick of 25 ms stays the unit of work; the requested rate is far higher than possible.
        flat_out = _simulate(kafka, NS_PER_S // 20, seconds)
        baseline = _produce(kafka, seconds)
    result = {
        "benchmark": "simulate_rate",
        "versions": _versions(),
        "cores": os.cpu_count(),
        "cores_used": 1,
        # CPU time of everything else on the machine: the broker, and other programs.
        "load_average_1_min_before": round(load_average, 2),
        "hosts": HOSTS,
        "seconds": seconds,
        "told_30000_per_s": told,
        "flat_out": flat_out,
        "baseline_produce_only": baseline,
        "flat_out_to_baseline": round(flat_out["events_per_s"] / baseline["events_per_s"], 3),
    }
    print(json.dumps(result, indent=2))


def _simulate(kafka: KafkaSettings, interval_ns: int, seconds: float) -> dict[str, Any]:
    """One run of the simulator; it also sends inventories, spread over the run, as after a start."""
    fleet = Fleet(HOSTS, interval_ns, 1, time.time_ns() // 1_000_000, inventory_spread_ns=10 * NS_PER_S)
    simulation = Simulation(fleet, Outbox(kafka, HOSTS * NS_PER_S / interval_ns), kafka)
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    totals = simulation.run(seconds, lambda: False, lambda progress: print(progress, file=sys.stderr))
    return _figures(totals, time.monotonic() - start_s, time.process_time() - start_cpu_s)


def _produce(kafka: KafkaSettings, seconds: float) -> dict[str, Any]:
    """Passes one round of the fleet's events to the client library repeatedly."""
    fleet, encoder = Fleet(HOSTS, NS_PER_S, 1, 0), UsageEncoder()
    ticks = [encoder.messages(fleet.advance(0)) for _ in range(fleet.slices)]
    outbox = Outbox(kafka, HOSTS)
    start_s, start_cpu_s = time.monotonic(), time.process_time()
    turn = 0
    while time.monotonic() - start_s < seconds:
        outbox.send(kafka.usage_topic, ticks[turn % len(ticks)])
        outbox.poll()
        turn += 1
        while outbox.queued > MAX_QUEUED:
            time.sleep(0.001)
            outbox.poll()
    outbox.close(60)
    elapsed_s = time.monotonic() - start_s
    totals = Totals(outbox.acknowledged_of(kafka.usage_topic), 0, outbox.dropped, elapsed_s, 0.0)
    return _figures(totals, elapsed_s, time.process_time() - start_cpu_s)


def _figures(totals: Totals, elapsed_s: float, cpu_s: float) -> dict[str, Any]:
    events = totals.usage + totals.inventory
    return {
        "usage_events": totals.usage,
        "inventory_events": totals.inventory,
        "dropped": totals.dropped,
        "schedule_slipped_s": round(totals.lost_s, 2),
        # Until the last acknowledgement, including the flush.
        "events_per_s": round(events / elapsed_s),
        "cpu_s_per_event": round(cpu_s / events, 8),
        "cores_busy": round(cpu_s / elapsed_s, 3),
    }


@contextmanager
def _broker(bootstrap_servers: str | None) -> Iterator[str]:
    """The given broker, or a temporary one."""
    if bootstrap_servers is not None:
        yield bootstrap_servers
        return
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as directory:
        server = KafkaServer(Path(directory), 0, ensure_jars("kafka"))
        try:
            server.start()
            yield server.bootstrap_servers
        finally:
            server.stop()


@contextmanager
def _topics(servers: str) -> Iterator[KafkaSettings]:
    """Temporary topics."""
    name = f"bench.{uuid.uuid4().hex}"
    topics = {f"{kind}_topic": f"{name}.{kind}" for kind in ("usage", "inventory", "dead_letter")}
    kafka = KafkaSettings.model_validate({"bootstrap_servers": servers, **topics})
    ensure_topics(kafka)
    try:
        yield kafka
    finally:
        admin = AdminClient(client_config(kafka))
        for future in admin.delete_topics(list(topics.values())).values():
            future.result()


def _versions() -> dict[str, str]:
    packages = ("vacancy", "confluent-kafka", "numpy", "pyarrow", "pyruhvro")
    return {
        "python": platform.python_version(),
        "librdkafka": confluent_kafka.libversion()[0],
        **{package: metadata.version(package) for package in packages},
    }


if __name__ == "__main__":
    main()
