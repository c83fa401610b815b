"""The real table and the real claims: rows as the job's sink writes them, decisions by `vacancy.claim`.

Time is simulated: before each batch of decisions every row is written with an `observed_at` of the server's clock
less the age that the row has in the simulated time. Claims end as they do in production: settled by the row that
lists their consumer, or released.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import Any

import numpy as np
import psycopg2
from psycopg2.errors import LockNotAvailable, SerializationFailure
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extras import execute_values
from pydantic import SecretStr

from bench.decisions.reporting import Reporter
from bench.decisions.traces import KEPT_A_STEP, STEP_S
from bench.decisions.world import Integers, World
from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.local.postgres_server import PostgresServer

_WRITE = """
UPDATE vacancy.host AS h SET
  observed_at = statement_timestamp() - r.age * interval '1 second',
  window_end = statement_timestamp() - r.age * interval '1 second',
  vcpus_free = r.vcpus, vcpus_free_min = r.vcpus,
  memory_mb_free = r.memory_mb, memory_mb_free_min = r.memory_mb,
  disk_gb_free = r.disk_gb, disk_gb_free_min = r.disk_gb,
  memory_mb_available = r.available, cpu_utilization = r.cpu, cpu_pressure = r.pressure,
  memory_pressure = r.memory_pressure,
  recent_consumers = r.consumers::uuid[]
FROM unnest(%s::text[], %s::float8[], %s::bigint[], %s::bigint[], %s::bigint[], %s::bigint[],
  %s::float8[], %s::float8[], %s::float8[], %s::text[])
  AS r (host_id, age, vcpus, memory_mb, disk_gb, available, cpu, pressure, memory_pressure, consumers)
