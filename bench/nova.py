"""The weigher in nova-scheduler: its latency per request, how workers spread, and how often a busy host is picked.

It runs the programs of tests/nova in Nova's environment (requirements/nova.lock) with larger numbers. Vacancy is taken
from the tree. It takes about 3 minutes on 2 cores.

    python -m bench.nova
    python -m bench.nova --hosts 100 --hosts 1000 --picks 60
"""

from __future__ import annotations

import tempfile
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import psycopg2

from bench.common import CONSOLE, percentiles, postgres_server, save
from bench.placement import environment
from tests.nova.conftest import LOCK, Databases, Nova
from tests.nova.fleet import BUSY, GRADED, is_busy
from tests.nova.test_decisions import OURS, placement

TABLE_HOSTS = 100_000
"""Hosts in the table from which the surviving hosts are read."""
WORKER_HOSTS = 1_000


@click.command()
@click.option("--hosts", type=click.IntRange(10), multiple=True, default=(100, 1_000, 10_000), show_default=True)
@click.option("--requests", default=100, show_default=True, help="Requests for each number of hosts.")
@click.option(
    "--picks", default=60, show_default=True, help="Picks by Nova alone, and the same number with the weigher."
)
@click.option("--fleet", default=150, show_default=True, help="Hosts to pick from.")
@click.option(
    "--worker-picks", default=400, show_default=True, help="Requests by one worker, and the same number by eight."
)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(hosts: tuple[int, ...], requests: int, picks: int, fleet: int, worker_picks: int, saved: bool) -> None:
    """Measures; prints the figures and writes bench/results/nova.json."""
    nova = Nova(environment.python(LOCK), environment.ROOT)
    with postgres_server(shared_buffers="1GB") as server:
        databases = Databases(server, [])
        result = {
            "added_latency": _latency(nova, databases, hosts, requests),
            "workers": _workers(nova, databases, WORKER_HOSTS, worker_picks),
            "busy": _busy(nova, databases, fleet, picks),
        }
    CONSOLE.print(result)
    if saved:
        CONSOLE.print(save("nova", result))


def _latency(nova: Nova, databases: Databases, hosts: tuple[int, ...], requests: int) -> list[dict[str, Any]]:
    dsn = databases.make(TABLE_HOSTS, {"memory_mb_available": "262144"})
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute("VACUUM ANALYZE")
    seen = nova.run("latency", dsn=dsn, hosts=list(hosts), requests=requests)
    return [
        {
            "surviving_hosts": count,
            "table_hosts": TABLE_HOSTS,
            "ms": percentiles(one["took_ms"]),
            "counts": one["counts"],
        }
        for count, one in zip(hosts, seen, strict=True)
    ]


def _workers(nova: Nova, databases: Databases, fleet: int, picks: int) -> list[dict[str, Any]]:
    runs = []
    for workers in (1, 8):
        dsn = databases.make(fleet, GRADED | {"cpu_utilization": f"0.1 + 0.2 * number / {fleet}.0", "cpu_steal": "0"})
        seen = nova.run("workers", dsn=dsn, hosts=fleet, workers=workers, requests=picks // workers)
        picked = Counter(number for worker in seen for number in worker["picked"])
        runs.append(
            {
                "workers": workers,
                "picks": picked.total(),
                "hosts": fleet,
                "hosts_picked": len(picked),
                "picks_on_a_picks_host": round(sum(n * n for n in picked.values()) / picked.total(), 3),
                "most_on_one_host": max(picked.values()),
            }
        )
    return runs


def _busy(nova: Nova, databases: Databases, fleet: int, picks: int) -> dict[str, Any]:
    instances = [5 + number * 7919 % 11 for number in range(fleet)]
    table, providers = databases.make(fleet, BUSY), databases.make(0)
    runs: dict[str, Any] = {"hosts": fleet, "share_of_busy_hosts": sum(map(is_busy, range(1, fleet + 1))) / fleet}
    with tempfile.TemporaryDirectory() as directory, placement(nova, Path(directory), providers) as url:
        sql = (environment.ROOT / "bench" / "placement" / "fleet.sql").read_text(encoding="utf-8")
        with closing(psycopg2.connect(providers)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(sql, {"hosts": fleet})
            cursor.execute(OURS)
            cursor.execute("DELETE FROM allocations")
        for who, dsn in (("nova alone", None), ("with vacancy", table)):
            seen = nova.run("decisions", placement=url, instances=instances, picks=picks, dsn=dsn)
            on_busy = sum(map(is_busy, seen["picked"]))
            runs[who] = {"picks": picks, "on_busy_hosts": on_busy, "decision_ms": percentiles(seen["took_ms"])}
    return runs


if __name__ == "__main__":
    main()
