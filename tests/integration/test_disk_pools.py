"""Storage pools that hosts take their disk from: claims draw from the pool, once, and never more than it has."""

from __future__ import annotations

import contextlib
import io
import uuid
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr
from rich.console import Console

from tests.harness.rows import NO_DISK, query, retire, upsert_inventory, upsert_pool, upsert_usage
from tests.harness.servers import new_database
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.postgres.schedulable_hosts import fetch
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError, Refusal
from vacancy.connectors.scheduler.request import Request, Weights
from vacancy.connectors.settings import PostgresSettings, SchedulerSettings
from vacancy.jobs.commands.doctor import disk_pools
from vacancy.jobs.commands.host_table import render, summarize
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.jobs.settings import Settings

EMPTY = "TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim, vacancy.pool_claimed, vacancy.pool_allocated"
CEPH, NFS = "ceph-vms", "nfs-vms"


@pytest.fixture(scope="module")
def tables(postgres_server: PostgresServer) -> Iterator[str]:
    """The tables of all tests here, by their owner's DSN."""
    with new_database(postgres_server) as dsn:
        migrate(SecretStr(dsn))
        yield dsn


@pytest.fixture
def owner(tables: str) -> Iterator[Connection]:
    """The owner's connection to empty tables; each statement commits."""
    with closing(psycopg2.connect(tables)) as connection:
        connection.autocommit = True
        connection.cursor().execute(EMPTY)
        yield connection


@pytest.fixture(scope="module")
def scheduler(tables: str) -> Iterator[Scheduler]:
    made = Scheduler(tables, SchedulerSettings(max_age=timedelta(minutes=5)))
    yield made
    made.close()


def add_pool(owner: Connection, pool: str = CEPH, gb: int = 100, **values: Any) -> None:
    upsert_pool(owner, pool, datetime.now(UTC), gb=gb, **values)


def add_host(
    owner: Connection, name: str, pool: str | None = CEPH, *, holds_gb: int = 0, consumers: str = "{}", **inventory: Any
) -> None:
    """A host of a pool whose instances hold so much of it; or one with 100 GiB of its own."""
    now = datetime.now(UTC)
    upsert_inventory(owner, host_id=name, name=name, observed_at=now, disk_pool=pool, inventories="{}", **inventory)
    own = {"disk_gb_capacity": 100, "disk_gb_free": 100, "disk_gb_free_min": 100, "disk_gb_available": 100}
    disk = NO_DISK | {"disk_gb_free": -holds_gb} if pool else own
    upsert_usage(owner, host_id=name, observed_at=now, recent_consumers=consumers, **disk)


def refusal_of(scheduler: Scheduler, request: Request, count: int = 1) -> tuple[Refusal, str]:
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(request, count=count)
    return caught.value.refusal, str(caught.value)


def free(owner: Connection, pool: str = CEPH) -> tuple[int, int]:
    """GiB of the pool that are free, and available."""
    ((of_promise, of_measure),) = query(
        owner, "SELECT disk_gb_free, disk_gb_available FROM vacancy.schedulable_host WHERE host_id = %s", pool
    )
    return of_promise, of_measure


def counts(owner: Connection, pool: str = CEPH) -> None:
    """What always holds of the count of a pool."""
    ((counted, summed),) = query(
        owner,
        "SELECT coalesce((SELECT sum(claimed_gb) FROM vacancy.pool_claimed WHERE pool_id = %s), 0),"
        " (SELECT coalesce(sum(disk_gb), 0) FROM vacancy.claim WHERE pool_id = %s)",
        pool,
        pool,
    )
    assert counted == summed


