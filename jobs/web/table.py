"""What changed in the tables since the last look.

What always holds: every statement is a transaction of its own, since an open one keeps PostgreSQL from pruning old
versions of rows. What changed is known by the transaction that wrote a row (``xmin``): no index is needed, so that the
job's updates stay HOT, and a row that comes late is not passed over, as it would be by ``observed_at``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

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
"""Columns of `host_free` that are looked at, in the order of :data:`UsageRow`."""

# The oldest transaction that may still commit: whatever commits after this statement is at least as new.
_MARK = """
SELECT pg_snapshot_xmin(pg_current_snapshot())::xid::text, date_part('epoch', statement_timestamp()),
  date_part('epoch', vacancy.max_clock_ahead())
"""
# Free capacity is computed in host_free alone. Both tables are one scan: the planner sees that the join is with itself.
_USAGE = f"""
SELECT f.host_id, date_part('epoch', f.observed_at), f.is_cloned::integer | h.clock_ahead::integer << 1,
  {", ".join(f"f.{name}" for name in FIGURES)}
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


UsageRow = tuple[Any, ...]
"""A host's id, its observed_at in seconds since 1970, what is odd (CLONED, AHEAD; 0: nothing), and the columns
:data:`FIGURES`, less the claims in flight; None: not known. A plain tuple, since tens of thousands come in a second."""
CLONED, AHEAD = 1, 2
FIRST_FIGURE = 3
"""Where the figures begin in a :data:`UsageRow`."""


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
    usage: list[UsageRow]
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
            usage = cursor.fetchall()
            self._usage_mark = mark
        changed = len(usage) - len(moved.intersection([row[0] for row in usage]))
        return Look(now, usage, changed, inventory, sum(row[0] for row in claims.values()), max_ahead_s)

    def drifting(self) -> set[str]:
        """The hosts whose allocations and measurements disagree; this takes a look at all hosts."""
        with self._connection.cursor() as cursor:
            cursor.execute(_DRIFTING)
            return {row[0] for row in cursor.fetchall()}


def _since(table: str, mark: str | None) -> str:
    """A condition for rows written since a mark; a mark is a number that the database gave."""
    return "" if mark is None else f"WHERE age({table}.xmin) <= age('{int(mark)}'::xid)"
