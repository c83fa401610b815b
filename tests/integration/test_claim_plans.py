"""The plans inside claim() at 100,000 hosts, as the server makes them: the sampled path reads nothing in full."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import query
from tests.harness.servers import new_database
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.postgres.whole_host import read_host
from vacancy.jobs.local.postgres_server import PostgresServer

HOSTS = 100_000
INVENTORY = """
INSERT INTO vacancy.host_inventory
  (host_id, observed_at, boot_id, name, status, inventories, traits, aggregates, numa_cells, pci_pools)
SELECT 'host-' || i, now(), 'boot', 'compute-' || i, 'ENABLED',
  '{"VCPU": {"min_unit": 1, "max_unit": 64, "step_size": 1}}', '{HW_CPU_X86_AVX2}', '{}', '[]', '[]'
FROM generate_series(1, %s) AS i
"""
OFFERED = """
UPDATE vacancy.host_inventory SET
  pci_pools = '[{"vendor_id": "10de", "product_id": "20b5", "numa_node": null, "total": 9, "free": 9, "tags": {}}]',
  inventories = inventories || '{"CUSTOM_FPGA": {"total": 9}}',
  allocated = '{}',
  zone = 'small',
  aggregates = '{small}'
WHERE host_id IN ('host-7', 'host-77777')
"""
USAGE = """
INSERT INTO vacancy.host
  (host_id, observed_at, window_start, window_end, samples, vcpus_capacity, vcpus_free, vcpus_free_min,
   memory_mb_capacity, memory_mb_free, memory_mb_free_min, memory_mb_available, disk_gb_capacity, disk_gb_free,
   disk_gb_free_min, disk_gb_available, instances, recent_consumers)
SELECT 'host-' || i, now(), now(), now(), 1, 64, 32, 32, 65536, 32768, 32768, 32768, 100, 50, 50, 50, 0, '{}'
FROM generate_series(1, %s) AS i
"""
RANKS = ("vacancy.plain_ranking(", "host_id = ANY (sampled)")
CHECKS = ("vacancy.plain_fit(", "vacancy.host_fit(request, pool_now)")
"""In the texts of the statements that rank a sample and check a host under its lock: for plain requests, for others."""
CLAIM = "SELECT host_id, refusal FROM vacancy.claim(ARRAY[%s]::uuid[], %s)"


@pytest.fixture(scope="module")
def fleet(postgres_server: PostgresServer) -> Iterator[str]:
    """The owner's DSN of a database with 100,000 hosts, whose claims nobody else looks after."""
    with new_database(postgres_server) as database:
        migrate(SecretStr(database))
        with closing(psycopg2.connect(database)) as connection:
            connection.autocommit = True
            cursor = connection.cursor()
            cursor.execute("ALTER TABLE vacancy.claim SET (autovacuum_enabled = off)")
            cursor.execute(INVENTORY, (HOSTS,))
            cursor.execute(USAGE, (HOSTS,))
            cursor.execute(OFFERED)
            cursor.execute("VACUUM ANALYZE")
        yield database


@pytest.fixture
def explaining(fleet: str) -> Iterator[Connection]:
    """A connection whose notices hold the plans of all statements, those in functions too; no claims yet."""
    with closing(psycopg2.connect(fleet)) as connection:
        connection.autocommit = True
        cursor = connection.cursor()
        cursor.execute("TRUNCATE vacancy.claim")
        cursor.execute("VACUUM vacancy.claim")
        cursor.execute("LOAD 'auto_explain'")
        for name, value in {
            "auto_explain.log_min_duration": "0",
            "auto_explain.log_nested_statements": "on",
            "auto_explain.log_level": "notice",
            "client_min_messages": "notice",
            "vacancy.max_age": "1 d",
        }.items():
            query(connection, "SELECT set_config(%s, %s, false)", name, value)
        yield connection


def plans(connection: Connection, request: str) -> list[str]:
    """The plans of one claim, which has to find a host."""
    connection.notices.clear()
    ((host_id, _),) = query(connection, CLAIM, str(uuid.uuid4()), request)
    assert host_id
    found = [notice for notice in connection.notices if "plan:" in notice]
    assert any(is_one_of(RANKS, plan) for plan in found), found
    return found


def is_one_of(statements: tuple[str, ...], plan: str) -> bool:
    """Whether the plan is of one of these statements."""
    return any(statement in plan for statement in statements)


def whole_reads_of_claims(plan: str) -> list[str]:
    """The scans of the table of claims in a plan that look for nothing, and so read all of an index."""
    lines = plan.splitlines()
    return [
        line
        for line, following in zip(lines, [*lines[1:], ""], strict=True)
        if " using claim_" in line and "Index Cond" not in following
    ]


