"""The table for the tests with Nova: the host `number` is compute node `number`, by its UUID.

Each column is an SQL expression in ``number``.
"""

from __future__ import annotations

from contextlib import closing
from typing import Any

import psycopg2
from pydantic import SecretStr

from vacancy.connectors.postgres.migrations import migrate

IDLE = {
    "observed_at": "now()",
    "cpu_utilization": "0.1",
    "cpu_steal": "0.0",
    "cpu_pressure": "0.0",
    "memory_pressure": "0.0",
    "io_pressure": "0.0",
    "memory_mb_available": "200000",
}
GRADED = {
    "cpu_utilization": "number / 2000.0",
    "memory_mb_available": "262144",
    "cpu_steal": "CASE WHEN number %% 10 = 0 THEN 0.2 ELSE 0 END",
}
"""Hosts with higher numbers are busier; every tenth host is beyond a limit."""
BUSY = {
    "cpu_utilization": "0.3",
    "cpu_steal": "CASE WHEN number %% 6 = 0 THEN 0.25 ELSE 0.001 END",
    "memory_pressure": "CASE WHEN number %% 6 = 3 THEN 0.3 ELSE 0 END",
}
"""Every third host is busier than its allocations show: half of these by steal, half by lack of memory."""


def is_busy(number: int) -> bool:
    """Whether this host is busy in BUSY."""
    return number % 3 == 0


def fill(dsn: str, hosts: int, columns: dict[str, str]) -> None:
    """Migrates a database and inserts so many hosts."""
    migrate(SecretStr(dsn))
    values = IDLE | columns
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(
            f"""
            INSERT INTO vacancy.host
              (host_id, window_start, window_end, samples, vcpus_capacity, vcpus_free, vcpus_free_min,
               memory_mb_capacity, memory_mb_free, memory_mb_free_min, disk_gb_capacity, disk_gb_free,
               disk_gb_free_min, disk_gb_available, instances, recent_consumers, {", ".join(values)})
            SELECT '00000000-0000-4000-8000-' || lpad(number::text, 12, '0'), now(), now(), 60, 256, 224, 224, 262144,
               196608, 196608, 2000, 1680, 1680, 1700, 8, '{{}}', {", ".join(values.values())}
            FROM generate_series(1, %s) AS number
            """,
            (hosts,),
        )


def rows(dsn: str, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Runs a statement, commits, and returns its rows."""
    with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall() if cursor.description else []
