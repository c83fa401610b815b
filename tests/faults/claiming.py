"""What runs in processes of its own while claims are put to the test: schedulers that claim, and the sink's writer.

Both survive what the test does to them. A claiming process writes a diary, before and after each call, and the one that
takes its place after kill -9 goes on from there. The writer keeps what runs on the hosts in tables of the test's own,
schema ``ledger``, changed in the same transactions as the hosts' rows.
"""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple, get_args

import psycopg2
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extras import execute_values

from tests.harness.rows import INVENTORY, USAGE
from vacancy.connectors.postgres.connection import UnreachableError
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import ContendedError, NoHostFitsError
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings, Strategy

LEDGER = """
CREATE SCHEMA ledger;
-- What each host has in all, and each storage pool.
CREATE TABLE ledger.capacity (host_id text PRIMARY KEY, vcpus bigint, memory_mb bigint, disk_gb bigint);
-- The storage pool that a host's disk comes from.
CREATE TABLE ledger.pool_of (host_id text PRIMARY KEY, pool_id text NOT NULL);
-- What runs on the hosts, or did.
CREATE TABLE ledger.instance (
  consumer uuid PRIMARY KEY, host_id text NOT NULL, vcpus bigint, memory_mb bigint, disk_gb bigint,
  lasting boolean NOT NULL DEFAULT false, started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  ended_at timestamptz
);
-- What came to count against a host and what ceased to. Its order is that of the commits, which the server notes.
CREATE TABLE ledger.event (consumer uuid, host_id text NOT NULL, vcpus bigint, memory_mb bigint, disk_gb bigint);
CREATE FUNCTION ledger.note_claim() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
  IF TG_OP = 'INSERT' THEN
    INSERT INTO ledger.event VALUES (NEW.consumer, NEW.host_id, NEW.vcpus, NEW.memory_mb, NEW.disk_gb);
  ELSIF OLD.vcpus > 0 THEN  -- no stand-in for one that was released and is to be written off
    INSERT INTO ledger.event VALUES (OLD.consumer, OLD.host_id, -OLD.vcpus, -OLD.memory_mb, -OLD.disk_gb);
  END IF;
  RETURN NULL;
END
$$;
CREATE TRIGGER note_claim AFTER INSERT OR DELETE OR UPDATE OF consumer ON vacancy.claim
FOR EACH ROW EXECUTE FUNCTION ledger.note_claim();
GRANT USAGE ON SCHEMA ledger TO vacancy_job;
GRANT SELECT, INSERT, UPDATE ON ALL TABLES IN SCHEMA ledger TO vacancy_job;
"""
SETTINGS = SchedulerSettings(
    connections=1,
    claim_ttl=timedelta(days=1),  # nothing expires by itself
    statement_timeout=timedelta(seconds=30),  # the machine may be busy: slow is no fault
)
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)
PERIOD_S = 1.0
LISTED_FOR = timedelta(seconds=4)
MEAN_LIFE_S = 5.0
BATCH_HOSTS = 500


class Amounts(NamedTuple):
    """VCPUs, MiB of memory and GiB of disk."""

    vcpus: int
    memory_mb: int
    disk_gb: int

    def times(self, factor: int) -> Amounts:
        return Amounts(*(each * factor for each in self))

    def plus(self, other: Amounts) -> Amounts:
        return Amounts(*(one + another for one, another in zip(self, other, strict=True)))

    def less(self, other: Amounts) -> Amounts:
        return self.plus(other.times(-1))


NOTHING = Amounts(0, 0, 0)
SMALLEST = Amounts(1, 2048, 10)
FLAVOURS = (SMALLEST, SMALLEST.times(2), Amounts(2, 8192, 20), SMALLEST.times(4))


def to_be_started(consumer: str) -> bool:
    """Whether an instance is started on a claim: the writer's affair then. Else its claimer releases it some time."""
    return int(consumer[-1], 16) < 5


# --------------------------------------------------------------------------------------------------------------------
# The diary of a claiming process and of those that take its place.


@dataclass(frozen=True)
class Intention:
    """A call that is about to be made."""

    flavour: Amounts
    distinct_hosts: bool
    strategy: Strategy
    consumers: list[str]

    def request(self) -> Request:
        return Request(**self.flavour._asdict(), distinct_hosts=self.distinct_hosts, strategy=self.strategy)


