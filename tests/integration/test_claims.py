"""What claim(), release(), candidates() and why() do, through the adapter, on a real PostgreSQL."""

from __future__ import annotations

import multiprocessing
import os
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import query, upsert_inventory, upsert_usage
from tests.harness.servers import running_postgres
from tests.harness.waiting import wait_until
from vacancy.connectors.postgres.connection import UnreachableError
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import Candidate, ContendedError, NoHostFitsError, Refusal, TimedOutError
from vacancy.connectors.scheduler.request import Request, Weights
from vacancy.connectors.settings import SchedulerSettings
from vacancy.schemas.errors import ConfigError

INVENTORIES = """{
  "VCPU": {"total": 64, "reserved": 0, "min_unit": 1, "max_unit": 32, "step_size": 1, "allocation_ratio": 1.0},
  "MEMORY_MB": {"total": 262144, "reserved": 0, "min_unit": 256, "max_unit": 262144, "step_size": 256,
                "allocation_ratio": 1.0},
  "DISK_GB": {"total": 4000, "reserved": 0, "min_unit": 1, "max_unit": 4000, "step_size": 1, "allocation_ratio": 1.0}
}"""
SMALL = Request(vcpus=1, memory_mb=256, disk_gb=1)


@pytest.fixture
def scheduler(owner: Connection, database: str) -> Iterator[Scheduler]:
    del owner  # the tables have to be there
    made = Scheduler(database)
    yield made
    made.close()


def add_host(owner: Connection, name: str, inventory: dict[str, Any] | None = None, **usage: Any) -> None:
    """A host that has just reported: 32 of 64 VCPUs free, 128 of 256 GiB, 2,000 of 4,000 GiB; half busy."""
    now = datetime.now(UTC)
    upsert_inventory(
        owner,
        **{"host_id": f"id-{name}", "name": name, "observed_at": now, "inventories": INVENTORIES} | (inventory or {}),
    )
    upsert_usage(owner, **{"host_id": f"id-{name}", "observed_at": now, "recent_consumers": "{}"} | usage)


def refusal_of(scheduler: Scheduler, request: Request, count: int = 1) -> Refusal:
    """Why a request is refused."""
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(request, count=count)
    return caught.value.refusal


def test_a_claim_counts_until_it_is_released(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "a")
    (claim,) = scheduler.claim(Request(vcpus=4, memory_mb=8192, disk_gb=40))
    assert (claim.host_id, claim.host_name, claim.already) == ("id-a", "a", False)
    assert claim.expires_at - claim.claimed_at == timedelta(minutes=2)
    (host,) = scheduler.hosts()
    assert (host.vcpus_free, host.memory_mb_free, host.disk_gb_free, host.claims) == (28, 131_072 - 8192, 1960, 1)
    assert (host.memory_mb_available, host.disk_gb_available) == (200_000 - 8192, 2960)
    assert scheduler.release(claim.consumer) == [claim.consumer]
    assert scheduler.release(claim.consumer) == []
    assert scheduler.hosts()[0].vcpus_free == 32
    assert scheduler.counters.claims == 1


def test_a_claim_is_settled_by_the_row_that_lists_its_consumer(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "a")
    (claim,) = scheduler.claim(Request(vcpus=4, memory_mb=8192))
    later = datetime.now(UTC) + timedelta(seconds=1)
    add_host(owner, "a", observed_at=later, vcpus_free=28, recent_consumers=f"{{{claim.consumer}}}")
    assert (scheduler.hosts()[0].vcpus_free, scheduler.hosts()[0].claims) == (28, 0)
    add_host(owner, "a", observed_at=later + timedelta(seconds=1), vcpus_free=28)
    assert scheduler.hosts()[0].vcpus_free == 28, "it counts twice when the host no longer lists it"
    (again,) = scheduler.claim(Request(vcpus=4, memory_mb=8192), [claim.consumer])
    assert (again.host_id, again.already) == ("id-a", True)


