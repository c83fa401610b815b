"""Decisions with a durable claim per second, by number of hosts, compared with Placement; and the race for a last slot.

Clients are processes in a closed loop, each with its own Scheduler and connection. A claim takes 4 VCPUs, 8 GiB and
40 GB and expires so soon that the fleet never fills. With a writer, a process rewrites host rows meanwhile like the
job's sink: each second a transaction of 10,000 rows (at most each host once), all columns, in upserts of 128 rows.

Machines differ from hour to hour, so the floor is measured before each measurement, by as many clients in the same
database: a durable INSERT of one row through a trivial PL/pgSQL function, over a bare psycopg2 connection.

Placement (bench/placement) has a database on the same server, the same hosts and the same request. A decision is what
Nova asks Placement for one instance: allocation candidates, at most 1,000, then the allocation. Placement's application
is called in the clients' processes, without the HTTP server of a production setup. Its runs and Vacancy's alternate.

In a round of the race, four clients claim the last 8 GiB of a host at the same moment. Only one may get them.

    python -m bench.claims
    python -m bench.claims --hosts 1000 --seconds 3 --race-rounds 50 --no-placement
    python -m bench.claims pools        # claims whose disk comes from storage pools, in turns with plain ones
    python -m bench.claims many         # many requests in one call
    python -m bench.claims pgbouncer
    python -m bench.claims plot
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import subprocess
import tempfile
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import click
import psycopg2
from psycopg2.extensions import make_dsn
from pydantic import SecretStr
from rich.table import Table

from bench import claims_plot
from bench.closed_loop import Decide, Try, closed_loop, race
from bench.common import CONSOLE, OTHERS, RESULTS, cpu_seconds, percentiles, postgres_server, save
from bench.placement import environment
from tests.harness.pgbouncer import running_pgbouncer
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import Claim, ContendedError, NoHostFitsError, TimedOutError
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas.errors import VacancyError

SERVER = {"shared_buffers": "1GB", "max_wal_size": "4GB", "work_mem": "32MB", "random_page_cost": "1.1"}
"""The same for both sides; fsync and synchronous_commit are on, as they are by default."""
VCPUS, MEMORY_MB, DISK_GB = 4, 8192, 40
CLIENTS = (1, 8)
POOLED_CLIENTS = 8
WRITER_ROWS_PER_S = 10_000
WRITER_ROWS_A_STATEMENT = 128  # like a batch of pgjdbc
POOLS = (0, 1, 3)
"""Storage pools of a fleet; 0: each host has a disk of its own."""
PLACEMENT_HOSTS = (1_000, 10_000)
PLACEMENT_CLIENTS = 4
PLACEMENT_TURNS = 2
RACERS = 4
PLACEMENT_RACE_ROUNDS = 100
FLOOR = """
CREATE SCHEMA floor;
CREATE TABLE floor.claim (
  consumer uuid PRIMARY KEY, vcpus integer, memory_mb integer, disk_gb integer, claimed_at timestamptz
);
CREATE FUNCTION floor.insert_one(consumer uuid, vcpus integer, memory_mb integer, disk_gb integer) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO floor.claim VALUES (consumer, vcpus, memory_mb, disk_gb, clock_timestamp());
END
$$
"""
FLOOR_SECONDS = 2.0
MAX_AGE = timedelta(hours=1)  # without a writer no row is updated


@click.group(invoke_without_command=True)
@click.option(
    "--hosts", type=click.IntRange(1), multiple=True, default=(1_000, 10_000, 30_000, 100_000), show_default=True
)
@click.option("--seconds", default=10.0, show_default=True, help="Length of each measurement.")
@click.option("--placement/--no-placement", "with_placement", default=True, show_default=True)
@click.option(
    "--race-rounds", default=1_000, show_default=True, help="Rounds of Vacancy's race; Placement's are at most 100."
)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
@click.pass_context
def main(
    context: click.Context, hosts: Sequence[int], seconds: float, with_placement: bool, race_rounds: int, saved: bool
) -> None:
    """Measures; prints tables, writes bench/results/claims.json and docs/claims.svg."""
    if context.invoked_subcommand:
        return
    if with_placement:
        with CONSOLE.status("Placement's environment"):
            environment.python()
    runs: list[dict[str, Any]] = []
    beside: list[dict[str, Any]] = []
    placement: dict[str, str] = {}
    with postgres_server(**SERVER) as server:
        for count in hosts:
            with _fleet(server, count) as dsn:
                for writer in (False, True):
                    runs += [_run(dsn, count, clients, seconds, writer=writer) for clients in CLIENTS]
                if with_placement and count in PLACEMENT_HOSTS:
                    with _placement(server, count) as (order, versions):
                        placement |= versions
                        beside.append(_beside(dsn, order, count, seconds))
            CONSOLE.print(_table(runs, beside))
        races = {"vacancy": _race(server, race_rounds)} if race_rounds else {}
        if race_rounds and with_placement:
            races["placement"] = _placement_race(server, min(race_rounds, PLACEMENT_RACE_ROUNDS))
        version = _query(server.owner_dsn, "SHOW server_version")[0][0]
    for who, result in races.items():
        CONSOLE.print(
            f"{who}: of {result['rounds']:,} rounds for a last slot more than one won in {result['more_than_one']}; "
            f"hosts overcommitted: {result['hosts_overcommitted']}"
        )
    if saved:
        result = {
            "postgresql": {"version": version, **SERVER},
            "placement": placement,
            "claim": {"vcpus": VCPUS, "memory_mb": MEMORY_MB, "disk_gb": DISK_GB},
            "seconds": seconds,
            "runs": runs,
            "beside_placement": beside,
            "race": {"racers": RACERS, **races},
        }
        CONSOLE.print(save("claims", result | _kept(with_placement=with_placement, with_race=bool(race_rounds))))
        CONSOLE.print(claims_plot.draw(RESULTS / "claims.json"))


def _kept(*, with_placement: bool, with_race: bool) -> dict[str, Any]:
    """What the former result has of Placement and the race, and when it was measured, if this run leaves them out."""
    file = RESULTS / "claims.json"
    if (with_placement and with_race) or not file.exists():
        return {}
    former = json.loads(file.read_text(encoding="utf-8"))
    names = [] if with_placement else ["placement", "beside_placement"]
    names += [] if with_race and with_placement else ["race"]
    when = former.get("kept_from", f"{former['date']}, {former['revision']}")
    return {name: former[name] for name in names} | {"kept": names, "kept_from": when}


@main.command()
def plot() -> None:
    """Draws docs/claims.svg again from bench/results/claims.json."""
    CONSOLE.print(claims_plot.draw(RESULTS / "claims.json"))


@main.command()
@click.option("--hosts", default=10_000, show_default=True)
@click.option("--seconds", default=5.0, show_default=True, help="Length of each measurement.")
@click.option("--turns", default=3, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def pools(hosts: int, seconds: float, turns: int, saved: bool) -> None:
    """Claims whose disk comes from one storage pool, from three, and from the hosts themselves, in turns.

    Prints a table and writes bench/results/pool_claims.json: rates, latencies, and the server's CPU time per claim.
    """
    runs: list[dict[str, Any]] = []
    with postgres_server(**SERVER) as server, ExitStack() as stack:
        dsns = {count: stack.enter_context(_fleet(server, hosts, pools=count)) for count in POOLS}
        for clients in CLIENTS:
            for turn in range(turns):
                for count, dsn in dsns.items():
                    _execute(dsn, "TRUNCATE vacancy.pool_claimed")
                    runs.append({"pools": count, "turn": turn, **_run(dsn, hosts, clients, seconds, writer=False)})
        version = _query(server.owner_dsn, "SHOW server_version")[0][0]
    table = Table(title=f"A claim by where its disk comes from, {hosts:,} hosts")
    for column in (
        "clients",
        "pools",
        "claims/s",
        "p50 ms",
        "p99 ms",
        "server CPU ms",
        "to floor",
        "to plain, rate",
        "CPU",
    ):
        table.add_column(column, justify="right")
    ratios = []
    for clients in CLIENTS:
        medians = {}
        for count in POOLS:
            mine = [run for run in runs if (run["clients"], run["pools"]) == (clients, count)]
            medians[count] = [
                statistics.median(values)
                for values in (
                    [run["claims_per_s"] for run in mine],
                    [run["latency_ms"]["p50"] for run in mine],
                    [run["latency_ms"]["p99"] for run in mine],
                    [run["server_cpu_ms"] for run in mine],
                    [run["to_floor"] for run in mine],
                )
            ]
            rate, cpu = medians[0][0] / medians[count][0], medians[count][3] / medians[0][3]
            ratios.append({"clients": clients, "pools": count, "time": round(rate, 2), "server_cpu": round(cpu, 2)})
            figures_of = [f"{value:,.2f}" for value in (*medians[count], rate, cpu)]
            table.add_row(str(clients), str(count), *figures_of)
    CONSOLE.print(table)
    if saved:
        result = {"postgresql": {"version": version, **SERVER}, "hosts": hosts, "seconds": seconds}
        CONSOLE.print(save("pool_claims", result | {"to_plain": ratios, "runs": runs}))


@main.command()
@click.option("--hosts", default=10_000, show_default=True)
@click.option("--batch", default=16, show_default=True, help="Requests in a call.")
@click.option("--seconds", default=5.0, show_default=True, help="Length of each measurement.")
@click.option("--turns", default=3, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def many(hosts: int, batch: int, seconds: float, turns: int, saved: bool) -> None:
    """Compares many requests in one call with as many calls, in turns, by 8 clients; writes many_claims.json."""
    runs: dict[str, list[dict[str, Any]]] = {"one by one": [], f"{batch} a call": []}
    with postgres_server(**SERVER) as server, _fleet(server, hosts) as dsn:
        for _ in range(turns):
            runs["one by one"].append(_run(dsn, hosts, POOLED_CLIENTS, seconds, writer=False))
            runs[f"{batch} a call"].append(_run(dsn, hosts, POOLED_CLIENTS, seconds, writer=False, batch=batch))
    table = Table(title=f"Claims of {POOLED_CLIENTS} clients, {hosts:,} hosts")
    for column in ("", "claims/s", "floor/s", "to floor", "p50 ms of a call", "p99 ms"):
        table.add_column(column, justify="right")
    for way, mine in runs.items():
        figures_of = [
            statistics.median(values)
            for values in (
                [run["claims_per_s"] for run in mine],
                [run["floor_per_s"] for run in mine],
                [run["to_floor"] for run in mine],
                [run["latency_ms"]["p50"] for run in mine],
                [run["latency_ms"]["p99"] for run in mine],
            )
        ]
        table.add_row(way, *(f"{value:,.2f}" for value in figures_of))
    CONSOLE.print(table)
    if saved:
        CONSOLE.print(
            save("many_claims", {"hosts": hosts, "clients": POOLED_CLIENTS, "seconds": seconds, "runs": runs})
        )


@main.command()
@click.option("--hosts", default=1_000, show_default=True)
@click.option("--turns", default=3, show_default=True)
@click.option("--seconds", default=10.0, show_default=True, help="Length of each measurement.")
def pgbouncer(hosts: int, turns: int, seconds: float) -> None:
    """Compares claims through PgBouncer in transaction mode with direct ones, in turns; writes a result of its own."""
    ways: dict[str, list[dict[str, Any]]] = {"direct": [], "through_pgbouncer": []}
    with (
        postgres_server(**SERVER) as server,
        running_pgbouncer(server, "transaction", default_pool_size="8") as pooler,
        _fleet(server, hosts) as dsn,
    ):
        places = {"direct": dsn, "through_pgbouncer": make_dsn(pooler, dbname=dsn.rpartition("/")[2])}
        for _ in range(turns):
            for way, place in places.items():
                ways[way].append(_run(dsn, hosts, POOLED_CLIENTS, seconds, writer=False, through=place))
    rates = {way: sum(run["claims_per_s"] for run in runs) / turns for way, runs in ways.items()}
    ratio = round(rates["through_pgbouncer"] / rates["direct"], 3)
    CONSOLE.print(rates, f"ratio {ratio}")
    CONSOLE.print(save("claims_pgbouncer", {"clients": POOLED_CLIENTS, "hosts": hosts, **ways, "ratio": ratio}))


def floor(dsn: str, clients: int) -> float:
    """Durable inserts of one row per second, each through a trivial function: what no claim can be quicker than."""
    _execute(dsn, FLOOR)
    seen = closed_loop(floor_decider, [dsn], clients=clients, warm_up_s=0.5, seconds=FLOOR_SECONDS)
    _execute(dsn, "DROP SCHEMA floor CASCADE")
    return round(float(seen["decisions_per_s"]), 2)


def floor_decider(dsn: str) -> Decide:
    """A client that does nothing but insert."""
    connection = psycopg2.connect(dsn)
    connection.autocommit = True
    cursor = connection.cursor()

    def insert() -> None:
        cursor.execute("SELECT floor.insert_one(%s::uuid, %s, %s, %s)", (str(uuid.uuid4()), VCPUS, MEMORY_MB, DISK_GB))

    return insert


def _run(
    dsn: str, hosts: int, clients: int, seconds: float, *, writer: bool, through: str = "", batch: int = 1
) -> dict[str, Any]:
    """One measurement of Vacancy, starting with an empty claim table; clients may come through a pooler.

    Its rates are of claims, its latencies of calls, each of which is for `batch` requests.
    """
    floor_per_s = floor(dsn, clients)
    _execute(dsn, "TRUNCATE vacancy.claim")
    _execute(dsn, "CHECKPOINT")
    ttl = claim_ttl_of(hosts)
    with CONSOLE.status(f"{hosts:,} hosts, {clients} clients, {'a' if writer else 'no'} writer"):
        scans, cpu, start_s = _scans(dsn), cpu_seconds(), time.monotonic()
        with _writer(dsn, hosts) if writer else _no_writer() as rows_per_s:
            # Once the first claims have expired, as many expire as are made.
            warm_up_s = min(ttl.total_seconds() + 1, seconds)
            seen = closed_loop(
                decider, [through or dsn, ttl, batch], clients=clients, warm_up_s=warm_up_s, seconds=seconds
            )
            seen["decisions_per_s"] *= batch
            written = rows_per_s()
        elapsed_s, used = time.monotonic() - start_s, cpu_seconds(cpu)
        return {
            "hosts": hosts,
            "clients": clients,
            "writer_rows_per_s": written,
            "claim_ttl_s": ttl.total_seconds(),
            "floor_per_s": floor_per_s,
            **figures(seen),
            "to_floor": round(seen["decisions_per_s"] / floor_per_s, 3),
            # None if all claims were made from the sample.
            "sequential_scans": {table: now - scans[table] for table, now in _scans(dsn).items()},
            # The server's, of the warm-up's claims, too: for comparison with each other.
            "server_cpu_ms": round(1e3 * used["PostgreSQL"] / (seen["decisions_per_s"] * (seconds + warm_up_s)), 3),
            "others_cores_busy": round(used[OTHERS] / elapsed_s, 2),
        }


def _beside(dsn: str, order: Callable[..., Any], hosts: int, seconds: float) -> dict[str, Any]:
    """Vacancy's and Placement's measurements, alternating with equally many clients, and the ratio of their rates."""
    ours, theirs = [], []
    resources = {"VCPU": VCPUS, "MEMORY_MB": MEMORY_MB, "DISK_GB": DISK_GB}
    for turn in range(PLACEMENT_TURNS):
        ours.append(_run(dsn, hosts, PLACEMENT_CLIENTS, seconds, writer=False))
        with CONSOLE.status(f"{hosts:,} hosts, Placement, turn {turn + 1}"):
            cpu, start_s = cpu_seconds(), time.monotonic()
            seen = order(
                "claims", clients=PLACEMENT_CLIENTS, warm_up_s=min(5.0, seconds), seconds=seconds, resources=resources
            )
            others_s, elapsed_s = cpu_seconds(cpu)[OTHERS], time.monotonic() - start_s
            theirs.append(figures(seen) | {"others_cores_busy": round(others_s / elapsed_s, 2)})
    rates = [sum(run["claims_per_s"] for run in runs) for runs in (ours, theirs)]
    return {
        "hosts": hosts,
        "clients": PLACEMENT_CLIENTS,
        "vacancy": ours,
        "placement": theirs,
        "ratio": round(rates[0] / rates[1], 1) if rates[1] else None,
    }


def figures(seen: dict[str, Any]) -> dict[str, Any]:
    """The results of clients in a closed loop."""
    latencies_ms = seen["latencies_ms"]
    return {
        "claims": len(latencies_ms),
        "claims_per_s": round(seen["decisions_per_s"], 2),
        "latency_ms": percentiles(latencies_ms) if latencies_ms else None,
        "failures": seen["failures"],
    }


def claim_ttl_of(hosts: int) -> timedelta:
    """At most the time until a host reports an instance; so a fleet with room for 22 claims per host never fills."""
    return timedelta(seconds=min(2.0, hosts * 22 / 5_000))


def _settings(claim_ttl: timedelta) -> SchedulerSettings:
    return SchedulerSettings(connections=1, max_age=MAX_AGE, claim_ttl=claim_ttl)


def decider(dsn: str, claim_ttl: timedelta, batch: int = 1) -> Decide:
    """A client that claims repeatedly from a fleet in which every host fits, for so many requests in a call."""
    scheduler = Scheduler(dsn, _settings(claim_ttl))
    request = Request(vcpus=VCPUS, memory_mb=MEMORY_MB, disk_gb=DISK_GB)
    # Of three sizes, which take as much as the one does.
    sizes = [
        Request(vcpus=VCPUS * part // 2, memory_mb=MEMORY_MB * part // 2, disk_gb=DISK_GB * part // 2)
        for part in (1, 2, 3)
    ]
    queue = [sizes[number % 3] for number in range(batch)]

    def decide() -> str | None:
        if batch > 1:
            others = [each for each in scheduler.claim_many(queue) if not isinstance(each, Claim)]
            return type(others[0]).__name__ if others else None
        try:
            scheduler.claim(request)
        except (NoHostFitsError, ContendedError, TimedOutError) as error:
            return type(error).__name__
        return None

    return decide


def _racer(dsn: str) -> Try:
    scheduler = Scheduler(dsn, _settings(timedelta(hours=1)))

    def attempt(number: int) -> bool:
        try:
            scheduler.claim(Request(memory_mb=MEMORY_MB, include=(f"host-{number + 1}",)))
        except NoHostFitsError:
            return False
        return True

    return attempt


def _race(server: PostgresServer, rounds: int) -> dict[str, Any]:
    """Vacancy's race: each round is about one host, with room for one claim."""
    with CONSOLE.status("the race for the last slot"), _fleet(server, rounds) as dsn:
        _execute(dsn, "UPDATE vacancy.host SET memory_mb_free = %s", MEMORY_MB)
        winners = race(_racer, [dsn], racers=RACERS, rounds=rounds)
        overcommitted = _query(dsn, "SELECT count(*) FROM vacancy.schedulable_host WHERE memory_mb_free < 0")[0][0]
        return _outcome(winners, overcommitted)


