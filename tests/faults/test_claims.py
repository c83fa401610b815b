"""No host and no storage pool is ever overcommitted and no acknowledged claim is lost, whoever is killed.

Processes claim from a fleet that is full to the brim, while a writer rewrites every host each second, starts instances
on claims and ends some. Twice a second one of them is killed with kill -9 and another takes its place; half-way the
database server is killed, too, and started again. Afterwards, and every two seconds meanwhile, it is counted from the
tables, the claimers' diaries and the writer's ledger what each host and each pool held. The checks share no SQL with
the functions.

The suite runs it small; -s shows the figures. Its full size, which ends early after VACANCY_FAULT_SECONDS:

    VACANCY_FAULT_CLAIMS=100000 VACANCY_FAULT_PROCESSES=32 VACANCY_FAULT_HOSTS=2000 VACANCY_FAULT_SECONDS=3600 \
        pytest -s tests/faults/test_claims.py
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing
from multiprocessing.connection import wait
from multiprocessing.context import ForkProcess
from typing import TYPE_CHECKING, Any

import psycopg2
import pytest
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.faults.claiming import (
    DiaryReader,
    History,
    claim_until_stopped,
    make_fleet,
    to_be_started,
    write_until_stopped,
)
from tests.harness.rows import query
from tests.harness.servers import running_postgres
from tests.harness.waiting import wait_until
from vacancy.connectors.postgres.migrations import migrate

if TYPE_CHECKING:
    from vacancy.jobs.local.postgres_server import PostgresServer

CLAIMS = int(os.environ.get("VACANCY_FAULT_CLAIMS", "3000"))
PROCESSES = int(os.environ.get("VACANCY_FAULT_PROCESSES", "8"))
HOSTS = int(os.environ.get("VACANCY_FAULT_HOSTS", "150"))
SECONDS = float(os.environ.get("VACANCY_FAULT_SECONDS", "150"))
POOLS = int(os.environ.get("VACANCY_FAULT_POOLS", "3"))
SEED = 1
KILL_EVERY_S = 0.5
LOOK_EVERY_S = 2.0
STALL_S = 90.0
FORK = multiprocessing.get_context("fork")


def _by_provider(rows: str, columns: str) -> str:
    """Rows of what hosts hold, the disk of each in the row of who has it: the host or its storage pool."""
    return f"""
  SELECT {columns} each.host_id, vcpus, memory_mb, CASE WHEN p.pool_id IS NULL THEN disk_gb ELSE 0 END AS disk_gb
  FROM ({rows}) AS each LEFT JOIN ledger.pool_of AS p ON p.host_id = each.host_id
  UNION ALL
  SELECT {columns} p.pool_id, 0, 0, disk_gb
  FROM ({rows}) AS each JOIN ledger.pool_of AS p ON p.host_id = each.host_id
"""


# What counts against each host and pool at one moment: what runs there, and the claims that are not settled. A claim
# without VCPUs is a stand-in for one that was released.
_HELD = _by_provider(
    """
  SELECT host_id, vcpus, memory_mb, disk_gb FROM ledger.instance WHERE ended_at IS NULL
  UNION ALL
  SELECT host_id, vcpus, memory_mb, disk_gb FROM vacancy.claim WHERE settled_at IS NULL AND vcpus > 0