def test_two_hosts_do_not_promise_one_pool_twice(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner)
    for name in ("a", "b"):
        add_host(owner, name)
    claims = [scheduler.claim(Request(vcpus=1, disk_gb=40))[0] for _ in range(2)]
    assert {claim.host_id for claim in claims} <= {"a", "b"}
    assert free(owner) == (20, 20)
    refusal, text = refusal_of(scheduler, Request(vcpus=1, disk_gb=40))
    assert (refusal.dimension, refusal.ruled_out) == (f"disk_pool_free {CEPH}", {f"disk_pool_free {CEPH}": 2})
    assert (refusal.nearest and refusal.nearest.had, refusal.requested) == (20, 40)
    assert f"disk_gb of the storage pool {CEPH}, by what is promised, ruled out the last 2 of 2 hosts" in text
    assert query(owner, "SELECT DISTINCT ruled_out_by FROM vacancy.why(%s)", '{"disk_gb": 40}') == [
        ([f"disk_pool_free {CEPH}"],)
    ]
    scheduler.claim(Request(vcpus=1, disk_gb=20))
    assert free(owner) == (0, 0)
    counts(owner)


def test_a_claim_without_disk_does_not_touch_the_pool(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "a", "nowhere")
    assert scheduler.claim(Request(vcpus=1))[0].host_id == "a"
    assert query(owner, "SELECT pool_id FROM vacancy.claim") == [(None,)]
    refusal, text = refusal_of(scheduler, Request(vcpus=1, disk_gb=1))
    assert refusal.dimension == "disk_pool_missing nowhere"
    assert "the storage pool nowhere, which is not in the table, ruled out the last 1 of 1 hosts" in text


def test_released_and_expired_claims_give_back_at_once(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner)
    add_host(owner, "a")
    (claim,) = scheduler.claim(Request(disk_gb=100))
    assert free(owner) == (0, 0)
    assert scheduler.release(claim.consumer) == [claim.consumer]
    assert scheduler.release(claim.consumer) == []
    assert free(owner) == (100, 100)
    (claim,) = scheduler.claim(Request(disk_gb=100))
    with owner.cursor() as cursor:
        cursor.execute("UPDATE vacancy.claim SET expires_at = claimed_at")
    assert free(owner) == (100, 100)
    (again,) = scheduler.claim(Request(disk_gb=100), [claim.consumer])
    assert not again.already
    assert free(owner) == (0, 0)
    counts(owner)
    assert query(owner, "SELECT count(*) FROM vacancy.claim WHERE pool_id IS NOT NULL") == [(1,)]


def test_many_instances_draw_together_or_not_at_all(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner)
    add_pool(owner, NFS, 50)
    add_host(owner, "a", CEPH)
    add_host(owner, "b", NFS)
    refusal, _ = refusal_of(scheduler, Request(disk_gb=50), count=4)
    assert (refusal.claimable, refusal.count) == (3, 4)
    assert (free(owner), free(owner, NFS)) == ((100, 100), (50, 50))
    assert query(owner, "SELECT sum(claimed_gb) FROM vacancy.pool_claimed") == [(0,)]
    assert len(scheduler.claim(Request(disk_gb=50), count=3)) == 3
    assert (free(owner), free(owner, NFS)) == ((0, 0), (0, 0))
    for pool in (CEPH, NFS):
        counts(owner, pool)


def test_pools_and_hosts_with_a_disk_of_their_own_in_one_fleet(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner)
    add_pool(owner, NFS, 60)
    for name, pool in (("a", CEPH), ("b", CEPH), ("c", NFS), ("d", None)):
        add_host(owner, name, pool)
    for strategy in ("spread", "pack", "random"):
        claims = scheduler.claim(Request(disk_gb=20, strategy=strategy), count=13)
        drawn = {pool: 100 - free(owner)[0] if pool == CEPH else 60 - free(owner, NFS)[0] for pool in (CEPH, NFS)}
        own = sum(claim.host_id == "d" for claim in claims)
        assert (drawn[CEPH], drawn[NFS], own) == (100, 60, 5)
        refusal, _ = refusal_of(scheduler, Request(disk_gb=20))
        assert refusal.ruled_out == {"disk_gb_free": 1, f"disk_pool_free {CEPH}": 2, f"disk_pool_free {NFS}": 1}
        scheduler.release(*(claim.consumer for claim in claims))


def test_the_score_takes_the_disk_of_the_pool(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner, CEPH, 1000, free_gb=100)
    add_pool(owner, NFS, 1000, free_gb=900)
    add_host(owner, "full", CEPH)
    add_host(owner, "empty", NFS)
    for strategy, best in (("spread", "empty"), ("pack", "full")):
        request = Request(disk_gb=10, strategy=strategy, weights=Weights(vcpus=0, memory_mb=0))
        assert scheduler.candidates(request)[0].host_id == best
        assert scheduler.claim(request)[0].host_id == best


