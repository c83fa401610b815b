"""How well claims from a sample pack hosts, and how evenly several schedulers spread, with the SQL claim functions.

Packing: for each strategy the same hosts are filled with the same stream of flavours up to the first refusal, once by
reading every row for every claim, and with the default sample and bigger ones; the packed amounts are compared. Spread:
one scheduler, and eight at once, claim the same stream up to a share of all hosts' capacity; the standard deviations of
the hosts' loads are compared. Times are only informative: commits are asynchronous. No host reports meanwhile, so that
the runs differ only by their claims.

    python -m bench.packing
    python -m bench.packing --hosts 200 --no-save
"""

from __future__ import annotations

import json
import random
import statistics
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, NamedTuple, get_args

import click
import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extras import execute_values
from pydantic import SecretStr
from rich.table import Table

from bench.common import CONSOLE, postgres_server, save
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import SchedulerSettings, Strategy

STRATEGIES: tuple[str, ...] = get_args(Strategy)
SAMPLE = SchedulerSettings().sample
BIGGER_SAMPLES = (64, 256)
SCHEDULERS = 8
LOADED = 0.5
"""Share of all VCPUs that is claimed before loads are compared."""
_NO_ROOM = "no host fits, though half of the fleet is free"


class Amounts(NamedTuple):
    """VCPUs, MiB of memory and GiB of disk."""

    vcpus: int
    memory_mb: int
    disk_gb: int


FLAVOURS = (
    Amounts(1, 2048, 10),
    Amounts(2, 4096, 20),
    Amounts(2, 8192, 20),
    Amounts(4, 8192, 40),
    Amounts(4, 16_384, 40),
)


ClaimStream = Callable[[str, str, Iterable[Amounts], int], None]
"""Claims a stream of flavours: dsn, strategy, flavours, number of schedulers."""


@dataclass(frozen=True)
class Packed:
    """What was claimed up to the first refusal, and the time that it took."""

    claims: int
    vcpus: int
    memory_mb: int
    seconds: float


