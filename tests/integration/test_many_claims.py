"""claim_many(): different requests in one round trip, each answered as claim() would answer it alone."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import NO_DISK, query, upsert_inventory, upsert_pool, upsert_usage
from tests.harness.servers import new_database
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import Claim, ContradictionError, NoHostFitsError
from vacancy.connectors.scheduler.request import Pci, Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas.errors import ConfigError, VacancyError

EMPTY = "TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim, vacancy.pool_claimed, vacancy.pool_allocated"
POOL = "ceph"
PCI_POOLS = '[{"vendor_id": "10de", "product_id": "20b5", "numa_node": null, "total": 2, "free": 2, "tags": {}}]'
CONSUMERS = [uuid.UUID(int=number) for number in range(1, 9)]


@pytest.fixture(scope="module")
def tables(postgres_server: PostgresServer) -> Iterator[str]:
    """The tables of all tests here, by their owner's DSN."""
    with new_database(postgres_server) as dsn:
        migrate(SecretStr(dsn))
        yield dsn


@pytest.fixture(scope="module")
def owner(tables: str) -> Iterator[Connection]:
    """The owner's connection; each statement commits."""
    with closing(psycopg2.connect(tables)) as connection:
        connection.autocommit = True
        yield connection


@pytest.fixture(scope="module")
def scheduler(tables: str) -> Iterator[Scheduler]:
    made = Scheduler(tables, SchedulerSettings(max_age=timedelta(hours=1)))
    yield made
    made.close()


def fill(owner: Connection) -> None:
    """Three hosts of 8 VCPUs: "a" with 20 GiB of its own and two devices, "b" and "c" of a pool of 30 GiB."""
    now = datetime.now(UTC)
    with owner.cursor() as cursor:
        cursor.execute(EMPTY)
    upsert_pool(owner, POOL, now, gb=30)
    for name in "abc":
        pool, disk = (
            None,
            {"disk_gb_capacity": 20, "disk_gb_free": 20, "disk_gb_free_min": 20, "disk_gb_available": 20},
        )
        if name != "a":
            pool, disk = POOL, NO_DISK
        devices = PCI_POOLS if name == "a" else "[]"
        inventory = {"inventories": "{}", "disk_pool": pool, "pci_pools": devices}
        upsert_inventory(owner, host_id=name, name=f"name of {name}", observed_at=now, **inventory)
        upsert_usage(owner, host_id=name, observed_at=now, recent_consumers="{}", **disk | {"vcpus_free": 8})


def told(answer: Claim | VacancyError) -> Any:
    """What an answer says, without times."""
    if isinstance(answer, Claim):
        return answer.consumer, answer.host_id, answer.host_name, answer.already, answer.held
    if isinstance(answer, NoHostFitsError):
        return answer.refusal
    return type(answer), str(answer)


def one_by_one(scheduler: Scheduler, asked: Sequence[tuple[uuid.UUID, Request]]) -> list[Any]:
    answers: list[Claim | VacancyError] = []
    for consumer, request in asked:
        try:
            answers += scheduler.claim(request, [consumer])
        except (NoHostFitsError, ContradictionError, ConfigError) as error:
            answers.append(error)
    return [told(answer) for answer in answers]


REQUESTS = st.builds(
    Request,
    vcpus=st.integers(1, 5),
    disk_gb=st.sampled_from([0, 0, 1, 9, 25]),
    include=st.sampled_from([("a",), ("b",), ("name of c",), ("nobody",)]),
    pci=st.sampled_from([(), (), (Pci(vendor_id="10de"),)]),
    near=st.sampled_from([None, None, None, "no such pool"]),
    max_age=st.sampled_from([None, timedelta(hours=2)]),
)
BATCHES = st.lists(
    st.lists(st.tuples(st.sampled_from(CONSUMERS), REQUESTS), min_size=1, max_size=6, unique_by=lambda each: each[0]),
    min_size=1,
    max_size=3,
)


@given(batches=BATCHES)
def test_each_is_answered_as_if_it_were_alone(
    owner: Connection, scheduler: Scheduler, batches: list[list[tuple[uuid.UUID, Request]]]
) -> None:
    """Claims, refusals, claims that stand already and ones for something else, and requests that make no sense."""
    fill(owner)
    alone = [one_by_one(scheduler, batch) for batch in batches]
    left = query(owner, "SELECT host_id, vcpus_free, disk_gb_free FROM vacancy.host_free ORDER BY host_id")
    fill(owner)
    together = [
        [told(each) for each in scheduler.claim_many([request for _, request in batch], [who for who, _ in batch])]
        for batch in batches
    ]
    assert together == alone
    assert query(owner, "SELECT host_id, vcpus_free, disk_gb_free FROM vacancy.host_free ORDER BY host_id") == left


def test_many_at_once_take_all_and_no_more(owner: Connection, scheduler: Scheduler) -> None:
    fill(owner)
    request = Request(vcpus=1, disk_gb=2)
    with ThreadPoolExecutor(4) as pool:
        answers = [each for many in pool.map(lambda _: scheduler.claim_many([request] * 20), range(4)) for each in many]
    claims = [answer for answer in answers if isinstance(answer, Claim)]
    others = [answer for answer in answers if not isinstance(answer, Claim)]
    # 10 from a's disk, of which its VCPUs allow 8; 15 from the pool.
    assert len(claims) == 8 + 15
    assert all(isinstance(answer, NoHostFitsError) for answer in others)
    free = query(
        owner, "SELECT vcpus_free, disk_gb_free FROM vacancy.host_free WHERE host_id IN ('a', %s) ORDER BY 1", POOL
    )
    assert sorted(free) == [(0, 0), (0, 4)]


def test_of_many_a_second_call_returns_the_same(owner: Connection, scheduler: Scheduler) -> None:
    fill(owner)
    requests = [Request(vcpus=number % 3 + 1) for number in range(3)]
    first = scheduler.claim_many(requests, CONSUMERS[:3])
    again = scheduler.claim_many(requests, CONSUMERS[:3])
    assert [told(each)[:3] for each in first] == [told(each)[:3] for each in again]
    assert [each.already for each in again if isinstance(each, Claim)] == [True] * 3


def test_what_makes_no_sense_as_a_whole_is_an_error(scheduler: Scheduler) -> None:
    assert scheduler.claim_many([]) == []
    with pytest.raises(ConfigError, match="2 requests for 1 consumers"):
        scheduler.claim_many([Request(vcpus=1)] * 2, CONSUMERS[:1])
    with pytest.raises(ConfigError, match="different ids"):
        scheduler.claim_many([Request(vcpus=1)] * 2, CONSUMERS[:1] * 2)
