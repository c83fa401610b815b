"""Claims for PCI devices, NUMA cells and further resource classes, through the adapter, on a real PostgreSQL."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function
from pydantic import ValidationError

from tests.harness.rows import query, retire, upsert_inventory, upsert_usage
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import Claim, NoHostFitsError
from vacancy.connectors.scheduler.request import Numa, Pci, Request
from vacancy.connectors.settings import SchedulerSettings
from vacancy.schemas.errors import ConfigError

START = datetime.now(UTC)
GPU = "10de", "20b5"
NIC = "8086", "154c"
INVENTORIES = {
    "VCPU": {"total": 64, "min_unit": 1, "max_unit": 64, "step_size": 1},
    "CUSTOM_FPGA": {"total": 5, "reserved": 1, "min_unit": 1, "max_unit": 3, "step_size": 1, "allocation_ratio": 1.0},
    "VGPU": {"total": 8, "reserved": 0, "min_unit": 2, "max_unit": 8, "step_size": 2, "allocation_ratio": 1.0},
    "CUSTOM_HALF": {"total": 3, "reserved": 0, "min_unit": 1, "max_unit": 9, "step_size": 1, "allocation_ratio": 1.5},
}


def pool(ids: tuple[str, str], numa_node: int | None, free: int, **tags: str) -> dict[str, Any]:
    """A pool as the inventory has it."""
    amounts = {"total": 8, "free": free}
    return {"vendor_id": ids[0], "product_id": ids[1], "numa_node": numa_node, "tags": tags, **amounts}


def cell(number: int, free_cpus: int, **pages: int) -> dict[str, Any]:
    """A cell as the inventory has it; pages: free ones by name, small 2 MiB, big 1 GiB."""
    sizes = {"small": 2048, "big": 1_048_576}
    return {
        "id": number,
        "cpus": list(range(16)),
        "free_cpus": list(range(free_cpus)),
        "memory_mb": 65_536,
        "pages": [{"size_kb": sizes[name], "total": 1000, "free": free} for name, free in pages.items()],
    }


CELLS = [cell(0, 4, small=100, big=2), cell(1, 8, small=50)]
POOLS = [pool(GPU, 0, 2), pool(GPU, 1, 1), pool(NIC, 1, 3, physical_network="a"), pool(NIC, None, 2)]


class Host:
    """A host whose events come at the seconds that the test says; both kinds on one clock."""

    def __init__(self, owner: Connection, name: str = "a") -> None:
        self._owner = owner
        self.name = name
        self.usage(0)
        self.inventory(0)

    def usage(self, second: int, *consumers: uuid.UUID, **values: Any) -> None:
        listed = "{" + ",".join(map(str, consumers)) + "}"
        upsert_usage(
            self._owner,
            **{"host_id": self.name, "observed_at": self._at(second), "recent_consumers": listed} | values,
        )

    def inventory(
        self,
        second: int,
        cells: list[dict[str, Any]] = CELLS,
        pools: list[dict[str, Any]] = POOLS,
        allocated: dict[str, int] | None = {"VGPU": 4},  # noqa: B006  # read only
        **values: Any,
    ) -> None:
        upsert_inventory(
            self._owner,
            host_id=self.name,
            name=self.name,
            observed_at=self._at(second),
            inventories=json.dumps(INVENTORIES),
            numa_cells=json.dumps(cells),
            pci_pools=json.dumps(pools),
            allocated=None if allocated is None else json.dumps(allocated),
            **values,
        )

    def gpus(self) -> int:
        """How many the table says are free."""
        statement = "SELECT sum(free)::int FROM vacancy.pci_pool WHERE host_id = %s AND vendor_id = %s"
        return int(query(self._owner, statement, self.name, GPU[0])[0][0])

    @staticmethod
    def _at(second: int) -> datetime:
        return START + timedelta(seconds=second)


@pytest.fixture
def host(owner: Connection) -> Host:
    return Host(owner)


@pytest.fixture
def scheduler(owner: Connection, database: str) -> Iterator[Scheduler]:
    del owner  # the tables have to be there
    made = Scheduler(database, SchedulerSettings(max_age=timedelta(days=1)))
    yield made
    made.close()


def gpu(count: int = 1, **more: Any) -> Pci:
    """A demand for some."""
    return Pci(vendor_id=GPU[0], product_id=GPU[1], count=count, **more)


def nic(count: int = 1, **more: Any) -> Pci:
    """A demand for some."""
    return Pci(vendor_id=NIC[0], product_id=NIC[1], count=count, **more)


def gpus_of(claim: Claim) -> int:
    """How many it has, of whatever pool."""
    return sum(amount for name, amount in (claim.held or {}).items() if GPU[0] in name)


def key(of: dict[str, Any]) -> str:
    """What a pool is called in a claim: its text is that of PostgreSQL."""
    order = ("tags", "numa_node", "vendor_id", "product_id")
    return "pci " + json.dumps({name: of[name] for name in order})


# Lists, and no parameters of tests: each test has a database of its own.
FITS: list[tuple[Request, dict[str, int] | None]] = [
    (Request(numa=Numa(cpus=4)), {"numa 0 cpus": 4}),  # the cell with the fewest that does
    (Request(numa=Numa(cpus=5)), {"numa 1 cpus": 5}),
    (Request(numa=Numa(cpus=1, pages={1_048_576: 2})), {"numa 0 cpus": 1, "numa 0 pages 1048576": 2}),
    (Request(numa=Numa(pages={2048: 100, 1_048_576: 1})), {"numa 0 pages 2048": 100, "numa 0 pages 1048576": 1}),
    (Request(pci=(gpu(3),)), {key(POOLS[0]): 2, key(POOLS[1]): 1}),
    (Request(pci=(gpu(numa_node=1),)), {key(POOLS[1]): 1}),
    (Request(pci=(nic(3, tags={"physical_network": "a"}),)), {key(POOLS[2]): 3}),
    (Request(pci=(Pci(tags={"physical_network": "a"}),)), {key(POOLS[2]): 1}),
    (Request(pci=(Pci(vendor_id="8086", numa_node=1),)), {key(POOLS[2]): 1}),
    # In the cell of the CPUs: 4 fit cell 0, which has no network card.
    (
        Request(numa=Numa(cpus=4), pci=(nic(same_cell=True), gpu(same_cell=True))),
        {"numa 1 cpus": 4, key(POOLS[1]): 1, key(POOLS[2]): 1},
    ),
    (Request(pci=(gpu(2, same_cell=True),)), {key(POOLS[0]): 2}),
    # The first could take what alone does for the second.
    (Request(pci=(nic(2), nic(3, numa_node=1))), {key(POOLS[2]): 3, key(POOLS[3]): 2}),
    (Request(resources={"VGPU": 4, "CUSTOM_FPGA": 3}), {"VGPU": 4, "CUSTOM_FPGA": 3}),
    (Request(vcpus=4, resources={"CUSTOM_HALF": 4}), {"CUSTOM_HALF": 4}),
    (Request(vcpus=4, numa=Numa(), pci=(), resources={}), None),
]
REFUSED: list[tuple[Request, str, float | None, float | None]] = [
    (Request(numa=Numa(cpus=9)), "numa_cpus", 8, 9),
    (Request(numa=Numa(pages={2048: 101})), "numa_pages_2048", 100, 101),
    (Request(numa=Numa(pages={4096: 1})), "numa_pages_4096", 0, 1),
    (Request(numa=Numa(cpus=5, pages={2048: 51})), "numa", None, None),
    (Request(pci=(gpu(4),)), "pci 10de:20b5", 3, 4),
    (Request(pci=(gpu(2, numa_node=1),)), "pci 10de:20b5 node 1", 1, 2),
    (Request(pci=(gpu(3, same_cell=True),)), "pci 10de:20b5", 2, 3),
    (Request(pci=(nic(1, tags={"physical_network": "b"}),)), "pci 8086:154c physical_network=b", 0, 1),
    (Request(pci=(Pci(vendor_id="ffff"),)), "pci ffff:*", 0, 1),
    (Request(pci=(nic(3), nic(3, numa_node=1))), "pci", None, None),
    (Request(numa=Numa(cpus=5), pci=(gpu(2, same_cell=True),)), "pci", None, None),
    (Request(resources={"CUSTOM_OTHER": 1}), "CUSTOM_OTHER", 0, 1),
    (Request(resources={"CUSTOM_FPGA": 5}), "CUSTOM_FPGA", 4, 5),
    (Request(resources={"CUSTOM_FPGA": 4}), "CUSTOM_FPGA_unit", None, None),
    (Request(resources={"VGPU": 3}), "VGPU_unit", None, None),
    (Request(resources={"VGPU": 6}), "VGPU", 4, 6),
    (Request(resources={"CUSTOM_HALF": 5}), "CUSTOM_HALF", 4, 5),
]
LAST_ONES: list[tuple[Request, int]] = [
    (Request(pci=(gpu(),)), 3),
    (Request(numa=Numa(cpus=4)), 3),
    (Request(numa=Numa(pages={1_048_576: 1})), 2),
    (Request(resources={"CUSTOM_FPGA": 2}), 2),
    (Request(numa=Numa(cpus=2), pci=(gpu(same_cell=True), nic())), 3),
]
"""And how many of each a host has room for."""
NONSENSE: list[dict[str, Any]] = [
    {"resources": []},
    {"resources": {"VCPU": 1}},
    {"resources": {"CUSTOM_X": 0}},
    {"resources": {"CUSTOM_X": 1.5}},
    {"resources": {"CUSTOM_X": "1"}},
    {"numa": 4},
    {"numa": {"cpus": -1}},
    {"numa": {"cpu": 1}},
    {"numa": {"pages": {"2048": -1}}},
    {"numa": {"pages": [1]}},
    {"pci": {}},
    {"pci": [1]},
    {"pci": [{}]},
    {"pci": [{"count": 1}]},
    {"pci": [{"vendor_id": "10de", "count": 0}]},
    {"pci": [{"vendor_id": "10de", "vendor": "x"}]},
    {"pci": [{"vendor_id": "nvidia"}]},
    {"pci": [{"product_id": "1"}]},
    {"pci": [{"vendor_id": "10de", "same_cell": 1}]},
    {"pci": [{"vendor_id": "10de", "tags": []}]},
    {"pci": [{"vendor_id": "10de"}] * 9},
]


@pytest.mark.usefixtures("host")
def test_what_fits_and_what_it_takes(scheduler: Scheduler) -> None:
    for request, held in FITS:
        (claim,) = scheduler.claim(request)
        assert claim.held == held, request
        assert scheduler.claim(request, [claim.consumer])[0].held == held
        scheduler.release(claim.consumer)


# The cell has all that the instance needs of it


def bare_cell(number: int, cpus: int, memory_mb: int, *pages: tuple[int, int, int]) -> dict[str, Any]:
    """One whose CPUs are all free; pages: size in KiB, how many, how many are free."""
    return {
        "id": number,
        "cpus": list(range(cpus)),
        "free_cpus": list(range(cpus)),
        "memory_mb": memory_mb,
        "pages": [{"size_kb": size_kb, "total": total, "free": free} for size_kb, total, free in pages],
    }


def test_a_cell_without_memory_or_without_cpus_is_not_picked(host: Host, scheduler: Scheduler) -> None:
    """The one without memory has the fewest CPUs, the one without CPUs (such as CXL's) the most pages."""
    cells = [bare_cell(0, 2, 0), bare_cell(1, 0, 65_536, (2048, 9999, 9999)), bare_cell(2, 8, 32_768, (2048, 600, 500))]
    host.inventory(1, cells=cells)
    for request, held in (
        (Request(vcpus=2, memory_mb=4096, numa=Numa(cpus=2)), {"numa 2 cpus": 2, "numa 2 memory_mb": 4096}),
        (Request(vcpus=2, memory_mb=200, numa=Numa(pages={2048: 100})), {"numa 2 pages 2048": 100}),
        (
            Request(vcpus=2, memory_mb=300, numa=Numa(cpus=1, pages={2048: 100})),
            {"numa 2 cpus": 1, "numa 2 pages 2048": 100, "numa 2 memory_mb": 100},
        ),
    ):
        (claim,) = scheduler.claim(request)
        assert claim.held == held
        scheduler.release(claim.consumer)
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(vcpus=2, memory_mb=40_000, numa=Numa(cpus=2)))
    refusal = caught.value.refusal
    assert refusal.nearest is not None
    # Of the 32,768 MiB with CPUs 1,200 are in pages; the most is that of the cell without.
    assert (refusal.dimension, refusal.nearest.had) == ("numa", None)
    with pytest.raises(NoHostFitsError, match=r"memory_mb of one NUMA cell ruled out .* with 45,538 MiB for 50,000"):
        scheduler.claim(Request(vcpus=2, memory_mb=50_000, numa=Numa(cpus=2)))


