"""The libvirt collector: shapes against libvirt's own test driver, figures against a real libvirtd with real guests."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tests.harness.agent import Agent
from tests.harness.hanging import hanging_file_system
from tests.harness.hypervisor import Hypervisor, connected, require_libvirt, running_hypervisor
from tests.harness.installation import config_file
from tests.harness.topic import histories, own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.collectors.collector import HugePages, Inventory, NumaCell, PciPool, UsageReading
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings
from vacancy.schemas.errors import ConfigError

if TYPE_CHECKING:
    from vacancy.connectors.collectors.libvirt import LibvirtCollector
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 30.0
NODE = """
<node>
  <cpu><active>8</active><nodes>1</nodes><sockets>1</sockets><cores>8</cores><threads>1</threads></cpu>
  <memory>8388608</memory>
  <domain type='test'>
    <name>one</name><uuid>11111111-1111-4111-8111-111111111111</uuid>
    <memory unit='MiB'>512</memory><vcpu current='2'>4</vcpu><os><type>hvm</type></os>
    <devices>
      <disk type='file' device='disk'><source file='/guest/root'/><target dev='vda'/></disk>
      <disk type='file' device='cdrom'><source file='/guest/cd'/><target dev='hda'/></disk>
      <disk type='block' device='disk'>
        <source dev='/dev/volume'/><target dev='vdb'/><serial>22222222-2222-4222-8222-222222222222</serial>
      </disk>
      <hostdev mode='subsystem' type='pci' managed='yes'>
        <source><address domain='0' bus='0x0a' slot='0x10' function='0x1'/></source>
      </hostdev>
      <hostdev mode='subsystem' type='mdev' model='vfio-pci'>
        <source><address uuid='33333333-3333-4333-8333-333333333333'/></source>
      </hostdev>
    </devices>
  </domain>
  <domain type='test'>
    <name>two</name><uuid>44444444-4444-4444-8444-444444444444</uuid>
    <memory unit='MiB'>256</memory><vcpu>1</vcpu><os><type>hvm</type></os>
  </domain>
  <device>
    <name>pci_0000_0a_00_0</name><driver><name>ixgbe</name></driver>
    <capability type='pci'>
      <domain>0</domain><bus>10</bus><slot>0</slot><function>0</function>
      <product id='0x10FB'/><vendor id='0x8086'/>
    </capability>
  </device>
  {functions}
  <device>
    <name>pci_0000_3b_00_0</name><driver><name>nvidia</name></driver>
    <capability type='pci'>
      <domain>0</domain><bus>59</bus><slot>0</slot><function>0</function>
      <capability type='mdev_types'>
        <type id='nvidia-35'><deviceAPI>vfio-pci</deviceAPI><availableInstances>14</availableInstances></type>
        <type id='nvidia-36'><deviceAPI>vfio-pci</deviceAPI><availableInstances>0</availableInstances></type>
      </capability>
      <numa node='1'/><product id='0x1bb3'/><vendor id='0x10de'/>
    </capability>
  </device>
  {mdevs}
</node>
"""
FUNCTION = """
  <device>
    <name>pci_0000_0a_10_{number}</name>
    <capability type='pci'>
      <domain>0</domain><bus>10</bus><slot>16</slot><function>{number}</function>
      <capability type='phys_function'><address domain='0x0000' bus='0x0a' slot='0x00' function='0x0'/></capability>
      <numa node='0'/><product id='0x154c'/><vendor id='0x8086'/>
    </capability>
  </device>
"""
MDEV = """
  <device>
    <name>mdev_{name}</name><parent>pci_0000_3b_00_0</parent>
    <capability type='mdev'><type id='nvidia-35'/><uuid>{uuid}</uuid></capability>
  </device>
"""
PINNED = """
<domain type='test'>
  <name>pinned</name><uuid>{uuid}</uuid><memory unit='MiB'>1024</memory><vcpu>3</vcpu><os><type>hvm</type></os>
  <cputune>
    <vcpupin vcpu='0' cpuset='2'/><vcpupin vcpu='1' cpuset='9'/><vcpupin vcpu='2' cpuset='12-15,^14'/>
    <emulatorpin cpuset='2,3'/>
  </cputune>
