"""One host, whole: its row of `schedulable_host`, cells, devices, resource classes, claims and drift."""

from __future__ import annotations

import difflib
from typing import Any

from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from vacancy.connectors.postgres.documents import documents
from vacancy.schemas.errors import VacancyError

LISTED = 500
"""Most rows of a list."""
_HOST = "SELECT * FROM vacancy.schedulable_host WHERE host_id = %(host)s"
_CELLS = "SELECT id, cpus_free, pages_free FROM vacancy.numa_cell WHERE host_id = %(host)s ORDER BY id"
_POOLS = """
SELECT vendor_id, product_id, numa_node, tags, total, free, claimed FROM vacancy.pci_pool WHERE host_id = %(host)s
ORDER BY vendor_id, product_id, numa_node
"""
_CLASSES = (
    "SELECT resource_class, total, free FROM vacancy.resource_class WHERE host_id = %(host)s ORDER BY resource_class"
)
_HOST_DRIFT = """
SELECT kind, promised, measured FROM vacancy.drifting WHERE host_id = %(host)s AND disk_key = %(disk)s ORDER BY kind
"""
CLAIMS = """
SELECT c.consumer, c.host_id, i.name AS host_name, c.vcpus, c.memory_mb, c.disk_gb, c.held, c.claimed_at, c.expires_at,
  statement_timestamp() - c.claimed_at AS age, c.expires_at - statement_timestamp() AS remaining
FROM vacancy.claim AS c LEFT JOIN vacancy.host_inventory AS i ON i.host_id = c.host_id
WHERE c.settled_at IS NULL AND c.expires_at > statement_timestamp() AND (%(host)s IS NULL OR c.host_id = %(host)s)
ORDER BY c.claimed_at, c.consumer LIMIT %(limit)s
"""
"""The claims in flight, oldest first; of one host, or of all where host is null."""
_PARTS = {"cells": _CELLS, "pools": _POOLS, "classes": _CLASSES, "claims": CLAIMS, "drift": _HOST_DRIFT}
_NAMES = "SELECT name, host_id, shares FROM vacancy.host_inventory WHERE NOT retired"


def read_host(connection: Connection, host_id: str) -> dict[str, Any] | None:
    """A host by its id, for JSON: its row, cells, pools, classes, claims and drift; None: there is no such host."""
    values: dict[str, Any] = {"host": host_id, "limit": LISTED}
    rows = list(documents(connection, _HOST, values))
    if not rows:
        return None
    values["disk"] = rows[0]["disk_id"] or ""
    return {"row": rows[0], **{name: list(documents(connection, query, values)) for name, query in _PARTS.items()}}


def host_id_of(connection: Connection, host: str) -> str:
    """The id of the host or storage pool of that name or id.

    Raises:
        VacancyError: there is none, and which name is meant perhaps; or several have the name.
    """
    with connection.cursor() as cursor:
        cursor.execute(f"{_NAMES} AND (host_id = %(host)s OR name = %(host)s)", {"host": host})
        found: list[str] = sorted(host_id for _, host_id, _ in cursor.fetchall())
    if host in found:
        return host
    if len(found) > 1:
        raise VacancyError(f"{len(found)} hosts have the name {host}; say which by its id: {', '.join(found[:5])}")
    if not found:
        raise VacancyError(f"no host {host}{_meant(connection, host)}; `vacancy hosts` lists them")
    return found[0]


def unknown_hosts(connection: Connection, names: tuple[str, ...]) -> list[str]:
    """Those of the names and ids that no host has, each with what was meant perhaps."""
    if not names:
        return []
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT name, host_id FROM vacancy.schedulable_host"
            " WHERE NOT shares AND (name = ANY (%(names)s) OR host_id = ANY (%(names)s))",
            {"names": list(names)},
        )
        known = {word for row in cursor.fetchall() for word in row}
        unknown = [name for name in names if name not in known]
        if not unknown:
            return []
        cursor.execute("SELECT name FROM vacancy.schedulable_host WHERE NOT shares")
        near = [row[0] for row in cursor.fetchall()]
    return [name + _like(name, near) for name in unknown]


def _meant(connection: Connection, host: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(_NAMES)
        return _like(host, [name for name, _, _ in cursor.fetchall()])


def _like(name: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, 1)
    return f" (is it {near[0]}?)" if near else ""
