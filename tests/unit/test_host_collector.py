"""Compares the host collector with the kernel's figures, which the tests read themselves."""

from __future__ import annotations

import dataclasses
import os
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.collectors.collector import HugePages, Inventory
from vacancy.connectors.collectors.devices import counted_disks, counted_interfaces
from vacancy.connectors.collectors.machine import HostCollector, cpu_traits, numa_cells, parse_cpu_list
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError

linux = pytest.mark.skipif(not Path("/proc/stat").exists(), reason="reads Linux's /proc")
NS_PER_TICK = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def _meminfo_mb(key: str) -> int:
    match = re.search(rf"^{key}:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert match
    return int(match[1]) // 1024


def _cpu_ticks() -> dict[str, int]:
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    return dict(zip(names, map(int, fields), strict=False))


def _busy_ns() -> int:
    ticks = _cpu_ticks()
    return sum(ticks[name] for name in ("user", "nice", "system", "irq", "softirq")) * NS_PER_TICK


@linux
def test_figures_are_the_kernels() -> None:
    collector = HostCollector(AgentSettings(reserved_memory_mb=512))
    busy_before, boottime_before = _busy_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    usage = collector.usage()
    busy_after, boottime_after = _busy_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    assert usage.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert boottime_before <= usage.monotonic_ns <= boottime_after
    assert busy_before <= (usage.cpu_busy_ns or 0) <= busy_after
    assert usage.cpu_count == len(re.findall(r"^cpu\d", Path("/proc/stat").read_text(), re.MULTILINE))
    assert usage.cpu_steal_ns is not None
    assert abs(usage.cpu_steal_ns - _cpu_ticks()["steal"] * NS_PER_TICK) <= 10 * NS_PER_TICK
    assert usage.memory_mb_capacity == _meminfo_mb("MemTotal") - 512
    assert usage.memory_mb_available == pytest.approx(_meminfo_mb("MemAvailable"), rel=0.05)
    disk = os.statvfs("/")
    assert usage.disk_gb_capacity == disk.f_blocks * disk.f_frsize // 2**30
    assert usage.disk_gb_available == pytest.approx(disk.f_bavail * disk.f_frsize / 2**30, abs=1.1)
    assert (usage.instances, usage.vcpus_allocated, usage.memory_mb_allocated, usage.disk_gb_allocated) == (0, 0, 0, 0)


@linux
def test_work_shows_as_cpu_time() -> None:
    collector = HostCollector(AgentSettings())
    before = collector.usage()
    worked_until = time.process_time_ns() + 300_000_000
    while time.process_time_ns() < worked_until:
        pass
    after = collector.usage()
    assert before.cpu_busy_ns is not None
    assert after.cpu_busy_ns is not None
    elapsed_ns = after.monotonic_ns - before.monotonic_ns
    assert after.cpu_busy_ns - before.cpu_busy_ns >= 300_000_000 - 3 * NS_PER_TICK
    assert after.cpu_busy_ns - before.cpu_busy_ns <= elapsed_ns * after.cpu_count + 3 * after.cpu_count * NS_PER_TICK


@linux
def test_pressure_is_the_kernels_or_null() -> None:
    usage = HostCollector(AgentSettings()).usage()
    for resource in ("cpu", "memory", "io"):
        value = getattr(usage, f"{resource}_pressure_us")
        try:
            some = Path(f"/proc/pressure/{resource}").read_text().splitlines()[0]
        except OSError:
            assert value is None
        else:
            assert value <= int(some.rpartition("=")[2])


@linux
def test_a_written_file_shows_on_the_disks_or_there_are_none(tmp_path: Path) -> None:
    collector = HostCollector(AgentSettings(disk_path=tmp_path))
    before = collector.usage()
    with (tmp_path / "file").open("wb") as file:
        file.write(os.urandom(8 * 2**20))
        file.flush()
        os.fsync(file.fileno())
    after = collector.usage()
    if before.disk_write_bytes is None or not _on_a_disk(tmp_path):
        pytest.skip("the temporary directory is on no disk of this machine")
    assert after.disk_write_bytes is not None
    assert after.disk_write_ops is not None
    assert before.disk_write_ops is not None
    # Other processes may write meanwhile.
    assert 8 * 2**20 <= after.disk_write_bytes - before.disk_write_bytes < 200 * 2**20
    assert after.disk_write_ops > before.disk_write_ops


def _on_a_disk(directory: Path) -> bool:
    device = directory.stat().st_dev
    node = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}")
    return node.exists() and "/virtual/" not in str(node.resolve())


