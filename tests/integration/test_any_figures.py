"""Whatever a row holds that the sink can write, no view, function or command fails, and no host promises what it lacks.

The decoder keeps most of these figures out. Here they are drawn from all that the columns' types hold.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from psycopg2.extensions import make_dsn
from pydantic import SecretStr

from tests.harness.rows import query, upsert_inventory, upsert_usage
from vacancy.connectors.nova.table import Table
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.postgres.schedulable_hosts import fetch
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError
from vacancy.connectors.scheduler.bulk import PART
from vacancy.connectors.scheduler.request import Numa, Pci, Request, Weights
from vacancy.connectors.settings import SchedulerSettings
from vacancy.jobs.commands import doctor
from vacancy.jobs.commands.cli import cli
from vacancy.jobs.settings import load_settings
from vacancy.jobs.web.frames import Frames
from vacancy.jobs.web.watch import Watch

Json = dict[str, Any]
LARGE = 4 * 10**18
"""Beyond it the functions count no further."""
FEW = 3
"""Claims that are tried on a host; none of them may go beyond what it has."""
VENDOR, PRODUCT = "10de", "20b5"

INT4_EDGES = (-(2**31), -1, 0, 1, 4, 90, 2**31 - 1)
INT8_EDGES = (-(2**63), -(2**62), *INT4_EDGES, 2**53 + 1, 10**12, 2**62, 2**63 - 1)
int4 = st.sampled_from(INT4_EDGES) | st.integers(-(2**31), 2**31 - 1)
int8 = st.sampled_from(INT8_EDGES) | st.integers(-(2**63), 2**63 - 1)
doubles = st.sampled_from((0.0, -0.0, 1.0, 5e-324, 1e-308, 1e308, -1e308, math.nan, math.inf, -math.inf)) | st.floats()
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
classes = st.sampled_from(("VCPU", "MEMORY_MB", "DISK_GB", "CUSTOM_A", "CUSTOM_FPGA"))


def as_avro_writes(ratio: float) -> float | str:
    """A double in Avro's JSON, which has texts for what JSON lacks."""
    return ratio if math.isfinite(ratio) else {"inf": "Infinity", "-inf": "-Infinity", "nan": "NaN"}[str(ratio)]


