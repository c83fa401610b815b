"""What the fleet page reads is what the view and why() say, on a real PostgreSQL."""

from __future__ import annotations

import json
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import SecretStr

from tests.harness.rows import query, retire, upsert_inventory, upsert_pool, upsert_usage
from tests.harness.seeds import draws, seed_of
from tests.harness.waiting import wait_until
from vacancy.connectors.settings import PostgresSettings
from vacancy.jobs.settings import Settings
from vacancy.jobs.web.fleet import HISTORY_STEP_SECONDS
from vacancy.jobs.web.frames import Frames
from vacancy.jobs.web.table import FIGURES
from vacancy.jobs.web.watch import Watch

KINDS = [
    {"vendor_id": "10de", "product_id": "20b5", "tags": {}},
    {"vendor_id": "10de", "product_id": "1eb8", "tags": {"rack": "7"}},
    {"vendor_id": "8086", "product_id": "154c", "tags": {}},
]

CLASSES = ["CUSTOM_FPGA", "CUSTOM_LICENCE"]
SIMPLE = {"disabled", "vcpus_unit", "vcpus_free", "memory_mb_free", "memory_mb_available"}
# The hosts on which all complex parts of a request have a place, by the search that a claim makes.
PLACED = """
SELECT i.host_id FROM vacancy.host_inventory AS i
CROSS JOIN (SELECT vacancy.prepare_request(%s) AS request OFFSET 0) AS one
CROSS JOIN LATERAL vacancy.place_complex_parts(
  i.host_id, (one.request).resources, (one.request).numa, (one.request).pci
) AS p
WHERE p.held IS NOT NULL
"""


@pytest.fixture
def settings(database: str) -> Settings:
    """Those of the page's server."""
    dsn = SecretStr(database)
    return Settings().model_copy(
        update={"postgres": PostgresSettings(owner_dsn=dsn, job_dsn=dsn, scheduler_dsn=dsn, reader_dsn=dsn)}
    )


def now(owner: Connection) -> Any:
    """The server's time."""
    return query(owner, "SELECT statement_timestamp()")[0][0]