@pytest.mark.parametrize(
    ("trouble", "dimension", "words"),
    [
        ("UPDATE vacancy.host SET observed_at = now() - interval '1 h' WHERE host_id = 'ceph-vms'", "stale", "stale"),
        (
            "UPDATE vacancy.host_inventory SET status = 'DISABLED' WHERE host_id = 'ceph-vms'",
            "disabled",
            "which is disabled",
        ),
        (
            "UPDATE vacancy.host SET observed_at = now() + interval '1 h' WHERE host_id = 'ceph-vms'",
            "clock_ahead",
            "from the future",
        ),
        ("UPDATE vacancy.host SET anomalies = 1 WHERE host_id = 'ceph-vms'", "duplicate_id", "several nodes"),
        ("DELETE FROM vacancy.host WHERE host_id = 'ceph-vms'", "no_usage", "no usage"),
        ("UPDATE vacancy.host_inventory SET aggregates = '{x}' WHERE host_id = 'ceph-vms'", "elsewhere", "aggregate"),
        (
            "UPDATE vacancy.host_inventory SET inventories = jsonb_set(inventories, '{DISK_GB,step_size}', '7')"
            " WHERE host_id = 'ceph-vms'",
            "unit",
            "min_unit, max_unit and step_size",
        ),
        (
            "UPDATE vacancy.host SET disk_gb_available = 5 WHERE host_id = 'ceph-vms'",
            "available",
            "by what is measured",
        ),
        ("UPDATE vacancy.host SET disk_gb_free = 5 WHERE host_id = 'ceph-vms'", "free", "by what is promised"),
        ("UPDATE vacancy.host SET disk_gb_free = -95 WHERE host_id = 'b'", "free", "by what is promised"),
        ("UPDATE vacancy.host SET disk_gb_capacity = 9, disk_gb_free = 9", "own_disk", "a disk of their own"),
        ("DELETE FROM vacancy.host_inventory WHERE host_id = 'ceph-vms'", "missing", "not in the table"),
        ("DELETE FROM vacancy.pool_allocated", "no_usage", "no usage"),
    ],
)
def test_a_pool_that_cannot_be_drawn_from_rules_its_hosts_out(
    owner: Connection, scheduler: Scheduler, trouble: str, dimension: str, words: str
) -> None:
    add_pool(owner)
    add_host(owner, "a")
    add_host(owner, "b")
    with owner.cursor() as cursor:
        cursor.execute(trouble)
        if "'b'" in trouble:  # the sum follows the pool's next report
            cursor.execute("UPDATE vacancy.pool_allocated SET summed_at = '-infinity'")
            cursor.execute("UPDATE vacancy.host SET samples = samples WHERE host_id = 'ceph-vms'")
    refusal, text = refusal_of(scheduler, Request(disk_gb=10))
    assert refusal.dimension == f"disk_pool_{dimension} {CEPH}"
    assert (CEPH in text, words in text) == (True, True), text
    assert scheduler.candidates(Request(disk_gb=10)) == []
    assert scheduler.claim(Request(vcpus=1))[0].host_id in {"a", "b"}  # that asks for none of it


def test_a_claim_counts_until_the_pool_shows_it_and_not_longer(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner)
    add_host(owner, "a")
    (claim,) = scheduler.claim(Request(disk_gb=60))
    add_host(owner, "a", holds_gb=60, consumers=f"{{{claim.consumer}}}")
    assert query(owner, "SELECT settled_at IS NOT NULL FROM vacancy.claim") == [(True,)]
    # Its host shows it, and the pool's last report is older: it counts on, even when it is given back.
    assert free(owner) == (40, 40)
    assert scheduler.release(claim.consumer) == [claim.consumer]
    assert free(owner) == (40, 40)
    refusal_of(scheduler, Request(disk_gb=60))
    report(owner)
    assert free(owner) == (40, 100)  # held, not written yet
    refusal_of(scheduler, Request(disk_gb=60))
    scheduler.claim(Request(disk_gb=40))
    assert free(owner) == (0, 60)
    counts(owner)
    add_host(owner, "a")
    report(owner)
    assert free(owner) == (60, 60)