inventories = st.dictionaries(
    classes,
    st.fixed_dictionaries(
        dict.fromkeys(("total", "reserved", "min_unit", "max_unit", "step_size"), int8)
        | {"allocation_ratio": doubles.map(as_avro_writes)}
    ),
)
pages = st.fixed_dictionaries({"size_kb": st.sampled_from((4, 2048)) | int8, "total": int8, "free": int8})
cpus = st.lists(st.integers(0, 5) | int4, max_size=8)
cells = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 1) | int4,
            "cpus": cpus,
            "free_cpus": cpus,
            "memory_mb": int8,
            "pages": st.lists(pages, max_size=3),
        }
    ),
    max_size=4,
)
pools = st.lists(
    st.fixed_dictionaries(
        {
            "vendor_id": st.just(VENDOR) | texts,
            "product_id": st.just(PRODUCT) | texts,
            "numa_node": st.none() | st.integers(0, 1) | int4,
            "total": int4,
            "free": int4,
            "tags": st.dictionaries(texts, texts, max_size=2),
        }
    ),
    max_size=4,
)
inventory_rows = st.fixed_dictionaries(
    {
        "name": texts,
        "zone": st.none() | texts,
        "status": st.sampled_from(("ENABLED", "ENABLED", "DISABLED")),
        "status_reason": st.none() | texts,
        "inventories": inventories,
        "traits": st.just([]) | st.just(["MISC_SHARES_VIA_AGGREGATE"]) | st.lists(texts, max_size=3),
        "aggregates": st.lists(texts, max_size=2),
        "disk_pool": st.none() | st.sampled_from(("host-1", "odd")) | texts,
        "numa_cells": cells,
        "pci_pools": pools,
        "reporting_interval_ms": int8,
        "allocated": st.none() | st.dictionaries(classes, int8),
        "source": st.sampled_from(("host", "unknown")) | texts,
    }
)
BIGINTS = tuple(
    f"{kind}{suffix}"
    for kind in ("vcpus", "memory_mb", "disk_gb")
    for suffix in ("_capacity", "_free", "_free_min", "_available")
    if f"{kind}{suffix}" != "vcpus_available"
)
DOUBLES = (
    *("cpu_utilization", "cpu_iowait", "cpu_steal", "cpu_pressure", "memory_pressure", "io_pressure"),
    *("disk_read_bytes_per_s", "disk_write_bytes_per_s", "net_rx_bytes_per_s", "net_tx_bytes_per_s"),
)
usage_rows = st.fixed_dictionaries(
    dict.fromkeys(("samples", *BIGINTS), int8)
    | {name: st.none() | doubles for name in DOUBLES}
    | {
        "instances": int4,
        "age": st.just(timedelta()) | st.timedeltas(timedelta(days=-365), timedelta(days=100_000)),
        "recent_consumers": st.lists(st.uuids().map(str), max_size=2),
    }
)
REQUESTS = (
    Request(),
    Request(vcpus=1, memory_mb=1, disk_gb=1),
    Request(vcpus=2**31 - 1, memory_mb=2**31 - 1, disk_gb=2**31 - 1, min_memory_mb_available=2**31 - 1),
    Request(vcpus=1, strategy="pack", weights=Weights(vcpus=1e6, memory_mb=1e6, disk_gb=1e6, load=-1e6, age=1e6)),
    Request(vcpus=1, weights=Weights(vcpus=-1e6, memory_mb=-1e6, disk_gb=-1e6, load=1e6, age=-1e6)),
    Request(memory_mb=1, strategy="random", max_age=timedelta(milliseconds=1), sample=1),
    Request(
        max_cpu_utilization=0.5, max_cpu_steal=0.5, max_cpu_pressure=0.5, max_memory_pressure=0.5, max_io_pressure=0.5
    ),
    Request(resources={"CUSTOM_A": 1, "CUSTOM_FPGA": 2**31 - 1}),
    Request(numa=Numa(cpus=1, pages={2048: 1}), pci=(Pci(vendor_id=VENDOR, same_cell=True), Pci(product_id=PRODUCT))),
    Request(pci=(Pci(vendor_id=VENDOR, count=2**31 - 1), Pci(vendor_id=VENDOR, numa_node=0))),
)
SOUND_INVENTORY: Json = {
    "inventories": {
        name: {"total": 64, "reserved": 0, "min_unit": 1, "max_unit": 64, "step_size": 1, "allocation_ratio": 1.0}
        for name in ("VCPU", "MEMORY_MB", "DISK_GB", "CUSTOM_A")
    },
    "traits": [],
    "aggregates": [],
    "numa_cells": [
        {
            "id": 0,
            "cpus": [0, 1, 2, 3],
            "free_cpus": [0, 1, 2, 3],
            "memory_mb": 64,
            "pages": [{"size_kb": 2048, "total": 64, "free": 64}],
        }
    ],
    "pci_pools": [
        {"vendor_id": VENDOR, "product_id": PRODUCT, "numa_node": 0, "total": 8, "free": 8, "tags": {}},
    ],
    "allocated": {},
}
SOUND_REQUEST = Request(
    vcpus=1,
    memory_mb=1,
    disk_gb=1,
    resources={"CUSTOM_A": 1},
    numa=Numa(cpus=1, pages={2048: 1}),
    pci=(Pci(vendor_id=VENDOR, same_cell=True),),
)


@pytest.fixture(scope="module")
def dsn(postgres_server: Any) -> Iterator[str]:
    """A migrated database that the examples share, with no limit of age but a century's."""
    name = f"test_{uuid.uuid4().hex}"
    with closing(psycopg2.connect(postgres_server.owner_dsn)) as server:
        server.autocommit = True
        with server.cursor() as cursor:
            cursor.execute(f"CREATE DATABASE {name}")
            cursor.execute(f"ALTER DATABASE {name} SET vacancy.max_age = '100 years'")
            made = make_dsn(postgres_server.owner_dsn, dbname=name)
            migrate(SecretStr(made))
            yield made
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="module")
def scheduler(dsn: str) -> Iterator[Scheduler]:
    made = Scheduler(dsn)
    yield made
    made.close()


@pytest.fixture(scope="module")
def shared(dsn: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(dsn)) as opened:
        opened.autocommit = True
        yield opened