</domain>
"""


def make_collector(uri: str, **settings: Any) -> LibvirtCollector:
    require_libvirt()
    from vacancy.connectors.collectors.libvirt import LibvirtCollector

    return LibvirtCollector(AgentSettings(collector="libvirt", libvirt_uri=uri, **settings))


# Shapes, by the test driver


@pytest.fixture
def node(tmp_path: Path) -> str:
    """The URI of a made-up node with two running domains, four virtual functions and a GPU that is split in two."""
    require_libvirt()
    document = NODE.format(
        functions="".join(FUNCTION.format(number=number) for number in range(4)),
        mdevs="".join(MDEV.format(name=digit, uuid=re.sub("x", digit, UUID)) for digit in "35"),
    )
    (tmp_path / "node.xml").write_text(document, encoding="utf-8")
    return f"test://{tmp_path}/node.xml"


UUID = "xxxxxxxx-xxxx-4xxx-8xxx-xxxxxxxxxxxx"


def test_domains_are_allocations_and_the_node_is_capacity(node: str) -> None:
    collector = make_collector(node, reserved_vcpus=1, vcpu_allocation_ratio=4.0, reserved_memory_mb=1024)
    usage = collector.usage()
    assert (usage.instances, usage.vcpus_allocated, usage.memory_mb_allocated) == (2, 3, 768)
    assert (usage.vcpus_capacity, usage.memory_mb_capacity) == (28, 7168)
    # The test driver's disks are of 1 TiB less 5 MB; neither the CD-ROM nor the volume counts.
    assert usage.disk_gb_allocated == 1024
    assert set(usage.recent_consumers) == {
        "1" * 8 + "-1111-4111-8111-" + "1" * 12,
        "4" * 8 + "-4444-4444-8444-" + "4" * 12,
    }
    inventories = collector.inventory().inventories
    assert inventories["VCPU"] == Inventory(8, 1, 8, 4.0)
    assert inventories["MEMORY_MB"] == Inventory(8192, 1024, 8192, 1.0)


def test_devices_are_pools_and_those_of_running_domains_are_not_free(node: str) -> None:
    inventory = make_collector(node).inventory()
    assert inventory.pci_pools == (
        PciPool("10de", "1bb3", 1, 16, 15, {"mdev_type": "nvidia-35"}),
        PciPool("10de", "1bb3", 1, 0, 0, {"mdev_type": "nvidia-36"}),
        PciPool("8086", "154c", 0, 4, 3),
    )
    assert inventory.inventories["CUSTOM_NVIDIA_35"] == Inventory(16, 0, 16, 1.0)
    assert "CUSTOM_NVIDIA_36" not in inventory.inventories


@pytest.mark.parametrize("call", ["getCapabilities", "baselineCPU", "getFreePages", "listAllDevices", "getHostname"])
@pytest.mark.parametrize("fault", ["an error", "no document"])
def test_what_libvirt_does_not_tell_of_the_node_costs_itself_alone(
    node: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, call: str, fault: str
) -> None:
    """As on ARM, where it expands no CPU."""
    before = make_collector(node).inventory()
    import libvirt

    def fail(*_: Any) -> Any:
        if fault == "an error" or call in {"getFreePages", "listAllDevices"}:
            raise libvirt.libvirtError("this function is not supported by the connection driver")
        return "<no document"

    monkeypatch.setattr(libvirt.virConnect, call, fail)
    collector = make_collector(node)
    assert _read(collector.usage()) == (2, 3, 768, 1024)
    inventory = collector.inventory()
    assert inventory.inventories["VCPU"] == before.inventories["VCPU"]
    assert inventory.inventories["MEMORY_MB"] == before.inventories["MEMORY_MB"]
    assert inventory.name
    assert bool(inventory.pci_pools) == (call != "listAllDevices")
    collector.inventory()
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == (call in {"getCapabilities", "listAllDevices"})


def test_a_disk_that_several_domains_have_counts_once(tmp_path: Path) -> None:
    """The test driver's disks are of 1 TiB less 5 MB."""
    domain = """
      <domain type='test'>
        <name>{name}</name><uuid>{uuid}</uuid><memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os>
        <devices>
          <disk type='file' device='disk'><source file='/shared'/><target dev='vda'/><shareable/></disk>
          <disk type='file' device='disk'><source file='/own/{name}'/><target dev='vdb'/></disk>
        </devices>
      </domain>"""
    require_libvirt()
    domains = "".join(domain.format(name=name, uuid=uuid.uuid4()) for name in ("one", "two"))
    (tmp_path / "node.xml").write_text(f"<node>{domains}</node>", encoding="utf-8")
    assert make_collector(f"test://{tmp_path}/node.xml").usage().disk_gb_allocated == 3072


@pytest.fixture
def driver() -> Iterator[Any]:
    """libvirt's default test node: 2 cells of 8 CPUs, one domain of 2 VCPUs; one for the process while it is open."""
    require_libvirt()
    with connected("test:///default") as connection:
        yield connection