def test_what_instances_and_claims_hold_of_a_cells_memory_counts(host: Host, scheduler: Scheduler) -> None:
    """The agent tells what is in no huge pages as pages of the least size."""
    base = [(4, 2_000_000, 8192 * 256), (4, 2_000_000, 4096 * 256)]
    cells = [bare_cell(number, 8, 65_536, size) for number, size in enumerate(base)]
    host.inventory(1, cells=cells)
    request = Request(vcpus=1, memory_mb=3000, numa=Numa(cpus=1))
    held = [(scheduler.claim(request)[0].held or {}).keys() for _ in range(3)]
    assert sorted(map(sorted, held)) == [
        ["numa 0 cpus", "numa 0 memory_mb"],
        ["numa 0 cpus", "numa 0 memory_mb"],
        ["numa 1 cpus", "numa 1 memory_mb"],
    ]
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(request)
    assert caught.value.refusal.dimension == "numa_memory_mb"


def test_memory_in_huge_pages_is_not_taken_of_what_is_available(host: Host, scheduler: Scheduler) -> None:
    """480 free pages of 1 GiB, and what is in pages is nothing that the kernel could give out."""
    host.inventory(1, cells=[bare_cell(0, 64, 524_288, (1_048_576, 480, 480))])
    host.usage(1, memory_mb_capacity=600_000, memory_mb_free=600_000, memory_mb_available=8192)
    in_pages = Request(vcpus=1, memory_mb=65_536, numa=Numa(pages={1_048_576: 64}))
    for _ in range(7):
        scheduler.claim(in_pages)
    # Seven such claims later what is available is as it was, and one that is not in pages is bounded by it.
    scheduler.claim(Request(vcpus=1, memory_mb=8192))
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(vcpus=1, memory_mb=1))
    assert caught.value.refusal.dimension == "memory_mb_available"
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(in_pages)
    assert caught.value.refusal.dimension == "numa_pages_1048576"