def write(connection: Connection, host_id: str, inventory: Json | None, usage: Json | None) -> None:
    """Rows as the sink writes them."""
    now = datetime.now(UTC)
    if inventory is not None:
        as_json = {
            name: None if inventory[name] is None else json.dumps(inventory[name], ensure_ascii=False)
            for name in ("inventories", "numa_cells", "pci_pools", "allocated")
        }
        own = {"host_id": host_id, "observed_at": now, "name": host_id, "disk_id": "shared"}
        upsert_inventory(connection, **{**own, **inventory, **as_json})
    if usage is not None:
        figures = dict(usage)
        at = now - figures.pop("age", timedelta())
        consumers = "{" + ",".join(figures.pop("recent_consumers", ())) + "}"
        times = {"observed_at": at, "window_start": at, "window_end": at}
        upsert_usage(connection, **{"host_id": host_id, **times, **figures, "recent_consumers": consumers})


def capacity(inventory: Json) -> int:
    """What a class may promise: Placement's rule, where the ratio is one."""
    ratio = float(inventory["allocation_ratio"])
    if not 0 <= ratio <= 1e6:
        return 0
    return max(min(math.floor(float(inventory["total"] - inventory["reserved"]) * ratio), LARGE), -LARGE)


def has(row: Json) -> Counter[str]:
    """The most that may be claimed of a host's classes, devices of the vendor, and CPUs and pages of all cells."""
    most: Counter[str] = Counter()
    for name, inventory in row["inventories"].items():
        if row["allocated"] is not None:
            most[name] = capacity(inventory) - min(max(row["allocated"].get(name, 0), 0), LARGE)
    devices: dict[str, int] = {}
    for pool in row["pci_pools"]:
        identity = json.dumps({name: pool[name] for name in pool if name not in ("total", "free")}, sort_keys=True)
        free = max(min(pool["free"], pool["total"]), 0)
        if pool["vendor_id"] == VENDOR:
            devices[identity] = min(devices.get(identity, free), free)
    most["pci"] = sum(devices.values())
    cpus_of: dict[int, int] = {}
    pages_of: dict[int, int] = {}
    for cell in row["numa_cells"]:
        free = len(set(cell["free_cpus"]) & set(cell["cpus"]))
        cpus_of[cell["id"]] = min(cpus_of.get(cell["id"], free), free)
        small = [max(min(page["free"], page["total"]), 0) for page in cell["pages"] if page["size_kb"] == 2048]
        pages_of[cell["id"]] = max(pages_of.get(cell["id"], 0), min(small, default=0))
    most["cpus"], most["pages"] = sum(cpus_of.values()), sum(pages_of.values())
    return most


def claimed(scheduler: Scheduler, host: str, **parts: Any) -> int:
    """How many of a few claims a host takes."""
    for count in range(FEW):
        try:
            scheduler.claim(Request(include=(host,), **parts))
        except NoHostFitsError:
            return count
    return FEW


def run(dsn: str, *arguments: str) -> str:
    """What a command prints; it succeeds, or says that no host fits."""
    environment = {f"VACANCY_POSTGRES__{role}_DSN": dsn for role in ("OWNER", "READER", "SCHEDULER", "JOB")}
    environment["COLUMNS"] = "240"  # figures of the widest kind leave no room for names in 160
    result = CliRunner().invoke(cli, arguments, env=environment)
    assert result.exception is None or isinstance(result.exception, NoHostFitsError | SystemExit), arguments
    assert result.exit_code in (0, 1, 3), result.output
    return result.stdout