def test_the_sampled_path_reads_by_index_alone(explaining: Connection) -> None:
    """At first, with a table of claims that is empty, when plans are made and kept; and when it has filled."""
    for claims in (1, 1000):
        for _ in range(claims - 1):
            query(explaining, CLAIM, str(uuid.uuid4()), '{"vcpus": 1}')
        for request in ('{"vcpus": 1}', '{"vcpus": 1, "required": ["HW_CPU_X86_AVX2"]}'):
            found = plans(explaining, request)
            assert any(is_one_of(CHECKS, plan) for plan in found), found
            for plan in found:
                assert "Seq Scan" not in plan, plan
                assert not whole_reads_of_claims(plan), plan
                if is_one_of(RANKS + CHECKS, plan):
                    # By host, and not by time of expiry, which would read all that is in flight.
                    assert "claim_in_flight" in plan, plan
                    assert "claim_expired" not in plan, plan


def test_many_claims_at_once_are_made_by_index_alone(explaining: Connection) -> None:
    """With an empty table of claims and, by the same plans, with one that has filled."""
    requests = ['{"vcpus": 1}', '{"vcpus": 2, "memory_mb": 1024, "disk_gb": 1}'] * 8
    for _ in range(60):
        explaining.notices.clear()
        answers = query(
            explaining,
            "SELECT host_id FROM vacancy.claim_many(%s::uuid[], %s::jsonb[])",
            [str(uuid.uuid4()) for _ in requests],
            requests,
        )
        assert len({host for (host,) in answers} - {None}) == len(requests)
    found = [notice for notice in explaining.notices if "plan:" in notice]
    assert len(found) < len(requests)
    for plan in found:
        assert "Seq Scan" not in plan, plan
        assert not whole_reads_of_claims(plan), plan
        if is_one_of(RANKS + CHECKS, plan):
            assert "claim_in_flight" in plan, plan
            assert "claim_expired" not in plan, plan


def test_a_consumers_claim_is_found_by_index_whatever_is_done_with_it(explaining: Connection) -> None:
    """By plans that were made while there were no claims, when there are many, and many that hold devices."""
    one, reservation = (str(uuid.uuid4()), "ffffffff-ffff-4000-8000-000000000000")

    def use_all() -> None:
        query(explaining, CLAIM, one, '{"vcpus": 1}')
        query(explaining, "SELECT * FROM vacancy.claim(ARRAY[%s]::uuid[], '{\"vcpus\": 2}', true)", one)
        query(explaining, "SELECT * FROM vacancy.release(ARRAY[%s]::uuid[])", one)
        query(explaining, "SELECT vacancy.note_claim(%s, 'host-500', 1, 1, 1, '1 min')", one)
        query(explaining, "SELECT vacancy.claimed(ARRAY[%s]::uuid[])::text", one)
        query(explaining, "SELECT * FROM vacancy.release(ARRAY[%s]::uuid[])", one)
        ids = [reservation]
        query(explaining, 'SELECT * FROM vacancy.reserve(%s::uuid[], \'{"vcpus": 1, "claim_ttl": "1 min"}\')', ids)
        query(explaining, "SELECT * FROM vacancy.take_reserved(%s::uuid[], ARRAY[%s]::uuid[], '1 min')", ids, one)
        query(explaining, "SELECT * FROM vacancy.release(ARRAY[%s]::uuid[])", one)

    for _ in range(2):
        use_all()
    explaining.cursor().execute("VACUUM ANALYZE vacancy.claim")
    use_all()
    query(
        explaining,
        "INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, held)"
        " SELECT gen_random_uuid(), 'host-' || i, 1, 1, 1, now(), now() + interval '1 h', '{\"CUSTOM_FPGA\": 1}'"
        " FROM generate_series(1, 3000) AS i RETURNING 1",
    )
    explaining.notices.clear()
    use_all()
    found = [notice for notice in explaining.notices if "plan:" in notice]
    assert len(found) > 20
    for plan in found:
        assert "Seq Scan on claim" not in plan, plan
        assert not whole_reads_of_claims(plan), plan