def test_pinned_cpus_of_running_domains_are_not_free(driver: Any) -> None:
    collector = make_collector("test:///default")
    (first, second) = collector.inventory().numa_cells
    page_kb = os.sysconf("SC_PAGE_SIZE") // 1024
    pages = 2048 * 1024 // page_kb
    assert first == NumaCell(0, tuple(range(8)), tuple(range(8)), 2048, (HugePages(page_kb, pages, pages),))
    domain = driver.createXML(PINNED.format(uuid=uuid.uuid4()), 0)
    (first, second) = collector.inventory().numa_cells
    assert (first.cpus, first.free_cpus) == (tuple(range(8)), (0, 1, 3, 4, 5, 6, 7))
    assert (second.cpus, second.free_cpus) == (tuple(range(8, 16)), (8, 10, 11, 12, 13, 14, 15))
    domain.destroy()
    assert collector.inventory().numa_cells[0].free_cpus == tuple(range(8))


BOUND = """
<domain type='test'>
  <name>bound</name><uuid>{uuid}</uuid><memory unit='MiB'>768</memory><vcpu>2</vcpu><os><type>hvm</type></os>
  <numatune><memory mode='strict' nodeset='1'/></numatune>
  <cputune><vcpupin vcpu='0' cpuset='8-15'/><vcpupin vcpu='1' cpuset='8-15'/></cputune>
</domain>
"""


def test_memory_that_a_domain_is_bound_to_is_not_free_in_its_cell(driver: Any) -> None:
    """And its CPUs are, since it floats over all of the cell's."""

    def free_mb() -> list[int]:
        cells = collector.inventory().numa_cells
        assert [cell.memory_mb for cell in cells] == [2048, 4096]
        assert [cell.free_cpus for cell in cells] == [cell.cpus for cell in cells]
        return [cell.pages[0].free * cell.pages[0].size_kb // 1024 for cell in cells]

    collector = make_collector("test:///default")
    assert free_mb() == [2048, 4096]
    domain = driver.createXML(BOUND.format(uuid=uuid.uuid4()), 0)
    assert free_mb() == [2048, 4096 - 768]
    domain.destroy()
    assert free_mb() == [2048, 4096]


def test_a_domain_counts_from_its_first_start_and_wakes_the_agent_at_each_change(driver: Any) -> None:
    """What is defined only is left to its claim; a domain counts with the reading that lists it."""
    collector, woken = make_collector("test:///default"), threading.Event()
    collector.watch(woken.set)
    before = collector.usage()
    consumer = str(uuid.uuid4())

    def changed() -> tuple[int, int, bool]:
        assert woken.wait(LIMIT_S)
        woken.clear()
        usage = collector.usage()
        return (
            usage.instances - before.instances,
            usage.vcpus_allocated - before.vcpus_allocated,
            consumer in usage.recent_consumers,
        )

    domain = driver.defineXML(PINNED.format(uuid=consumer))
    assert changed() == (0, 0, False)
    domain.create()
    assert changed() == (1, 3, True)
    domain.suspend()
    assert changed() == (1, 3, True)
    domain.destroy()
    assert changed() == (0, 0, True)
    domain.create()
    assert changed() == (1, 3, True)
    domain.destroy()
    domain.undefine()
    wait_until(lambda: changed()[0] == 0, LIMIT_S, "the domain is not gone")


def test_consumers_are_listed_for_some_minutes(driver: Any) -> None:
    require_libvirt()
    from vacancy.connectors.collectors.libvirt import RECENT_S, LibvirtCollector

    now = 1000.0
    collector = LibvirtCollector(AgentSettings(libvirt_uri="test:///default"), clock=lambda: now)
    assert len(collector.usage().recent_consumers) == 1
    now += RECENT_S - 1
    domain = driver.createXML(PINNED.format(uuid=uuid.uuid4()), 0)
    assert len(collector.usage().recent_consumers) == 2
    now += 2
    assert collector.usage().recent_consumers == (domain.UUIDString(),)
    domain.destroy()


@pytest.mark.parametrize("uri", ["qemu+ssh://root@compute-2/system", "qemu+tls://10.0.0.2/system"])
def test_another_machines_libvirt_is_refused(uri: str) -> None:
    with pytest.raises(ConfigError, match=r"agent\.libvirt_uri: .* another machine's; run an agent on each"):
        make_collector(uri)


def test_a_libvirt_that_is_not_there_is_said_with_what_to_do() -> None:
    collector = make_collector("qemu+unix:///system?socket=/nowhere/libvirt-sock")
    for read in (collector.usage, collector.inventory):
        with pytest.raises(OSError, match=r"No such file.* is libvirtd \(or virtqemud\) running"):
            read()


# Figures, by a real libvirtd


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Hypervisor]:
    with running_hypervisor() as hypervisor:
        yield hypervisor


@pytest.fixture
def guests(hypervisor: Hypervisor) -> Iterator[Hypervisor]:
    """The hypervisor, without guests before and after."""
    yield hypervisor
    for name in hypervisor.virsh("list", "--name").split():
        hypervisor.end(name)
    for name in hypervisor.virsh("list", "--all", "--name").split():
        hypervisor.virsh("undefine", name)