""",
    "",
)
OVERCOMMITTED = f"""
SELECT host_id, c.vcpus - sum(held.vcpus), c.memory_mb - sum(held.memory_mb), c.disk_gb - sum(held.disk_gb)
FROM ledger.capacity AS c JOIN ({_HELD}) AS held USING (host_id)
GROUP BY c.host_id
HAVING least(c.vcpus - sum(held.vcpus), c.memory_mb - sum(held.memory_mb), c.disk_gb - sum(held.disk_gb)) < 0
"""
# A host on which not even the smallest flavour fits is full, by itself or by its pool.
FULL = f"""
WITH room AS (
  SELECT
    host_id, c.vcpus - sum(held.vcpus) AS vcpus, c.memory_mb - sum(held.memory_mb) AS memory_mb,
    c.disk_gb - sum(held.disk_gb) AS disk_gb
  FROM ledger.capacity AS c JOIN ({_HELD}) AS held USING (host_id) GROUP BY c.host_id
)
SELECT avg((least(r.vcpus, r.memory_mb / 2048, coalesce(pool.disk_gb, r.disk_gb) / 10) < 1)::integer)::float
FROM room AS r LEFT JOIN ledger.pool_of AS p USING (host_id) LEFT JOIN room AS pool ON pool.host_id = p.pool_id
WHERE r.host_id NOT IN (SELECT pool_id FROM ledger.pool_of)
"""
# An instance whose claim was not settled by the very transaction that started it, or a claim settled with no instance.
TWICE_OR_NEVER = """
SELECT consumer FROM vacancy.claim JOIN ledger.instance USING (consumer) WHERE settled_at IS NULL
UNION ALL
SELECT consumer FROM vacancy.claim LEFT JOIN ledger.instance AS i USING (consumer)
WHERE settled_at IS NOT NULL AND i.consumer IS NULL
"""
# Every moment of the run, in the order of the commits. What ends at one with what begins comes first: it made the room.
_EVENTS = _by_provider("SELECT *, pg_xact_commit_timestamp(xmin) AS at FROM ledger.event", "consumer, at,")
EVER_OVERCOMMITTED = f"""
WITH held AS (
  SELECT
    host_id, at,
    sum(vcpus) OVER so_far AS vcpus, sum(memory_mb) OVER so_far AS memory_mb, sum(disk_gb) OVER so_far AS disk_gb
  FROM (
    SELECT *, greatest(vcpus, disk_gb) > 0 AS begins FROM ({_EVENTS}) AS each
  ) AS event
  WINDOW so_far AS (PARTITION BY host_id ORDER BY at, begins, consumer ROWS UNBOUNDED PRECEDING)
)
SELECT host_id, at FROM held JOIN ledger.capacity AS c USING (host_id)
WHERE held.vcpus > c.vcpus OR held.memory_mb > c.memory_mb OR held.disk_gb > c.disk_gb
"""
# What the pools' counts should be.
MISCOUNTED = """
SELECT pool_id, counted.gb, summed.gb
FROM (SELECT pool_id, sum(claimed_gb) AS gb FROM vacancy.pool_claimed GROUP BY pool_id) AS counted
FULL JOIN (
  SELECT pool_id, sum(disk_gb) AS gb FROM vacancy.claim WHERE pool_id IS NOT NULL GROUP BY pool_id
) AS summed USING (pool_id)
WHERE coalesce(counted.gb, 0) <> coalesce(summed.gb, 0)
"""
DRAWN = "SELECT count(*) FROM vacancy.claim AS c JOIN ledger.pool_of AS p USING (host_id)"
DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    """A database server that may be killed."""
    with running_postgres() as server:
        yield server


@pytest.mark.timeout(300 + SECONDS)
def test_no_host_or_pool_is_overcommitted_and_no_acknowledged_claim_is_lost(server: PostgresServer) -> None:
    migrate(SecretStr(server.owner_dsn))
    with closing(psycopg2.connect(server.owner_dsn)) as owner:
        make_fleet(owner, HOSTS, SEED, POOLS)
        scheduler_dsn = login(owner, "vacancy_scheduler")
        writer_dsn = login(owner, "vacancy_job", "vacancy_reader")
    diaries = server.directory / "diaries"
    diaries.mkdir()
    readers = [DiaryReader(diaries / str(slot)) for slot in range(PROCESSES)]
    chance = random.Random(SEED)

    def claimer(slot: int) -> ForkProcess:
        return start(claim_until_stopped, diaries / str(slot), scheduler_dsn, chance.getrandbits(64))

    def acknowledged() -> int:
        return sum(len(reader.follow().acknowledged) for reader in readers)

    began_s = time.monotonic()
    writer = start(write_until_stopped, writer_dsn, SEED)
    claimers = [claimer(slot) for slot in range(PROCESSES)]
    looks = Looks(server.owner_dsn)
    kills, deadlocks, restarted_s = 0, 0, None
    try:
        count, progress_s = 0, time.monotonic()
        kill_s = began_s
        while (done := max(count / CLAIMS, (time.monotonic() - began_s) / SECONDS)) < 1:
            kill_s += KILL_EVERY_S  # on time again after a look that took long
            assert not wait([writer.sentinel], max(0.0, kill_s - time.monotonic())), "the writer ended"
            slot = chance.randrange(PROCESSES)
            assert claimers[slot].exitcode is None, "a claimer ended by itself"
            claimers[slot].kill()
            claimers[slot].join()
            claimers[slot] = claimer(slot)
            kills += 1
            looks.look()
            if (now := acknowledged()) > count:
                count, progress_s = now, time.monotonic()
            assert time.monotonic() < progress_s + STALL_S, (
                f"nothing is claimed any more after {count}: {told(readers)}"
            )
            if done > 0.5 and restarted_s is None:
                deadlocks += looks.query(DEADLOCKS)[0][0]  # a crash forgets them
                crashed_s = time.monotonic()
                server.child.kill()
                server.start()
                restarted_s = time.monotonic() - crashed_s
        seconds = time.monotonic() - began_s
        for process in (*claimers, writer):
            process.terminate()
        wait_until(lambda: not any(each.is_alive() for each in (*claimers, writer)), 60, "processes do not end")
        # One that was only just started may not have come to handle the signal.
        assert {process.exitcode for process in (*claimers, writer)} <= {0, -signal.SIGTERM}
    finally:
        for process in (*claimers, writer):
            process.kill()
            process.join()

    # What a killed claimer had asked for may still be under way: the server has not noticed yet that nobody listens.
    busy = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'vacancy scheduler'"
    wait_until(lambda: looks.query(busy) == [(0,)], 60, "the killed claimers' sessions do not end")
    looks.look(again_after_s=0)
    history = merged(readers)
    with closing(psycopg2.connect(server.owner_dsn)) as owner:
        table = {
            consumer: (host, amounts, settled)
            for consumer, host, settled, *amounts in query(
                owner,
                "SELECT consumer::text, host_id, settled_at IS NOT NULL, vcpus, memory_mb, disk_gb FROM vacancy.claim"
                " WHERE vcpus > 0",
            )
        }
        started = dict(query(owner, "SELECT consumer::text, host_id FROM ledger.instance WHERE NOT lasting"))
        events = query(owner, "SELECT count(*) FROM ledger.event")[0][0]
        ever_overcommitted = query(owner, EVER_OVERCOMMITTED)
        deadlocks += query(owner, DEADLOCKS)[0][0]
        drawn = query(owner, DRAWN)[0][0]
    log = "".join(file.read_text(errors="replace") for file in (server.directory / "logs").glob("postgres.log*"))
    lost = [
        consumer
        for consumer, host in history.acknowledged.items()
        if consumer not in history.releasing and table.get(consumer, ("nowhere",))[0] != host
    ]
    print(  # the figures, for who runs it with -s
        f"\n{len(history.acknowledged):,} claims acknowledged to {PROCESSES} processes on {HOSTS:,} hosts in"
        f" {seconds:.0f} s ({len(history.acknowledged) / seconds:.0f}/s)"
        f"\n{len(history.released):,} released, {len(started):,} instances started, {events:,} events,"
        f" {len(looks.full)} looks, {kills} kills, server killed and back in {restarted_s or 0:.1f} s"
        f"\nhosts full at a look: median {sorted(looks.full)[len(looks.full) // 2]:.1%}"
        f"\novercommitted: {len(looks.overcommitted)} at looks, {len(ever_overcommitted)} in the history;"
        f" lost: {len(lost)}; on hosts of {POOLS} pools: {drawn:,};"
        f" counted twice or never: {len(looks.twice_or_never)}; deadlocks: {deadlocks}"
        f"\ntold: {dict(history.told)}\nerrors: {Counter(history.errors).most_common(5)}"
    )

    assert history.errors == []
    assert looks.overcommitted == []
    assert looks.twice_or_never == []
    assert looks.miscounted == []
    assert ever_overcommitted == []
    assert lost == []
    assert deadlocks == 0
    assert "deadlock detected" not in log
    # Beyond what was promised: nothing is there that nobody asked for, that was refused or that was given back.
    assert table.keys() <= history.intended.keys()
    assert not table.keys() & (history.refused | history.released)
    assert {consumer: host for consumer, (host, _, settled) in table.items() if settled} == started
    assert all(to_be_started(consumer) for consumer in started)
    assert [each for each, (_, amounts, _) in table.items() if (*amounts,) != history.intended[each].flavour] == []
    assert history.split == []
    for intention in history.intended.values():
        hosts = [history.acknowledged[each] for each in intention.consumers if each in history.acknowledged]
        assert len(hosts) in (0, len(intention.consumers))
        assert not intention.distinct_hosts or len(set(hosts)) == len(hosts)
    # And that it was put to the test at all.
    assert history.told["refused"] > 0
    assert started
    assert drawn or not POOLS
    assert max(looks.full) > 0.5  # how soon they are full is the machine's speed


def start(work: Callable[..., None], *arguments: object) -> ForkProcess:
    """Work in a process of its own, which ends with this one."""
    process = FORK.Process(target=work, args=(*arguments, os.getpid()), daemon=True)
    process.start()
    return process


def login(owner: Any, *groups: str) -> str:
    """A new login in some group roles; its connection string."""
    name = f"login_{groups[0]}"
    with owner.cursor() as cursor:
        cursor.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'secret' IN ROLE {', '.join(groups)}")
    return make_dsn(owner.dsn, user=name, password="secret")


class Looks:
    """Looks at all tables at one moment, each time one that a transaction's snapshot fixes.

    Attributes:
        overcommitted: hosts and pools that held more than they have.
        twice_or_never: consumers that counted twice, or no more though nothing runs for them.
        miscounted: pools whose count was not what claims draw from them.
        full: at each look, the fraction of hosts on which the smallest flavour does not fit.
    """

    def __init__(self, dsn: str) -> None:
        self.overcommitted: list[tuple[Any, ...]] = []
        self.twice_or_never: list[tuple[Any, ...]] = []
        self.miscounted: list[tuple[Any, ...]] = []
        self.full: list[float] = []
        self._dsn = dsn
        self._looked_s = 0.0

    def look(self, again_after_s: float = LOOK_EVERY_S) -> None:
        """Looks, unless it did so just now or the server is away."""
        if time.monotonic() < self._looked_s + again_after_s:
            return
        self._looked_s = time.monotonic()
        with contextlib.suppress(psycopg2.OperationalError):
            overcommitted, twice_or_never, full, miscounted = self._at_once(
                OVERCOMMITTED, TWICE_OR_NEVER, FULL, MISCOUNTED
            )
            self.miscounted += miscounted
            self.overcommitted += overcommitted
            self.twice_or_never += twice_or_never
            self.full.append(full[0][0])

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        return self._at_once(statement)[0]

    def _at_once(self, *statements: str) -> list[list[tuple[Any, ...]]]:
        with closing(psycopg2.connect(self._dsn)) as connection:
            connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
            return [query(connection, statement) for statement in statements]


def merged(readers: list[DiaryReader]) -> History:
    """The diaries as one."""
    whole = History()
    for reader in readers:
        history = reader.follow()
        whole.intended |= history.intended
        whole.acknowledged |= history.acknowledged
        whole.refused |= history.refused
        whole.releasing |= history.releasing
        whole.released |= history.released
        whole.split += history.split
        whole.errors += history.errors
        for what, count in history.told.items():
            whole.told[what] += count
    return whole


def told(readers: list[DiaryReader]) -> dict[str, int]:
    """How often what happened so far."""
    return dict(merged(readers).told)
