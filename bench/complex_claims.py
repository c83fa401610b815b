"""The cost of a claim with PCI and NUMA requests compared with a plain one, and the cost of writing big inventories.

10,000 hosts, each with 4 NUMA cells, 8 PCI pools and 100 traits (complex_fleet.sql). A plain claim is that of
bench.claims. The complex claim asks for the same plus, all in one NUMA cell, 4 pinned CPUs, 2 GiB of 2 MiB pages and a
network function on a given network; and for a GPU in any cell. The rare claim asks for a device that one host in 200
has. Clients are processes in a closed loop, as in bench.claims; the three kinds of claim alternate.

Then the inventories are written like the job's sink writes them, all columns, in upserts of 128 rows and transactions
of 1,000: first unchanged, then with other free CPUs and devices.

    python -m bench.complex_claims
    python -m bench.complex_claims --hosts 1000 --seconds 2 --turns 1 --no-save
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any

import click
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr
from rich.table import Table

from bench.claims import DISK_GB, MEMORY_MB, SERVER, VCPUS
from bench.closed_loop import Decide, closed_loop
from bench.common import CONSOLE, percentiles, postgres_server, save
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import ContendedError, NoHostFitsError, TimedOutError
from vacancy.connectors.scheduler.request import Numa, Pci, Request
from vacancy.connectors.settings import SchedulerSettings

CLAIM_TTL = timedelta(milliseconds=500)
"""Short enough that not even the few hosts with the rare device fill: they have room for 1,100 claims."""
CLIENTS = (1, 8)
ROWS_A_STATEMENT = 128
ROWS_A_TRANSACTION = 1_000
_PLAIN = {"vcpus": VCPUS, "memory_mb": MEMORY_MB, "disk_gb": DISK_GB}
REQUESTS = {
    "plain": Request(**_PLAIN),
    "complex": Request(
        **_PLAIN,
        numa=Numa(cpus=4, pages={2048: 1024}),
        pci=(
            Pci(vendor_id="8086", product_id="154c", tags={"physical_network": "tenant"}, same_cell=True),
            Pci(vendor_id="10de", product_id="20b5"),
        ),
    ),
    "rare": Request(**_PLAIN, pci=(Pci(vendor_id="1d0f", product_id="fafa"),)),
}
_RARE = """
UPDATE vacancy.host_inventory SET pci_pools = pci_pools ||
  '[{"vendor_id": "1d0f", "product_id": "fafa", "total": 1000000, "free": 1000000, "numa_node": null, "tags": {}}]'