def _placement_race(server: PostgresServer, rounds: int) -> dict[str, Any]:
    with (
        CONSOLE.status("Placement's race for the last slot"),
        _placement(server, rounds, one_slot_of_mb=MEMORY_MB) as (order, _),
    ):
        return _outcome(**order("race", racers=RACERS, rounds=rounds, memory_mb=MEMORY_MB))


def _outcome(winners: Sequence[int], overcommitted: int) -> dict[str, Any]:
    """The race's result according to the racers' answers and to the tables."""
    by_winners = Counter(winners)
    return {
        "rounds": len(winners),
        "more_than_one": sum(rounds for won, rounds in by_winners.items() if won > 1),
        "hosts_overcommitted": overcommitted,
        "rounds_by_winners": {str(won): rounds for won, rounds in sorted(by_winners.items())},
    }


@contextmanager
def _writer(dsn: str, hosts: int) -> Iterator[Callable[[], int]]:
    """A process that rewrites host rows like the job's sink; reports its rows per second."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_write, args=(dsn, min(WRITER_ROWS_PER_S, hosts), its), daemon=True)
    process.start()
    its.close()  # so that its end shows

    def rows_per_s() -> int:
        ours.send("how many")
        return int(ours.recv())

    try:
        ours.recv()  # it writes
        yield rows_per_s
    finally:
        ours.close()
        process.join(30)
        if process.is_alive():
            process.terminate()
            process.join()


@contextmanager
def _no_writer() -> Iterator[Callable[[], None]]:
    yield lambda: None


def _write(dsn: str, rows_per_s: int, pipe: Pipe) -> None:
    """Writes a transaction of so many rows every second, until the other end of the pipe closes."""
    times = ("observed_at", "window_start", "window_end")
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT column_name FROM information_schema.columns"
            " WHERE table_schema = 'vacancy' AND table_name = 'host' ORDER BY column_name"
        )
        columns = [row[0] for row in cursor.fetchall() if row[0] not in times]
        # The server quotes the values once, so that the upsert is measured and not Python. Like the sink's batches they
        # are in no particular order.
        literals = " || ', ' || ".join(f"quote_nullable({column})" for column in columns)
        cursor.execute(f"SELECT {literals} FROM vacancy.host ORDER BY hashtext(host_id)")
        rows = [row[0] for row in cursor.fetchall()]
        columns = [*times, *columns]
        insert = f"INSERT INTO vacancy.host ({', '.join(columns)}) VALUES "
        update = " ON CONFLICT (host_id) DO UPDATE SET " + ", ".join(
            f"{column} = EXCLUDED.{column}" for column in columns if column != "host_id"
        )
        connection.commit()
        pipe.send("ready")
        written, place = 0, 0
        start_s = due_s = time.monotonic()
        while True:
            due_s = max(due_s + 1.0, time.monotonic())
            now = datetime.now(UTC)
            prefix = f"('{now}', '{now - timedelta(minutes=1)}', '{now}', "
            batch = [rows[(place + number) % len(rows)] for number in range(rows_per_s)]
            place += rows_per_s
            for first in range(0, len(batch), WRITER_ROWS_A_STATEMENT):
                values = ", ".join(f"{prefix}{row})" for row in batch[first : first + WRITER_ROWS_A_STATEMENT])
                cursor.execute(insert + values + update)
            connection.commit()
            written += len(batch)
            while pipe.poll(max(0.0, due_s - time.monotonic())):
                try:
                    pipe.recv()
                except EOFError:
                    return
                # The last batch is for the whole of its second.
                pipe.send(round(written / (max(due_s, time.monotonic()) - start_s)))


@contextmanager
def _database(server: PostgresServer, name: str) -> Iterator[str]:
    """The owner's DSN of a temporary database."""
    _execute(server.owner_dsn, f"CREATE DATABASE {name}")
    try:
        yield f"{server.owner_dsn.rpartition('/')[0]}/{name}"
    finally:
        _execute(server.owner_dsn, f"DROP DATABASE {name} WITH (FORCE)")