def test_an_expired_claim_counts_no_more_and_is_swept(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "a")
    (claim,) = scheduler.claim(Request(vcpus=32, claim_ttl=timedelta(milliseconds=1)))
    wait_until(lambda: scheduler.hosts()[0].vcpus_free == 32, 10, "the claim does not expire")
    (other,) = scheduler.claim(Request(vcpus=32))

    def left() -> set[str]:
        scheduler.release(uuid.uuid4())  # any call may sweep, and one in some does
        return {row[0] for row in query(owner, "SELECT consumer::text FROM vacancy.claim")}

    wait_until(lambda: left() == {str(other.consumer)}, 10, "the expired claim is not swept")
    scheduler.release(other.consumer)
    (again,) = scheduler.claim(SMALL, [claim.consumer])
    assert not again.already


def test_all_or_none(owner: Connection, scheduler: Scheduler) -> None:
    for name in "ab":
        add_host(owner, name, vcpus_free=3)
    assert len(scheduler.claim(Request(vcpus=1), count=5)) == 5
    refusal = refusal_of(scheduler, Request(vcpus=1), count=2)
    assert (refusal.claimable, refusal.count, refusal.dimension) == (1, 2, "vcpus_free")
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(5,)]


def test_distinct_hosts(owner: Connection, scheduler: Scheduler) -> None:
    for name in "abc":
        add_host(owner, name)
    claims = scheduler.claim(Request(vcpus=1, distinct_hosts=True), count=3)
    assert {claim.host_name for claim in claims} == {"a", "b", "c"}
    assert refusal_of(scheduler, Request(vcpus=1, distinct_hosts=True), count=4).dimension == "avoid"
    # Those that have a claim already keep their host, and the others stay off it.
    more = scheduler.claim(Request(vcpus=1, distinct_hosts=True), [claims[0].consumer, uuid.uuid4(), uuid.uuid4()])
    assert [claim.already for claim in more] == [True, False, False]
    assert len({claim.host_id for claim in more}) == 3


@pytest.mark.parametrize(
    ("request_", "dimension"),
    [
        (Request(vcpus=1, zone="elsewhere"), "zone"),
        (Request(vcpus=1, required=("HW_CPU_X86_AVX2", "CUSTOM_RARE")), "required"),
        (Request(vcpus=1, any_of=(("HW_CPU_X86_AVX2", "X"), ("CUSTOM_RARE", "Y"))), "any_of"),
        (Request(vcpus=1, forbidden=("X", "HW_CPU_X86_AVX2")), "forbidden"),
        (Request(vcpus=1, aggregates=("8c6b5c42-6a3c-4d6b-a3f6-b3a1d7c6f1aa",)), "aggregates"),
        (Request(vcpus=1, include=("b",)), "include"),
        (Request(vcpus=1, avoid=("a",)), "avoid"),
        (Request(vcpus=1, avoid=("id-a",)), "avoid"),
        (Request(vcpus=33), "vcpus_unit"),
        (Request(memory_mb=255), "memory_mb_unit"),
        (Request(memory_mb=300), "memory_mb_unit"),
        (Request(disk_gb=4001), "disk_gb_unit"),
        (Request(memory_mb=131_072 + 256), "memory_mb_free"),
        (Request(disk_gb=2001), "disk_gb_free"),
        (Request(vcpus=1, min_memory_mb_available=200_001), "memory_mb_available"),
        (Request(vcpus=1, max_cpu_utilization=0.4), "cpu_utilization"),
        (Request(vcpus=1, max_cpu_steal=0.05), "cpu_steal"),
        (Request(vcpus=1, max_cpu_pressure=0.1), "cpu_pressure"),
        (Request(vcpus=1, max_memory_pressure=0.1), "memory_pressure"),
        (Request(vcpus=1, max_io_pressure=0.1), "io_pressure"),
    ],
)
def test_what_rules_a_host_out(owner: Connection, scheduler: Scheduler, request_: Request, dimension: str) -> None:
    load = {"cpu_steal": 0.1, "cpu_pressure": 0.2, "memory_pressure": 0.2, "io_pressure": 0.2}
    add_host(owner, "a", {"aggregates": "{2a4b8d70-33b5-4f47-b5e7-5a4f0a3c8f10}"}, **load)
    refusal = refusal_of(scheduler, request_)
    assert (refusal.hosts, refusal.dimension, refusal.ruled_out) == (1, dimension, {dimension: 1})
    assert refusal.nearest is not None
    assert refusal.nearest.ruled_out_by[0] == dimension