def test_figures_are_those_that_virsh_shows(guests: Hypervisor) -> None:
    guests.virsh("create", str(guests.guest("one", vcpus=2, memory_mb=96, disk_gb=3)))
    guests.virsh("define", str(guests.guest("two", memory_mb=64, disk_gb=5)))
    collector = make_collector(guests.uri, reserved_memory_mb=100)
    wait_until(lambda: int(guests.domstats("one")["block.0.rd.bytes"]), LIMIT_S, "its BIOS reads nothing")
    before, usage, after = guests.domstats("one"), collector.usage(), guests.domstats("one")
    two = guests.domstats("two")

    assert (before["vcpu.current"], before["balloon.maximum"]) == ("2", str(96 * 1024))
    assert (usage.instances, usage.vcpus_allocated, usage.memory_mb_allocated) == (1, 2, 96)
    # The one that does not run holds its disk.
    assert usage.disk_gb_allocated << 30 == int(before["block.0.capacity"]) + int(two["block.0.capacity"])
    for ours, theirs in {
        "disk_read_bytes": "rd.bytes",
        "disk_read_ops": "rd.reqs",
        "disk_write_bytes": "wr.bytes",
        "disk_write_ops": "wr.reqs",
    }.items():
        assert int(before[f"block.0.{theirs}"]) <= getattr(usage, ours) <= int(after[f"block.0.{theirs}"])
    # Of all that the node's CPUs have done the guest's share is a part.
    assert int(after["cpu.time"]) < (usage.cpu_busy_ns or 0)

    nodeinfo = dict(re.findall(r"^(.+?): +(\d+)", guests.virsh("nodeinfo"), re.MULTILINE))
    assert usage.vcpus_capacity == int(nodeinfo["CPU(s)"])
    assert usage.memory_mb_capacity == int(nodeinfo["Memory size"]) // 1024 - 100


def test_the_inventory_is_what_virsh_shows(guests: Hypervisor) -> None:
    inventory = make_collector(guests.uri).inventory()
    capabilities = ET.fromstring(guests.virsh("capabilities"))  # noqa: S314  # our own libvirt's
    cells = capabilities.findall("host/topology/cells/cell")
    assert [cell.id for cell in inventory.numa_cells] == [int(cell.get("id", "")) for cell in cells]
    for ours, theirs in zip(inventory.numa_cells, cells, strict=True):
        assert list(ours.cpus) == list(ours.free_cpus) == [int(cpu.get("id", "")) for cpu in theirs.iter("cpu")]
        assert ours.memory_mb == int(theirs.findtext("memory", "")) // 1024
        shown = re.split(r"^Node (\d+):$", guests.virsh("freepages", "--all"), flags=re.MULTILINE)
        of_cell = shown[shown.index(str(ours.id)) + 1]
        free = {int(size): int(count) for size, count in re.findall(r"^(\d+)KiB: (\d+)", of_cell, re.MULTILINE)}
        total = {int(pages.get("size", "")): int(pages.text or 0) for pages in theirs.findall("pages")}
        assert [(page.size_kb, page.total, page.free) for page in ours.pages[1:]] == [
            (size, total[size], free[size]) for size in sorted(total)[1:] if total[size]
        ]
    assert inventory.name == guests.virsh("hostname").strip()
    names = {feature.get("name") for feature in capabilities.findall("host/cpu/feature")}
    for feature, trait in {"f16c": "HW_CPU_X86_F16C", "sha-ni": "HW_CPU_X86_SHA", "vmx": "HW_CPU_X86_VMX"}.items():
        assert feature not in names or trait in inventory.traits


def test_a_guest_that_is_started_stopped_or_killed_is_told_at_once(guests: Hypervisor) -> None:
    collector, woken = make_collector(guests.uri), threading.Event()
    collector.watch(woken.set)
    reading = collector.usage()
    consumer = str(uuid.uuid4())
    document = str(guests.guest("one", consumer))

    def wait_for(instances: int) -> None:
        nonlocal reading

        def told() -> bool:
            nonlocal reading
            if not woken.wait(0.1):
                return False
            woken.clear()
            before, reading = reading, collector.usage()
            for name in ("disk_read_bytes", "disk_read_ops", "net_rx_bytes"):
                assert getattr(reading, name) >= getattr(before, name), f"{name} went back"
            allocated = (reading.vcpus_allocated, reading.memory_mb_allocated, reading.disk_gb_allocated)
            # Nothing in between.
            assert (reading.instances, *allocated) in {(0, 0, 0, 0), (1, 1, 64, 1)}
            assert (consumer in reading.recent_consumers) or reading.instances == 0
            return reading.instances == instances

        wait_until(told, LIMIT_S, f"no event brings {instances} instances")

    def read_something() -> None:
        wait_until(lambda: int(guests.domstats("one")["block.0.rd.bytes"]), LIMIT_S, "its BIOS reads nothing")
        collector.usage()

    guests.virsh("create", document)
    wait_for(1)
    read_something()
    os.kill(guests.qemu_pid("one"), signal.SIGKILL)
    wait_for(0)
    assert reading.disk_read_bytes, "what it read is forgotten"
    guests.virsh("create", document)
    wait_for(1)
    guests.end("one")
    wait_for(0)