def report(owner: Connection, name: str = CEPH, gb: int = 100) -> None:
    """The pool's next report, some time after the last."""
    with owner.cursor() as cursor:
        cursor.execute("UPDATE vacancy.pool_allocated SET summed_at = summed_at - interval '1 min'")
    add_pool(owner, name, gb)


def test_a_claim_of_another_server_s_transaction_does_not_count_for_ever(
    owner: Connection, scheduler: Scheduler
) -> None:
    """As after a restore from a dump: the transaction that settled it has a number that this server has not come to."""
    add_pool(owner)
    add_host(owner, "a")
    (claim,) = scheduler.claim(Request(disk_gb=60))
    add_host(owner, "a", holds_gb=60, consumers=f"{{{claim.consumer}}}")
    with owner.cursor() as cursor:
        cursor.execute("UPDATE vacancy.claim SET settled_xid = '999999999999', settled_at = now() - interval '2 h'")
    add_host(owner, "a")
    report(owner)
    report(owner)
    assert free(owner) == (100, 100)


def test_a_claim_that_its_host_lists_already_counts_until_the_pool_shows_it(
    owner: Connection, scheduler: Scheduler
) -> None:
    consumer = uuid.uuid4()
    add_pool(owner)
    add_host(owner, "a", holds_gb=60, consumers=f"{{{consumer}}}")
    scheduler.claim(Request(disk_gb=30), [consumer])
    assert free(owner) == (70, 70)
    report(owner)
    assert free(owner) == (40, 100)


def test_a_claim_on_a_pool_moves(owner: Connection, scheduler: Scheduler) -> None:
    consumer = uuid.uuid4()
    add_pool(owner)
    add_host(owner, "a")
    scheduler.claim(Request(disk_gb=30), [consumer])
    scheduler.claim(Request(disk_gb=80), [consumer], move=True)
    assert free(owner) == (20, 20)
    with pytest.raises(NoHostFitsError):
        scheduler.claim(Request(disk_gb=110), [consumer], move=True)
    assert free(owner) == (20, 20)
    add_host(owner, "a", holds_gb=80, consumers=f"{{{consumer}}}")
    report(owner)
    assert free(owner) == (20, 100)
    # The host holds the former size; the new one comes on top until the host lists its consumer anew.
    marks = "SELECT resized, settled_at, settled_xid FROM vacancy.claim WHERE consumer = %s"
    scheduler.claim(Request(disk_gb=10), [consumer], move=True)
    assert (free(owner), query(owner, marks, str(consumer))) == ((10, 90), [(True, None, None)])
    query(owner, "SELECT vacancy.note_claim(%s, 'a', 1, 1, 5, '1 h')", str(consumer))
    assert (free(owner), query(owner, marks, str(consumer))) == ((15, 95), [(True, None, None)])
    counts(owner)


def test_a_claim_noted_from_elsewhere_draws_from_the_pool_and_moves(owner: Connection) -> None:
    add_pool(owner)
    add_pool(owner, NFS)
    for name, pool in (("a", CEPH), ("b", NFS), ("c", None)):
        add_host(owner, name, pool)
    consumer = str(uuid.uuid4())
    for host, expected in (("a", (40, 100)), ("b", (100, 40)), ("c", (100, 100)), ("a", (40, 100))):
        query(owner, "SELECT vacancy.note_claim(%s, %s, 1, 1, 60, '1 h')", consumer, host)
        assert (free(owner)[0], free(owner, NFS)[0]) == expected
    for pool in (CEPH, NFS):
        counts(owner, pool)


