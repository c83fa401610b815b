"""The rows of the view `schedulable_host`, as schedulers and people read them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Any

from psycopg2 import sql
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function


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


FIGURES = (
    *("name", "host_id", "zone", "status", "reason", "age", "observed_at", "window_start", "window_end", "samples"),
    *("vcpus_capacity", "vcpus_free", "vcpus_free_min", "vcpus_claimed"),
    *("memory_mb_capacity", "memory_mb_free", "memory_mb_free_min", "memory_mb_available", "memory_mb_claimed"),
    *("disk_gb_capacity", "disk_gb_free", "disk_gb_free_min", "disk_gb_available", "disk_gb_claimed"),
    *("cpu_utilization", "cpu_iowait", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure"),
    *("disk_read_bytes_per_s", "disk_write_bytes_per_s", "net_rx_bytes_per_s", "net_tx_bytes_per_s"),
    *("instances", "claims", "source", "agent_version", "reporting_interval_ms", "boot_id", "inventory_observed_at"),
    *("disk_pool", "disk_id", "shares", "anomalies"),
)
"""Columns of the view with one figure or one text a host, in an order for people."""
LISTS = ("traits", "aggregates", "recent_consumers", "uncertain", "inventories", "numa_cells", "pci_pools")
"""The others: lists and documents."""


def select(columns: Sequence[str]) -> sql.Composed:
    """The query for these columns, up to its FROM."""
    return sql.SQL("SELECT {} FROM vacancy.schedulable_host").format(
        sql.SQL(", ").join(map(sql.Identifier, columns)),
    )


QUERY = select([field.name for field in fields(HostRow)])
"""The rows, as :class:`HostRow` has them."""


@dataclass(frozen=True)
class Selection:
    """Which hosts to show, and in which order.

    Attributes:
        name: a pattern with ``*`` and ``?``.
        out: only those that are not schedulable.
        reason: only those whose reason begins with this.
        sort: a column of the view; None: schedulable ones first, then by name, so that a row keeps its place while its
            figures change.
        descending: the largest first, the unknown last.
        offset: how many to leave out at the beginning.
        zone: only those of this availability zone.
        first: the id of a host that comes before all others, if it is among those.
    """

    name: str | None = None
    out: bool = False
    reason: str | None = None
    sort: str | None = None
    descending: bool = False
    offset: int = 0
    zone: str | None = None
    first: str | None = None

    @property
    def selects(self) -> bool:
        """Whether it leaves hosts out."""
        return self.out or not (self.name is self.reason is self.zone is None)

    def where(self) -> tuple[sql.Composable, dict[str, Any]]:
        """The conditions, and their parameters."""
        conditions = [sql.SQL("true")]
        if self.name is not None:
            conditions.append(sql.SQL("name LIKE %(name)s"))
        if self.out or self.reason is not None:
            conditions.append(sql.SQL("reason IS NOT NULL AND starts_with(reason, %(reason)s)"))
        if self.zone is not None:
            conditions.append(sql.SQL("zone = %(zone)s"))
        pattern = re.sub(r"[%_\\]", r"\\\g<0>", self.name or "").replace("*", "%").replace("?", "_")
        values = {"name": pattern, "reason": self.reason or "", "zone": self.zone}
        return sql.SQL(" WHERE ") + sql.SQL(" AND ").join(conditions), values

    def clauses(self, limit: int | None) -> tuple[sql.Composable, dict[str, Any]]:
        """What follows a query's FROM, and its parameters."""
        where, values = self.where()
        by: sql.Composable = sql.SQL("reason IS NOT NULL")
        if self.sort is not None:
            by = sql.SQL("{}{} NULLS LAST").format(
                sql.Identifier(self.sort), sql.SQL(" DESC" if self.descending else "")
            )
        if self.first is not None:
            by = sql.SQL("host_id <> %(first)s, ") + by
        order = sql.SQL(" ORDER BY {}, name, host_id LIMIT %(limit)s OFFSET %(offset)s").format(by)
        return where + order, values | {"first": self.first, "limit": limit, "offset": self.offset}


ALL = Selection()


def fetch(connection: Connection, limit: int | None = None, selection: Selection = ALL) -> list[HostRow]:
    """The selected hosts, at most limit of them."""
    clauses, values = selection.clauses(limit)
    with connection.cursor() as cursor:
        cursor.execute(QUERY + clauses, values)
        return [HostRow(*row) for row in cursor.fetchall()]


def count(connection: Connection, selection: Selection) -> int:
    """How many hosts and storage pools are selected, whatever the offset."""
    where, values = selection.where()
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("SELECT count(*) FROM vacancy.schedulable_host") + where, values)
        return int(cursor.fetchall()[0][0])


def fetch_columns(
    connection: Connection, columns: Sequence[str], limit: int | None = None, selection: Selection = ALL
) -> list[dict[str, Any]]:
    """These columns of the selected hosts, at most limit of them, by their names."""
    clauses, values = selection.clauses(limit)
    with connection.cursor() as cursor:
        cursor.execute(select(columns) + clauses, values)
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