def refuse_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    # To shrink an example takes minutes here: each asks a real server and its commands for everything.
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
    report_multiple_bugs=False,
)
@given(rows=st.lists(st.tuples(inventory_rows, usage_rows), min_size=1, max_size=3))
def test_no_row_breaks_what_is_read_of_others(
    shared: Connection, scheduler: Scheduler, dsn: str, rows: list[tuple[Json, Json]]
) -> None:
    query(shared, "TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim, vacancy.drift; SELECT")
    names = [f"odd-{number}" for number in range(len(rows))]
    for name, (inventory, usage) in zip(names, rows, strict=True):
        write(shared, name, inventory, usage)
    write(shared, "silent", rows[0][0], None)
    write(shared, "without inventory", None, rows[0][1])
    write(shared, "sound", SOUND_INVENTORY, {})

    # Every claim that fits is made, so that all else is looked at with claims in flight, too.
    known = {*names, "silent", "sound"}
    for request in REQUESTS:
        for host in ((), *((name,) for name in names)):
            with suppress(NoHostFitsError):
                scheduler.claim(request.model_copy(update={"include": host}))
        scheduler.candidates(request)
        document = request.document(SchedulerSettings())
        why = dict(query(shared, "SELECT host_id, ruled_out_by FROM vacancy.why(%s)", document))
        assert why.keys() <= known
        fits = query(shared, "SELECT host_id, ruled_out_by FROM vacancy.what_fits(%s)", document)
        assert {host: by is None for host, by in fits} == {host: not by for host, by in why.items()}
        fits = query(shared, "SELECT host_id, ruled_out_by FROM vacancy.fit_of(%s, %s)", names, document)
        assert all(why[host] == by for host, by in fits)
    scheduler.claim_many(REQUESTS)
    for (consumer,) in query(shared, "SELECT consumer FROM vacancy.claim LIMIT 3"):
        with suppress(NoHostFitsError):
            scheduler.claim(Request(vcpus=1), [consumer], move=True)
    with suppress(NoHostFitsError):
        scheduler.claim(Request(vcpus=1, max_age=timedelta(days=1000)), count=PART + 1)
    assert scheduler.claim(SOUND_REQUEST.model_copy(update={"include": ("sound",)}))[0].host_id == "sound"
    most = 2**31 - 1
    for name in names:
        note = "SELECT vacancy.note_claim(gen_random_uuid(), %s, %s, %s, %s, '1 h')"
        query(shared, note, name, most, most, most)

    views = [view for (view,) in query(shared, "SELECT viewname FROM pg_views WHERE schemaname = 'vacancy' ORDER BY 1")]
    assert len(views) >= 9
    for view in views:
        query(shared, f"SELECT * FROM vacancy.{view}")
    query(shared, "SELECT * FROM vacancy.record_drift()")
    of_classes = query(shared, "SELECT host_id, resource_class, free FROM vacancy.resource_class")
    shown = {(host, name): free for host, name, free in of_classes}
    taken: Counter[tuple[str, str]] = Counter()
    for host, held in query(shared, "SELECT host_id, held FROM vacancy.claim WHERE held IS NOT NULL"):
        for key, amount in held.items():
            taken[host, key] += amount
    for name, (inventory, _) in zip(names, rows, strict=True):
        for resource_class in {"CUSTOM_A", "CUSTOM_FPGA"} & set(inventory["inventories"]):
            expected = has(inventory)[resource_class] - taken[name, resource_class]
            assert shown[name, resource_class] == (None if inventory["allocated"] is None else expected)

    hosts = {row.host_id for row in fetch(shared)}
    assert hosts == known
    table = Table(dsn, 5.0)
    assert "sound" in table.read(["sound", *names])
    table.close()
    checks = load_settings(None, {"postgres": {"reader_dsn": dsn}})
    for check in ("table", "sources", "figures", "disks"):
        assert all(finding.message for finding in doctor._CHECKS[check](checks))
    printed = json.loads(run(dsn, "hosts", "--json"), parse_constant=refuse_constant)
    assert {host["host_id"] for host in printed} == hosts
    assert "sound" in run(dsn, "hosts")
    for line in ("hosts --why --vcpus 1", "claims", "claims --json", "drift", "drift --json"):
        run(dsn, *line.split())
    for name in names:
        run(dsn, "host", name)
        run(dsn, "disable", name, "--reason", "odd")
        run(dsn, "enable", name)
    page = Watch(checks, Frames(1))
    page.tick()
    assert page.trouble is None
    on_page = {page.fleet.document(slot)["host_id"] for slot in page.fleet.slot_of.values()}
    assert on_page == {
        host for (host,) in query(shared, "SELECT host_id FROM vacancy.schedulable_host WHERE NOT shares")
    }
    page.close()
    run(dsn, "claim", "--vcpus", "1", "--pci", f"{VENDOR}:{PRODUCT}", "--numa-cpus", "1")
    assert query(shared, "SELECT count(*) FROM vacancy.release(ARRAY(SELECT consumer FROM vacancy.claim))")[0][0] > 0