@dataclass
class History:
    """What a diary tells.

    Attributes:
        intended: each consumer's call.
        acknowledged: the host of each consumer whose claim was acknowledged.
        refused: consumers of calls that were refused.
        releasing: consumers whose release was begun.
        released: consumers whose release was acknowledged.
        unanswered: the last call, if it was not answered.
        split: calls of which only a part was said to have been claimed before.
        told: how often each other thing happened.
        errors: what should never have happened.
    """

    intended: dict[str, Intention] = field(default_factory=dict)
    acknowledged: dict[str, str] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)
    releasing: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    unanswered: Intention | None = None
    split: list[str] = field(default_factory=list)
    told: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))
    errors: list[str] = field(default_factory=list)

    def read(self, line: str) -> None:
        """Takes a line of a diary in."""
        what, said = json.loads(line)
        self.told[what] += 1
        if what == "intend":
            flavour, distinct_hosts, strategy, consumers = said
            self.unanswered = Intention(Amounts(*flavour), distinct_hosts, strategy, consumers)
            self.intended |= dict.fromkeys(consumers, self.unanswered)
        elif what == "got":
            self.acknowledged |= {consumer: host for consumer, host, _ in said}
            if len({already for _, _, already in said}) > 1:
                self.split.append(line)
            self.told["already"] += sum(already for _, _, already in said)
            self.unanswered = None
        elif what == "refused":
            self.refused |= set(said)
            self.unanswered = None
        elif what == "releasing":
            self.releasing |= set(said)
        elif what == "released":
            self.released |= set(said)
        elif what == "error":
            self.errors.append(said)