@pytest.mark.usefixtures("host")
def test_what_is_refused_and_why(scheduler: Scheduler) -> None:
    for request, dimension, had, asked in REFUSED:
        with pytest.raises(NoHostFitsError) as caught:
            scheduler.claim(request)
        refusal = caught.value.refusal
        assert (refusal.hosts, refusal.dimension, refusal.requested) == (1, dimension, asked), request
        assert refusal.nearest is not None
        assert (refusal.nearest.had, refusal.nearest.ruled_out_by) == (had, [dimension]), request


def test_a_refusal_in_words(owner: Connection, host: Host, scheduler: Scheduler) -> None:
    Host(owner, "b").inventory(1, cells=[cell(0, 1)])
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(numa=Numa(cpus=9)))
    assert str(caught.value) == (
        "no host fits: CPUs to pin in one NUMA cell ruled out the last 2 of 2 hosts; nearest: a with 8 for 9"
    )
    host.inventory(1, allocated=None)
    with pytest.raises(NoHostFitsError, match="VGPU, of which hosts do not say what their instances hold, ruled out"):
        scheduler.claim(Request(resources={"VGPU": 2}, include=("a",)))


def test_why_names_all_that_is_missing(owner: Connection, host: Host) -> None:
    request = Request(vcpus=65, numa=Numa(cpus=9), pci=(gpu(4),), resources={"CUSTOM_OTHER": 1})
    document = request.document(SchedulerSettings(max_age=timedelta(days=1)))
    assert query(owner, "SELECT host_name, ruled_out_by FROM vacancy.why(%s)", document) == [
        (host.name, ["vcpus_unit", "vcpus_free", "CUSTOM_OTHER", "numa_cpus", "pci 10de:20b5"])
    ]


