"""The cost of the sink: every row of `vacancy.host` is rewritten repeatedly, in two ways.

The job's sink sends the server one array per column. Flink's JDBC connector sends one statement per row, which the
driver batches. The two alternate, each in a JVM without Flink and on one connection. Measured are rows per second, CPU
time of both sides, WAL, the share of HOT updates, and the growth of the table.

    python -m bench.sink
    python -m bench.sink --hosts 1000 --rounds 100
"""

from __future__ import annotations

import os
import statistics
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import psycopg2
from pydantic import SecretStr
from rich.table import Table

from bench.common import CONSOLE, OTHERS, cpu_seconds, postgres_server, save
from vacancy.connectors.flink.edges import jdbc_url
from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.flink.job_jars import flink_home, flink_jars, functions_jar, java_home, java_sources
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas.usage import HOST_COLUMNS

WAYS = ("arrays", "batch")
TYPES = {"BIGINT": "int8", "INT": "int4", "DOUBLE": "float8", "STRING": "text", "TIMESTAMP_LTZ(3)": "time"}
TABLE_BYTES = "pg_table_size('vacancy.host')"


@click.command()
@click.option("--hosts", type=click.IntRange(1), multiple=True, default=(1_000, 30_000), show_default=True)
@click.option("--rows", default=1_200_000, show_default=True, help="Rewritten in each turn, in all.")
@click.option("--turns", default=3, show_default=True, help="Of each way.")
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(hosts: tuple[int, ...], rows: int, turns: int, saved: bool) -> None:
    """Measures each way with each number of hosts; prints a table, writes bench/results/sink.json."""
    source = Path(__file__).parent / "java" / "vacancy" / "postgres" / "SinkBench.java"
    sizes = []
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name, postgres_server() as server:
        jar = functions_jar(dict(java_sources()) | {f"vacancy/postgres/{source.name}": source.read_bytes()}, Path(name))
        class_path = os.pathsep.join(map(str, [jar, *flink_jars(), flink_home() / "lib" / "*"]))
        migrate(SecretStr(server.owner_dsn))
        for count in hosts:
            runs: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
            for turn in range(turns):
                for way in WAYS if turn % 2 == 0 else reversed(WAYS):
                    with CONSOLE.status(f"{count:,} hosts, turn {turn + 1} of {turns}: {way}"):
                        runs[way].append(_run(server, class_path, way, count, max(1, rows // count)))
            sizes.append({"hosts": count, "ways": {way: _medians(of_way) for way, of_way in runs.items()}})
            pairs = zip(runs["arrays"], runs["batch"], strict=True)
            sizes[-1]["rows_per_s_ratio"] = round(
                statistics.median(ours["rows_per_s"] / theirs["rows_per_s"] for ours, theirs in pairs), 2
            )
    CONSOLE.print(_table(sizes))
    if saved:
        CONSOLE.print(save("sink", {"rows": rows, "turns": turns, "sizes": sizes}))


def _run(server: PostgresServer, class_path: str, way: str, hosts: int, rounds: int) -> dict[str, float]:
    """One turn of one way, from an empty table."""
    _query(server, "TRUNCATE vacancy.host")
    columns, types = _columns()
    url, user, password = jdbc_url(SecretStr(server.owner_dsn))
    if way == "batch":
        url += "&reWriteBatchedInserts=true&stringtype=unspecified"
    java: list[str | Path] = [java_home() / "bin" / "java", "-cp", class_path, "vacancy.postgres.SinkBench"]
    command = [*java, url, user, password, way, str(hosts), str(rounds), ",".join(columns), ",".join(types)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        before, cpu = _server_figures(server), cpu_seconds()
        process.stdin.write("\n")
        process.stdin.flush()
        seconds, client_s = map(float, process.stdout.readline().split())
        cpu, after = cpu_seconds(cpu), _server_figures(server)
    rows = hosts * rounds
    updated, hot, wal_bytes = (now - then for now, then in zip(after[:3], before[:3], strict=True))
    return {
        "rows_per_s": rows / seconds,
        "client_cpu_us_per_row": client_s / rows * 1e6,
        "server_cpu_us_per_row": cpu["PostgreSQL"] / rows * 1e6,
        "wal_bytes_per_row": wal_bytes / rows,
        "hot_share": hot / updated,
        "table_growth": after[3] / before[3],
        "others_cores_busy": cpu[OTHERS] / seconds,
    }


def _columns() -> tuple[list[str], list[str]]:
    """The names and types of the columns that the job writes."""
    return list(HOST_COLUMNS), [TYPES[kind.removesuffix(" NOT NULL")] for kind in HOST_COLUMNS.values()]


def _server_figures(server: PostgresServer) -> tuple[float, ...]:
    """So far: rows updated, HOT updates among them, bytes of WAL, bytes of the table."""
    _query(server, "SELECT pg_stat_force_next_flush()")
    return tuple(
        map(
            float,
            _query(
                server,
                "SELECT n_tup_upd, n_tup_hot_upd, pg_current_wal_insert_lsn() - '0/0'::pg_lsn, "
                f"{TABLE_BYTES} FROM pg_stat_user_tables WHERE relid = 'vacancy.host'::regclass",
            )[0],
        )
    )


def _query(server: PostgresServer, statement: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(server.owner_dsn)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return list(cursor.fetchall()) if cursor.description else []


def _medians(runs: list[dict[str, float]]) -> dict[str, Any]:
    medians = {name: float(f"{statistics.median(run[name] for run in runs):.4g}") for name in runs[0]}
    return medians | {"rows_per_s_of_turns": [round(run["rows_per_s"]) for run in runs]}


def _table(sizes: list[dict[str, Any]]) -> Table:
    table = Table(title="Rewriting the rows of vacancy.host, one connection")
    for column in ("hosts", "", "rows/s", "client us", "server us", "WAL bytes a row", "HOT", "growth", "others"):
        table.add_column(column, justify="right")
    for size in sizes:
        for way, figures in size["ways"].items():
            table.add_row(
                f"{size['hosts']:,}",
                way,
                f"{figures['rows_per_s']:,.0f}",
                f"{figures['client_cpu_us_per_row']:.1f}",
                f"{figures['server_cpu_us_per_row']:.1f}",
                f"{figures['wal_bytes_per_row']:.0f}",
                f"{figures['hot_share']:.2%}",
                f"{figures['table_growth']:.2f}",
                f"{figures['others_cores_busy']:.2f}",
            )
        table.add_row("", "ratio", f"{size['rows_per_s_ratio']:.2f}", end_section=True)
    return table


if __name__ == "__main__":
    main()