@linux
def test_counters_never_go_back() -> None:
    collector = HostCollector(AgentSettings())
    first, second = (dataclasses.asdict(collector.usage()) for _ in range(2))
    for name, value in first.items():
        if name.endswith(("_bytes", "_ops", "_packets", "_us", "busy_ns", "steal_ns", "monotonic_ns")):
            assert (value is None) == (second[name] is None)
            assert value is None or 0 <= value <= second[name], name


@linux
def test_inventory_is_the_machines_and_stays_equal() -> None:
    settings = AgentSettings(name="node1", zone="z1", traits=("CUSTOM_RACK_7",), vcpu_allocation_ratio=4.0)
    collector = HostCollector(settings)
    inventory = collector.inventory()
    assert (inventory.name, inventory.zone, inventory.status) == ("node1", "z1", "ENABLED")
    assert inventory.inventories.keys() == {"VCPU", "MEMORY_MB", "DISK_GB"}
    assert inventory.inventories["MEMORY_MB"].total == _meminfo_mb("MemTotal")
    assert inventory.inventories["VCPU"].capacity == 4 * (os.cpu_count() or 1)
    assert "CUSTOM_RACK_7" in inventory.traits
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    assert ("HW_CPU_X86_AVX2" in inventory.traits) == (flags is not None and "avx2" in flags[1].split())
    assert collector.inventory().inventories == inventory.inventories


@pytest.mark.parametrize(
    ("total", "reserved", "ratio", "capacity"),
    [(100, 0, 1.0, 100), (7, 2, 1.5, 7), (4, 0, 16.0, 64), (512, 1024, 1.0, 0), (3, 0, 0.5, 1)],
)
def test_capacity_is_placements(total: int, reserved: int, ratio: float, capacity: int) -> None:
    assert Inventory(total, reserved, total, ratio).capacity == capacity


def test_a_disk_path_that_does_not_exist_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"agent\.disk_path: .*/none does not exist"):
        HostCollector(AgentSettings(disk_path=tmp_path / "none"))


def _device(sysfs: Path, link: str, target: str, **files: str) -> None:
    """A device in a made-up sysfs: its directory, its files, and the link by its name."""
    directory = sysfs / "devices" / target
    directory.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (directory / name).write_text(text)
    (sysfs / link).parent.mkdir(parents=True, exist_ok=True)
    (sysfs / link).symlink_to(directory)


def test_disks_that_reach_hardware_count_once(tmp_path: Path) -> None:
    # A SATA disk with a partition, RAID and LVM over it, a multipath NVMe disk with its hidden path, loop and zram.
    _device(tmp_path, "block/sda", "pci0000:00/ata1/block/sda", hidden="0")
    for virtual in ("dm-0", "md0", "loop0", "zram0", "ram0"):
        _device(tmp_path, f"block/{virtual}", f"virtual/block/{virtual}", hidden="0")
    _device(tmp_path, "block/nvme0n1", "virtual/nvme-subsystem/nvme-subsys0/nvme0n1", hidden="0")
    _device(tmp_path, "block/nvme0c0n1", "pci0000:00/nvme/nvme0/nvme0c0n1", hidden="1")
    _device(tmp_path, "block/cciss!c0d0", "pci0000:01/block/cciss!c0d0", hidden="0")
    names = ["sda", "sda1", "dm-0", "md0", "loop0", "zram0", "ram0", "nvme0n1", "nvme0n1p1", "nvme0c0n1", "cciss/c0d0"]
    assert set(counted_disks(names, tmp_path)) == {"sda", "nvme0n1", "cciss/c0d0"}