def test_a_host_without_cells_has_no_devices_in_one(host: Host, scheduler: Scheduler) -> None:
    host.inventory(1, cells=[])
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(pci=(gpu(same_cell=True),)))
    assert caught.value.refusal.dimension == "pci"


def test_candidates_have_room_for_the_devices(owner: Connection, host: Host, scheduler: Scheduler) -> None:
    Host(owner, "b").inventory(1, pools=[])
    assert [candidate.host_id for candidate in scheduler.candidates(Request(pci=(gpu(),)))] == [host.name]


def test_a_hold_lasts_until_an_inventory_newer_than_the_usage_that_shows_it(host: Host, scheduler: Scheduler) -> None:
    request = Request(vcpus=1, pci=(gpu(2, numa_node=0),))
    (claim,) = scheduler.claim(request)
    assert host.gpus() == 1
    # The host's usage counts the instance, and its inventory is that of before.
    host.usage(10, claim.consumer)
    assert host.gpus() == 1, "the devices have a second owner"
    host.usage(20)
    assert host.gpus() == 1
    # One that was on its way when the usage was written: of before, by its time.
    host.inventory(9)
    assert host.gpus() == 1
    host.inventory(11, pools=[pool(GPU, 0, 0), *POOLS[1:]])
    assert host.gpus() == 1, "it counts twice"
    assert scheduler.claim(request, [claim.consumer])[0].already
    host.inventory(30)
    assert host.gpus() == 3