@click.command()
@click.option("--hosts", type=click.IntRange(1), default=2_000, show_default=True)
@click.option("--seed", default=0, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(hosts: int, seed: int, saved: bool) -> None:
    """Fills a fleet repeatedly; prints a table, writes bench/results/packing.json."""
    with _database() as dsn, closing(session(dsn)) as connection:
        capacity = make_fleet(connection, hosts, seed)
        packing: dict[str, dict[str, Any]] = {}
        for strategy in STRATEGIES:
            with CONSOLE.status(f"{strategy}: every row"), every_row_read(connection):
                best = fill(connection, strategy, seed)
            packing[strategy] = {"every_row": asdict(best)}
            for sample in (SAMPLE, *BIGGER_SAMPLES):
                with CONSOLE.status(f"{strategy}: a sample of {sample}"):
                    sampled = fill(connection, strategy, seed, sample)
                packing[strategy][f"sample_{sample}"] = {
                    **asdict(sampled),
                    "vcpus_ratio": round(sampled.vcpus / best.vcpus, 4),
                    "memory_ratio": round(sampled.memory_mb / best.memory_mb, 4),
                }
            CONSOLE.print(f"{strategy}: {packing[strategy]}")
        spread = {}
        for strategy in STRATEGIES:
            with CONSOLE.status(f"{strategy}: one scheduler, then {SCHEDULERS}"):
                one, many = (spread_of_load(dsn, strategy, seed, count) for count in (1, SCHEDULERS))
            spread[strategy] = {
                "one": round(one, 5),
                f"of_{SCHEDULERS}": round(many, 5),
                "ratio": round(many / one, 4),
            }
    CONSOLE.print(_table(packing, spread, capacity))
    if saved:
        result = {
            "hosts": hosts,
            "capacity": {"vcpus": capacity.vcpus, "memory_mb": capacity.memory_mb},
            "sample": SAMPLE,
            "packing": packing,
            "standard_deviation_of_load": {"loaded": LOADED, "schedulers": SCHEDULERS, **spread},
        }
        CONSOLE.print(save("packing", result))


def session(dsn: str) -> Connection:
    """An owner's connection with asynchronous commits."""
    connection: Connection = psycopg2.connect(dsn, options="-c synchronous_commit=off")
    connection.autocommit = True
    return connection


def seed_chance(connection: Connection, seed: int) -> None:
    """Seeds a session's random numbers, so that its claims draw the same ones each time."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT setseed(%s)", (1 / (2 + seed),))


def make_fleet(connection: Connection, hosts: int, seed: int) -> Amounts:
    """Creates empty hosts of several shapes in a database with Vacancy's tables; returns their total capacity."""
    chance = random.Random(seed)  # noqa: S311  # no secret
    inventories, usages, capacities = [], [], []
    for number in range(hosts):
        vcpus = chance.choice((8, 16, 24))
        capacity = Amounts(vcpus, vcpus * chance.choice((2048, 3072, 4096)), vcpus * 10)
        capacities.append(capacity)
        units = {
            name: {"total": total, "min_unit": 1, "max_unit": total, "step_size": 1}
            for name, total in zip(("VCPU", "MEMORY_MB", "DISK_GB"), capacity, strict=True)
        }
        inventories.append((f"host-{number}", f"compute-{number}", json.dumps(units)))
        each_thrice = [amount for amount in capacity for _ in range(3)]
        usages.append((f"host-{number}", *each_thrice, capacity.memory_mb, capacity.disk_gb))
    seed_chance(connection, seed)
    with connection.cursor() as cursor:
        execute_values(
            cursor,
            "INSERT INTO vacancy.host_inventory (host_id, name, inventories, observed_at, status, traits, aggregates)"
            " VALUES %s",
            inventories,
            "(%s, %s, %s, now(), 'ENABLED', '{}', '{}')",
        )
        execute_values(
            cursor,
            "INSERT INTO vacancy.host (host_id, vcpus_capacity, vcpus_free, vcpus_free_min,"
            " memory_mb_capacity, memory_mb_free, memory_mb_free_min, disk_gb_capacity, disk_gb_free, disk_gb_free_min,"
            " memory_mb_available, disk_gb_available,"
            " observed_at, window_start, window_end, samples, instances, recent_consumers) VALUES %s",
            usages,
            f"({'%s, ' * len(usages[0])}now(), now(), now(), 1, 0, '{{}}')",
        )
        cursor.execute("ANALYZE vacancy.host, vacancy.host_inventory")
    return Amounts(*map(sum, zip(*capacities, strict=True)))


def fill(connection: Connection, strategy: str, seed: int, sample: int = SAMPLE) -> Packed:
    """Claims a stream of flavours up to the first refusal, from a fleet without claims, and releases all claims."""
    began_s = time.monotonic()
    seed_chance(connection, seed)
    claims = 0
    while _claim(connection, strategy, _flavour(seed, claims), sample):
        claims += 1
    with connection.cursor() as cursor:
        cursor.execute("SELECT sum(vcpus)::bigint, sum(memory_mb)::bigint FROM vacancy.claim")
        vcpus, memory_mb = cursor.fetchone() or (0, 0)
        cursor.execute("TRUNCATE vacancy.claim")
    return Packed(claims, vcpus, memory_mb, round(time.monotonic() - began_s, 1))


def spread_of_load(
    dsn: str, strategy: str, seed: int, schedulers: int, claim_stream: ClaimStream | None = None
) -> float:
    """The standard deviation of the hosts' loads after several schedulers have claimed LOADED of the fleet at once.

    A host's load is the larger of its claimed fractions of VCPUs and of memory.

    Args:
        dsn: of a database with a fleet without claims.
        strategy: the schedulers' strategy.
        seed: of the stream of flavours.
        schedulers: the number of schedulers.
        claim_stream: how they claim; None: each as fast as it can.
    """
    with closing(session(dsn)) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT sum(vcpus_capacity)::bigint FROM vacancy.host")
        (wanted,) = cursor.fetchone() or (0,)
        stream: list[Amounts] = []
        while sum(flavour.vcpus for flavour in stream) < LOADED * wanted:
            stream += (_flavour(seed, len(stream) + number) for number in range(100))
        (claim_stream or _claim_at_once)(dsn, strategy, stream, schedulers)
        cursor.execute(
            "SELECT greatest(coalesce(sum(c.vcpus), 0)::float / h.vcpus_capacity,"
            " coalesce(sum(c.memory_mb), 0)::float / h.memory_mb_capacity)"
            " FROM vacancy.host AS h LEFT JOIN vacancy.claim AS c USING (host_id) GROUP BY h.host_id"
        )
        loads = [float(row[0]) for row in cursor.fetchall()]
        cursor.execute("TRUNCATE vacancy.claim")
    return float(statistics.pstdev(loads))


@contextmanager
def every_row_read(connection: Connection) -> Iterator[None]:
    """Makes claims examine all hosts at once; otherwise they do so only if no host of the sample fits."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_functiondef(oid), pg_get_function_arguments(oid) FROM pg_proc"
            " WHERE oid = 'vacancy.best_of_sample'::regproc"
        )
        as_it_was, arguments = cursor.fetchone() or ("", "")
        # By its own arguments: with others it would be a second function, which nobody calls.
        cursor.execute(
            f"CREATE OR REPLACE FUNCTION vacancy.best_of_sample({arguments}) LANGUAGE plpgsql AS"
            " $$ BEGIN best := (vacancy.best_of_all(request, NULL)).best; END $$"
        )
        try:
            yield
        finally:
            cursor.execute(as_it_was)


def claim_in_lockstep(dsn: str, strategy: str, stream: Iterable[Amounts], schedulers: int) -> None:
    """Claims a stream in rounds: each scheduler claims once, and then all commit, so that none sees another's claim.

    This is the worst case of schedulers that do not see each other's claims, and it is reproducible.
    """
    flavours = iter(stream)
    with ExitStack() as stack:
        connections = [stack.enter_context(closing(session(dsn))) for _ in range(schedulers)]
        for number, connection in enumerate(connections):
            seed_chance(connection, number)
            connection.autocommit = False
        while round_ := list(islice(flavours, schedulers)):
            for connection, flavour in zip(connections, round_, strict=False):
                assert _claim(connection, strategy, flavour), _NO_ROOM
            for connection in connections:
                connection.commit()


def _claim_at_once(dsn: str, strategy: str, stream: Iterable[Amounts], schedulers: int) -> None:
    """Claims a stream from as many sessions as there are schedulers, each taking the next flavour."""
    lock = threading.Lock()
    flavours = iter(stream)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with closing(session(dsn)) as connection:
                while True:
                    with lock:
                        flavour = next(flavours, None)
                    if flavour is None:
                        return
                    assert _claim(connection, strategy, flavour), _NO_ROOM
        except BaseException as error:  # noqa: BLE001  # raised again by the waiting thread
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(schedulers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _claim(connection: Connection, strategy: str, flavour: Amounts, sample: int = SAMPLE) -> bool:
    """One claim; whether a host fitted."""
    request = flavour._asdict() | {"strategy": strategy, "sample": sample, "max_age": "1 d", "claim_ttl": "1 d"}
    with connection.cursor() as cursor:
        statement = "SELECT host_id IS NOT NULL FROM vacancy.claim(ARRAY[%s]::uuid[], %s)"
        cursor.execute(statement, (str(uuid.uuid4()), json.dumps(request)))
        (claimed,) = cursor.fetchone() or (False,)
        return bool(claimed)


def _flavour(seed: int, number: int) -> Amounts:
    """The flavour at a place in the stream, the same for every caller."""
    return random.Random(seed * 1_000_003 + number).choice(FLAVOURS)  # noqa: S311  # no secret


@contextmanager
def _database() -> Iterator[str]:
    """The owner's connection string of a temporary server with Vacancy's tables."""
    with postgres_server() as server:
        migrate(SecretStr(server.owner_dsn))
        yield server.owner_dsn


def _table(packing: dict[str, dict[str, Any]], spread: dict[str, Any], capacity: Amounts) -> Table:
    table = Table()
    columns: Sequence[str] = (
        *("strategy", "read", "claims", "VCPUs packed", "to every row", "memory packed", "to every row", "seconds"),
        *("deviation by one", f"by {SCHEDULERS}", "ratio"),
    )
    for column in columns:
        table.add_column(column, justify="right")
    for strategy, runs in packing.items():
        loads = spread[strategy]
        deviations = [f"{loads['one']:.4f}", f"{loads[f'of_{SCHEDULERS}']:.4f}", f"{loads['ratio']:.3f}"]
        for read, run in runs.items():
            table.add_row(
                strategy,
                read,
                f"{run['claims']:,}",
                f"{run['vcpus'] / capacity.vcpus:.1%}",
                f"{run['vcpus_ratio']:.2%}" if "vcpus_ratio" in run else "",
                f"{run['memory_mb'] / capacity.memory_mb:.1%}",
                f"{run['memory_ratio']:.2%}" if "memory_ratio" in run else "",
                f"{run['seconds']:.0f}",
                *(deviations if read == f"sample_{SAMPLE}" else ()),
            )
    return table


if __name__ == "__main__":
    main()
