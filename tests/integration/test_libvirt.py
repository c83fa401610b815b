"""The libvirt collector: shapes against libvirt's own test driver, figures against a real libvirtd with real guests."""

from __future__ import annotations

import os
import re
import signal
import threading
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from tests.harness.agent import Agent
from tests.harness.hypervisor import Hypervisor, connected, require_libvirt, running_hypervisor
from tests.harness.installation import config_file
from tests.harness.topic import histories, own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.collectors.collector import Inventory, NumaCell, PciPool
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


@pytest.fixture
def driver() -> Iterator[Any]:
    """libvirt's default test node: 2 cells of 8 CPUs, one domain of 2 VCPUs; one for the process while it is open."""
    require_libvirt()
    with connected("test:///default") as connection:
        yield connection


def test_pinned_cpus_of_running_domains_are_not_free(driver: Any) -> None:
    collector = make_collector("test:///default")
    (first, second) = collector.inventory().numa_cells
    assert first == NumaCell(0, tuple(range(8)), tuple(range(8)), 2048)
    domain = driver.createXML(PINNED.format(uuid=uuid.uuid4()), 0)
    (first, second) = collector.inventory().numa_cells
    assert (first.cpus, first.free_cpus) == (tuple(range(8)), (0, 1, 4, 5, 6, 7))
    assert (second.cpus, second.free_cpus) == (tuple(range(8, 16)), (8, 10, 11, 14))
    domain.destroy()
    assert collector.inventory().numa_cells[0].free_cpus == tuple(range(8))


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
    assert int(after["cpu.time"]) < usage.cpu_busy_ns

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
        assert [(page.size_kb, page.total, page.free) for page in ours.pages] == [
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


def test_a_guest_that_hangs_does_not_hide_the_others(
    guests: Hypervisor, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from vacancy.connectors.collectors import libvirt as libvirt_collector

    for name in ("one", "two"):
        guests.virsh("create", str(guests.guest(name)))
    collector = make_collector(guests.uri)
    before = collector.usage()
    monkeypatch.setattr(libvirt_collector, "CALL_LIMIT_S", 1.0)
    os.kill(guests.qemu_pid("one"), signal.SIGSTOP)
    try:
        with pytest.raises(OSError, match="has not answered"):
            collector.usage()
        monkeypatch.undo()
        for _ in range(5):
            usage = collector.usage()
            assert (usage.instances, usage.vcpus_allocated, usage.disk_gb_allocated) == (2, 2, 2)
            assert (usage.disk_read_bytes or 0) >= (before.disk_read_bytes or 0)
        assert collector.inventory().name
        # An agent that starts now does not know the disk yet.
        now = 0.0
        late = libvirt_collector.LibvirtCollector(AgentSettings(libvirt_uri=guests.uri), clock=lambda: now)
        with pytest.raises(OSError, match="libvirt is busy with domain one"):
            late.usage()
        now += libvirt_collector.PATIENCE_S
        for _ in range(2):
            usage = late.usage()
            assert (usage.instances, usage.vcpus_allocated, usage.disk_gb_allocated) == (2, 2, 1)
        (line,) = (record.getMessage() for record in caplog.records)
        assert line.startswith("libvirt does not tell the size of the disks of domain one, ")
    finally:
        os.kill(guests.qemu_pid("one"), signal.SIGCONT)
    wait_until(lambda: late.usage().disk_gb_allocated == 2, LIMIT_S, "the disk is not counted")
    assert collector.usage().instances == 2
