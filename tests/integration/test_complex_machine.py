"""Complex claims, releases, expiries and a host's events in any order, against a plain model, on a real PostgreSQL.

What must hold after each step, on each host: a pool, cell or class has free what the inventory says less what the
claims hold that it may not show yet; so never more than is free in truth: no device and no pinned CPU has two owners.
A request is refused only where the model finds no room either.
"""

from __future__ import annotations

import itertools
import json
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from connectors.scheduler import NoHostFitsError, Numa, Pci, Request, Scheduler
from connectors.settings import SchedulerSettings
from tests.integration.test_claim_machine import subset
from tests.integration.upserts import query, upsert_inventory, upsert_usage

HOSTS = ("host-a", "host-b")
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
"""What each host has of each thing, by the names that claims have for them."""


@dataclass
class ModelClaim:
    """What a consumer has on a host; it starts there or not, and is over when it no longer holds anything."""

    host: str
    held: Counter[str]
    known: bool = True  # neither released nor expired
    shown_at: int | None = None


@dataclass
class ModelHost:
    """What runs on a host, and what its newest events say of it."""

    running: dict[uuid.UUID, Counter[str]] = field(default_factory=dict)
    in_inventory: Counter[str] = field(default_factory=Counter)
    inventory_at: int = 0


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
    numa=st.builds(Numa, cpus=st.integers(0, 3), pages=st.sampled_from([{}, {2048: 1}, {2048: 3}])),
    pci=st.lists(PCI, max_size=2).map(tuple),
    resources=st.sampled_from([{}, {}, {"CUSTOM_FPGA": 1}, {"CUSTOM_FPGA": 2}]),
).filter(lambda request: request.takes_anything)
SOME = st.integers(0, 2**12 - 1)


@pytest.fixture
def scheduler(database: str) -> Iterator[Scheduler]:
    made = Scheduler(database, SchedulerSettings(claim_ttl=timedelta(days=1), sample=1, max_age=timedelta(days=9)))
    yield made
    made.close()


