"""Plain requests have statements of their own, with few expressions, which must give what the general ones give."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import NO_DISK, query, upsert_inventory, upsert_pool, upsert_usage
from tests.harness.servers import new_database
from vacancy.connectors.postgres.migrations import migrate
from vacancy.jobs.local.postgres_server import PostgresServer

EMPTY = "TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim, vacancy.pool_claimed, vacancy.pool_allocated"
NAMES = ("a", "b", "c", "d")
POOL = "ceph"
CELLS = [
    {
        "id": 0,
        "cpus": [0, 1],
        "free_cpus": [0, 1],
        "memory_mb": 1000,
        "pages": [{"size_kb": 2048, "total": 9, "free": 9}],
    }
]
IN_PAGES = """
INSERT INTO vacancy.claim (consumer, host_id, vcpus, memory_mb, disk_gb, claimed_at, expires_at, held)
VALUES (gen_random_uuid(), 'a', 1, 3, 0, now(), now() + interval '1 h', '{"numa 0 pages 2048": 1}')
"""
"""A claim of 3 MiB of memory, of which 2 are in a huge page."""
# `general` is the way of a request that is not plain for its weights alone; they differ by nothing that shows.
RANKED = """
SELECT plain.best, general.best
FROM (SELECT vacancy.prepare_request(%s) AS request OFFSET 0) AS one
CROSS JOIN LATERAL vacancy.best_of_sample(one.request, 24, true, true) AS plain
CROSS JOIN (SELECT vacancy.prepare_request(%s) AS request OFFSET 0) AS other
CROSS JOIN LATERAL vacancy.best_of_sample(other.request, 24, true, true) AS general
"""
ALMOST = {"weights": {"disk_gb": 1.000000001}}

AMOUNTS = st.sampled_from([0, 1, 2, 5, 8])
LOADS = st.sampled_from([None, 0.0, 0.25, 0.5, 1.0])
UNITS = st.sampled_from(
    [None, {"min_unit": 1, "max_unit": 5, "step_size": 1}, {"min_unit": 2, "max_unit": 9, "step_size": 2}]
)


@st.composite
def hosts(draw: st.DrawFn) -> dict[str, Any]:
    """A host's usage and inventory."""
    figures = {
        f"{name}_{what}": draw(st.integers(-2, 10))
        for name in ("vcpus", "memory_mb", "disk_gb")
        for what in ("free", "available")
        if (name, what) != ("vcpus", "available")
    }
    capacities = {f"{name}_capacity": draw(st.sampled_from([0, 4, 10])) for name in ("vcpus", "memory_mb", "disk_gb")}
    loads = {name: draw(LOADS) for name in ("cpu_utilization", "cpu_pressure", "memory_pressure", "io_pressure")}
    pool = draw(st.sampled_from([None, None, POOL, "missing"]))
    inventories = {name: draw(UNITS) for name in ("VCPU", "MEMORY_MB", "DISK_GB")}
    return {
        "usage": figures
        | (capacities | {"vcpus_capacity": capacities["vcpus_capacity"] or 1})
        | loads
        | (NO_DISK if pool and draw(st.booleans()) else {})
        | {"anomalies": draw(st.sampled_from([0, 0, 0, 1, 2]))},
        "age": timedelta(seconds=draw(st.sampled_from([0, 0, 10, 3000, 7200, -3600]))),
        "inventory": {
            "disk_pool": pool,
            "status": draw(st.sampled_from(["ENABLED", "ENABLED", "DISABLED"])),
            "clock_ahead": draw(st.sampled_from([False, False, True])),
            "zone": draw(st.sampled_from([None, "one", "two"])),
            "numa_cells": json.dumps(CELLS),
            "inventories": json.dumps({name: units for name, units in inventories.items() if units}),
        },
    }


LITTLE_MEASURED: dict[str, Any] = {
    "usage": {
        f"{name}_{what}": 10
        for name in ("vcpus", "memory_mb", "disk_gb")
        for what in ("capacity", "free", "available")
        if (name, what) != ("vcpus", "available")
    }
    | {"memory_mb_available": 3},
    "age": timedelta(0),
    "inventory": {"numa_cells": json.dumps(CELLS)},
}
"""A host that promises more memory than the kernel has left."""


@pytest.fixture(scope="module")
def owner(postgres_server: PostgresServer) -> Iterator[Connection]:
    with new_database(postgres_server) as dsn:
        migrate(SecretStr(dsn))
        with closing(psycopg2.connect(dsn)) as connection:
            connection.autocommit = True
            yield connection


def fill(owner: Connection, fleet: list[dict[str, Any]], pool_gb: int) -> None:
    now = datetime.now(UTC)
    with owner.cursor() as cursor:
        cursor.execute(EMPTY)
    upsert_pool(owner, POOL, now, gb=pool_gb)
    for name, host in zip(NAMES, fleet, strict=False):
        upsert_inventory(owner, host_id=name, name=f"name of {name}", observed_at=now, **host["inventory"])
        upsert_usage(owner, host_id=name, observed_at=now - host["age"], recent_consumers="{}", **host["usage"])