def test_an_inventory_that_shows_it_first_counts_it_twice_until_the_next(host: Host, scheduler: Scheduler) -> None:
    (claim,) = scheduler.claim(Request(vcpus=1, pci=(gpu(1, numa_node=0),)))
    shown = [pool(GPU, 0, 1), *POOLS[1:]]
    host.inventory(5, pools=shown)
    host.usage(6, claim.consumer)
    assert host.gpus() == 1  # rather too few than too many
    host.inventory(7, pools=shown)
    assert host.gpus() == 2


@pytest.mark.parametrize("how", ["release", "expire", "claim again"])
def test_a_hold_outlives_its_claim_until_the_inventory_shows_it(
    owner: Connection, host: Host, scheduler: Scheduler, how: str
) -> None:
    (claim,) = scheduler.claim(Request(vcpus=1, pci=(gpu(2, numa_node=0),)))
    host.usage(10, claim.consumer)
    if how == "release":
        assert scheduler.release(claim.consumer) == [claim.consumer]
    else:
        expire = "UPDATE vacancy.claim SET expires_at = now() - interval '1 ms' RETURNING 1"
        assert query(owner, expire) == [(1,)]
    if how == "claim again":
        (again,) = scheduler.claim(Request(vcpus=1, pci=(gpu(1, numa_node=1),)), [claim.consumer])
        assert not again.already
        assert host.gpus() == 0
        scheduler.release(claim.consumer)
    query(owner, "SELECT 1 FROM (SELECT vacancy.sweep_claims()) AS swept")
    assert host.gpus() == 1
    host.inventory(11, pools=[pool(GPU, 0, 0), *POOLS[1:]])
    assert host.gpus() == 1
    query(owner, "SELECT 1 FROM (SELECT vacancy.sweep_claims()) AS swept")
    assert query(owner, "SELECT count(*) FROM vacancy.claim WHERE expires_at <= now()") == [(0,)]


@pytest.mark.usefixtures("host")
def test_a_claim_that_is_not_shown_gives_back_what_it_held(owner: Connection, scheduler: Scheduler) -> None:
    request = Request(vcpus=1, pci=(gpu(3),), numa=Numa(cpus=8), resources={"CUSTOM_FPGA": 3})
    (claim,) = scheduler.claim(request)
    scheduler.release(claim.consumer)
    (claim,) = scheduler.claim(request)
    query(owner, "UPDATE vacancy.claim SET expires_at = now() RETURNING 1")
    assert gpus_of(scheduler.claim(request)[0]) == 3