class Diary:
    """A file that one process at a time appends to: a line is whole or not there, whenever its writer is killed."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY)

    def note(self, what: str, said: object = None) -> None:
        os.write(self._file, (json.dumps((what, said)) + "\n").encode())


class DiaryReader:
    """Follows a diary."""

    def __init__(self, path: Path) -> None:
        self.history = History()
        self._path = path
        self._offset = 0

    def follow(self) -> History:
        """Reads what was written since the last time."""
        if self._path.exists():
            with self._path.open("rb") as file:
                file.seek(self._offset)
                whole, end, _ = file.read().rpartition(b"\n")
            for line in whole.splitlines():
                self.history.read(line.decode())
            self._offset += len(whole + end)
        return self.history


# --------------------------------------------------------------------------------------------------------------------
# The processes.


def claim_until_stopped(diary_file: Path, dsn: str, seed: int, parent: int) -> None:
    """Claims until SIGTERM or its parent's end.

    When it is refused it releases of its own, so that the fleet stays full and moves on.
    """
    stopped = _stopped_by_sigterm()
    chance = random.Random(seed)
    past = DiaryReader(diary_file).follow()
    diary = Diary(diary_file)
    mine = [each for each in past.acknowledged if not to_be_started(each) and each not in past.releasing]
    due = sorted(past.releasing - past.released)
    intention = past.unanswered
    scheduler = Scheduler(dsn, SETTINGS)
    while not stopped.is_set() and os.getppid() == parent:
        try:
            if due:
                scheduler.release(*due)
                diary.note("released", due)
                due = []
            if intention is None:
                intention = _intention(chance)
                diary.note("intend", astuple(intention))
            claims = scheduler.claim(intention.request(), intention.consumers)
            diary.note("got", [(str(claim.consumer), claim.host_id, claim.already) for claim in claims])
            mine += [each for each in intention.consumers if not to_be_started(each)]
            intention = None
        except NoHostFitsError:
            assert intention is not None
            diary.note("refused", intention.consumers)
            small = (intention.flavour, len(intention.consumers)) == (SMALLEST, 1)
            intention = None
            if not small:
                # First the gaps that are left, so that the fleet is full to the brim.
                intention = Intention(SMALLEST, False, "random", [_consumer(chance)])
                diary.note("intend", astuple(intention))
                continue
            chance.shuffle(mine)
            half = -(-len(mine) // 2)
            mine, due = mine[half:], mine[:half]
            if due:
                diary.note("releasing", due)
            else:
                stopped.wait(0.1)  # for instances to end
        except (ContendedError, UnreachableError) as error:
            diary.note(type(error).__name__)  # and again with the same consumers
        except Exception as error:  # noqa: BLE001  # the test fails for it, and says what it was
            diary.note("error", f"{type(error).__name__}: {error}")
            stopped.wait(0.1)
    diary.note("counters", {name: value for name, value in vars(scheduler.counters).items() if isinstance(value, int)})
    scheduler.close()


def _stopped_by_sigterm() -> threading.Event:
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    return stopped


def _intention(chance: random.Random) -> Intention:
    count = chance.choice((2, 3, 4)) if chance.random() < 0.15 else 1
    consumers = [_consumer(chance) for _ in range(count)]
    return Intention(chance.choice(FLAVOURS), count > 1 and chance.random() < 0.7, chance.choice(STRATEGIES), consumers)


def _consumer(chance: random.Random) -> str:
    return str(uuid.UUID(int=chance.getrandbits(128), version=4))


def write_until_stopped(dsn: str, seed: int, parent: int) -> None:
    """Rewrites every host each second, as the job does, for as long; starts instances on claims, and ends some."""
    stopped = _stopped_by_sigterm()
    chance = random.Random(seed)
    while not stopped.is_set() and os.getppid() == parent:
        try:
            with closing(psycopg2.connect(dsn)) as connection:
                while not stopped.is_set() and os.getppid() == parent:
                    began_s = time.monotonic()
                    write_all(connection, chance)
                    stopped.wait(max(0.0, began_s + PERIOD_S - time.monotonic()))
        except (
            psycopg2.OperationalError,
            psycopg2.InterfaceError,
        ):  # the server restarts; the ledger knows what was committed
            stopped.wait(0.2)


def write_all(connection: Connection, chance: random.Random, batch_hosts: int = BATCH_HOSTS) -> None:
    """Every host once, some in each transaction, with what ended on them and what was started on claims."""
    now = datetime.now(UTC)
    with connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT host_id, vcpus, memory_mb, disk_gb FROM ledger.capacity"
            " WHERE host_id NOT IN (SELECT pool_id FROM ledger.pool_of)"
        )
        capacity = {host: Amounts(*all_of_it) for host, *all_of_it in cursor.fetchall()}
        cursor.execute(
            "SELECT host_id, disk_gb FROM ledger.capacity WHERE host_id IN (SELECT pool_id FROM ledger.pool_of)"
        )
        in_pools = [(pool, Amounts(0, 0, disk_gb)) for pool, disk_gb in cursor.fetchall()]
        # What instances hold of it their hosts say.
        pools = [_usage_row(pool, now, in_pool, in_pool, []) for pool, in_pool in in_pools]
        cursor.execute(
            "SELECT consumer::text, host_id, vcpus, memory_mb, disk_gb, lasting, started_at FROM ledger.instance"
            " WHERE ended_at IS NULL"
        )
        running = defaultdict(list)
        for consumer, host, *held, lasting, started_at in cursor.fetchall():
            running[host].append((consumer, Amounts(*held), lasting, started_at))
        cursor.execute(
            "SELECT consumer::text, host_id, vcpus, memory_mb, disk_gb FROM vacancy.claim"
            " WHERE settled_at IS NULL AND vcpus > 0"
        )
        starting = defaultdict(list)
        for consumer, host, *held in cursor.fetchall():
            if to_be_started(consumer) and chance.random() < 0.5:
                starting[host].append((consumer, Amounts(*held)))
    hosts = list(capacity)
    chance.shuffle(hosts)
    before = chance.randrange(0, len(hosts), batch_hosts)
    for first in range(0, len(hosts), batch_hosts):
        if pools and first == before:  # at any place among the hosts, in a transaction of its own
            with connection, connection.cursor() as cursor:
                upsert(cursor, "vacancy.host", list(USAGE), pools)
        rows, started, ended = [], [], []
        for host in hosts[first : first + batch_hosts]:
            used, listed = NOTHING, [consumer for consumer, _ in starting[host]]
            for consumer, amounts, lasting, started_at in running[host]:
                if not lasting and chance.random() < PERIOD_S / MEAN_LIFE_S:
                    ended.append((consumer, host, *amounts.times(-1)))
                    continue
                used = used.plus(amounts)
                if not lasting and now - started_at < LISTED_FOR:
                    listed.append(consumer)
            for consumer, amounts in starting[host]:
                used = used.plus(amounts)
                started.append((consumer, host, *amounts))
            rows.append(_usage_row(host, now, capacity[host], capacity[host].less(used), listed))
        with connection, connection.cursor() as cursor:
            if started:
                columns = "consumer, host_id, vcpus, memory_mb, disk_gb"
                execute_values(cursor, f"INSERT INTO ledger.instance ({columns}) VALUES %s", started)
            if ended:
                execute_values(cursor, "INSERT INTO ledger.event VALUES %s", ended)
                cursor.execute(
                    "UPDATE ledger.instance SET ended_at = clock_timestamp() WHERE consumer = ANY (%s::uuid[])",
                    ([consumer for consumer, *_ in ended],),
                )
            upsert(cursor, "vacancy.host", list(USAGE), rows)


def upsert(
    cursor: psycopg2.extensions.cursor, table: str, columns: Sequence[str], rows: Iterable[list[object]]
) -> None:
    """Rows as the job's sink writes them, in one statement."""
    updates = ", ".join(f"{column} = EXCLUDED.{column}" for column in columns)
    execute_values(
        cursor,
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES %s ON CONFLICT (host_id) DO UPDATE SET {updates}",
        rows,
        page_size=BATCH_HOSTS,
    )