@pytest.mark.parametrize("more", ["", ', "required": ["HW_CPU_X86_AVX2"]'])
def test_a_claim_reads_a_sample_whatever_the_number_of_hosts(explaining: Connection, more: str) -> None:
    query(explaining, "SELECT set_config('auto_explain.log_analyze', 'on', false)")
    query(explaining, "SELECT set_config('auto_explain.log_buffers', 'on', false)")
    sampled = next(plan for plan in plans(explaining, f'{{"vcpus": 1, "sample": 32{more}}}') if is_one_of(RANKS, plan))
    pages = int(sampled.partition("Buffers: shared hit=")[2].split()[0])
    assert pages < 32 * 16, sampled


@pytest.mark.parametrize("named", ['["host-7", "compute-500"]', '["compute-99999", "no such host"]'])
@pytest.mark.parametrize("more", ["", ', "disk_gb": 1, "avoid": ["host-7"]'])
def test_hosts_that_a_request_names_are_found_by_index(explaining: Connection, named: str, more: str) -> None:
    for plan in plans(explaining, f'{{"vcpus": 1, "include": {named}{more}}}'):
        assert "Seq Scan" not in plan, plan


@pytest.mark.parametrize(
    "where", ['"zone": "small"', '"aggregates": ["small", "none"]', '"zone": "small", "aggregates": ["small"]']
)
@pytest.mark.parametrize(
    "more", ["", ', "required": ["HW_CPU_X86_AVX2"]', ', "max_cpu_utilization": null, "avoid": ["host-7"]']
)
def test_the_few_hosts_of_a_zone_or_an_aggregate_are_found_by_index(
    explaining: Connection, where: str, more: str
) -> None:
    request = f'{{"vcpus": 1, {where}{more}}}'
    for plan in plans(explaining, request):
        assert "Seq Scan" not in plan, plan
    ((host_id, _),) = query(explaining, CLAIM, str(uuid.uuid4()), request)
    assert host_id in ("host-7", "host-77777")


def test_who_meets_others_on_the_few_hosts_that_fit_does_not_look_at_all(explaining: Connection, fleet: str) -> None:
    """One of two hosts is being claimed from: the other one is found among those that offer what is asked for."""
    with closing(psycopg2.connect(fleet)) as other:
        query(other, "SELECT pg_advisory_xact_lock(hashtextextended('host-7', 1))")
        for more in ('"pci": [{"vendor_id": "10de"}]', '"resources": {"CUSTOM_FPGA": 1}', '"zone": "small"') * 3:
            explaining.notices.clear()
            ((host_id, _),) = query(explaining, CLAIM, str(uuid.uuid4()), f'{{"vcpus": 1, {more}}}')
            assert host_id == "host-77777"
            assert not [notice for notice in explaining.notices if "Seq Scan" in notice]


@pytest.mark.parametrize("host", ["host-7", "host-500"])
def test_one_host_is_read_whole_by_index(explaining: Connection, host: str) -> None:
    """With what drifts on it: of all other hosts only those that have the same disk."""
    shared = (
        "UPDATE vacancy.host_inventory SET disk_id = 'shared' WHERE host_id IN ('host-500', 'host-501') RETURNING 1"
    )
    assert len(query(explaining, shared)) == 2
    explaining.notices.clear()
    document = read_host(explaining, host)
    assert document is not None
    assert ("shared_disk" in [drift["kind"] for drift in document["drift"]]) == (host == "host-500")
    found = [notice for notice in explaining.notices if "plan:" in notice and "vacancy.host" in notice]
    assert found
    for plan in found:
        assert "Seq Scan on host" not in plan, plan


def test_what_few_hosts_offer_is_found_by_index(explaining: Connection) -> None:
    """Without a look at every host or at the whole index, and what is held of those few is found by index, too."""
    for setting in ("log_analyze", "log_buffers"):
        query(explaining, "SELECT set_config(%s, 'on', false)", f"auto_explain.{setting}")
    for more in ('"pci": [{"vendor_id": "10de"}]', '"resources": {"CUSTOM_FPGA": 1}') * 4:
        explaining.notices.clear()
        ((host_id, _),) = query(explaining, CLAIM, str(uuid.uuid4()), f'{{"vcpus": 1, {more}}}')
        assert host_id in ("host-7", "host-77777")
        found = [notice for notice in explaining.notices if "plan:" in notice]
        assert not [plan for plan in found if "Seq Scan" in plan]
        (offers,) = (plan for plan in found if "i.pci_kinds @> requested_kinds" in plan)
        assert "Bitmap Index Scan on host_inventory_offers" in offers
        assert int(offers.partition("Buffers: shared hit=")[2].split()[0]) < 16, offers
        holds = [plan for plan in found if "c.host_id = on_host AND c.held IS NOT NULL" in plan]
        assert holds
        assert all("claim_held" in plan for plan in holds), holds
