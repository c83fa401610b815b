"""measured() and note_claim(): what schedulers read that rank by themselves, and what they leave for the next one."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import query, upsert_usage
from tests.integration.test_claim_plans import explaining, fleet  # noqa: F401  # fixtures

MEASURED = "SELECT (vacancy.measured(%s)).*"
NOTE = "SELECT vacancy.note_claim(%s::uuid, %s, 4, 8192, 40, %s)"


def measured(owner: Connection, *hosts: str) -> dict[str, dict[str, Any]]:
    """By host, what of it is known."""
    with owner.cursor() as cursor:
        cursor.execute(MEASURED, (list(hosts),))
        names = [column.name for column in cursor.description or ()]
        arrays = cursor.fetchone() or ()
    if arrays[0] is None:
        return {}
    rows = [dict(zip(names, row, strict=True)) for row in zip(*arrays, strict=True)]
    return {hosts[row["position"] - 1]: row for row in rows}


def test_what_is_measured_is_less_what_is_claimed(owner: Connection) -> None:
    [(now,)] = query(owner, "SELECT now()")
    for host in ("host-1", "host-2"):
        upsert_usage(owner, host_id=host, observed_at=now, recent_consumers="{}")
    query(owner, NOTE, str(uuid.uuid4()), "host-1", "1 min")
    seen = measured(owner, "host-3", "host-2", "host-1")
    assert set(seen) == {"host-1", "host-2"}
    assert (seen["host-1"]["memory_mb_available"], seen["host-1"]["vcpus_claimed"]) == (200_000 - 8192, 4)
    assert (seen["host-2"]["memory_mb_available"], seen["host-2"]["vcpus_claimed"]) == (200_000, 0)
    assert (seen["host-1"]["cpu_utilization"], seen["host-1"]["cpu_pressure"]) == (0.5, None)
    assert 0 <= seen["host-1"]["age_seconds"] < 60
    assert measured(owner, "host-3") == measured(owner) == {}


def test_a_note_ends_when_its_host_shows_the_consumer(owner: Connection) -> None:
    [(now,)] = query(owner, "SELECT now()")
    consumer = str(uuid.uuid4())
    upsert_usage(owner, observed_at=now, recent_consumers="{}")
    query(owner, NOTE, consumer, "host-1", "1 min")
    [(now,)] = query(owner, "SELECT now()")
    upsert_usage(owner, observed_at=now, recent_consumers=f"{{{consumer}}}")
    assert measured(owner, "host-1")["host-1"]["vcpus_claimed"] == 0
    assert query(owner, "SELECT settled_at IS NOT NULL FROM vacancy.claim") == [(True,)]
    # Noted once more, by another worker or a retry, while the host lists it: still counted once.
    query(owner, NOTE, consumer, "host-1", "1 min")
    assert measured(owner, "host-1")["host-1"]["vcpus_claimed"] == 0


def test_a_consumer_that_moves_counts_where_it_goes(owner: Connection) -> None:
    [(now,)] = query(owner, "SELECT now()")
    consumer = str(uuid.uuid4())
    for host in ("host-1", "host-2"):
        upsert_usage(owner, host_id=host, observed_at=now, recent_consumers="{}")
        query(owner, NOTE, consumer, host, "1 min")
    seen = measured(owner, "host-1", "host-2")
    assert [seen[host]["vcpus_claimed"] for host in ("host-1", "host-2")] == [0, 4]


def test_notes_expire_and_are_swept(owner: Connection) -> None:
    for _ in range(200):
        query(owner, NOTE, str(uuid.uuid4()), "host-1", "1 microsecond")
    [(left,)] = query(owner, "SELECT count(*) FROM vacancy.claim")
    assert left < 200  # but for one time in 400,000: a look in 16 sweeps 64


def test_claims_see_what_was_noted(owner: Connection) -> None:
    [(now,)] = query(owner, "SELECT now()")
    upsert_usage(owner, observed_at=now, recent_consumers="{}")
    query(owner, NOTE, str(uuid.uuid4()), "host-1", "1 min")
    assert query(owner, "SELECT vcpus_free FROM vacancy.host_free") == [(28,)]


@pytest.mark.parametrize("hosts", [1_000, 10_000])
def test_no_table_is_read_in_full(explaining: Connection, hosts: int) -> None:  # noqa: F811  # the fixture
    query(
        explaining,
        "SELECT count(vacancy.note_claim(gen_random_uuid(), 'host-' || n, 1, 1, 1, '1 h'))"
        " FROM generate_series(1, 100) AS n",
    )
    with explaining.cursor() as cursor:
        ids = [f"host-{number}" for number in range(1, hosts + 1)]
        for _ in range(6):  # more often than a plan is made anew
            explaining.notices.clear()
            cursor.execute(MEASURED, (ids,))
            assert len((cursor.fetchone() or [[]])[0]) == hosts
    plans = "\n".join(explaining.notices)
    assert "host_pkey" in plans
    assert "Seq Scan on host" not in plans


def test_a_note_that_makes_no_sense_is_refused(owner: Connection) -> None:
    with pytest.raises(psycopg2.errors.CheckViolation):
        query(owner, "SELECT vacancy.note_claim(gen_random_uuid(), 'host-1', -1, 0, 0, '1 min')")