LISTED = {"vendor_id": VENDOR, "product_id": PRODUCT, "numa_node": 0, "tags": {}}
NONE: Json = {**SOUND_INVENTORY, "inventories": {}, "numa_cells": [], "pci_pools": []}


def with_cells(*cells: Json) -> Json:
    whole = {"cpus": [0, 1], "free_cpus": [], "memory_mb": 1, "pages": []}
    return {**NONE, "numa_cells": [{**whole, **cell} for cell in cells]}


def with_fpga(**figures: Any) -> Json:
    whole = {"total": 2, "reserved": 0, "min_unit": 1, "max_unit": 9, "step_size": 1, "allocation_ratio": 1.0}
    return {**NONE, "inventories": {"CUSTOM_FPGA": {**whole, **figures}}}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(inventory=inventory_rows)
@example(inventory={**NONE, "pci_pools": [{**LISTED, "total": 1, "free": 90}]})
@example(inventory={**NONE, "pci_pools": [{**LISTED, "total": 4, "free": -90}]})
@example(inventory={**NONE, "pci_pools": [{**LISTED, "total": -4, "free": 90}]})
@example(inventory={**NONE, "pci_pools": [{**LISTED, "total": 1, "free": 1}, {**LISTED, "total": 2, "free": 2}]})
@example(inventory=with_cells({"id": 0, "free_cpus": list(range(7, 97))}))
@example(inventory=with_cells({"id": 0, "free_cpus": [0, 0, 0]}))
@example(inventory=with_cells({"id": 0, "free_cpus": [0]}, {"id": 0, "free_cpus": [0]}))
@example(inventory=with_cells({"id": 0, "pages": [{"size_kb": 2048, "total": 1, "free": 100}]}))
@example(inventory=with_cells({"id": 0, "pages": [{"size_kb": 2048, "total": 1, "free": 1}] * 2}))
@example(inventory=with_cells({"id": 0, "pages": [{"size_kb": 2048, "total": 9, "free": -1}]}))
@example(inventory=with_fpga(total=2**63 - 1, reserved=2**63 - 2))
@example(inventory=with_fpga(total=2**63 - 1, reserved=-1, allocation_ratio=16.0))
@example(inventory=with_fpga(total=2**62, allocation_ratio=1e308))
@example(inventory=with_fpga(total=1, allocation_ratio=5e-324))
@example(inventory={**with_fpga(), "allocated": {"CUSTOM_FPGA": 2**63 - 1}})
@example(inventory={**with_fpga(), "allocated": {"CUSTOM_FPGA": -(2**63)}})
def test_no_host_is_promised_beyond_what_it_has(shared: Connection, scheduler: Scheduler, inventory: Json) -> None:
    query(shared, "TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim; SELECT")
    write(shared, "odd", {**inventory, "status": "ENABLED", "traits": []}, {})
    most = has(inventory)
    assert claimed(scheduler, "odd", pci=(Pci(vendor_id=VENDOR),)) <= most["pci"]
    assert claimed(scheduler, "odd", numa=Numa(cpus=1)) <= most["cpus"]
    assert claimed(scheduler, "odd", numa=Numa(pages={2048: 1})) <= most["pages"]
    for name in ("CUSTOM_A", "CUSTOM_FPGA"):
        assert claimed(scheduler, "odd", resources={name: 1}) <= max(most[name], 0)


@pytest.mark.parametrize(
    "document",
    [
        {"load": 5},
        {"age": 1},
        {"near_aggregates": []},
        {"weights": {"pci": 1}},
        {"weights": {"sample": 1}},
        {"weights": {"weights": {}}},
        {"vcpus": 2**31},
        {"min_memory_mb_available": 2**31},
        {"min_memory_mb_available": -1},
        {"sample": 1_000_001},
        {"weights": {"load": 1e7}},
        {"weights": {"vcpus": -1e7}},
        {"claim_ttl": "2000 years"},
        {"claim_ttl": "infinity"},
    ],
)
def test_a_request_beyond_its_bounds_is_refused_as_that(shared: Connection, document: Json) -> None:
    with pytest.raises(psycopg2.errors.InvalidParameterValue, match=re.compile("no such part of a request|must")):
        query(shared, "SELECT * FROM vacancy.why(%s)", json.dumps(document))
