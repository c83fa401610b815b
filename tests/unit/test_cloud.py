"""The state of a cloud: whatever happens to notifications, after a reading the state equals the truth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.harness.clock import Clock
from vacancy.connectors.collectors.collector import Inventory
from vacancy.connectors.openstack.cloud import Cloud, Provider, Truth, with_pools
from vacancy.connectors.openstack.notifications import AggregateSeen, CpuCounters, InstanceSeen, Notification, Service

HOSTS = ("a", "b", "c")
ZONED = "00000000-0000-4000-8000-00000000000a"
SMALL, LARGE = {"VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 4}, {"VCPU": 4, "MEMORY_MB": 2048, "DISK_GB": 20}
Held = dict[str, tuple[str, dict[str, int]]]
"""For each instance its host and what it holds."""


def truth_of(at: float, held: Held, members: frozenset[str] = frozenset()) -> Truth:
    return Truth(
        at,
        {
            f"id-{host}": Provider(
                id=f"id-{host}",
                name=f"{host}.example",
                service=host,
                inventories={
                    "VCPU": Inventory(16, 0, 16, 2.0),
                    "MEMORY_MB": Inventory(32_768, 512, 32_768, 1.0),
                    "DISK_GB": Inventory(500, 0, 500, 1.0),
                },
                traits=frozenset({"HW_CPU_X86_AVX2"}),
                aggregates=frozenset({ZONED} if host in members else ()),
                held={uuid: amounts for uuid, (place, amounts) in held.items() if place == host},
            )
            for host in HOSTS
        },
    )


def pooled(at: float, rooms: dict[str, int], held: Held) -> Truth:
    """Hosts a and b without a disk, near pools of so many GiB; c with a disk of its own near all of them."""
    nodes = {}
    for id_, node in truth_of(at, held).providers.items():
        inventories = {name: of_it for name, of_it in node.inventories.items() if name != "DISK_GB"}
        own = {
            consumer: {name: amount for name, amount in amounts.items() if name != "DISK_GB"}
            for consumer, amounts in node.held.items()
        }
        mine = node if id_ == "id-c" else dataclasses.replace(node, inventories=inventories, held=own)
        nodes[id_] = dataclasses.replace(mine, aggregates=frozenset({ZONED}))
    pools = {
        f"id-{name}": Provider(
            id=f"id-{name}",
            name=name,
            service="",
            inventories={"DISK_GB": Inventory(gb, 0, gb, 1.0)},
            traits=frozenset({"MISC_SHARES_VIA_AGGREGATE"}),
            aggregates=frozenset({ZONED}),
            held={uuid: {"DISK_GB": amounts["DISK_GB"]} for uuid, (place, amounts) in held.items() if place != "c"}
            | {"image cache": {"DISK_GB": 7}},
        )
        for name, gb in rooms.items()
    }
    pools["id-addresses"] = dataclasses.replace(next(iter(pools.values())), id="id-addresses", inventories={})
    return with_pools(at, nodes, pools)


def test_a_provider_that_shares_its_disk_is_the_pool_of_the_hosts_without_one() -> None:
    clock = Clock()
    held = {"one": ("a", SMALL), "two": ("b", LARGE), "three": ("c", LARGE)}
    cloud = cloud_of(clock, pooled(clock(), {"ceph": 100}, held), services_of(frozenset()))
    assert cloud.pools == {"id-ceph"}
    assert {id_: cloud.inventory(id_).disk_pool for id_ in cloud.hosts} == {
        "id-a": "id-ceph",
        "id-b": "id-ceph",
        "id-c": None,
    }
    usages = {id_: cloud.usage(id_) for id_ in ("id-a", "id-b", "id-c")}
    assert [(usage.disk_gb_capacity, usage.disk_gb_allocated) for usage in usages.values()] == [
        (0, 4),
        (0, 20),
        (500, 20),
    ]
    usage, inventory = cloud.pool_usage("id-ceph"), cloud.pool_inventory("id-ceph")
    assert (usage.disk_gb_capacity, usage.disk_gb_allocated, usage.disk_gb_available) == (100, 4 + 20 + 7, 69)
    assert (usage.vcpus_capacity, inventory.name, inventory.status) == (0, "ceph", "ENABLED")
    assert inventory.inventories == {"DISK_GB": Inventory(100, 0, 100, 1.0)}
    # An instance that came since is in it as well.
    clock.now += 1
    cloud.told(Notification(clock(), InstanceSeen("new", "a", "a.example", SMALL), None), 15)
    assert cloud.pool_usage("id-ceph").disk_gb_allocated == 4 + 20 + 7 + 4
    # A pool that is gone is retired; of several a host takes its disk from the first by name.
    cloud.sync(pooled(clock() + 1, {"nfs": 50, "nfs-old": 50}, held))
    assert (cloud.retired, cloud.pools) == ({"id-ceph"}, {"id-nfs", "id-nfs-old"})
    assert {cloud.inventory(id_).disk_pool for id_ in ("id-a", "id-b")} == {"id-nfs"}


def services_of(members: frozenset[str], disabled: frozenset[str] = frozenset()) -> dict[str, Service]:
    return {host: Service(host, host in disabled, False, None, "az-1" if host in members else "nova") for host in HOSTS}


def cloud_of(clock: Clock, truth: Truth, services: Mapping[str, Service]) -> Cloud:
    cloud = Cloud(clock=clock, wall_clock=clock)
    cloud.sync_services(truth.at, services, {}, lately=False)
    cloud.sync(truth)
    return cloud


def shown(cloud: Cloud) -> dict[str, Any]:
    """The inventory and usage of all hosts, without the source and time of the information."""
    told = {}
    for id_ in cloud.hosts:
        usage, inventory = dataclasses.asdict(cloud.usage(id_)), dataclasses.asdict(cloud.inventory(id_))
        for name in ("boot_id", "monotonic_ns", "recent_consumers"):
            usage.pop(name), inventory.pop(name, None)
        told[id_] = (usage, inventory)
    return told


@dataclasses.dataclass
class History:
    """The events in a cloud, and its state at the end."""

    notifications: list[Notification]
    held: Held
    members: frozenset[str]
    disabled: frozenset[str]


@st.composite
def histories(draw: st.DrawFn) -> History:
    clock, told = 1_001.0, []
    held: Held = {}
    members: set[str] = set()
    disabled: set[str] = set()
    for number in range(draw(st.integers(0, 20))):
        clock += 1.0
        step = draw(st.sampled_from(["boot", "delete", "move", "resize", "again", "join", "leave", "switch"]))
        some = draw(st.sampled_from(sorted(held))) if held else None
        host = draw(st.sampled_from(HOSTS))
        seen: Any = None
        if step == "boot":
            uuid = f"instance-{number}"
            held[uuid] = (host, draw(st.sampled_from([SMALL, LARGE])))
            seen = InstanceSeen(uuid, host, f"{host}.example", held[uuid][1])
        elif step in {"join", "leave"}:
            members = members | {host} if step == "join" else members - {host}
            seen = AggregateSeen(ZONED, frozenset(members), "az-1")
        elif step == "switch":
            disabled ^= {host}
            seen = Service(host, host in disabled, False, None, "az-1" if host in members else "nova")
        elif some is None:
            continue
        elif step == "delete":
            seen = InstanceSeen(some, None, None, held.pop(some)[1])
        else:
            place, amounts = held[some]
            place = host if step == "move" else place
            amounts = draw(st.sampled_from([SMALL, LARGE])) if step == "resize" else amounts
            held[some] = (place, amounts)
            seen = InstanceSeen(some, place, f"{place}.example", amounts, resizes=step == "resize")
        told.append(Notification(clock, seen, draw(st.sampled_from([None, host]))))
    return History(told, held, frozenset(members), frozenset(disabled))


def end_of(history: History, at: float) -> tuple[Truth, dict[str, Service]]:
    return truth_of(at, history.held, history.members), services_of(history.members, history.disabled)


@given(histories(), st.data())
def test_after_a_reading_the_state_is_the_truth_whatever_was_lost_doubled_or_out_of_order(
    history: History, data: st.DataObject
) -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    clock.now = 1_100.0
    copies = st.lists(st.sampled_from(history.notifications), max_size=40) if history.notifications else st.just([])
    for notification in data.draw(copies):
        cloud.told(notification, fresh_s=15.0)
    truth, services = end_of(history, at=1_200.0)
    clock.now = 1_201.0
    cloud.sync_services(1_200.0, services, {}, lately=True)
    cloud.sync(truth)
    right = shown(cloud_of(clock, truth, services))
    assert shown(cloud) == right
    # Notifications that come late change nothing.
    for notification in data.draw(copies):
        cloud.told(notification, fresh_s=15.0)
    assert shown(cloud) == right
    assert cloud.sync(dataclasses.replace(truth, at=1_300.0)) == (0, 0, 0, 0, 0.0)


@given(histories(), st.randoms(use_true_random=False))
def test_without_losses_the_state_is_right_at_once_in_any_order(history: History, rng: Any) -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    clock.now = 1_100.0
    shuffled = history.notifications * 2
    rng.shuffle(shuffled)
    for notification in shuffled:
        cloud.told(notification, fresh_s=15.0)
    assert shown(cloud) == shown(cloud_of(clock, *end_of(history, at=1_050.0)))


def test_it_tells_how_wrong_it_was_and_for_how_long_at_most() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {"x": ("a", SMALL), "y": ("a", SMALL)}), services_of(frozenset()))
    clock.now = 1_090.0
    difference = cloud.sync(truth_of(1_089.0, {"y": ("a", LARGE), "z": ("b", SMALL)}))
    assert difference == (1, 1, 1, 2, 90.0)


def test_what_is_newer_than_the_reading_stays() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    clock.now = 1_100.0
    cloud.told(Notification(1_095.0, InstanceSeen("x", "a", "a.example", SMALL), "a"), fresh_s=15.0)
    cloud.sync(truth_of(1_090.0, {}))
    assert cloud.usage("id-a").vcpus_allocated == 1
    assert "x" in cloud.usage("id-a").recent_consumers
    cloud.sync(truth_of(1_099.0, {}))
    assert cloud.usage("id-a").vcpus_allocated == 0


def test_a_clock_that_is_ahead_does_not_outlive_the_next_reading() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    cloud.told(Notification(9_999.0, InstanceSeen("x", "a", "a.example", SMALL), "a"), fresh_s=15.0)
    clock.now = 1_100.0
    cloud.sync(truth_of(1_099.0, {}))
    assert cloud.usage("id-a").vcpus_allocated == 0


def test_placements_amounts_stay_until_the_flavor_changes() -> None:
    clock = Clock()
    in_a_volume = {"VCPU": 4, "MEMORY_MB": 2048}
    cloud = cloud_of(clock, truth_of(1_000.0, {"x": ("a", in_a_volume)}), services_of(frozenset()))
    for at, amounts, resizes, disk_gb in [
        (1_001.0, LARGE, False, 0),
        (1_002.0, LARGE, False, 0),
        (1_003.0, SMALL, True, 4),
    ]:
        clock.now = at
        cloud.told(Notification(at, InstanceSeen("x", "a", "a.example", amounts, resizes), None), fresh_s=15.0)
        assert cloud.usage("id-a").disk_gb_allocated == disk_gb


def test_only_a_fresh_sign_of_its_own_makes_a_host_alive() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    clock.now = 1_100.0
    switched = Service("b", True, False, None, None)
    cloud.told(Notification(1_099.0, switched, None), fresh_s=15.0)
    cloud.told(Notification(1_080.0, CpuCounters("a", "a.example", 1, None), "a"), fresh_s=15.0)
    cloud.sync(truth_of(1_100.0, {"x": ("a", SMALL)}))
    assert cloud.alive == set()
    cloud.told(Notification(1_100.0, CpuCounters("a", "a.example", 2, None), "a"), fresh_s=15.0)
    assert cloud.alive == {"id-a"}


def test_a_service_that_has_reported_since_the_last_look_is_alive_unless_that_was_long_ago() -> None:
    clock = Clock()
    services = services_of(frozenset())
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services)
    cloud.sync_services(1_010.0, services, {"a": "10:00:00", "b": "10:00:00"}, lately=False)
    assert cloud.alive == set()
    cloud.sync_services(1_020.0, services, {"a": "10:00:10", "b": "10:00:00"}, lately=True)
    assert cloud.alive == {"id-a"}
    cloud.alive.clear()
    switched = services_of(frozenset(), disabled=frozenset("b"))
    cloud.sync_services(1_030.0, switched, {"a": "10:00:10", "b": "10:00:25"}, lately=True)
    assert cloud.alive == set(), "what the operator has set moves the time, too"
    cloud.sync_services(1_900.0, services, {"a": "10:14:00", "b": "10:14:00"}, lately=False)
    assert cloud.alive == set()


def test_a_service_that_was_down_is_alive_with_its_first_report() -> None:
    services = services_of(frozenset())
    cloud = cloud_of(Clock(), truth_of(1_000.0, {}), services)  # both are down
    cloud.sync_services(1_010.0, services, {"a": "10:00:10"}, lately=True)
    assert cloud.alive == {"id-a"}
    cloud.alive.clear()
    cloud.sync_services(1_080.0, services, {}, lately=True)
    cloud.sync_services(1_090.0, services, {"a": "10:00:10"}, lately=True)
    assert cloud.alive == set(), "it was taken for down and for up by one report"
    cloud.sync_services(1_100.0, services, {"a": "10:01:40"}, lately=True)
    assert cloud.alive == {"id-a"}
    cloud.alive.clear()
    cloud.sync_services(1_110.0, services, {"a": "10:01:40", "b": None}, lately=True)
    assert cloud.alive == set(), "one that has never reported is up for a while"


def test_rates_are_over_the_time_between_two_readings_of_the_counters() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    unmeasured = [cloud.usage("id-a") for _ in range(2)]
    assert unmeasured[0].boot_id != unmeasured[1].boot_id
    readings = []
    for at, busy_ns in [(1_001.0, 5_000), (1_031.0, 6_000), (1_061.0, 9_000)]:
        clock.now = at
        cloud.told(Notification(at, CpuCounters("a", "a.example", busy_ns, 0), "a"), fresh_s=15.0)
        readings += [cloud.usage("id-a"), cloud.usage("id-a")]
    assert len({reading.boot_id for reading in readings}) == 1
    assert [reading.cpu_busy_ns for reading in readings] == [5_000, 5_000, 6_000, 6_000, 9_000, 9_000]
    assert [reading.monotonic_ns - readings[0].monotonic_ns for reading in readings] == [
        *(0, 1),
        *(30_000_000_000, 30_000_000_001),
        *(60_000_000_000, 60_000_000_001),
    ]


def test_a_host_that_placement_no_longer_has_is_retired() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    truth = truth_of(1_100.0, {})
    cloud.sync(Truth(truth.at, {id_: provider for id_, provider in truth.providers.items() if id_ != "id-c"}))
    assert cloud.retired == {"id-c"}
    assert set(cloud.hosts) == {"id-a", "id-b"}


def test_a_host_that_is_not_known_is_told_from_an_old_notification() -> None:
    clock = Clock()
    cloud = cloud_of(clock, truth_of(1_000.0, {}), services_of(frozenset()))
    clock.now = 1_100.0
    new = InstanceSeen("x", "d", "d.example", SMALL)
    assert cloud.told(Notification(1_050.0, new, "d"), fresh_s=15.0) == "unknown"
    assert cloud.told(Notification(900.0, new, "d"), fresh_s=15.0) == "old"