def test_a_retired_host_leaves_no_holds(owner: Connection, host: Host, scheduler: Scheduler) -> None:
    (claim,) = scheduler.claim(Request(vcpus=1, pci=(gpu(3),)))
    host.usage(10, claim.consumer)
    scheduler.release(claim.consumer)
    retire(owner, host_id=host.name, observed_at=START + timedelta(seconds=20))
    query(owner, "SELECT 1 FROM (SELECT vacancy.sweep_claims()) AS swept")
    assert query(owner, "SELECT count(*) FROM vacancy.claim") == [(0,)]


def test_a_pool_that_was_renamed_is_still_held(host: Host, scheduler: Scheduler) -> None:
    scheduler.claim(Request(vcpus=1, pci=(gpu(2, numa_node=0),)))
    host.inventory(5, pools=[pool(GPU, 0, 2, rack="7")])
    assert host.gpus() == 0


def test_a_noted_claim_takes_no_devices_along(owner: Connection, host: Host, scheduler: Scheduler) -> None:
    (claim,) = scheduler.claim(Request(vcpus=1, pci=(gpu(3),)))
    note = "SELECT 1 FROM (SELECT vacancy.note_claim(%s, 'b', 1, 1, 1, '1 min')) AS noted"
    query(owner, note, str(claim.consumer))
    assert host.gpus() == 3


def test_several_consumers_get_devices_of_their_own_or_none_do(host: Host, scheduler: Scheduler) -> None:
    assert sum(map(gpus_of, scheduler.claim(Request(pci=(gpu(),)), count=2))) == 2
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(pci=(gpu(),)), count=2)
    assert caught.value.refusal.claimable == 1
    assert host.gpus() == 1


def test_a_rare_device_is_found_in_a_big_fleet(owner: Connection, scheduler: Scheduler) -> None:
    for number in range(200):
        Host(owner, f"host-{number}").inventory(1, pools=POOLS[2:] if number else POOLS, cells=[])
    for _ in range(3):
        assert scheduler.claim(Request(pci=(gpu(),), sample=1))[0].host_id == "host-0"
    with pytest.raises(NoHostFitsError) as caught:
        scheduler.claim(Request(pci=(gpu(),), sample=1))
    assert caught.value.refusal.ruled_out == {"pci 10de:20b5": 200}
    assert caught.value.refusal.nearest is not None


@pytest.mark.usefixtures("host")
def test_as_many_win_as_there_are(owner: Connection, scheduler: Scheduler) -> None:
    """Six at once go for the last ones."""
    barrier = threading.Barrier(6)
    left = (
        "SELECT min(free) FROM (SELECT free FROM vacancy.pci_pool UNION ALL SELECT free FROM vacancy.resource_class"
        " UNION ALL SELECT cpus_free FROM vacancy.numa_cell) AS f"
    )

    def claim(request: Request) -> Claim | None:
        barrier.wait(30)
        try:
            return scheduler.claim(request)[0]
        except NoHostFitsError:
            return None

    with ThreadPoolExecutor(6) as executor:
        for request, fit_at_once in LAST_ONES * 6:
            won = [claim.consumer for claim in executor.map(claim, [request] * 6) if claim]
            assert len(won) == fit_at_once, request
            assert query(owner, left)[0][0] >= 0
            scheduler.release(*won)


def test_demands_that_make_no_sense(owner: Connection) -> None:
    for document in NONSENSE:
        with pytest.raises(psycopg2.errors.InvalidParameterValue):
            query(owner, "SELECT * FROM vacancy.claim(ARRAY[gen_random_uuid()], %s)", json.dumps(document))


@pytest.mark.usefixtures("host")
def test_demands_that_make_no_sense_in_python(scheduler: Scheduler) -> None:
    nonsense: list[dict[str, Any]] = [
        {"pci": ({"vendor_id": "nvidia"},)},
        {"pci": ({},)},
        {"numa": {"cpus": -1}},
        {"resources": {"CUSTOM_X": 0}},
    ]
    for wrong in nonsense:
        with pytest.raises(ValidationError):
            Request.model_validate(wrong)
    with pytest.raises(ConfigError, match="VCPU, MEMORY_MB and DISK_GB"):
        scheduler.claim(Request(resources={"VCPU": 1}))
