"""The rows of the view `schedulable_host`, as schedulers and people read them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import timedelta

from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

ORDER = sql.SQL(" ORDER BY reason IS NOT NULL, name, host_id LIMIT %(limit)s")
"""Schedulable hosts first, then by name, so that a row keeps its place while its figures change."""


@dataclass(frozen=True)
class HostRow:
    """A row of the view; fields are named like its columns. Memory in MiB, disk in GiB, rates in bytes per second.

    Claims in flight are subtracted from free and available figures. None: not known yet. `reason` says why the host
    is not schedulable; `disk_pool` names the storage pool that its disk comes from.
    """

    host_id: str
    name: str
    reason: str | None
    age: timedelta | None
    vcpus_capacity: int | None
    vcpus_free: int | None
    vcpus_free_min: int | None
    memory_mb_capacity: int | None
    memory_mb_free: int | None
    memory_mb_free_min: int | None
    memory_mb_available: int | None
    disk_gb_capacity: int | None
    disk_gb_free: int | None
    disk_gb_free_min: int | None
    disk_gb_available: int | None
    cpu_utilization: float | None
    disk_read_bytes_per_s: float | None
    disk_write_bytes_per_s: float | None
    net_rx_bytes_per_s: float | None
    net_tx_bytes_per_s: float | None
    instances: int | None
    claims: int
    disk_pool: str | None


def fetch(connection: Connection, limit: int | None = None) -> list[HostRow]:
    """The hosts, schedulable ones first, then by name; at most limit of them."""
    names = sql.SQL(", ").join(sql.Identifier(field.name) for field in fields(HostRow))
    query = sql.SQL("SELECT {} FROM vacancy.schedulable_host").format(names) + ORDER
    with connection.cursor() as cursor:
        cursor.execute(query, {"limit": limit})
        return [HostRow(*row) for row in cursor.fetchall()]