def test_interfaces_of_a_hypervisor_count_once(tmp_path: Path) -> None:
    # Two cards in a bond, the bond in a bridge, and the bridge's ports to an instance and a container.
    _device(tmp_path, "class/net/lo", "virtual/net/lo", type="772")
    for card in ("eno1", "eno2"):
        _device(tmp_path, f"class/net/{card}", f"pci0000:00/net/{card}", type="1")
    for virtual in ("bond0", "br0", "tap7", "veth1a2b", "bond0.100"):
        _device(tmp_path, f"class/net/{virtual}", f"virtual/net/{virtual}", type="1")
    names = ["lo", "eno1", "eno2", "bond0", "br0", "tap7", "veth1a2b", "bond0.100"]
    assert set(counted_interfaces(names, tmp_path)) == {"eno1", "eno2"}


def test_interfaces_of_a_container_count_but_not_those_on_top_of_others(tmp_path: Path) -> None:
    _device(tmp_path, "class/net/lo", "virtual/net/lo", type="772")
    _device(tmp_path, "class/net/eth0", "virtual/net/eth0", type="1")
    _device(tmp_path, "class/net/vlan5", "virtual/net/vlan5", type="1", lower_eth0="")
    assert set(counted_interfaces(["lo", "eth0", "vlan5"], tmp_path)) == {"eth0"}


def test_without_sysfs_all_but_loopback_count(tmp_path: Path) -> None:
    assert set(counted_interfaces(["lo0", "en0"], tmp_path)) == {"en0"}
    assert set(counted_disks(["disk0"], tmp_path)) == {"disk0"}


def test_numa_cells_and_their_huge_pages(tmp_path: Path) -> None:
    for number, cpus in ((10, "2-3"), (2, "0-1,4")):
        node = tmp_path / f"devices/system/node/node{number}"
        for size_kb, total, free in ((2048, 512, 500), (1_048_576, 0, 0)):
            pages = node / f"hugepages/hugepages-{size_kb}kB"
            pages.mkdir(parents=True)
            (pages / "nr_hugepages").write_text(f"{total}\n")
            (pages / "free_hugepages").write_text(f"{free}\n")
        (node / "cpulist").write_text(f"{cpus}\n")
        (node / "meminfo").write_text(f"Node {number} MemTotal:        4194304 kB\n")
    cells = numa_cells(tmp_path)
    assert [(cell.id, cell.cpus, cell.free_cpus, cell.memory_mb) for cell in cells] == [
        (2, (0, 1, 4), (0, 1, 4), 4096),
        (10, (2, 3), (2, 3), 4096),
    ]
    page_kb = os.sysconf("SC_PAGE_SIZE") // 1024
    left = (4_194_304 - 512 * 2048) // page_kb
    assert cells[0].pages == (HugePages(page_kb, left, left), HugePages(2048, 512, 500))


def test_no_numa_and_no_flags_where_the_kernel_lists_none(tmp_path: Path) -> None:
    assert numa_cells(tmp_path) == ()
    assert cpu_traits(tmp_path / "cpuinfo") == set()


@given(st.sets(st.integers(0, 300)))
def test_cpu_lists_read_back(cpus: set[int]) -> None:
    assert parse_cpu_list(",".join(map(str, sorted(cpus)))) == tuple(sorted(cpus))


@given(st.integers(0, 500), st.integers(0, 500))
def test_cpu_ranges_read_back(first: int, length: int) -> None:
    assert parse_cpu_list(f"{first}-{first + length}\n") == tuple(range(first, first + length + 1))