@pytest.mark.parametrize(
    "request_",
    [
        Request(vcpus=32, memory_mb=131_072, disk_gb=2000, zone="nova", required=("HW_CPU_X86_AVX2",)),
        Request(vcpus=1, any_of=(("HW_CPU_X86_AVX2", "X"),), forbidden=("X",), include=("a",), avoid=("b", "id-b")),
        Request(vcpus=1, aggregates=("other", "2a4b8d70-33b5-4f47-b5e7-5a4f0a3c8f10"), include=("id-a", "z")),
        Request(vcpus=1, max_cpu_utilization=0.5, max_cpu_steal=0.0, min_memory_mb_available=200_000),
    ],
)
def test_what_fits(owner: Connection, scheduler: Scheduler, request_: Request) -> None:
    add_host(owner, "a", {"aggregates": "{2a4b8d70-33b5-4f47-b5e7-5a4f0a3c8f10}"})
    assert scheduler.claim(request_)[0].host_name == "a"


def test_what_the_kernel_measured_bounds_a_claim(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "promises", memory_mb_available=4096)
    refusal = refusal_of(scheduler, Request(memory_mb=8192))
    assert refusal.dimension == "memory_mb_available"
    assert refusal.nearest is not None
    assert (refusal.nearest.name, refusal.nearest.had, refusal.requested) == ("promises", 4096, 8192)
    add_host(owner, "disk", disk_gb_available=10)
    assert refusal_of(scheduler, Request(disk_gb=20, include=("disk",))).dimension == "disk_gb_available"
    # Claims in flight are not in the measured figures yet, so they count against these as well.
    scheduler.claim(Request(memory_mb=2048, include=("promises",)))
    assert refusal_of(scheduler, Request(memory_mb=4096, include=("promises",))).dimension == "memory_mb_available"


FIGURES = ("cpu_utilization", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure")


@pytest.mark.parametrize("figure", FIGURES)
def test_a_limit_on_a_figure_that_is_not_known_rules_the_host_out(
    owner: Connection, scheduler: Scheduler, figure: str
) -> None:
    add_host(owner, "a", None, **{figure: None})
    assert len(scheduler.claim(Request(vcpus=1))) == 1
    with pytest.raises(NoHostFitsError, match=f"{figure}, which the hosts do not know, ruled out the last") as refused:
        scheduler.claim(Request(vcpus=1, **{f"max_{figure}": 1.0}))
    assert refused.value.refusal.dimension == f"{figure}_unknown"


@pytest.mark.parametrize("figure", [figure for figure in FIGURES if figure != "cpu_steal"])
@pytest.mark.parametrize("strategy", ["spread", "pack"])
def test_a_host_that_does_not_know_its_load_counts_as_the_median(
    owner: Connection, scheduler: Scheduler, figure: str, strategy: Any
) -> None:
    idle: dict[str, Any] = dict.fromkeys(FIGURES, 0.0)
    for name, load in (("idle", 0.1), ("median", 0.5), ("busy", 0.9)):
        add_host(owner, name, **idle | {figure: load})
    add_host(owner, "silent", **idle | {figure: None})
    ranked = scheduler.candidates(Request(vcpus=1, strategy=strategy))
    scores = {candidate.host_name: candidate.score for candidate in ranked}
    assert scores["idle"] > scores["silent"] > scores["busy"]
    assert scores["silent"] == pytest.approx(scores["median"], abs=0.01)


def test_a_refusal_names_what_ran_out_and_the_nearest_miss(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "off", {"status": "DISABLED", "status_reason": "new disk"}, vcpus_free=64)
    add_host(owner, "other", {"traits": "{}"})
    add_host(owner, "few", vcpus_free=2)
    add_host(owner, "more", vcpus_free=5)
    add_host(owner, "most", vcpus_free=6, memory_mb_free=512)
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(vcpus=8, memory_mb=1024, required=("HW_CPU_X86_AVX2",)))
    assert caught.value.refusal.ruled_out == {"disabled": 1, "required": 1, "vcpus_free": 3}
    assert str(caught.value) == "no host fits: vcpus ruled out the last 3 of 5 hosts; nearest: more with 5 VCPUs for 8"
    assert caught.value.exit_status == 3