def test_the_memory_of_the_page_is_what_the_view_says(owner: Connection, settings: Settings) -> None:
    odd: dict[str, dict[str, Any]] = {
        "fresh": {},
        "negative": {"vcpus_free": -5, "memory_mb_free": -1},
        "silent": {"observed_at": now(owner) - timedelta(minutes=2)},
        "cloned": {"anomalies": 1},
        "ahead": {"observed_at": now(owner) + timedelta(hours=1)},
        "ahead-when-written": {"clock_ahead": True},
        "unknown": {"cpu_utilization": None, "cpu_steal": None},
    }
    for name, usage in odd.items():
        upsert_inventory(owner, host_id=name, name=name, observed_at=now(owner))
        upsert_usage(owner, **{"host_id": name, "observed_at": now(owner), "recent_consumers": "{}"} | usage)
    upsert_inventory(owner, host_id="no-usage", name="no-usage")
    upsert_inventory(owner, host_id="off", name="off", status="DISABLED", status_reason="RAM fault")
    upsert_inventory(owner, host_id="told-ahead", name="told-ahead", clock_ahead=True)
    upsert_inventory(owner, host_id="pooled", name="pooled", disk_pool="shared")
    upsert_pool(owner, "shared", now(owner), gb=1000)
    upsert_inventory(owner, host_id="gone", name="gone")
    for name in ("off", "told-ahead", "pooled", "gone"):
        upsert_usage(owner, host_id=name, observed_at=now(owner), recent_consumers="{}")
    retire(owner, host_id="gone", observed_at=now(owner))
    claim = {"vcpus": 3, "memory_mb": 100, "include": ["fresh"]}
    query(owner, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", json.dumps(claim))

    watch = Watch(settings, Frames(1))
    for _ in range(2):  # the second look reads what has changed alone
        watch.tick()
        assert watch.trouble is None
        rows = query(
            owner, f"SELECT host_id, reason, {', '.join(FIGURES)} FROM vacancy.schedulable_host WHERE NOT shares"
        )
        view = {host: (reason, *figures) for host, reason, *figures in rows}
        documents = [watch.fleet.document(slot) for slot in watch.fleet.slot_of.values()]
        page = {each["host_id"]: (each["reason"], *(each[name] for name in FIGURES)) for each in documents}
        # A host without usage has no claims that are known either; the view counts none.
        assert {host: row[:-1] for host, row in page.items()} == {host: row[:-1] for host, row in view.items()}
        assert page["fresh"][-1] == view["fresh"][-1] == 1
        reasons = {row[0] for row in view.values()}
        assert reasons == {None, "stale", "duplicate id", "clock ahead", "no usage yet", "disabled: RAM fault"}
        free = sum(max(row[1 + FIGURES.index("vcpus_free")], 0) for row in view.values() if row[0] is None)
        assert watch.fleet.totals[0] == free
    watch.close()


def test_a_browser_that_comes_sees_the_table_as_it_is_now(owner: Connection, settings: Settings) -> None:
    upsert_inventory(owner, host_id="host", name="host", observed_at=now(owner))
    upsert_usage(owner, host_id="host", observed_at=now(owner), vcpus_free=1, recent_consumers="{}")
    watch = Watch(settings, Frames(1))
    watch.start()
    try:
        wait_until(lambda: watch.ticked > 0, 20, "there is no first look")
        assert watch.every == HISTORY_STEP_SECONDS
        looks, ticked = watch.looks, watch.ticked
        watch.ticked -= HISTORY_STEP_SECONDS  # nobody has come for a while
        upsert_usage(owner, host_id="host", observed_at=now(owner), vcpus_free=7, recent_consumers="{}")
        watch.freshen()
        assert watch.looks > looks
        assert watch.fleet.figures["vcpus_free"].tolist() == [7]
        # Far sooner than the look that was due.
        assert watch.ticked - ticked < HISTORY_STEP_SECONDS
    finally:
        watch.stop()


@draws()
def test_what_fits_says_of_each_host_what_why_says(owner: Connection, kept: int | None) -> None:
    drawn = Random(seed_of(kept))
    hosts = [f"host-{number}" for number in range(80)]
    for number, host in enumerate(hosts):
        cells = [
            {
                "id": cell,
                "cpus": list(range(drawn.choice([0, 8, 8]))),
                "free_cpus": list(range(drawn.randrange(9))),
                "memory_mb": drawn.choice([0, 4096, 65_536]),
                "pages": [{"size_kb": 2048, "total": 64, "free": drawn.randrange(65)}] if drawn.random() < 0.7 else [],
            }
            for cell in range(drawn.choice([0, 0, 1, 2]))
        ]
        pools = [
            {**drawn.choice(KINDS), "numa_node": drawn.choice([None, 0, 1]), "total": 4, "free": drawn.randrange(-1, 6)}
            for _ in range(drawn.randrange(4))
        ]
        classes = {name: {"total": drawn.randrange(1, 4)} for name in CLASSES if drawn.random() < 0.5}
        upsert_inventory(
            owner,
            host_id=host,
            name=host,
            status="DISABLED" if number % 9 == 0 else "ENABLED",
            inventories=json.dumps({"VCPU": {"total": 64, "max_unit": 64}, "MEMORY_MB": {"total": 262_144}} | classes),
            allocated=json.dumps({name: drawn.randrange(2) for name in CLASSES}),
            numa_cells=json.dumps(cells),
            pci_pools=json.dumps(pools),
        )
        upsert_usage(
            owner,
            host_id=host,
            observed_at=now(owner),
            vcpus_free=drawn.choice([0, 32]),
            memory_mb_free=drawn.choice([1024, 131_072]),
            recent_consumers="{}",
        )
    fitted = 0
    for number in range(60):
        document = _request(drawn)
        if number % 10 == 0:  # some fit nowhere, whatever is drawn
            document["vcpus"] = 1000
        elif number % 10 == 1:  # and some fit
            document = {}
        request = json.dumps(document)
        why = {host: by for host, _, by in query(owner, "SELECT * FROM vacancy.why(%s)", request)}
        found = query(owner, "SELECT host_id, ruled_out_by, dimensions, score FROM vacancy.what_fits(%s)", request)
        assert {row[0] for row in found} == set(why)
        placed = {host for (host,) in query(owner, PLACED, request)}
        assert placed == {host for host, by in why.items() if set(by) <= SIMPLE}, request
        for host, first, dimensions, score in found:
            told = why[host]
            assert (first is None) == (dimensions == 0) == (not told), (request, host, told)
            assert told or score is not None
            if told:
                assert first in told, (request, host, told)
                assert dimensions <= len(told), (request, host, told)
        fits = [host for host, by in why.items() if not by]
        fitted += bool(fits)
        if number % 3 == 0 and fits:  # what claims hold counts as well
            query(owner, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", request)
    assert 6 <= fitted <= 54, "the requests do not try both answers"


def _request(drawn: Random) -> dict[str, Any]:
    """A request with complex parts of each kind, alone and together."""
    document: dict[str, Any] = {"vcpus": drawn.choice([0, 1, 40]), "memory_mb": drawn.choice([0, 64, 2048])}
    parts = drawn.sample(["numa", "pci", "resources"], drawn.choice([1, 1, 2]))
    if "numa" in parts:
        document["numa"] = drawn.choice([{"cpus": 2}, {"cpus": 6, "pages": {"2048": 16}}, {"pages": {"2048": 40}}])
    if "pci" in parts:
        document["pci"] = [
            {"vendor_id": "10de", "count": drawn.choice([1, 2, 5]), "same_cell": drawn.random() < 0.3}
            | ({"product_id": "20b5"} if drawn.random() < 0.5 else {})
            for _ in range(drawn.choice([1, 1, 2, 3]))
        ]
    if "resources" in parts:
        document["resources"] = {name: drawn.choice([1, 2]) for name in drawn.sample(CLASSES, drawn.choice([1, 1, 2]))}
    return document