WHERE h.host_id = r.host_id
"""


class Table:
    """A database with one row a host of a world.

    Args:
        connections: a session for each scheduler; in a round each claims once, and none sees what the others claim.
        request: what all requests have beside their amounts.
        measured: whether rows say what is measured; otherwise nothing but promises.
        counted: whether claims in flight count.
        shrunk: whether a figure counts as nearer to the fleet's mean by what its age has changed of it: by the traces
            the part that is drawn anew each step. A rule that claims do not have; on rows it comes to the same.
    """

    def __init__(
        self,
        connections: Sequence[Connection],
        world: World,
        request: dict[str, Any],
        *,
        measured: bool = True,
        counted: bool = True,
        shrunk: bool = False,
    ) -> None:
        self._connections, self._world, self._request = connections, world, request
        self._measured, self._counted = measured, counted
        self._shrunk = shrunk
        self._ids = [f"host-{number:05d}" for number in range(world.hosts)]
        self._number = {name: number for number, name in enumerate(self._ids)}
        self._released: list[str] = []
        self._in_flight: set[int] = set()
        self._fill()

    def _fill(self) -> None:
        inventories, usages = [], []
        for name, capacity in zip(self._ids, self._world.capacity.tolist(), strict=True):
            units = {
                unit: {"total": total, "min_unit": 1, "max_unit": total, "step_size": 1}
                for unit, total in zip(("VCPU", "MEMORY_MB", "DISK_GB"), capacity, strict=True)
            }
            inventories.append((name, name, json.dumps(units)))
            usages.append((name, *(amount for amount in capacity for _ in range(3)), capacity[1], capacity[2]))
        with self._connections[0].cursor() as cursor:
            cursor.execute("TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim")
            cursor.execute("SELECT setseed(0.5)")
            execute_values(
                cursor,
                "INSERT INTO vacancy.host_inventory"
                " (host_id, name, inventories, observed_at, status, traits, aggregates, sample_key) VALUES %s",
                inventories,
                "(%s, %s, %s, now(), 'ENABLED', '{}', '{}', random())",
            )
            execute_values(
                cursor,
                "INSERT INTO vacancy.host (host_id, vcpus_capacity, vcpus_free, vcpus_free_min,"
                " memory_mb_capacity, memory_mb_free, memory_mb_free_min,"
                " disk_gb_capacity, disk_gb_free, disk_gb_free_min,"
                " memory_mb_available, disk_gb_available,"
                " observed_at, window_start, window_end, samples, instances, recent_consumers) VALUES %s",
                usages,
                f"({'%s, ' * len(usages[0])}now(), now(), now(), 1, 0, '{{}}')",
            )
            cursor.execute("ANALYZE vacancy.host, vacancy.host_inventory")
        for number, connection in enumerate(self._connections):
            with connection.cursor() as cursor:
                cursor.execute("SELECT setseed(%s)", (1 / (2 + number),))
                cursor.execute("SELECT count(*) FROM pg_prepared_statements")
                [(prepared,)] = cursor.fetchall()
                if not prepared:
                    cursor.execute("PREPARE claim (uuid[], jsonb) AS SELECT host_id FROM vacancy.claim($1, $2)")

    def second(self, reporter: Reporter) -> None:
        """Nothing: the table is written when somebody asks."""

    def write(self, reporter: Reporter) -> None:
        """Writes what the table shows at this second."""
        shown, world = reporter.shown, self._world
        free = world.capacity - shown.counted
        available = shown.memory_mb_available if self._measured else world.capacity[:, 1]
        zeros = np.zeros(world.hosts)
        figures = [shown.cpu_utilization, shown.cpu_pressure, shown.memory_pressure] if self._measured else [zeros] * 3
        if self._shrunk:
            kept = 1 - (1 - KEPT_A_STEP) * np.minimum(1, reporter.ages_s() / STEP_S)
            figures = [figure.mean() + (figure - figure.mean()) * kept for figure in figures]
        listed = ['"{' + ",".join(consumers) + '}"' for consumers in reporter.consumers]
        with self._connections[0].cursor() as cursor:
            cursor.execute(
                _WRITE,
                (
                    _array(self._ids),
                    _array(reporter.ages_s().tolist()),
                    *(_array(free[:, column].tolist()) for column in range(3)),
                    _array(available.astype(np.int64).tolist()),
                    *(_array(figure.tolist()) for figure in figures),
                    _array(listed),
                ),
            )
            if self._released:
                cursor.execute("DELETE FROM vacancy.claim WHERE consumer = ANY (%s::uuid[])", (self._released,))
                self._released = []
            cursor.execute("DELETE FROM vacancy.claim WHERE settled_at IS NOT NULL")

    def release(self, instances: Integers) -> None:
        """Gives back what instances have claimed that are gone, before the next decision."""
        for instance in instances.tolist():
            if instance in self._in_flight:
                self._in_flight.discard(instance)
                self._released.append(self._world.consumer(instance))

    def decide(self, instances: Sequence[int]) -> Iterator[tuple[int, int | None]]:
        """Claims for instances, in rounds of as many as there are schedulers: each instance with its host, or None."""
        schedulers = len(self._connections)
        for began in range(0, len(instances), schedulers):
            round_ = instances[began : began + schedulers]
            answers = (
                self._at_once(round_) if schedulers > 1 else [(round_[0], self._claim(self._connections[0], round_[0]))]
            )
            if not self._counted:
                with self._connections[0].cursor() as cursor:
                    cursor.execute("DELETE FROM vacancy.claim")
            for instance, host in answers:
                if host is not None:
                    self._in_flight.add(instance)
            yield from answers

    def _at_once(self, instances: Sequence[int]) -> list[tuple[int, int | None]]:
        """One claim a session, then all commit. Who would wait for another one's host claims after the commits."""
        answers, waiting = [], []
        for connection, instance in zip(self._connections, instances, strict=False):
            connection.autocommit = False
            try:
                answers.append((instance, self._claim(connection, instance)))
            except (LockNotAvailable, SerializationFailure):
                connection.rollback()
                waiting.append((connection, instance))
        for connection in self._connections[: len(instances)]:
            connection.commit()
            connection.autocommit = True
        return answers + [(instance, self._claim(connection, instance)) for connection, instance in waiting]

    def _claim(self, connection: Connection, instance: int) -> int | None:
        vcpus, memory_mb, disk_gb = self._world.amounts[instance].tolist()
        request = {**self._request, "vcpus": vcpus, "memory_mb": memory_mb, "disk_gb": disk_gb}
        with connection.cursor() as cursor:
            cursor.execute(
                "EXECUTE claim (ARRAY[%s]::uuid[], %s)", (self._world.consumer(instance), json.dumps(request))
            )
            [(host_id,)] = cursor.fetchall()
        return None if host_id is None else self._number[host_id]


def _array(values: Sequence[object]) -> str:
    """A literal of values; PostgreSQL reads it far quicker than the ARRAY[…] with an expression a value of psycopg2."""
    return "{" + ",".join(map(str, values)) + "}"


@contextmanager
def database(server: PostgresServer) -> Iterator[str]:
    """The DSN of a temporary database with Vacancy's tables."""
    name = "decisions"
    with closing(psycopg2.connect(server.owner_dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute(f"CREATE DATABASE {name}")
        dsn = f"{server.owner_dsn.rpartition('/')[0]}/{name}"
        try:
            migrate(SecretStr(dsn))
            yield dsn
        finally:
            connection.cursor().execute(f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def sessions(dsn: str, schedulers: int) -> Iterator[list[Connection]]:
    """A session a scheduler; commits are asynchronous, since time does not count here."""
    with ExitStack() as stack:
        made = []
        for _ in range(schedulers):
            connection = stack.enter_context(
                closing(psycopg2.connect(dsn, options="-c synchronous_commit=off -c lock_timeout=20ms"))
            )
            connection.autocommit = True
            made.append(connection)
        yield made