def test_everyone_silent(owner: Connection, scheduler: Scheduler, database: str) -> None:
    """Nothing is claimed, and the refusal says so; one host back is claimed with its first row."""
    old = datetime.now(UTC) - timedelta(seconds=31)
    for name in "abc":
        add_host(owner, name, observed_at=old)
    refusal = refusal_of(scheduler, SMALL)
    assert (refusal.dimension, refusal.ruled_out, refusal.requested) == ("stale", {"stale": 3}, 30)
    patient = Scheduler(database, SchedulerSettings(max_age=timedelta(minutes=1)))
    assert patient.claim(SMALL)
    patient.close()
    assert scheduler.claim(Request(vcpus=1, max_age=timedelta(minutes=1)))
    add_host(owner, "b")
    assert {claim.host_name for claim in scheduler.claim(SMALL, count=3)} == {"b"}


def test_a_host_under_whose_id_several_nodes_report_is_not_picked(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "cloned", anomalies=1)
    refusal = refusal_of(scheduler, SMALL)
    assert (refusal.dimension, refusal.ruled_out) == ("duplicate id", {"duplicate id": 1})
    # Neither a clock that went back nor a fraction that was bounded keeps a host out.
    add_host(owner, "odd", anomalies=6)
    assert scheduler.claim(SMALL)[0].host_name == "odd"


def test_no_hosts_at_all(scheduler: Scheduler) -> None:
    refusal = refusal_of(scheduler, SMALL)
    assert (refusal.hosts, refusal.dimension, refusal.nearest) == (0, "hosts", None)


def test_strategies(owner: Connection, scheduler: Scheduler) -> None:
    for name, free in (("empty", 60), ("half", 32), ("full", 4)):
        add_host(owner, name, vcpus_free=free, memory_mb_free=free * 4096, disk_gb_free=free * 60, cpu_utilization=0)

    def best(strategy: Any, **more: Any) -> list[str]:
        request = Request(vcpus=1, strategy=strategy, weights=Weights(age=0), **more)
        return [candidate.host_name for candidate in scheduler.candidates(request)]

    assert best("spread") == ["empty", "half", "full"]
    assert best("pack") == ["full", "half", "empty"]
    assert set(best("random")) == {"empty", "half", "full"}
    add_host(owner, "empty", vcpus_free=60, memory_mb_free=1, cpu_utilization=1.0)
    assert best("spread")[0] == "half", "a busy host is not the best"
    assert scheduler.candidates(Request(vcpus=32, include=("full",))) == []


def test_ties_do_not_herd(owner: Connection, scheduler: Scheduler) -> None:
    for number in range(20):
        add_host(owner, f"host-{number}")
    picked = Counter(scheduler.claim(SMALL)[0].host_name for _ in range(40))
    assert max(picked.values()) <= 4, picked
    all_rows = Request(vcpus=1, include=tuple(f"host-{number}" for number in range(20)), weights=Weights(age=0))
    assert len({scheduler.candidates(all_rows)[0].host_name for _ in range(20)}) > 5


