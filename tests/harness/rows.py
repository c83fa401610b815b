"""What the job's sinks do, a row at a time: all columns each time, unless the row that is there is newer."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

LIMIT_SECONDS = 30.0
EPOCH = datetime.now(UTC).replace(microsecond=0) - timedelta(days=1)

USAGE: dict[str, Any] = {
    "host_id": "host-1",
    "observed_at": EPOCH,
    "window_start": EPOCH - timedelta(minutes=1),
    "window_end": EPOCH,
    "samples": 60,
    "vcpus_capacity": 64,
    "vcpus_free": 32,
    "vcpus_free_min": 16,
    "memory_mb_capacity": 262_144,
    "memory_mb_free": 131_072,
    "memory_mb_free_min": 65_536,
    "disk_gb_capacity": 4_000,
    "disk_gb_free": 2_000,
    "disk_gb_free_min": 1_000,
    "memory_mb_available": 200_000,
    "disk_gb_available": 3_000,
    "cpu_utilization": 0.5,
    "cpu_iowait": None,
    "cpu_steal": 0.0,
    "disk_read_bytes_per_s": 1.5e6,
    "disk_write_bytes_per_s": 0.0,
    "net_rx_bytes_per_s": 1e9,
    "net_tx_bytes_per_s": 999.0,
    "cpu_pressure": None,
    "memory_pressure": None,
    "io_pressure": None,
    "instances": 3,
    "recent_consumers": "{e19c4b3a-5b9c-4b52-a6d2-1e2f5c0a9b77}",
}
INVENTORY: dict[str, Any] = {
    "host_id": "host-1",
    "observed_at": EPOCH,
    "retired": False,
    "boot_id": "boot-1",
    "name": "compute-1",
    "zone": "nova",
    "status": "ENABLED",
    "status_reason": None,
    "inventories": '{"VCPU": {"total": 64, "allocation_ratio": 1.0}}',
    "traits": "{HW_CPU_X86_AVX2}",
    "aggregates": "{}",
    "numa_cells": "[]",
    "pci_pools": "[]",
    "reporting_interval_ms": 1000,
    "agent_version": "0.1.0",
    "allocated": "{}",
    "source": "host",
    "disk_pool": None,
}
NO_DISK: dict[str, Any] = {
    "disk_gb_capacity": 0,
    "disk_gb_free": 0,
    "disk_gb_free_min": 0,
    "disk_gb_available": 0,
}
"""Of the usage of a host whose disk comes from a storage pool."""


def at(second: float) -> datetime:
    """A moment of the tests' time."""
    return EPOCH + timedelta(seconds=second)


def upsert_usage(connection: Connection, **values: Any) -> None:
    """A usage row as the sink of ``host`` writes it, in the connection's transaction."""
    _upsert(connection, "host", USAGE | values)


def upsert_inventory(connection: Connection, **values: Any) -> None:
    """An inventory row as the sink of ``host_inventory`` writes it."""
    _upsert(connection, "host_inventory", INVENTORY | values)


def upsert_pool(
    connection: Connection,
    pool: str,
    observed_at: datetime,
    *,
    gb: int,
    free_gb: int | None = None,
    available_gb: int | None = None,
    **inventory: Any,
) -> None:
    """A storage pool's rows, with its name as its id; free as it says itself."""
    free_gb = gb if free_gb is None else free_gb
    inventories = {"DISK_GB": {"total": gb, "reserved": 0, "min_unit": 1, "max_unit": gb, "step_size": 1}}
    values = {"name": pool, "traits": "{MISC_SHARES_VIA_AGGREGATE}", "inventories": json.dumps(inventories)}
    upsert_inventory(connection, **values | {"host_id": pool, "observed_at": observed_at} | inventory)
    usage = dict.fromkeys((key for key in USAGE if key.startswith(("vcpus_", "memory_mb_", "cpu_"))), 0)
    usage |= {"disk_gb_capacity": gb, "disk_gb_free": free_gb, "disk_gb_free_min": free_gb}
    usage["disk_gb_available"] = gb if available_gb is None else available_gb
    upsert_usage(connection, **usage | {"host_id": pool, "observed_at": observed_at, "recent_consumers": "{}"})


def add_roomy_host(connection: Connection, name: str) -> None:
    """A host with the id ``id-NAME`` that has just reported, and has room for any number of claims."""
    now, room = datetime.now(UTC), 1_000_000_000
    upsert_inventory(connection, host_id=f"id-{name}", name=name, observed_at=now)
    upsert_usage(
        connection,
        host_id=f"id-{name}",
        observed_at=now,
        recent_consumers="{}",
        **{f"{figure}_free": room for figure in ("vcpus", "memory_mb", "disk_gb")},
        memory_mb_available=room,
        disk_gb_available=room,
    )


def retire(connection: Connection, **values: Any) -> None:
    """What a null record becomes: a row with nothing but the host and the time."""
    blank = dict.fromkeys(INVENTORY) | {"host_id": "host-1", "observed_at": EPOCH, "retired": True}
    _upsert(connection, "host_inventory", blank | values)


def _upsert(connection: Connection, table: str, values: dict[str, Any]) -> None:
    columns = list(map(sql.Identifier, values))
    # By time alone, which is all that tests of the tables say. tests/flink/test_order.py has the sink itself.
    statement = sql.SQL(
        "INSERT INTO {} AS t ({}) VALUES ({}) ON CONFLICT (host_id) DO UPDATE SET {}"
        " WHERE t.observed_at <= EXCLUDED.observed_at"
    ).format(
        sql.Identifier("vacancy", table),
        sql.SQL(", ").join(columns),
        sql.SQL(", ").join(sql.Placeholder() * len(columns)),
        sql.SQL(", ").join(sql.SQL("{0} = EXCLUDED.{0}").format(column) for column in columns),
    )
    as_text = [str(value) if isinstance(value, datetime) else value for value in values.values()]
    with connection.cursor() as cursor:
        cursor.execute(statement, as_text)


def query(connection: Connection, statement: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement."""
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)
        return cursor.fetchall()
