"""Complex claims, releases, expiries and a host's events in any order, against a plain model, on a real PostgreSQL.

One host, so that the server has no choice and a failure can be repeated. What must hold after each step: a pool, cell
or class has free what the inventory says less what the claims hold that it may not show yet; so never more than is free
in truth: no device and no pinned CPU has two owners. A request is refused only where the model finds no room either.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import query, upsert_inventory, upsert_usage
from tests.integration.test_claim_machine import subset
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError
from vacancy.connectors.scheduler.request import Numa, Pci, Request
from vacancy.connectors.settings import SchedulerSettings

HOST = "host-a"
START = datetime.now(UTC)
POOLS: dict[str, tuple[dict[str, Any], int]] = {
    "pci a": ({"vendor_id": "10de", "product_id": "20b5", "numa_node": 0, "tags": {}}, 2),
    "pci b": ({"vendor_id": "10de", "product_id": "20b5", "numa_node": 1, "tags": {"rack": "7"}}, 1),
    "pci c": ({"vendor_id": "10de", "product_id": "1eb8", "numa_node": None, "tags": {"rack": "7"}}, 2),
}
CELLS = (0, 1)
TOTAL = Counter(
    {
        **{name: total for name, (_, total) in POOLS.items()},
        **{f"numa {cell} cpus": 3 + cell for cell in CELLS},
        **{f"numa {cell} pages 2048": 4 - cell for cell in CELLS},
        "CUSTOM_FPGA": 3,
    }
)
"""What the host has of each thing, by the names that claims have for them."""


@dataclass
class ModelClaim:
    """What a consumer has; it starts there or not, and is over when it no longer holds anything."""

    held: Counter[str]
    known: bool = True  # neither released nor expired
    shown_at: int | None = None


def named(held: dict[str, int] | None) -> Counter[str]:
    """What a claim holds, pools by their names here."""
    named: Counter[str] = Counter()
    for name, amount in (held or {}).items():
        if name.startswith("pci "):
            found = json.loads(name.removeprefix("pci "))
            (name,) = (ours for ours, (pool, _) in POOLS.items() if pool == found)
        named[name] += amount
    return named


def matches(demand: Pci, pool: dict[str, Any], cell: int | None) -> bool:
    return (
        demand.vendor_id in (None, pool["vendor_id"])
        and demand.product_id in (None, pool["product_id"])
        and demand.numa_node in (None, pool["numa_node"])
        and demand.tags.items() <= pool["tags"].items()
        and (not demand.same_cell or (cell is not None and pool["numa_node"] == cell))
    )


def enough(free: Counter[str], asked: Counter[str]) -> bool:
    """Whether there is room; what is not asked for may be counted twice, and less than none be free."""
    return all(free[name] >= amount for name, amount in asked.items())


def ways(request: Request) -> Iterator[Counter[str]]:
    """Each way to serve a request on a host that has everything."""
    in_a_cell = request.numa != Numa() or any(demand.same_cell for demand in request.pci)
    singles = [demand for demand in request.pci for _ in range(demand.count)]
    for cell in CELLS if in_a_cell else (None,):
        fixed = Counter(request.resources)
        if request.numa.cpus:
            fixed[f"numa {cell} cpus"] = request.numa.cpus
        for size_kb, count in request.numa.pages.items():
            fixed[f"numa {cell} pages {size_kb}"] = count
        pools = [[name for name, (pool, _) in POOLS.items() if matches(demand, pool, cell)] for demand in singles]
        for chosen in itertools.product(*pools):
            yield fixed + Counter(chosen)


PCI = st.builds(
    Pci,
    vendor_id=st.just("10de"),
    product_id=st.sampled_from([None, "20b5", "1eb8"]),
    tags=st.sampled_from([{}, {"rack": "7"}]),
    numa_node=st.sampled_from([None, None, 0]),
    same_cell=st.booleans(),
    count=st.integers(1, 2),
)
REQUESTS = st.builds(
    Request,
    vcpus=st.just(1),
    numa=st.builds(Numa, cpus=st.integers(0, 3), pages=st.sampled_from([{}, {2048: 1}, {2048: 3}])),
    pci=st.lists(PCI, max_size=2).map(tuple),
    resources=st.sampled_from([{}, {}, {"CUSTOM_FPGA": 1}, {"CUSTOM_FPGA": 2}]),
)
SOME = st.just(2**12 - 1) | st.integers(0, 2**12 - 1)
STEPS = st.lists(
    st.tuples(st.just("claim"), REQUESTS)
    | st.tuples(st.sampled_from(["start", "start", "end_instances", "release", "expire"]), SOME)
    | st.tuples(st.sampled_from(["send_usage", "send_inventory"])),
    min_size=20,
    max_size=40,
)


class World:
    """A host, and what claims it: in truth, by its events, and by the tables."""

    def __init__(self, owner: Connection, scheduler: Scheduler) -> None:
        self.owner = owner
        self.scheduler = scheduler
        self.claims: dict[uuid.UUID, ModelClaim] = {}
        self.running: dict[uuid.UUID, Counter[str]] = {}
        self.second = 0
        with self.owner.cursor() as cursor:
            cursor.execute("TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim")
        self.send_inventory()
        self.send_usage()

    def claim(self, request: Request) -> None:
        consumer = uuid.UUID(int=len(self.claims))
        fits = any(enough(self.free(), way) for way in ways(request))
        try:
            (claim,) = self.scheduler.claim(request, [consumer])
        except NoHostFitsError:
            assert not fits
            return
        held = named(claim.held)
        assert held in list(ways(request))
        assert enough(self.free(), held)
        self.claims[consumer] = ModelClaim(held)

    def start(self, chosen: int) -> None:
        """Instances start where they were claimed; no event says so yet."""
        for consumer in subset([name for name in self.claims if self.may_start(name)], chosen):
            self.running[consumer] = self.claims[consumer].held

    def send_usage(self) -> None:
        """A usage row, which lists all that runs."""
        self.second += 1
        upsert_usage(
            self.owner,
            host_id=HOST,
            observed_at=START + timedelta(seconds=self.second),
            recent_consumers="{" + ",".join(map(str, self.running)) + "}",
        )
        for consumer in self.running:
            if self.claims[consumer].shown_at is None:
                self.claims[consumer].shown_at = self.second

    def send_inventory(self) -> None:
        self.second += 1
        self.inventory_at = self.second
        self.in_inventory = sum(self.running.values(), Counter[str]())
        left = TOTAL - self.in_inventory
        cells = [
            {
                "id": cell,
                "cpus": list(range(TOTAL[f"numa {cell} cpus"])),
                "free_cpus": list(range(left[f"numa {cell} cpus"])),
                "memory_mb": 1024,
                "pages": [{"size_kb": 2048, "total": 4, "free": left[f"numa {cell} pages 2048"]}],
            }
            for cell in CELLS
        ]
        upsert_inventory(
            self.owner,
            host_id=HOST,
            name=HOST,
            observed_at=START + timedelta(seconds=self.second),
            inventories=json.dumps({"CUSTOM_FPGA": {"total": TOTAL["CUSTOM_FPGA"]}}),
            allocated=json.dumps({"CUSTOM_FPGA": self.in_inventory["CUSTOM_FPGA"]}),
            numa_cells=json.dumps(cells),
            pci_pools=json.dumps(
                [pool | {"total": total, "free": left[name]} for name, (pool, total) in POOLS.items()]
            ),
        )

    def end_instances(self, chosen: int) -> None:
        """Instances that the usage has shown end; what they held is shown to be free with the next inventory."""
        for consumer in subset([name for name in self.running if self.claims[name].shown_at is not None], chosen):
            del self.running[consumer]

    def release(self, chosen: int) -> None:
        consumers = subset([name for name in self.claims if self.may_go(name)], chosen)
        known = [name for name in consumers if self.claims[name].known]
        assert sorted(self.scheduler.release(*consumers)) == known
        for consumer in consumers:
            self.claims[consumer].known = False

    def expire(self, chosen: int) -> None:
        for consumer in subset([name for name in self.claims if self.may_go(name)], chosen):
            if self.claims[consumer].known:
                moved = "UPDATE vacancy.claim SET expires_at = now() - interval '1 ms' WHERE consumer = %s"
                assert query(self.owner, f"{moved} RETURNING 1", str(consumer)) == [(1,)]
                self.claims[consumer].known = False
        query(self.owner, "SELECT 1 FROM (SELECT vacancy.sweep_claims()) AS swept")

    def free_is_what_the_model_says(self) -> None:
        assert self.shown() == self.free()

    def nothing_has_two_owners(self) -> None:
        owners = self.running | {name: claim.held for name, claim in self.claims.items() if self.may_start(name)}
        taken = sum(owners.values(), Counter[str]())
        assert taken <= TOTAL
        assert self.free() <= TOTAL - taken

    def may_start(self, consumer: uuid.UUID) -> bool:
        """Its claim counts, and it never did."""
        claim = self.claims[consumer]
        return claim.known and claim.shown_at is None

    def may_go(self, consumer: uuid.UUID) -> bool:
        """Whoever has started an instance keeps its claim until the host has shown it."""
        return self.claims[consumer].shown_at is not None or consumer not in self.running

    def counts(self, claim: ModelClaim) -> bool:
        return claim.known if claim.shown_at is None else self.inventory_at <= claim.shown_at

    def free(self) -> Counter[str]:
        """By the newest inventory, less the claims that it may not show; below 0 while one is counted twice."""
        free = Counter(TOTAL)
        free.subtract(self.in_inventory)
        for claim in self.claims.values():
            if self.counts(claim):
                free.subtract(claim.held)
        return free

    def shown(self) -> Counter[str]:
        """By the views."""
        found: dict[str, int] = {}
        names = ("vendor_id", "product_id", "numa_node", "tags")
        for *what, free in query(self.owner, f"SELECT {', '.join(names)}, free FROM vacancy.pci_pool"):
            (name,) = (ours for ours, (pool, _) in POOLS.items() if pool == dict(zip(names, what, strict=True)))
            found[name] = free
        for cell, cpus, pages in query(self.owner, "SELECT id, cpus_free, pages_free FROM vacancy.numa_cell"):
            found[f"numa {cell} cpus"] = cpus
            found[f"numa {cell} pages 2048"] = pages["2048"]
        classes = query(self.owner, "SELECT resource_class, free FROM vacancy.resource_class")
        return Counter(found | dict(classes))


@pytest.fixture
def scheduler(database: str) -> Iterator[Scheduler]:
    made = Scheduler(database, SchedulerSettings(claim_ttl=timedelta(days=1), sample=1, max_age=timedelta(days=9)))
    yield made
    made.close()


@pytest.mark.timeout(600)
def test_no_device_and_no_cpu_has_two_owners(owner: Connection, scheduler: Scheduler) -> None:
    # Not a state machine of Hypothesis's: half of its runs do without claims, and most are short.
    @settings(max_examples=25, deadline=None)
    @given(STEPS)
    def run(steps: list[tuple[Any, ...]]) -> None:
        world = World(owner, scheduler)
        for name, *arguments in steps:
            getattr(world, name)(*arguments)
            world.free_is_what_the_model_says()
            world.nothing_has_two_owners()

    run()