def test_a_connection_that_breaks_fails_readings_and_is_made_again(guests: Hypervisor) -> None:
    guests.virsh("create", str(guests.guest("one")))
    collector, woken = make_collector(guests.uri), threading.Event()
    collector.watch(woken.set)
    before = collector.usage()
    guests.kill()
    try:
        for read in (collector.usage, collector.inventory, collector.usage):
            with pytest.raises(OSError, match=r"libvirt at .* is libvirtd \(or virtqemud\) running"):
                read()
    finally:
        guests.start()
    after = collector.usage()
    assert (after.instances, after.vcpus_allocated, after.disk_gb_allocated) == (1, 1, 1)
    assert after.recent_consumers == before.recent_consumers
    assert (after.disk_read_bytes or 0) >= (before.disk_read_bytes or 0)
    # A guest that ends while libvirtd is taking it up again ends without an event.
    wait_until(lambda: "block.0.rd.bytes" in guests.domstats("one"), LIMIT_S, "libvirtd does not take up its guest")
    woken.clear()
    guests.end("one")
    assert woken.wait(LIMIT_S)
    assert collector.usage().instances == 0


def test_an_agent_goes_on_when_libvirtd_goes_and_comes(
    guests: Hypervisor, kafka_broker: KafkaServer, tmp_path: Path
) -> None:
    """It says so once, and sends nothing that is not whole."""
    guests.virsh("create", str(guests.guest("one")))
    kafka = own_topics(kafka_broker.bootstrap_servers)
    ensure_topics(kafka)
    agent = AgentSettings(
        host_id="hypervisor", collector="libvirt", libvirt_uri=guests.uri, interval=timedelta(milliseconds=100)
    )
    config_file(tmp_path).write_text(
        settings_file.dumps(Settings().model_copy(update={"kafka": kafka, "agent": agent})), encoding="utf-8"
    )

    def sent() -> list[dict[str, Any]]:
        return [record.event for record in histories(read_topic(kafka, kafka.usage_topic)).get("hypervisor", [])]

    with Agent(tmp_path) as running:
        wait_until(sent, LIMIT_S, "the agent sends nothing")
        guests.kill()
        wait_until(lambda: running.said("cannot be read"), LIMIT_S, "the agent does not say that libvirt is gone")
        guests.start()
        wait_until(lambda: running.said("can be read again"), LIMIT_S, "the agent does not say that libvirt is back")
        before = len(sent())
        wait_until(lambda: len(sent()) > before, LIMIT_S, "the agent sends no more")
        (line,) = running.said("cannot be read")
        said = running.stop()
    assert re.search(r"ERROR the (usage|inventory) cannot be read, trying on: LibvirtError: libvirt at .*running", line)
    assert "Traceback" not in said
    events = sent()
    assert {event["instances"] for event in events} == {event["vcpus_allocated"] for event in events} == {1}
    reads = [event["disk_read_bytes"] for event in events]
    assert reads == sorted(reads)