@given(
    fleet=st.lists(hosts(), min_size=1, max_size=4),
    pool_gb=st.sampled_from([3, 3000]),
    vcpus=AMOUNTS,
    memory_mb=AMOUNTS,
    disk_gb=AMOUNTS,
    more=st.sampled_from(
        [
            {},
            {},
            {"min_memory_mb_available": 2},
            {"weights": {"load": 0}},
            {"weights": {"age": 3}},
            {"zone": "one"},
            {"zone": ""},
            {"numa": {"cpus": 1}},
            {"numa": {"pages": {"2048": 1}}},
        ]
    ),
    in_pages=st.booleans(),
)
@example(
    fleet=[LITTLE_MEASURED],
    pool_gb=3,
    vcpus=1,
    memory_mb=5,
    disk_gb=1,
    more={"numa": {"pages": {"2048": 1}}},
    in_pages=False,
)
@example(fleet=[LITTLE_MEASURED], pool_gb=3, vcpus=1, memory_mb=2, disk_gb=1, more={}, in_pages=True)
def test_a_plain_request_gets_what_any_other_would(
    owner: Connection,
    fleet: list[dict[str, Any]],
    pool_gb: int,
    vcpus: int,
    memory_mb: int,
    disk_gb: int,
    more: dict[str, Any],
    in_pages: bool,
) -> None:
    fill(owner, fleet, pool_gb)
    if in_pages:
        owner.cursor().execute(IN_PAGES)
    request = {"vcpus": vcpus, "memory_mb": memory_mb, "disk_gb": disk_gb, "max_age": "1 h", "sample": 24} | more
    fits = dict(query(owner, "SELECT host_id, ruled_out_by FROM vacancy.why(%s)", json.dumps(request)))
    scores = dict(query(owner, "SELECT host_id, score FROM vacancy.candidates(%s)", json.dumps(request)))
    expected = {host for host, ruled_out_by in fits.items() if not ruled_out_by}

    ((plain, general),) = query(owner, RANKED, json.dumps(request), json.dumps(request | _almost(more)))
    assert expected <= set(plain or [])
    in_order = [host for host in plain if host in expected]
    assert [round(scores[host], 6) for host in in_order] == sorted(
        (round(scores[host], 6) for host in in_order), reverse=True
    )
    assert expected <= set(general or [])

    ((host, refusal),) = query(
        owner,
        "SELECT host_id, refusal FROM vacancy.claim(ARRAY[%s]::uuid[], %s)",
        str(uuid.uuid4()),
        json.dumps(request),
    )
    assert (host in expected) if expected else (host is None and refusal is not None)
    if host is not None:
        best = max(scores.values())
        assert scores[host] == pytest.approx(best, abs=1e-6)


@given(
    fleet=st.lists(hosts(), min_size=1, max_size=4),
    pool_gb=st.sampled_from([3, 3000]),
    asked=st.lists(st.tuples(AMOUNTS, AMOUNTS, AMOUNTS), min_size=2, max_size=6),
)
def test_many_plain_requests_get_what_fits_and_no_more(
    owner: Connection, fleet: list[dict[str, Any]], pool_gb: int, asked: list[tuple[int, int, int]]
) -> None:
    fill(owner, fleet, pool_gb)
    requests = [
        {"vcpus": vcpus, "memory_mb": memory_mb, "disk_gb": disk_gb, "max_age": "3600000 ms", "claim_ttl": "60000 ms"}
        for vcpus, memory_mb, disk_gb in asked
    ]
    consumers = [str(uuid.uuid4()) for _ in requests]
    fitted = [_fitting(owner, request) for request in requests]

    answers = query(
        owner,
        "SELECT consumer::text, host_id, host_name, refusal IS NOT NULL, error, expires_at - claimed_at"
        " FROM vacancy.claim_many(%s::uuid[], %s::jsonb[])",
        consumers,
        [json.dumps(request) for request in requests],
    )

    assert [answer[0] for answer in answers] == consumers
    stored = {
        row[0]: row[1:]
        for row in query(owner, "SELECT consumer::text, host_id, vcpus, memory_mb, disk_gb FROM vacancy.claim")
    }
    for (consumer, host, name, refused, error, ttl), request, before, amounts in zip(
        answers, requests, fitted, asked, strict=True
    ):
        assert error is None
        if refused:
            assert host is None and not _fitting(owner, request)
        else:
            assert host in before and name == f"name of {host}" and ttl == timedelta(seconds=60)
            assert stored.pop(consumer) == (host, *amounts)
    assert not stored
    for column, position in (("vcpus_free", 0), ("memory_mb_free", 1), ("memory_mb_available", 1), ("disk_gb_free", 2)):
        taken = {
            host
            for (_, host, *_), amounts in zip(answers, asked, strict=True)
            if host and amounts[position] and not (column.startswith("disk") and _pool_of(host, fleet))
        }
        assert all(
            free >= 0
            for (free,) in query(owner, f"SELECT {column} FROM vacancy.host_free WHERE host_id = ANY (%s)", list(taken))
        )
    assert query(owner, "SELECT disk_gb_free >= 0 FROM vacancy.host_free WHERE host_id = %s", POOL) == [(True,)]


def _fitting(owner: Connection, request: dict[str, Any]) -> set[str]:
    return {
        host
        for host, ruled_out_by in query(owner, "SELECT host_id, ruled_out_by FROM vacancy.why(%s)", json.dumps(request))
        if not ruled_out_by
    }


def _pool_of(host: str, fleet: list[dict[str, Any]]) -> str | None:
    pool: str | None = fleet[NAMES.index(host)]["inventory"]["disk_pool"]
    return pool


def _almost(more: dict[str, Any]) -> dict[str, Any]:
    return {"weights": more.get("weights", {}) | ALMOST["weights"]}