def _usage_row(host: str, now: datetime, capacity: Amounts, free: Amounts, listed: list[str]) -> list[object]:
    values = USAGE | {
        "host_id": host,
        "observed_at": now,
        "window_start": now - timedelta(minutes=1),
        "window_end": now,
        "memory_mb_available": free.memory_mb + 1024,
        "disk_gb_available": max(0, free.disk_gb) + 1,
        "recent_consumers": "{" + ",".join(listed) + "}",
    }
    for (name, all_of_it), left in zip(capacity._asdict().items(), free, strict=True):
        values |= {f"{name}_capacity": all_of_it, f"{name}_free": left, f"{name}_free_min": left}
    return list(values.values())


def make_fleet(owner: Connection, hosts: int, seed: int, pools: int = 0) -> None:
    """Hosts of several shapes and their ledger, nearly full of instances that last.

    The disk of three quarters of them comes from storage pools, if there are any; a pool has so little left that its
    hosts would have room for more.
    """
    chance = random.Random(seed)
    now = datetime.now(UTC)
    inventories, capacities, lasting, pool_of = [], [], [], []
    in_pool = dict.fromkeys((f"pool-{number}" for number in range(pools)), 0)
    for number in range(hosts):
        host = f"host-{number}"
        vcpus = chance.choice((16, 32, 48))
        capacity = Amounts(vcpus, vcpus * chance.choice((2048, 3072, 4096)), vcpus * chance.choice((8, 10, 12)))
        left = Amounts(*map(min, SMALLEST.times(chance.randint(0, 8)), capacity))
        pool = f"pool-{number % pools}" if pools and number % 4 < 3 else None
        if pool is not None:
            pool_of.append((host, pool))
            in_pool[pool] += capacity.disk_gb - left.disk_gb // 2
        capacities.append((host, *(capacity._replace(disk_gb=0) if pool else capacity)))
        lasting.append((_consumer(chance), host, *capacity.less(left)))
        units = {
            name: {"total": total, "min_unit": 1, "max_unit": total, "step_size": 1}
            for name, total in zip(("VCPU", "MEMORY_MB", "DISK_GB"), capacity, strict=True)
        }
        values = {"host_id": host, "name": f"compute-{number}", "observed_at": now, "inventories": json.dumps(units)}
        inventories.append(list((INVENTORY | values | {"disk_pool": pool}).values()))
    for pool, disk_gb in in_pool.items():
        capacities.append((pool, 0, 0, disk_gb))
        disk = {"DISK_GB": {"total": disk_gb, "min_unit": 1, "max_unit": disk_gb, "step_size": 1}}
        values = {"host_id": pool, "name": pool, "observed_at": now, "inventories": json.dumps(disk)}
        values["traits"] = "{MISC_SHARES_VIA_AGGREGATE}"
        inventories.append(list((INVENTORY | values).values()))
    with owner, owner.cursor() as cursor:
        cursor.execute(LEDGER)
        upsert(cursor, "vacancy.host_inventory", list(INVENTORY), inventories)
        execute_values(cursor, "INSERT INTO ledger.capacity VALUES %s", capacities)
        if pool_of:
            execute_values(cursor, "INSERT INTO ledger.pool_of VALUES %s", pool_of)
        # What is there from the beginning counts from the beginning.
        execute_values(cursor, "INSERT INTO ledger.event VALUES %s", lasting)
        execute_values(cursor, "INSERT INTO ledger.instance VALUES %s", lasting, "(%s, %s, %s, %s, %s, true)")
    write_all(owner, chance)
    if pools:  # and once more, since it was summed up before all of its hosts were there
        with owner, owner.cursor() as cursor:
            cursor.execute("UPDATE vacancy.pool_allocated SET summed_at = '-infinity'")
        write_all(owner, chance)
    owner.autocommit = True
    with owner.cursor() as cursor:
        cursor.execute("ANALYZE")