@pytest.mark.timeout(600)
def test_no_device_and_no_cpu_has_two_owners(owner: Connection, scheduler: Scheduler) -> None:
    class Machine(RuleBasedStateMachine):
        @initialize()
        def empty(self) -> None:
            self.hosts = {host: ModelHost() for host in HOSTS}
            self.claims: dict[uuid.UUID, ModelClaim] = {}
            self.consumers = 0
            self.second = 0
            with owner.cursor() as cursor:
                cursor.execute("TRUNCATE vacancy.host, vacancy.host_inventory, vacancy.claim")
            for host in HOSTS:
                self.send_inventory(host)
                self.send_usage(host)

        @rule(request=REQUESTS)
        def claim(self, request: Request) -> None:
            self.consumers += 1
            consumer = uuid.UUID(int=self.consumers)
            fitting = [host for host in HOSTS if any(enough(self.free(host), way) for way in ways(request))]
            try:
                (claim,) = scheduler.claim(request, [consumer])
            except NoHostFitsError:
                assert not fitting
                return
            held = named(claim.held)
            assert claim.host_id in fitting
            assert held in list(ways(request))
            assert enough(self.free(claim.host_id), held)
            self.claims[consumer] = ModelClaim(claim.host_id, held)

        @rule(host=st.sampled_from(HOSTS), chosen=SOME)
        def start(self, host: str, chosen: int) -> None:
            """Instances start where they were claimed; no event says so yet."""
            waiting = [name for name, claim in self.claims.items() if claim.host == host and self.starts(name)]
            for consumer in subset(waiting, chosen):
                self.hosts[host].running[consumer] = self.claims[consumer].held

        @rule(host=st.sampled_from(HOSTS))
        def send_usage(self, host: str) -> None:
            """A usage row, which lists all that runs."""
            self.second += 1
            running = self.hosts[host].running
            upsert_usage(
                owner,
                host_id=host,
                observed_at=START + timedelta(seconds=self.second),
                recent_consumers="{" + ",".join(map(str, running)) + "}",
            )
            for consumer in running:
                if self.claims[consumer].shown_at is None:
                    self.claims[consumer].shown_at = self.second

        @rule(host=st.sampled_from(HOSTS))
        def send_inventory(self, host: str) -> None:
            self.second += 1
            model = self.hosts[host]
            model.in_inventory = sum(model.running.values(), Counter())
            model.inventory_at = self.second
            left = TOTAL - model.in_inventory
            upsert_inventory(
                owner,
                host_id=host,
                name=host,
                observed_at=START + timedelta(seconds=self.second),
                inventories=json.dumps({"CUSTOM_FPGA": {"total": TOTAL["CUSTOM_FPGA"]}}),
                allocated=json.dumps({"CUSTOM_FPGA": model.in_inventory["CUSTOM_FPGA"]}),
                numa_cells=json.dumps(
                    [
                        {
                            "id": cell,
                            "cpus": list(range(TOTAL[f"numa {cell} cpus"])),
                            "free_cpus": list(range(left[f"numa {cell} cpus"])),
                            "memory_mb": 1024,
                            "pages": [{"size_kb": 2048, "total": 4, "free": left[f"numa {cell} pages 2048"]}],
                        }
                        for cell in CELLS
                    ]
                ),
                pci_pools=json.dumps(
                    [pool | {"total": total, "free": left[name]} for name, (pool, total) in POOLS.items()]
                ),
            )

        @rule(host=st.sampled_from(HOSTS), chosen=SOME)
        def end_instances(self, host: str, chosen: int) -> None:
            """Instances that the usage has shown end; what they held is shown to be free with the next inventory."""
            running = self.hosts[host].running
            for consumer in subset([name for name in running if self.claims[name].shown_at is not None], chosen):
                del running[consumer]

        @rule(chosen=SOME)
        def release(self, chosen: int) -> None:
            consumers = subset([name for name in self.claims if self.may_go(name)], chosen)
            known = [name for name in consumers if self.claims[name].known]
            assert sorted(scheduler.release(*consumers)) == known
            for consumer in consumers:
                self.claims[consumer].known = False

        @rule(chosen=SOME)
        def expire(self, chosen: int) -> None:
            for consumer in subset([name for name in self.claims if self.may_go(name)], chosen):
                if self.claims[consumer].known:
                    moved = (
                        "UPDATE vacancy.claim SET expires_at = now() - interval '1 ms' WHERE consumer = %s RETURNING 1"
                    )
                    assert query(owner, moved, str(consumer)) == [(1,)]
                    self.claims[consumer].known = False

        @rule()
        def sweep(self) -> None:
            query(owner, "SELECT 1 FROM (SELECT vacancy.sweep_claims()) AS swept")

        @invariant()
        def free_is_what_the_model_says(self) -> None:
            for host in HOSTS:
                assert self.shown(host) == self.free(host)

        @invariant()
        def nothing_has_two_owners(self) -> None:
            for host in HOSTS:
                owners = self.hosts[host].running | {
                    name: claim.held for name, claim in self.claims.items() if claim.host == host and self.starts(name)
                }
                taken = sum(owners.values(), Counter())
                assert taken <= TOTAL
                assert self.free(host) <= TOTAL - taken

        def starts(self, consumer: uuid.UUID) -> bool:
            """Whether it may still start: its claim counts, and it never did."""
            claim = self.claims[consumer]
            return claim.known and claim.shown_at is None

        def may_go(self, consumer: uuid.UUID) -> bool:
            """Whoever has started an instance keeps its claim until the host has shown it."""
            claim = self.claims[consumer]
            return claim.shown_at is not None or consumer not in self.hosts[claim.host].running

        def counts(self, claim: ModelClaim) -> bool:
            if claim.shown_at is None:
                return claim.known
            return self.hosts[claim.host].inventory_at <= claim.shown_at

        def free(self, host: str) -> Counter[str]:
            """By the newest inventory, less the claims that it may not show; below 0 while one is counted twice."""
            free = Counter(TOTAL)
            free.subtract(self.hosts[host].in_inventory)
            for claim in self.claims.values():
                if claim.host == host and self.counts(claim):
                    free.subtract(claim.held)
            return free

        def shown(self, host: str) -> Counter[str]:
            """By the views."""
            pools = query(
                owner,
                "SELECT vendor_id, product_id, numa_node, tags, free FROM vacancy.pci_pool WHERE host_id = %s",
                host,
            )
            names = ("vendor_id", "product_id", "numa_node", "tags")
            found = {
                name: free
                for *what, free in pools
                for name, (pool, _) in POOLS.items()
                if pool == dict(zip(names, what, strict=True))
            }
            cells = "SELECT id, cpus_free, pages_free FROM vacancy.numa_cell WHERE host_id = %s"
            for cell, cpus, pages in query(owner, cells, host):
                found |= {f"numa {cell} cpus": cpus, f"numa {cell} pages 2048": pages["2048"]}
            classes = "SELECT resource_class, free FROM vacancy.resource_class WHERE host_id = %s"
            return Counter(found | dict(query(owner, classes, host)))

    run_state_machine_as_test(Machine, settings=settings(max_examples=25, stateful_step_count=30, deadline=None))