def test_a_pool_is_found_by_its_id_and_leaves_with_its_rows(owner: Connection, scheduler: Scheduler) -> None:
    add_pool(owner, CEPH, name="Ceph of rack 1")
    add_host(owner, "a", CEPH)
    add_host(owner, "b", "Ceph of rack 1")
    assert len(scheduler.claim(Request(disk_gb=50), count=2)) == 2
    assert free(owner) == (0, 0)
    retire(owner, host_id=CEPH, observed_at=datetime.now(UTC))
    refusal, _ = refusal_of(scheduler, Request(disk_gb=50))
    assert set(refusal.ruled_out) == {f"disk_pool_missing {CEPH}", "disk_pool_missing Ceph of rack 1"}
    # Its claims go once they have expired, though nobody claims from it any more.
    with owner.cursor() as cursor:
        cursor.execute("UPDATE vacancy.claim SET expires_at = claimed_at")
        cursor.execute("SELECT vacancy.sweep_claims(), vacancy.sweep_claims()")
        cursor.execute("SELECT vacancy.sweep_claims()")
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(0,)]


def test_nobody_sums_up_one_pool_in_many_rows(owner: Connection) -> None:
    add_pool(owner)
    for name in ("a", "b"):
        add_host(owner, name, holds_gb=10)
    rows = query(
        owner,
        "SELECT name, disk_pool, disk_gb_capacity, disk_gb_free, disk_gb_available FROM vacancy.schedulable_host"
        " ORDER BY name",
    )
    assert rows == [("a", CEPH, 0, 0, 0), ("b", CEPH, 0, 0, 0), (CEPH, None, 100, 100, 100)]


@pytest.mark.timeout(600)
def test_free_is_what_neither_instances_nor_claims_hold(owner: Connection, scheduler: Scheduler) -> None:
    """Claims, releases, expiries, instances that start and end and the pool's reports in any order, against a model."""
    gb = 60
    hosts = ("a", "b")
    some = st.integers(0, 2**8 - 1)

    def subset(things: Iterable[uuid.UUID], chosen: int) -> list[uuid.UUID]:
        return [thing for index, thing in enumerate(sorted(things)) if chosen >> index % 8 & 1]

    class Machine(RuleBasedStateMachine):
        @initialize()
        def empty(self) -> None:
            with owner.cursor() as cursor:
                cursor.execute(EMPTY)
            self.in_flight: dict[uuid.UUID, tuple[str, int]] = {}
            self.running: dict[uuid.UUID, tuple[str, int]] = {}
            self.settled: set[uuid.UUID] = set()
            self.summed = self.unseen = 0
            for host in hosts:
                self.write(host)
            self.report()

        @rule(each_gb=st.integers(0, 25), count=st.integers(1, 3))
        def claim(self, each_gb: int, count: int) -> None:
            try:
                claims = scheduler.claim(Request(disk_gb=each_gb), count=count)
            except NoHostFitsError:
                assert each_gb * count > self.free()
                return
            assert each_gb * count <= self.free()
            self.in_flight |= {claim.consumer: (claim.host_id, each_gb) for claim in claims}

        @rule(chosen=some)
        def release(self, chosen: int) -> None:
            known = subset(self.in_flight.keys() | self.settled, chosen)
            if known:
                assert set(scheduler.release(*known)) == set(known)
            for consumer in known:
                self.in_flight.pop(consumer, None)
                self.settled.discard(consumer)

        @rule(chosen=some)
        def expire(self, chosen: int) -> None:
            gone = subset(self.in_flight, chosen)
            with owner.cursor() as cursor:
                cursor.execute(
                    "UPDATE vacancy.claim SET expires_at = claimed_at WHERE consumer = ANY (%s::uuid[])",
                    ([str(consumer) for consumer in gone],),
                )
            for consumer in gone:
                del self.in_flight[consumer]

        @rule(chosen=some)
        def start(self, chosen: int) -> None:
            for consumer in subset(self.in_flight, chosen):
                host, each_gb = self.in_flight.pop(consumer)
                self.running[consumer] = host, each_gb
                self.settled.add(consumer)
                self.unseen += each_gb
                self.write(host)

        @rule(chosen=some)
        def end(self, chosen: int) -> None:
            for consumer in subset(self.running, chosen):
                host, _ = self.running.pop(consumer)
                self.write(host)

        @rule()
        def report(self) -> None:
            report(owner, gb=gb)
            self.summed = sum(each_gb for _, each_gb in self.running.values())
            self.unseen = 0

        @invariant()
        def holds(self) -> None:
            assert free(owner)[0] == self.free()
            assert sum(each_gb for _, each_gb in (self.running | self.in_flight).values()) <= gb
            counts(owner)

        def free(self) -> int:
            return gb - self.summed - self.unseen - sum(each_gb for _, each_gb in self.in_flight.values())

        def write(self, host: str) -> None:
            mine = {consumer: each_gb for consumer, (place, each_gb) in self.running.items() if place == host}
            add_host(owner, host, holds_gb=sum(mine.values()), consumers=f"{{{','.join(map(str, mine))}}}")

    run_state_machine_as_test(Machine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None))