def test_fractions_do_not_favour_the_big(owner: Connection, scheduler: Scheduler) -> None:
    size: dict[str, Any] = {"memory_mb_capacity": 1_048_576, "memory_mb_free": 262_144, "memory_mb_available": 262_144}
    add_host(owner, "big", vcpus_capacity=256, vcpus_free=64, **size)
    add_host(owner, "small", vcpus_free=48)
    best = scheduler.candidates(Request(vcpus=1, memory_mb=256))
    assert isinstance(best[0], Candidate)
    assert best[0].host_name == "small"


@pytest.mark.parametrize(
    "document",
    [
        "[]",
        '{"vcpu": 1}',
        '{"weights": {"vcpu": 1}}',
        '{"vcpus": -1}',
        '{"vcpus": "many"}',
        '{"strategy": "best"}',
        '{"sample": 0}',
        '{"claim_ttl": "-1 s"}',
        '{"max_age": "soon"}',
    ],
)
def test_a_request_that_makes_no_sense(owner: Connection, document: str) -> None:
    with pytest.raises(psycopg2.DataError):
        query(owner, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", document)


def test_consumers_that_make_no_sense(scheduler: Scheduler) -> None:
    twice = uuid.uuid4()
    for consumers in ([twice, twice], ["no uuid"], [uuid.uuid4() for _ in range(1001)]):
        with pytest.raises(ConfigError):
            scheduler.claim(SMALL, consumers)


def test_an_older_snapshot_is_refused(owner: Connection, database: str) -> None:
    add_host(owner, "a")
    with closing(psycopg2.connect(database)) as connection:
        connection.set_session("REPEATABLE READ")
        with pytest.raises(psycopg2.errors.InvalidTransactionState):
            query(connection, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()])")


def test_no_claim_waits_for_a_batch_of_the_sink_nor_the_sink_for_a_claim(
    owner: Connection, scheduler: Scheduler, database: str
) -> None:
    add_host(owner, "a")
    (settled,) = scheduler.claim(SMALL)
    with closing(psycopg2.connect(database)) as sink, sink.cursor() as cursor:
        cursor.execute("SET lock_timeout = '5 s'")
        upsert_usage(
            sink,
            host_id="id-a",
            observed_at=datetime.now(UTC),
            recent_consumers=f"{{{settled.consumer}}}",
            vcpus_free=31,
        )
        # The batch is open: it holds the locks of the host's row and of the claim that it settles.
        quick = Scheduler(database, SchedulerSettings(statement_timeout=timedelta(seconds=5)))
        assert quick.claim(SMALL)[0].host_name == "a"
        assert quick.claim(SMALL, [settled.consumer])[0].already
        quick.close()
        with closing(psycopg2.connect(database)) as claiming:
            query(claiming, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], '{\"vcpus\": 1}')")
            query(claiming, "SELECT vacancy.release(ARRAY[%s]::uuid[])", str(uuid.uuid4()))
            # That claim is open as well, and the sink goes on.
            upsert_usage(sink, host_id="id-a", observed_at=datetime.now(UTC), vcpus_free=31, recent_consumers="{}")
            sink.commit()
            claiming.rollback()


def test_while_a_host_is_claimed_others_are_taken(owner: Connection, scheduler: Scheduler, database: str) -> None:
    add_host(owner, "best", vcpus_free=64, cpu_utilization=0)
    add_host(owner, "second", vcpus_free=16)
    with closing(psycopg2.connect(database)) as claiming:
        query(claiming, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], '{\"vcpus\": 1}')")
        assert scheduler.claim(Request(vcpus=1))[0].host_name == "second"
        assert scheduler.counters.contended_hosts > 0


def test_the_last_slot_goes_to_one(owner: Connection, scheduler: Scheduler) -> None:
    """Those who come while it is being claimed wait for the outcome, and are refused, or take it if it was given up."""
    add_host(owner, "a", vcpus_free=1)
    with ThreadPoolExecutor(4) as executor:
        barrier = threading.Barrier(4)

        def claim() -> uuid.UUID | None:
            barrier.wait(30)
            try:
                return scheduler.claim(Request(vcpus=1))[0].consumer
            except NoHostFitsError:
                return None

        for _ in range(25):
            won = [consumer for consumer in executor.map(lambda _: claim(), range(4)) if consumer]
            assert len(won) == 1
            scheduler.release(won[0])


