"""An arm on the live stack in real time: the model's fleet reports through Kafka, and claims read the job's table.

It checks the simulated arms: their rows against those that the job makes of the same fleet's events, and their
results against what the same requests come to here. The first seconds of a world, in which nobody asks for anything,
pass at once.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from bench.decisions.reporting import Reporter
from bench.decisions.world import QUIET_S, Integers, Reals, World
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.jobs.local.files import exclusive
from vacancy.jobs.local.stack import Stack
from vacancy.jobs.settings import load_settings
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

REAL_FROM_S = QUIET_S - 60
"""From this second of the world on it passes in real time: a window before the first request."""
_READY_S = 120.0


@contextmanager
def stack() -> Iterator[Stack]:
    """A broker, a database with Vacancy's tables, and the job; no host reports."""
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        directory = Path(name)
        directory.chmod(0o711)  # for PostgreSQL's user
        with exclusive(directory):
            made = Stack(directory, load_settings(None, {"job": {"emit": timedelta(seconds=1)}}), None)
            try:
                for step in (made.prepare, made.start_kafka, made.start_postgres, made.make_tables, made.make_topics):
                    step(lambda _: None)
                made.start_job(lambda _: None)
                yield made
            finally:
                made.stop()


class LiveTable:
    """The job's table of a world, as `table.Table` is a simulated one.

    Attributes:
        rows_off: how far each row's CPU utilization was from what the model's table showed, of all looks.
        late_s: how much the real time was behind, at most.
    """

    def __init__(self, running: Stack, world: World, request: dict[str, Any]) -> None:
        self._world, self._request = world, request
        self._owner: Connection = psycopg2.connect(running.settings.postgres.owner_dsn.get_secret_value())
        self._owner.autocommit = True
        self._events = HostEvents(running.settings.kafka, "bench-decisions")
        self._usage, self._inventory = Encoder(Event.USAGE), Encoder(Event.INVENTORY)
        self._ids = [f"host-{number:05d}" for number in range(world.hosts)]
        self._counters = {name: np.zeros(world.hosts) for name in ("used", "cpu_pressure", "memory_pressure")}
        self._began_s: float | None = None
        self.rows_off: list[Reals] = []
        self.late_s = 0.0

    def close(self) -> None:
        """Ends its connections."""
        self._owner.close()
        self._events.close(10)

    def second(self, reporter: Reporter) -> None:
        """Waits for the second of the world, and sends what its hosts report."""
        world = self._world
        for name, counter in self._counters.items():
            counter += getattr(world, name)
        if world.now < REAL_FROM_S:
            return
        if self._began_s is None:
            self._wait_for_rows(reporter)
            self._began_s = time.monotonic()
        wait_s = self._began_s + world.now - REAL_FROM_S - time.monotonic()
        self.late_s = max(self.late_s, -wait_s)
        time.sleep(max(0.0, wait_s))  # until it is that time of the world; the run is in real time
        for host in reporter.reported.tolist():
            self._send_usage(host, reporter)
        self._events.serve()

    def _wait_for_rows(self, reporter: Reporter) -> None:
        """Sends each host's first events, and waits until the table has all hosts: a new job needs some seconds."""
        for host in range(self._world.hosts):
            self._send_inventory(host)
            self._send_usage(host, reporter)
        until_s = time.monotonic() + _READY_S
        while (rows := self._rows()) < self._world.hosts:
            if time.monotonic() > until_s:
                raise TimeoutError(f"{rows} of {self._world.hosts} hosts have a row after {_READY_S:.0f} s")
            self._events.serve(0.5)

    def _rows(self) -> int:
        with self._owner.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM vacancy.host JOIN vacancy.host_inventory USING (host_id)")
            [(rows,)] = cursor.fetchall()
        return int(rows)

    def write(self, reporter: Reporter) -> None:
        """The job has written; looks how far its rows are from the model's."""
        with self._owner.cursor() as cursor:
            cursor.execute("SELECT host_id, cpu_utilization FROM vacancy.host")
            rows = dict(cursor.fetchall())
        seen = np.array([rows.get(name) for name in self._ids], dtype=np.float64)
        self.rows_off.append(np.abs(seen - reporter.shown.cpu_utilization))

    def decide(self, instances: Sequence[int]) -> Iterator[tuple[int, int | None]]:
        """Claims for instances, one after the other."""
        for instance in instances:
            vcpus, memory_mb, disk_gb = self._world.amounts[instance].tolist()
            request = {**self._request, "vcpus": vcpus, "memory_mb": memory_mb, "disk_gb": disk_gb}
            with self._owner.cursor() as cursor:
                cursor.execute(
                    "SELECT host_id FROM vacancy.claim(ARRAY[%s]::uuid[], %s)",
                    (self._world.consumer(instance), json.dumps(request)),
                )
                [(host_id,)] = cursor.fetchall()
            yield instance, None if host_id is None else self._ids.index(host_id)

    def release(self, instances: Integers) -> None:
        """Gives back what instances have claimed that are gone."""
        if len(instances):
            consumers = [self._world.consumer(instance) for instance in instances.tolist()]
            with self._owner.cursor() as cursor:
                cursor.execute("SELECT * FROM vacancy.release(%s::uuid[])", (consumers,))

    def _send_usage(self, host: int, reporter: Reporter) -> None:
        world = self._world
        capacity, counted = world.capacity[host].tolist(), world.counted[host].tolist()
        cpus = int(world.cpus[host])
        event: dict[str, Any] = {
            "host_id": self._ids[host],
            "boot_id": "boot",
            "seq": world.now,
            "agent_time": round(time.time() * 1000),
            "monotonic_ns": world.now * 10**9,
            "memory_mb_available": int(world.memory_mb_available[host]),
            "disk_gb_available": capacity[2],
            "cpu_count": cpus,
            "cpu_busy_ns": int(self._counters["used"][host] * cpus * 1e9),
            "cpu_pressure_us": int(self._counters["cpu_pressure"][host] * 1e6),
            "memory_pressure_us": int(self._counters["memory_pressure"][host] * 1e6),
            "instances": sum(counted) // 1_000,
            "recent_consumers": list(reporter.recent(host)),
        }
        for name, most, held in zip(("vcpus", "memory_mb", "disk_gb"), capacity, counted, strict=True):
            event |= {f"{name}_capacity": most, f"{name}_allocated": held}
        self._events.send(Event.USAGE, self._ids[host], self._usage.encode(event))

    def _send_inventory(self, host: int) -> None:
        amounts = zip(("VCPU", "MEMORY_MB", "DISK_GB"), self._world.capacity[host].tolist(), strict=True)
        event = {
            "host_id": self._ids[host],
            "boot_id": "boot",
            "agent_time": round(time.time() * 1000),
            "name": self._ids[host],
            "status": "ENABLED",
            "inventories": {name: {"total": total, "max_unit": total} for name, total in amounts},
            "traits": [],
            "reporting_interval_ms": 1000,
            "agent_version": "bench",
            "allocated": {},
            "source": "bench",
        }
        self._events.send(Event.INVENTORY, self._ids[host], self._inventory.encode(event))


@contextmanager
def live_table(world: World, request: dict[str, Any]) -> Iterator[LiveTable]:
    """A live table of a world; the stack is new and removed afterwards."""
    with stack() as running, closing(LiveTable(running, world, request)) as table:
        yield table