def test_many_at_once_take_all_of_a_pool_and_no_more(owner: Connection, tables: str) -> None:
    """First side by side, while there is plenty, then one after the other to the last GiB."""
    gb, each_gb, clients = 2560, 10, 8
    add_pool(owner, CEPH, gb)
    for number in range(40):
        add_host(owner, f"host-{number}")

    def claim_all() -> int:
        with closing(Scheduler(tables, SchedulerSettings(connections=1, max_age=timedelta(minutes=5)))) as scheduler:
            claimed = 0
            with contextlib.suppress(NoHostFitsError):
                while True:
                    claimed += len(scheduler.claim(Request(disk_gb=each_gb), count=1 + (claimed % 7 == 6)))
            with contextlib.suppress(NoHostFitsError):
                while True:
                    claimed += len(scheduler.claim(Request(disk_gb=each_gb)))
            return claimed

    with ThreadPoolExecutor(clients) as threads:
        claimed = sum(answer.result(120) for answer in [threads.submit(claim_all) for _ in range(clients)])
    assert claimed * each_gb == gb
    assert free(owner) == (0, 0)
    counts(owner)
    slots = {slot for (slot,) in query(owner, "SELECT slot FROM vacancy.pool_claimed")}
    assert 0 in slots
    assert len(slots) > 2


def test_hosts_and_doctor_show_the_pools(owner: Connection, tables: str) -> None:
    add_pool(owner, free_gb=80)
    add_pool(owner, NFS, 50)
    add_pool(owner, "of volumes alone", 1000)
    for name, pool in (("a", CEPH), ("b", CEPH), ("c", "nowhere"), ("d", None)):
        add_host(owner, name, pool)
    summary = summarize(owner)
    assert (summary.hosts, summary.schedulable, summary.pools) == (4, 4, 3)
    assert summary.disk_gb_free == 80 + 100  # the pool once, and the disk of d
    console = Console(width=160, file=io.StringIO())
    with console.capture() as capture:
        console.print(render(fetch(owner), summary, width=160))
    lines = {line.split()[0]: line for line in capture.get().splitlines() if line.strip()}
    assert CEPH in lines["a"]
    assert "nowhere" in lines["c"]
    assert "100 (100) / 100" in lines["d"]
    assert "80 (80) / 100" in lines[CEPH]

    configured = Settings().model_copy(update={"postgres": PostgresSettings(reader_dsn=SecretStr(tables))})
    found = {finding.message: finding.remedy for finding in disk_pools(configured)}
    assert found.pop(f"2 hosts take their disk from the storage pool {CEPH}, 80 GiB free") is None
    ((message, remedy),) = found.items()
    assert message == "1 hosts take their disk from the storage pool nowhere, which nobody reports"
    assert remedy is not None
    assert "agent.reports_disk_pool" in remedy
    with owner.cursor() as cursor:
        cursor.execute("UPDATE vacancy.host_inventory SET status = 'DISABLED', status_reason = 'moving' WHERE shares")
    assert f"the storage pool {CEPH}, which gives none: disabled: moving" in next(iter(disk_pools(configured))).message


def test_measured_leaves_out_a_host_of_which_nobody_knows_whose_figures_it_has(owner: Connection) -> None:
    for name in ("a", "b"):
        add_host(owner, name, None)
    positions = "SELECT position FROM vacancy.measured('{a,b}')"
    assert sorted(query(owner, positions)[0][0]) == [1, 2]
    with owner.cursor() as cursor:
        cursor.execute("UPDATE vacancy.host SET anomalies = 3 WHERE host_id = 'a'")
    assert query(owner, positions) == [([2],)]