@contextmanager
def _fleet(server: PostgresServer, hosts: int, *, pools: int = 0) -> Iterator[str]:
    """A Vacancy database with so many hosts, whose disk comes from so many storage pools; of none it is their own."""
    with _database(server, f"vacancy_{hosts}_{pools}") as dsn:
        with CONSOLE.status(f"{hosts:,} hosts: loading"):
            migrate(SecretStr(dsn))
            with closing(psycopg2.connect(dsn)) as connection, connection, connection.cursor() as cursor:
                cursor.execute(Path(__file__).with_name("fleet.sql").read_text(encoding="utf-8"), {"hosts": hosts})
                if pools:
                    cursor.execute(Path(__file__).with_name("pools.sql").read_text(encoding="utf-8"), {"pools": pools})
            _execute(dsn, "VACUUM ANALYZE")
        yield dsn


@contextmanager
def _placement(
    server: PostgresServer, hosts: int, one_slot_of_mb: int | None = None
) -> Iterator[tuple[Callable[..., Any], dict[str, str]]]:
    """A Placement database with as many hosts: a function that sends it orders, and its versions."""
    with _database(server, f"placement_{hosts}") as dsn, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        environment.configure(directory, dsn.replace("postgresql://", "postgresql+psycopg2://"))

        def order(do: str, **arguments: Any) -> Any:
            program = subprocess.run(
                environment.command("clients"),
                input=json.dumps({"do": do, **arguments}),
                env=environment.variables(directory),
                stdout=subprocess.PIPE,
                text=True,
                check=False,
            )
            if program.returncode:
                log = (directory / "placement.log").read_text(encoding="utf-8")
                raise VacancyError(f"Placement's side failed: {log[-2000:]}")
            return json.loads(program.stdout)

        with CONSOLE.status(f"{hosts:,} hosts: loading Placement's"):
            versions = order("load", dsn=dsn, hosts=hosts, one_slot_of_mb=one_slot_of_mb)
        yield lambda do, **arguments: order(do, **({"dsn": dsn} if do == "race" else {}), **arguments), versions