def test_the_same_consumer_at_once_gets_one_claim(owner: Connection, scheduler: Scheduler) -> None:
    for name in "abc":
        add_host(owner, name)
    with ThreadPoolExecutor(4) as executor:
        for _ in range(25):
            consumer = uuid.uuid4()
            claims = list(executor.map(lambda c: scheduler.claim(SMALL, [c])[0], [consumer] * 4))
            assert len({claim.host_id for claim in claims}) == 1
            assert sorted(claim.already for claim in claims) == [False, True, True, True]


def test_contention_that_does_not_end_is_an_error(owner: Connection, database: str) -> None:
    add_host(owner, "a")
    impatient = Scheduler(
        database, SchedulerSettings(statement_timeout=timedelta(milliseconds=300), retry_for=timedelta(seconds=1))
    )
    with closing(psycopg2.connect(database)) as claiming:
        query(claiming, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], '{\"vcpus\": 1}')")
        with pytest.raises(TimedOutError, match="claim again with the same consumers"):
            impatient.claim(SMALL)
        add_host(owner, "b")
        # With one host held already the other cannot be waited for, lest two claims wait for each other.
        with pytest.raises(ContendedError, match="claimed from by others"):
            impatient.claim(Request(vcpus=1, distinct_hosts=True), count=2)
        assert impatient.counters.retries > 0
    impatient.close()


def test_a_child_process_has_connections_of_its_own(owner: Connection, scheduler: Scheduler) -> None:
    add_host(owner, "a")
    scheduler.claim(SMALL)
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()

    def child() -> None:
        answers.put([scheduler.claim(SMALL)[0].host_name for _ in range(5)])

    children = [context.Process(target=child) for _ in range(2)]
    for process in children:
        process.start()
    for process in children:
        process.join(30)
        assert process.exitcode == 0
        assert answers.get() == ["a"] * 5
    assert scheduler.claim(SMALL)[0].host_name == "a"
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(12,)]
    assert scheduler.counters.reconnects == 0, os.getpid()


def test_a_restart_of_the_database_loses_and_doubles_nothing() -> None:
    """Threads claim on while the server is ended and started again; what was acknowledged is there, once."""
    with running_postgres() as server:
        migrate(SecretStr(server.owner_dsn))
        with closing(psycopg2.connect(server.owner_dsn)) as owner:
            owner.autocommit = True
            for number in range(10):
                add_host(owner, f"host-{number}", vcpus_free=100_000, memory_mb_free=10**9, memory_mb_available=10**9)
        scheduler = Scheduler(server.owner_dsn, SchedulerSettings(retry_for=timedelta(minutes=2)))
        claimed: list[uuid.UUID] = []
        stop = threading.Event()

        def claim() -> None:
            while not stop.is_set():
                claimed.append(scheduler.claim(Request(vcpus=1, max_age=timedelta(hours=1)))[0].consumer)

        with ThreadPoolExecutor(4) as executor:
            threads = [executor.submit(claim) for _ in range(4)]
            try:
                wait_until(lambda: len(claimed) > 200, 60, "the claims stand still")
                server.stop()
                server.start()
                before = len(claimed)
                wait_until(lambda: len(claimed) > before + 200, 60, "the claims stand still after the restart")
            finally:
                stop.set()
            for thread in threads:
                thread.result(60)
        with closing(psycopg2.connect(server.owner_dsn)) as owner:
            there = [uuid.UUID(consumer) for (consumer,) in query(owner, "SELECT consumer::text FROM vacancy.claim")]
        assert sorted(there) == sorted(claimed)
        assert scheduler.counters.reconnects > 0
        scheduler.close()
        server.stop()
        with pytest.raises(UnreachableError):
            Scheduler(server.owner_dsn, SchedulerSettings(retry_for=timedelta(milliseconds=200))).hosts()
