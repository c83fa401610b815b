"""What changed in the tables since the last look.

What always holds: every statement is a transaction of its own, since an open one keeps PostgreSQL from pruning old
versions of rows. What changed is known by the transaction that wrote a row (``xmin``): no index is needed, so that the
job's updates stay HOT, and a row that comes late is not passed over, as it would be by ``observed_at``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vacancy.connectors.postgres.servers import Connection

FIGURES = (
    "vcpus_capacity",
    "vcpus_free",
    "vcpus_free_min",
    "memory_mb_capacity",
    "memory_mb_free",
    "memory_mb_free_min",
    "memory_mb_available",
    "disk_gb_capacity",
    "disk_gb_free",
    "disk_gb_free_min",
    "disk_gb_available",
    "cpu_utilization",
    "cpu_steal",
    "cpu_pressure",
    "memory_pressure",
    "io_pressure",
    "instances",
    "claims",
)
"""Columns of `host_free` that are looked at."""
FRACTIONS = frozenset(("cpu_utilization", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure"))
"""Those that are floats; the others are integers."""
CLONED, AHEAD = 1, 2
Integers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
UNKNOWN_INTEGER = -(2**63)
"""An integer that is not known; a float that is not known is not a number."""


def _packed(column: str, fraction: bool) -> str:
    if fraction:
        return f"string_agg(float8send(coalesce({column}::float8, 'NaN')), '')"
    return f"string_agg(int8send(coalesce({column}::bigint, '{UNKNOWN_INTEGER}')), '')"


# The oldest transaction that may still commit: whatever commits after this statement is at least as new.
_MARK = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::xid::text, date_part('epoch', statement_timestamp()),
  date_part('epoch', vacancy.max_clock_ahead())
"""
# Free capacity is computed in host_free alone. Both tables are one scan: the planner sees that the join is with itself.
# Each column comes as one value, since tens of thousands of rows come in a second: numbers as PostgreSQL sends them in
# binary, in network order. A value for each host and column would take most of the time of a look.
_USAGE = f"""
SELECT json_agg(f.host_id),
  string_agg(float8send(date_part('epoch', f.observed_at)), ''),
  string_agg(int8send(
    CASE WHEN f.is_cloned THEN {CLONED} ELSE 0 END + CASE WHEN h.clock_ahead THEN {AHEAD} ELSE 0 END
  ), ''),
  {", ".join(_packed(f"f.{name}", name in FRACTIONS) for name in FIGURES)}
FROM vacancy.host AS h JOIN vacancy.host_free AS f ON f.host_id = h.host_id
"""  # noqa: S608  # the names are constants
_INVENTORY = """
SELECT i.host_id, i.retired OR i.shares, i.name, coalesce(i.zone, ''), i.status = 'DISABLED',
  coalesce(i.status_reason, ''), coalesce(i.source, 'unknown'), coalesce(i.traits, '{}'), coalesce(i.aggregates, '{}'),
  i.clock_ahead, i.disk_pool IS NOT NULL
FROM vacancy.host_inventory AS i
"""
_CLAIMS = """
SELECT c.host_id, count(*), max(c.claimed_at), sum(c.vcpus), sum(c.memory_mb), sum(c.disk_gb)
FROM vacancy.claim AS c
WHERE c.settled_at IS NULL AND (c.expires_at > statement_timestamp()) IS TRUE
GROUP BY c.host_id
"""
_DRIFTING = "SELECT DISTINCT host_id FROM vacancy.drifting"


class Usage(NamedTuple):
    """The newest rows of some hosts, by column.

    Attributes:
        hosts: their ids.
        observed_at: seconds since 1970.
        odd: what is odd about each: CLONED, AHEAD; 0: nothing.
        figures: the columns :data:`FIGURES`, less the claims in flight.
    """

    hosts: Sequence[str]
    observed_at: Floats
    odd: Integers
    figures: Mapping[str, Integers | Floats]


class InventoryRow(NamedTuple):
    """What a host is.

    Attributes:
        gone: it is retired, or a storage pool and no host.
        ahead: the row is from the future.
        pooled: its disk comes from a storage pool.
    """

    host_id: str
    gone: bool
    name: str
    zone: str
    disabled: bool
    status_reason: str
    source: str
    traits: list[str]
    aggregates: list[str]
    ahead: bool
    pooled: bool


class Look(NamedTuple):
    """What one look found.

    Attributes:
        now: the database's time, seconds since 1970.
        usage: hosts whose figures may have changed.
        changed: how many rows of `host` were written since the last look.
        inventory: hosts that may have changed; empty where this look did not ask.
        claims: claims in flight.
        max_ahead_s: how far the time of a row may be ahead of `now`.
    """

    now: float
    usage: Usage
    changed: int
    inventory: list[InventoryRow]
    claims: int
    max_ahead_s: float


class Table:
    """Looks at the tables through one connection in autocommit mode, and remembers up to where it has seen them."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._usage_mark: str | None = None
        self._inventory_mark: str | None = None
        self._claims: dict[str, tuple[Any, ...]] = {}

    def look(self, *, with_inventory: bool, wanted: Sequence[str] = ()) -> Look:
        """What changed since the last look; the first finds everything.

        Args:
            with_inventory: also look at what hosts are, which takes longer.
            wanted: hosts to read in any case.
        """
        with self._connection.cursor() as cursor:
            inventory = []
            if with_inventory:
                cursor.execute(_MARK)
                mark = cursor.fetchall()[0][0]
                cursor.execute(_INVENTORY + _since("i", self._inventory_mark))
                inventory = [InventoryRow(*row) for row in cursor.fetchall()]
                self._inventory_mark = mark
            cursor.execute(_CLAIMS)
            claims = {row[0]: row[1:] for row in cursor.fetchall()}
            # Claims change what is free without a new row of the host: those that came and those that ended.
            before, self._claims = self._claims, claims
            moved = {host for host in before.keys() | claims.keys() if before.get(host) != claims.get(host)}
            cursor.execute(_MARK)
            mark, now, max_ahead_s = cursor.fetchall()[0]
            also = list(moved.union(wanted))
            since = _since("h", self._usage_mark)
            cursor.execute(_USAGE + (f"{since} OR h.host_id = ANY (%s)" if since and also else since), (also,))
            usage = _unpacked(cursor.fetchall()[0])
            self._usage_mark = mark
        changed = len(usage.hosts) - len(moved.intersection(usage.hosts))
        return Look(now, usage, changed, inventory, sum(row[0] for row in claims.values()), max_ahead_s)

    def drifting(self) -> set[str]:
        """The hosts whose allocations and measurements disagree; this takes a look at all hosts."""
        with self._connection.cursor() as cursor:
            cursor.execute(_DRIFTING)
            return {row[0] for row in cursor.fetchall()}


def _unpacked(columns: Sequence[Any]) -> Usage:
    """The answer to :data:`_USAGE`; its columns are null where there are no rows."""

    def numbers(column: Any, kind: str) -> Any:
        return np.frombuffer(column or b"", f">{kind}8").astype(f"{kind}8")

    hosts, observed_at, odd, *figures = columns
    return Usage(
        hosts or [],
        numbers(observed_at, "f"),
        numbers(odd, "i"),
        {
            name: numbers(column, "f" if name in FRACTIONS else "i")
            for name, column in zip(FIGURES, figures, strict=True)
        },
    )


def _since(table: str, mark: str | None) -> str:
    """A condition for rows written since a mark; a mark is a number that the database gave."""
    return "" if mark is None else f"WHERE age({table}.xmin) <= age('{int(mark)}'::xid)"