def _scans(dsn: str) -> dict[str, int]:
    """Number of sequential scans so far, by table."""
    statement = "SELECT relname, seq_scan FROM pg_stat_user_tables WHERE relname IN ('host', 'host_inventory', 'claim')"
    return dict(_query(dsn, statement))


def _execute(dsn: str, statement: str, *values: object) -> None:
    with closing(psycopg2.connect(dsn)) as connection:
        connection.autocommit = True
        connection.cursor().execute(statement, values or None)


def _query(dsn: str, statement: str) -> list[Any]:
    with closing(psycopg2.connect(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute(statement)
        return cursor.fetchall()


def _table(runs: Sequence[dict[str, Any]], beside: Sequence[dict[str, Any]]) -> Table:
    table = Table(title="Decisions with a durable claim")
    for column in (
        "hosts",
        "who",
        "clients",
        "written/s",
        "claims/s",
        "floor/s",
        "to floor",
        "p50 ms",
        "p99 ms",
        "failed",
        "others",
    ):
        table.add_column(column, justify="right")

    def add(who: str, hosts: int, clients: int, run: dict[str, Any]) -> None:
        latency_ms = run["latency_ms"] or {}
        written = run.get("writer_rows_per_s")
        table.add_row(
            f"{hosts:,}",
            who,
            str(clients),
            "" if written is None else f"{written:,}",
            f"{run['claims_per_s']:,.1f}",
            f"{run['floor_per_s']:,.0f}" if "floor_per_s" in run else "",
            f"{run['to_floor']:.2f}" if "to_floor" in run else "",
            *(f"{latency_ms[name]:,.1f}" if latency_ms else "" for name in ("p50", "p99")),
            str(sum(run["failures"].values()) or ""),
            f"{run['others_cores_busy']:.2f}",
        )

    for run in runs:
        add("vacancy", run["hosts"], run["clients"], run)
    for pair in beside:
        table.add_section()
        for ours, theirs in zip(pair["vacancy"], pair["placement"], strict=True):
            add("vacancy", pair["hosts"], pair["clients"], ours)
            add("placement", pair["hosts"], pair["clients"], theirs)
        table.add_row("", "ratio", "", "", f"{pair['ratio']:,.0f}" if pair["ratio"] else "")
    return table


if __name__ == "__main__":
    main()