WHERE substr(host_id, 6)::integer % 200 = 0
"""
_CHANGES = {
    "same": ("numa_cells", "pci_pools"),
    "changed": (
        "jsonb_set(numa_cells, '{0,free_cpus}', '[%s]')",
        "jsonb_set(pci_pools, '{0,free}', '%s')",
    ),
}
"""SQL expressions for the cells and pools to write; %s: a number."""


@click.command()
@click.option("--hosts", type=click.IntRange(200), default=10_000, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Length of each measurement.")
@click.option("--turns", type=click.IntRange(1), default=3, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(hosts: int, seconds: float, turns: int, saved: bool) -> None:
    """Measures; prints tables, writes bench/results/complex_claims.json."""
    with postgres_server(**SERVER) as server, closing(psycopg2.connect(server.owner_dsn)) as owner:
        owner.autocommit = True
        with CONSOLE.status(f"{hosts:,} hosts: loading"):
            migrate(SecretStr(server.owner_dsn))
            _load(owner, hosts)
        runs = [
            _run(owner, server.owner_dsn, name, clients, seconds)
            for clients in CLIENTS
            for _ in range(turns)
            for name in REQUESTS
        ]
        ratios = [_ratios(runs, name, clients) for clients in CLIENTS for name in REQUESTS if name != "plain"]
        sizes = _sizes(owner, hosts)
        writes = [_write(owner, name) for _ in range(turns) for name in _CHANGES]
    CONSOLE.print(_table(runs))
    for ratio in ratios:
        CONSOLE.print(
            f"{ratio['clients']} clients: a {ratio['request']} claim takes {ratio['p50']:.2f} times as long as a plain "
            f"one (p50), {ratio['p99']:.2f} (p99); of plain ones there are {ratio['rate']:.2f} times as many a second"
        )
    for write in writes:
        CONSOLE.print(
            f"inventories, {write['rows']}: {write['rows_per_s']:,} rows/s, {write['wal_bytes_per_row']:,} B WAL a row"
        )
    CONSOLE.print(f"bytes a host: {sizes}")
    if saved:
        result = {
            "hosts": hosts,
            "seconds": seconds,
            "claim_ttl_s": CLAIM_TTL.total_seconds(),
            "requests": {name: request.model_dump(exclude_defaults=True) for name, request in REQUESTS.items()},
            "runs": runs,
            "ratios": ratios,
            "inventory_bytes_a_host": sizes,
            "inventory_writes": writes,
        }
        CONSOLE.print(save("complex_claims", result))


def _load(owner: Connection, hosts: int) -> None:
    with owner.cursor() as cursor:
        cursor.execute(Path(__file__).with_name("fleet.sql").read_text(encoding="utf-8"), {"hosts": hosts})
        cursor.execute(Path(__file__).with_name("complex_fleet.sql").read_text(encoding="utf-8"))
        cursor.execute(_RARE)
        cursor.execute("VACUUM FULL vacancy.host_inventory")  # it was written three times
        cursor.execute("VACUUM ANALYZE")


def _run(owner: Connection, dsn: str, name: str, clients: int, seconds: float) -> dict[str, Any]:
    """One measurement, starting with an empty claim table."""
    with owner.cursor() as cursor:
        cursor.execute("TRUNCATE vacancy.claim")
        cursor.execute("CHECKPOINT")
    with CONSOLE.status(f"{name}, {clients} clients"):
        # Once the first claims have expired, as many expire as are made.
        warm_up_s = min(CLAIM_TTL.total_seconds() + 1, seconds)
        seen = closed_loop(_decider, [dsn, name], clients=clients, warm_up_s=warm_up_s, seconds=seconds)
    return {
        "request": name,
        "clients": clients,
        "claims_per_s": round(seen["decisions_per_s"], 1),
        "latency_ms": percentiles(seen["latencies_ms"] or [float("nan")]),
        "failures": seen["failures"],
    }


def _decider(dsn: str, name: str) -> Decide:
    scheduler = Scheduler(dsn, SchedulerSettings(connections=1, max_age=timedelta(hours=1), claim_ttl=CLAIM_TTL))

    def decide() -> str | None:
        try:
            scheduler.claim(REQUESTS[name])
        except (NoHostFitsError, ContendedError, TimedOutError) as error:
            return type(error).__name__
        return None

    return decide


def _ratios(runs: Sequence[dict[str, Any]], name: str, clients: int) -> dict[str, Any]:
    """The median over the turns of the ratio of a run to the plain run of the same turn."""
    ours, plain = (
        [run for run in runs if run["clients"] == clients and run["request"] == each] for each in (name, "plain")
    )
    pairs = list(zip(ours, plain, strict=True))
    ratio = {
        which: round(median(one["latency_ms"][which] / other["latency_ms"][which] for one, other in pairs), 2)
        for which in ("p50", "p99")
    }
    rate = round(median(other["claims_per_s"] / one["claims_per_s"] for one, other in pairs), 2)
    return {"request": name, "clients": clients, "rate": rate, **ratio}


def _sizes(owner: Connection, hosts: int) -> dict[str, int]:
    """Bytes per host: the row itself, its TOAST data, all indexes, and the index on what hosts offer."""
    with owner.cursor() as cursor:
        cursor.execute(
            "SELECT pg_relation_size(oid), pg_total_relation_size(reltoastrelid), pg_indexes_size(oid),"
            " pg_relation_size('vacancy.host_inventory_offers')"
            " FROM pg_class WHERE oid = 'vacancy.host_inventory'::regclass"
        )
        sizes = cursor.fetchall()[0]
    return {name: size // hosts for name, size in zip(("heap", "toast", "indexes", "offers"), sizes, strict=True)}


def _write(owner: Connection, name: str) -> dict[str, Any]:
    """Upserts every inventory again with a newer time, like the sink."""
    columns = [
        *("host_id", "retired", "boot_id", "name", "zone", "status", "inventories", "traits", "aggregates"),
        *("reporting_interval_ms", "agent_version", "allocated"),
    ]
    changed = [value.replace("%s", str(time.monotonic_ns() % 20)) for value in _CHANGES[name]]
    literals = [f"quote_nullable({value})" for value in (*columns, *changed)]
    names = ["observed_at", *columns, "numa_cells", "pci_pools"]
    insert = f"INSERT INTO vacancy.host_inventory ({', '.join(names)}) VALUES "
    update = ", ".join(f"{column} = EXCLUDED.{column}" for column in names if column != "host_id")
    with owner.cursor() as cursor:
        # The server quotes the values once, so that the upsert is measured and not Python. Like the sink's batches they
        # are in no particular order.
        cursor.execute(f"SELECT concat_ws(', ', {', '.join(literals)}) FROM vacancy.host_inventory ORDER BY random()")
        rows = [f"(clock_timestamp(), {row[0]})" for row in cursor.fetchall()]
        cursor.execute("CHECKPOINT")
        cursor.execute("SELECT pg_current_wal_lsn()")
        before = cursor.fetchall()[0][0]
        start_s = time.monotonic()
        for first in range(0, len(rows), ROWS_A_TRANSACTION):
            cursor.execute("BEGIN")
            batch = rows[first : first + ROWS_A_TRANSACTION]
            for begin in range(0, len(batch), ROWS_A_STATEMENT):
                values = ", ".join(batch[begin : begin + ROWS_A_STATEMENT])
                cursor.execute(f"{insert}{values} ON CONFLICT (host_id) DO UPDATE SET {update}")
            cursor.execute("COMMIT")
        elapsed_s = time.monotonic() - start_s
        cursor.execute("SELECT pg_current_wal_lsn() - %s::pg_lsn", (before,))
        wal_bytes = int(cursor.fetchall()[0][0])
    return {
        "rows": name,
        "rows_per_s": round(len(rows) / elapsed_s),
        "wal_bytes_per_row": round(wal_bytes / len(rows)),
    }


def _table(runs: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Claims")
    for column in ("clients", "request", "claims/s", "p50 ms", "p99 ms", "failed"):
        table.add_column(column, justify="right")
    for run in runs:
        table.add_row(
            str(run["clients"]),
            run["request"],
            f"{run['claims_per_s']:,.1f}",
            *(f"{run['latency_ms'][name]:,.2f}" for name in ("p50", "p99")),
            str(sum(run["failures"].values()) or ""),
        )
    return table


if __name__ == "__main__":
    main()