def test_a_libvirt_that_hangs_is_not_waited_for(guests: Hypervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    from vacancy.connectors.collectors import libvirt as libvirt_collector

    collector = make_collector(guests.uri)
    first = collector.usage()
    monkeypatch.setattr(libvirt_collector, "CALL_LIMIT_S", 0.2)
    os.kill(guests.daemon_pid, signal.SIGSTOP)
    try:
        for read in (collector.usage, collector.inventory, collector.usage):
            with pytest.raises(OSError, match=r"has not answered for 0\.2 s"):
                read()
    finally:
        os.kill(guests.daemon_pid, signal.SIGCONT)

    def read_again() -> bool:
        try:
            reading = collector.usage()
        except OSError:
            return False
        return reading.instances == first.instances

    wait_until(read_again, LIMIT_S, "libvirt goes on and is not read")


def _read(usage: UsageReading) -> tuple[int, int, int, int]:
    return usage.instances, usage.vcpus_allocated, usage.memory_mb_allocated, usage.disk_gb_allocated


def test_a_guest_that_hangs_keeps_its_share_and_holds_up_nothing(guests: Hypervisor) -> None:
    """From the first reading on; its counters go on when it does, and are not counted twice."""
    from vacancy.connectors.collectors import libvirt as libvirt_collector

    for name in ("one", "two"):
        guests.virsh("create", str(guests.guest(name)))
    collector = make_collector(guests.uri)
    wait_until(lambda: int(guests.domstats("one")["block.0.rd.bytes"]), LIMIT_S, "its BIOS reads nothing")
    before = collector.usage()
    os.kill(guests.qemu_pid("one"), signal.SIGSTOP)
    try:
        for number in range(5):
            began = time.monotonic()
            usage = collector.usage()
            assert time.monotonic() - began < libvirt_collector.CALL_LIMIT_S
            assert _read(usage) == (2, 2, 128, 2)
            assert (usage.disk_read_bytes or 0) >= (before.disk_read_bytes or 0)
            # First that all are late; from then on libvirt passes over the one.
            assert collector.unknown.keys() == ({"domain one"} if number else {"domains"})
            assert {"vcpus_allocated", "disk_gb_allocated", "disk_read_bytes"} <= {*(usage.uncertain or ())}
            assert usage.recent_consumers == before.recent_consumers
        assert collector.inventory().name
    finally:
        os.kill(guests.qemu_pid("one"), signal.SIGCONT)

    def is_known_again() -> bool:
        collector.usage()
        return not collector.unknown

    wait_until(is_known_again, LIMIT_S, "it is read no more")
    told, usage = [guests.domstats(name) for name in ("one", "two")], collector.usage()
    assert _read(usage) == (2, 2, 128, 2)
    after = [guests.domstats(name) for name in ("one", "two")]
    least, most = (sum(int(stats["block.0.rd.bytes"]) for stats in both) for both in (told, after))
    assert least <= (usage.disk_read_bytes or 0) <= most
    assert usage.uncertain is None


def test_several_guests_that_hang_at_once_do_not_hide_the_one_that_does_not(guests: Hypervisor) -> None:
    names = ["one", "two", "three", "four"]
    for name in names:
        guests.virsh("create", str(guests.guest(name)))
    collector = make_collector(guests.uri)
    collector.usage()
    hung = names[:3]
    for name in hung:
        os.kill(guests.qemu_pid(name), signal.SIGSTOP)
    try:

        def are_told_apart() -> bool:
            assert _read(collector.usage()) == (4, 4, 256, 4)
            return collector.unknown.keys() == {f"domain {name}" for name in hung}

        wait_until(are_told_apart, LIMIT_S, "the one that does not hang is not read")
        guests.end("four")
        assert _read(collector.usage()) == (3, 3, 192, 3)
        guests.virsh("create", str(guests.guest("five")))
        wait_until(lambda: _read(collector.usage()) == (4, 4, 256, 4), LIMIT_S, "a new one is not counted")
    finally:
        for name in hung:
            os.kill(guests.qemu_pid(name), signal.SIGCONT)
    wait_until(lambda: collector.usage() and not collector.unknown, LIMIT_S, "they are read no more")
    assert _read(collector.usage()) == (4, 4, 256, 4)


def test_an_agent_that_starts_beside_a_guest_that_hangs_counts_what_is_told(guests: Hypervisor) -> None:
    from vacancy.connectors.collectors import libvirt as libvirt_collector

    for name in ("one", "two"):
        guests.virsh("create", str(guests.guest(name)))
    os.kill(guests.qemu_pid("one"), signal.SIGSTOP)
    try:
        now = 0.0
        late = libvirt_collector.LibvirtCollector(AgentSettings(libvirt_uri=guests.uri), clock=lambda: now)

        def is_passed_over() -> bool:
            with pytest.raises(OSError, match=r"busy with domain|has not answered") as refused:
                late.usage()
            return "libvirt is busy with domain one" in str(refused.value)

        wait_until(is_passed_over, LIMIT_S, "libvirt does not pass over the one that hangs")
        now += libvirt_collector.PATIENCE_S
        for _ in range(2):
            assert _read(late.usage()) == (2, 2, 128, 1)
            assert late.unknown["domain one"].startswith("libvirt does not tell the size of its disks, ")
    finally:
        os.kill(guests.qemu_pid("one"), signal.SIGCONT)
    wait_until(lambda: late.usage().disk_gb_allocated == 2, LIMIT_S, "the disk is not counted")
    assert late.unknown == {}


def test_a_guest_that_gets_a_disk_while_it_is_busy_counts_on(guests: Hypervisor) -> None:
    """The size of the new disk cannot be asked for; nothing of the guest drops out."""
    document = guests.guest("one")
    controller = "<controller type='scsi' model='virtio-scsi'/></devices>"
    document.write_text(document.read_text().replace("</devices>", controller))
    guests.virsh("create", str(document))
    collector = make_collector(guests.uri)
    assert _read(collector.usage()) == (1, 1, 64, 1)
    disk = guests.guest("other", disk_gb=2).with_suffix(".raw")
    wait_until(lambda: "block.0.capacity" in guests.domstats("one"), LIMIT_S, "it is not ready")
    guests.virsh("attach-disk", "one", str(disk), "sda", "--targetbus", "scsi", "--live")
    os.kill(guests.qemu_pid("one"), signal.SIGSTOP)
    try:
        for _ in range(3):
            assert _read(collector.usage()) == (1, 1, 64, 1)
    finally:
        os.kill(guests.qemu_pid("one"), signal.SIGCONT)
    wait_until(lambda: _read(collector.usage()) == (1, 1, 64, 3), LIMIT_S, "the new disk is not counted")


def test_a_guest_that_libvirt_leaves_out_of_its_figures_but_lists_counts_on(
    guests: Hypervisor, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two"):
        guests.virsh("create", str(guests.guest(name)))
    collector = make_collector(guests.uri)
    before = collector.usage()
    import libvirt

    all_stats = libvirt.virConnect.getAllDomainStats

    def without_one(connection: Any, *arguments: Any) -> Any:
        return [(domain, stats) for domain, stats in all_stats(connection, *arguments) if domain.name() != "one"]

    with monkeypatch.context() as patched:
        patched.setattr(libvirt.virConnect, "getAllDomainStats", without_one)
        usage = collector.usage()
        assert _read(usage) == _read(before) == (2, 2, 128, 2)
        assert collector.unknown.keys() <= {"domain one"}
    after = collector.usage()
    assert _read(after) == (2, 2, 128, 2)
    grown = (after.disk_read_bytes or 0) - (before.disk_read_bytes or 0)
    assert grown <= sum(int(guests.domstats(name)["block.0.rd.bytes"]) for name in ("one", "two")) - (
        before.disk_read_bytes or 0
    )
    guests.end("one")
    assert _read(collector.usage()) == (1, 1, 64, 1)


# Disks that lie elsewhere


@pytest.fixture
def pool(guests: Hypervisor) -> Iterator[Path]:
    """A pool of files in a directory of the hypervisor's, named ``vms``; its volume ``root`` has 3 GiB."""
    directory = guests.directory / "pool"
    directory.mkdir(exist_ok=True)
    directory.chmod(0o777)
    guests.virsh("pool-create-as", "vms", "dir", "--target", str(directory))
    guests.virsh("vol-create-as", "vms", "root", "3G", "--allocation", "0")
    yield directory
    guests.virsh("pool-destroy", "vms")
    shutil.rmtree(directory)


VOLUME = "<disk type='volume' device='disk'><source pool='vms' volume='root'/><target dev='vdb' bus='virtio'/></disk>"


def _with_volume(guests: Hypervisor, name: str) -> str:
    """A guest with a disk of 1 GiB and the volume."""
    document = guests.guest(name)
    document.write_text(document.read_text().replace("</devices>", f"{VOLUME}</devices>"))
    return str(document)


@pytest.mark.usefixtures("pool")
def test_a_volume_of_a_local_pool_takes_room_whether_its_guest_runs_or_not(guests: Hypervisor) -> None:
    guests.virsh("define", _with_volume(guests, "one"))
    collector = make_collector(guests.uri)
    assert _read(collector.usage()) == (0, 0, 0, 4)
    guests.virsh("start", "one")
    wait_until(lambda: _read(collector.usage()) == (1, 1, 64, 4), LIMIT_S, "it does not count")


def test_a_volume_whose_pool_is_away_counts_as_it_did_until_it_is_known_to_be_gone(
    guests: Hypervisor, pool: Path
) -> None:
    guests.virsh("define", _with_volume(guests, "one"))
    collector = make_collector(guests.uri)
    assert _read(collector.usage()) == (0, 0, 0, 4)
    guests.virsh("pool-destroy", "vms")
    collector.inventory()
    assert _read(collector.usage()) == (0, 0, 0, 4)
    guests.virsh("pool-create-as", "vms", "dir", "--target", str(pool))
    guests.virsh("vol-delete", "root", "--pool", "vms")
    collector.inventory()
    assert _read(collector.usage()) == (0, 0, 0, 1)


def test_a_volume_that_hangs_counts_as_it_did_and_holds_up_nothing(guests: Hypervisor, pool: Path) -> None:
    guests.virsh("define", _with_volume(guests, "one"))
    collector = make_collector(guests.uri)
    assert _read(collector.usage()) == (0, 0, 0, 4)
    with hanging_file_system(pool) as away:
        away.answers.clear()
        # More looks than the agent leaves calls behind.
        for _ in range(15):
            collector.inventory()
            assert _read(collector.usage()) == (0, 0, 0, 4)
            assert collector.unknown == {}
    guests.virsh("vol-delete", "root", "--pool", "vms")

    def is_gone() -> bool:
        collector.inventory()
        return _read(collector.usage()) == (0, 0, 0, 1)

    wait_until(is_gone, LIMIT_S, "what libvirt tells again does not count")


def test_pools_that_are_the_hosts_disk(guests: Hypervisor, pool: Path, tmp_path: Path) -> None:
    """What they have is its capacity, and of guests' disks those count that are in them, by volume or by path."""
    guests.virsh("create", _with_volume(guests, "one"))
    by_path = guests.guest("two").read_text()
    (pool / "data.raw").touch(0o666)
    os.truncate(pool / "data.raw", 2 * 2**30)
    shutil.chown(pool / "data.raw", "nobody")
    document = guests.directory / "two.xml"
    document.write_text(by_path.replace(str(guests.directory / "two.raw"), str(pool / "data.raw")))
    guests.virsh("create", str(document))
    collector = make_collector(guests.uri, disk_pools=("vms",), disk_allocation_ratio=2.0, disk_path=tmp_path)
    wait_until(lambda: _read(collector.usage()) == (2, 2, 128, 5), LIMIT_S, "they do not count as they should")
    usage, room = collector.usage(), os.statvfs(pool)
    assert usage.disk_gb_capacity == 2 * (room.f_blocks * room.f_frsize // 2**30)
    assert usage.disk_gb_available == pytest.approx(room.f_bavail * room.f_frsize / 2**30, abs=1.1)
    assert collector.inventory().inventories["DISK_GB"].total == room.f_blocks * room.f_frsize // 2**30
    shown = re.search(r"Capacity: +([\d.]+) GiB", guests.virsh("pool-info", "vms"))
    assert shown
    assert usage.disk_gb_capacity / 2 == pytest.approx(float(shown[1]), abs=1.0)
    assert collector.unknown == {}


@pytest.mark.usefixtures("pool")
def test_two_pools_of_one_file_system_have_it_once(guests: Hypervisor) -> None:
    other = guests.directory / "other"
    other.mkdir(exist_ok=True)
    guests.virsh("pool-create-as", "other", "dir", "--target", str(other))
    try:
        one = make_collector(guests.uri, disk_pools=("vms",)).usage()
        both = make_collector(guests.uri, disk_pools=("vms", "other")).usage()
        assert both.disk_gb_capacity == one.disk_gb_capacity > 0
    finally:
        guests.virsh("pool-destroy", "other")


@pytest.mark.usefixtures("pool")
def test_a_pool_that_is_away_has_nothing_free_and_what_it_had(guests: Hypervisor) -> None:
    collector = make_collector(guests.uri, disk_pools=("vms", "missing"))
    assert collector.usage().disk_gb_capacity == 0
    assert collector.unknown == {
        "disk_gb_available": "libvirt has no active storage pool missing; virsh pool-list --all"
    }
    guests.virsh("pool-create-as", "missing", "dir", "--target", str(guests.directory))
    collector.inventory()
    capacity = collector.usage().disk_gb_capacity
    assert capacity > 0
    guests.virsh("pool-destroy", "missing")
    collector.inventory()
    usage = collector.usage()
    assert (usage.disk_gb_capacity, usage.disk_gb_available) == (capacity, 0)


LVM = """
  <pool type='logical'>
    <name>vg</name><source><name>vg</name></source><target><path>/dev/vg</path></target>
    <capacity>1099511627776</capacity>
    <volume><name>root</name><capacity>{gb}</capacity><target><path>/dev/vg/root</path></target></volume>
  </pool>
"""


def test_a_volume_group_that_is_the_hosts_disk(tmp_path: Path) -> None:
    """By the test driver: its groups have 1,024 GiB less what it takes itself, its disks 1 TiB less 5 MB."""
    disks = (
        "<disk type='block' device='disk'><source dev='/dev/vg/root'/><target dev='vda'/></disk>"
        "<disk type='file' device='disk'><source file='/var/lib/elsewhere'/><target dev='vdb'/></disk>"
    )
    document = f"""<node>{LVM.format(gb=100 * 2**30)}<domain type='test'>
      <name>one</name><uuid>{uuid.uuid4()}</uuid><memory unit='MiB'>512</memory><vcpu>1</vcpu>
      <os><type>hvm</type></os><devices>{disks}</devices></domain></node>"""
    (tmp_path / "node.xml").write_text(document, encoding="utf-8")
    uri = f"test://{tmp_path}/node.xml"
    everything = make_collector(uri).usage()
    assert everything.disk_gb_allocated == 2048
    collector = make_collector(uri, disk_pools=("vg",))
    usage = collector.usage()
    assert usage.disk_gb_allocated == 1024
    with connected(uri) as connection:
        _, capacity, _, _ = connection.storagePoolLookupByName("vg").info()
    assert usage.disk_gb_capacity == capacity // 2**30 != everything.disk_gb_capacity
    # What the guest may write is not free, whatever libvirt knew when it last looked.
    assert usage.disk_gb_available <= max(0, usage.disk_gb_capacity - 1023)
