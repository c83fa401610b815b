"""Claims for many consumers at once: all of them or none, beside claims for one."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import add_roomy_host, query, upsert_usage
from tests.harness.waiting import wait_until
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import ContradictionError, NoHostFitsError
from vacancy.connectors.scheduler.bulk import MOST_MOVED, PART, reservation_ids
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.schemas.errors import ConfigError, VacancyError

HOSTS, ROOM = 10, 20
"""There is room for HOSTS times ROOM consumers."""
HOUR = timedelta(hours=1)
ONE = Request(vcpus=1, max_age=HOUR)
BUSY_S = 60.0
IN_FLIGHT = "SELECT count(*) FROM vacancy.claim WHERE expires_at > clock_timestamp()"


@pytest.fixture
def scheduler(owner: Connection, database: str) -> Iterator[Scheduler]:
    for number in range(HOSTS):
        add_roomy_host(owner, f"host-{number}")
        with_room(owner, number, ROOM)
    with closing(Scheduler(database, SchedulerSettings(connections=12, retry_for=timedelta(minutes=1)))) as scheduler:
        yield scheduler


def with_room(owner: Connection, number: int, vcpus: int) -> None:
    [(now,)] = query(owner, "SELECT clock_timestamp()")
    upsert_usage(
        owner, host_id=f"id-host-{number}", observed_at=now, recent_consumers="{}", vcpus_free=vcpus, vcpus_capacity=64
    )


def test_all_of_the_room_and_not_one_more(owner: Connection, scheduler: Scheduler) -> None:
    ids = [uuid.uuid4() for _ in range(HOSTS * ROOM)]
    claims = scheduler.claim(ONE, ids)
    assert [claim.consumer for claim in claims] == ids
    assert {claim.expires_at - claim.claimed_at for claim in claims} == {timedelta(minutes=2)}
    assert query(owner, IN_FLIGHT) == [(len(ids),)]
    assert query(owner, "SELECT min(vcpus_free), max(vcpus_free) FROM vacancy.schedulable_host") == [(0, 0)]
    again = scheduler.claim(ONE, [str(one).upper() for one in reversed(ids)])
    assert all(claim.already for claim in again)
    assert [claim.host_id for claim in reversed(again)] == [claim.host_id for claim in claims]
    scheduler.release(*ids[:PART])
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(ONE, count=PART + 1)
    assert (caught.value.refusal.claimable, caught.value.refusal.count) == (PART, PART + 1)
    assert caught.value.refusal.dimension == "vcpus_free"
    # Those that were there stay there, those that were not are claimed.
    whole = scheduler.claim(ONE, ids)
    assert [claim.already for claim in whole] == [False] * PART + [True] * (len(ids) - PART)
    assert query(owner, IN_FLIGHT) == [(len(ids),)]
    assert len(scheduler.release(*ids)) == len(ids)
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(0,)]


def test_distinct_hosts_are_distinct_across_the_parts(owner: Connection, scheduler: Scheduler) -> None:
    for number in range(HOSTS, 3 * PART):
        add_roomy_host(owner, f"host-{number}")
    request = ONE.model_copy(update={"distinct_hosts": True})
    claims = scheduler.claim(request, count=3 * PART)
    assert len({claim.host_id for claim in claims}) == 3 * PART
    scheduler.release(*(claim.consumer for claim in claims))
    with pytest.raises(NoHostFitsError):
        scheduler.claim(request, count=3 * PART + 1)
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(0,)]


@pytest.mark.timeout(240)
def test_of_two_that_do_not_both_fit_one_gets_all(owner: Connection, scheduler: Scheduler) -> None:
    count = HOSTS * ROOM * 3 // 4
    with ThreadPoolExecutor(4) as threads:
        barrier = threading.Barrier(4)

        def claim() -> list[uuid.UUID]:
            barrier.wait(BUSY_S)
            try:
                return [claim.consumer for claim in scheduler.claim(ONE, count=count)]
            except NoHostFitsError:
                return []

        for _ in range(3):
            got = [claimed for claimed in threads.map(lambda _: claim(), range(4)) if claimed]
            assert [len(claimed) for claimed in got] == [count]
            assert query(owner, IN_FLIGHT) == [(count,)]
            scheduler.release(*got[0])


@pytest.mark.timeout(240)
def test_an_ordinary_claim_is_not_refused_for_what_a_bulk_claim_gives_back(
    owner: Connection, scheduler: Scheduler
) -> None:
    stop = threading.Event()
    refused = 0

    def too_many() -> None:
        nonlocal refused
        while not stop.is_set():
            with pytest.raises(NoHostFitsError):
                scheduler.claim(ONE, count=HOSTS * ROOM + 1)
            refused += 1

    with ThreadPoolExecutor(1) as threads:
        thread = threads.submit(too_many)
        try:
            for _ in range(20):
                scheduler.release(scheduler.claim(ONE)[0].consumer)
            wait_until(lambda: refused > 1 or thread.done(), BUSY_S, "the bulk claims stand still")
        finally:
            stop.set()
        thread.result(BUSY_S)
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(0,)]


def test_the_same_consumers_at_once_get_one_claim_each(owner: Connection, scheduler: Scheduler) -> None:
    ids = [uuid.uuid4() for _ in range(3 * PART)]
    with ThreadPoolExecutor(3) as threads:
        answers = list(threads.map(lambda _: scheduler.claim(ONE, ids), range(3)))
    assert len({tuple(claim.host_id for claim in answer) for answer in answers}) == 1
    assert query(owner, IN_FLIGHT) == [(len(ids),)]


def test_what_a_killed_scheduler_has_reserved_is_nobodys_claim_and_expires(
    owner: Connection, scheduler: Scheduler
) -> None:
    ids = reservation_ids(HOSTS * ROOM)
    query(owner, 'SELECT * FROM vacancy.reserve(%s::uuid[], \'{"vcpus": 1, "max_age": "1 h"}\')', ids[:PART])
    owner.cursor().execute("UPDATE vacancy.claim SET expires_at = clock_timestamp() + interval '2 s'")
    # Until it has expired this does not fit, and is tried again.
    assert len(scheduler.claim(ONE, count=HOSTS * ROOM)) == HOSTS * ROOM


def test_many_move_in_one_step_or_not_at_all(owner: Connection, scheduler: Scheduler) -> None:
    """Where no claim has to move many are claimed for as ever; of too many that have to none moves."""
    claims = scheduler.claim(ONE, count=HOSTS * ROOM, move=True)
    assert query(owner, IN_FLIGHT) == [(HOSTS * ROOM,)]
    ids = [claim.consumer for claim in claims]
    assert all(claim.already for claim in scheduler.claim(ONE, ids, move=True))
    scheduler.release(*ids[MOST_MOVED + 1 :])
    two = Request(vcpus=2, max_age=HOUR)
    few, one_more = ids[:MOST_MOVED], ids[: MOST_MOVED + 1]
    with pytest.raises(ContradictionError):
        scheduler.claim(two, one_more)
    with pytest.raises(ConfigError, match=f"{MOST_MOVED} consumers at most"):
        scheduler.claim(two, one_more, move=True)
    in_vcpus = "SELECT vcpus, count(*) FROM vacancy.claim GROUP BY vcpus ORDER BY vcpus"
    assert query(owner, in_vcpus) == [(1, MOST_MOVED + 1)]
    assert [claim.consumer for claim in scheduler.claim(two, few, move=True)] == few
    assert query(owner, in_vcpus) == [(1, 1), (2, MOST_MOVED)]


@pytest.mark.usefixtures("scheduler")
def test_one_transaction_is_for_a_few_consumers(owner: Connection) -> None:
    """Who calls the SQL function claim() is told, and has claimed nothing."""
    for move in (False, True):
        with pytest.raises(psycopg2.errors.InvalidParameterValue, match="1 to 64 different ids"):
            query(
                owner,
                "SELECT vacancy.claim(%s::uuid[], '{\"vcpus\": 1}', %s)",
                [str(uuid.uuid4()) for _ in range(65)],
                move,
            )
    assert query(owner, IN_FLIGHT) == [(0,)]


def test_what_makes_no_sense_is_refused_as_ever(scheduler: Scheduler) -> None:
    twice = [uuid.uuid4()] * (PART + 1)
    for wrong in (twice, ["no id"] * (PART + 2), [uuid.uuid4() for _ in range(1001)]):
        with pytest.raises((ConfigError, VacancyError)):
            scheduler.claim(ONE, wrong)


def test_what_is_reserved_lasts_while_the_bulk_claim_goes_on(owner: Connection, scheduler: Scheduler) -> None:
    """On a busy machine the parts of one may take longer than a reservation lasts that was left behind."""
    ids, reserve = reservation_ids(2 * PART), "SELECT * FROM vacancy.reserve(%s::uuid[], %s)"
    request = '{"vcpus": 1, "max_age": "1 h", "claim_ttl": "60 s"}'
    query(owner, reserve, ids[:PART], request)
    owner.cursor().execute("UPDATE vacancy.claim SET expires_at = clock_timestamp() + interval '5 s'")
    query(owner, reserve, ids[PART:], request)
    lasting = "SELECT count(*) FROM vacancy.claim WHERE expires_at > clock_timestamp() + interval '30 s'"
    assert query(owner, lasting) == [(2 * PART,)]
    assert len(scheduler.release(*ids)) == 2 * PART
