"""The host collector: a plain machine's figures, from the kernel.

It takes psutil's figures where psutil has them, which makes it run on any platform that psutil knows. On Linux it adds
what only /proc and /sys tell: the boot id, a clock that counts suspend, pressure, NUMA cells, huge pages and CPU flags.
Nothing here walks over processes; one usage reading costs some 0.2 ms.

What it counts:

- Disks: whole disks whose I/O reaches hardware. The kernel keeps loop, RAM, device-mapper and RAID devices under
  /sys/devices/virtual/block, and their I/O shows up again on the disks below them; partitions are parts of disks.
- Network: interfaces backed by hardware (or by what a hypervisor presents as such). Bridges, bonds, VLANs, tunnels and
  the ends of containers and instances are under /sys/devices/virtual/net, and what they carry beyond this node passes a
  hardware interface too. Where there is none, as in a container, all interfaces count but loopback and those stacked on
  another. Traffic that stays on the node is not network traffic.
- VCPUs are the CPUs online, disk the file system of ``agent.disk_path``; nothing is allocated, there are no instances.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

import psutil

from vacancy.connectors.collectors.collector import HugePages, Inventory, InventoryReading, NumaCell, UsageReading
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError

_LINUX = sys.platform == "linux"
_MIB = 2**20
_GIB = 2**30
_NS = 1_000_000_000

_X86_TRAITS = {
    "3dnow": "HW_CPU_X86_3DNOW",
    "abm": "HW_CPU_X86_ABM",
    "aes": "HW_CPU_X86_AESNI",
    "amx_bf16": "HW_CPU_X86_AMXBF16",
    "amx_int8": "HW_CPU_X86_AMXINT8",
    "amx_tile": "HW_CPU_X86_AMXTILE",
    "avx": "HW_CPU_X86_AVX",
    "avx2": "HW_CPU_X86_AVX2",
    "avx512_bitalg": "HW_CPU_X86_AVX512BITALG",
    "avx512_vbmi2": "HW_CPU_X86_AVX512VBMI2",
    "avx512_vnni": "HW_CPU_X86_AVX512VNNI",
    "avx512_vpopcntdq": "HW_CPU_X86_AVX512VPOPCNTDQ",
    "avx512bw": "HW_CPU_X86_AVX512BW",
    "avx512cd": "HW_CPU_X86_AVX512CD",
    "avx512dq": "HW_CPU_X86_AVX512DQ",
    "avx512er": "HW_CPU_X86_AVX512ER",
    "avx512f": "HW_CPU_X86_AVX512F",
    "avx512ifma": "HW_CPU_X86_AVX512IFMA",
    "avx512pf": "HW_CPU_X86_AVX512PF",
    "avx512vbmi": "HW_CPU_X86_AVX512VBMI",
    "avx512vl": "HW_CPU_X86_AVX512VL",
    "bmi1": "HW_CPU_X86_BMI",
    "bmi2": "HW_CPU_X86_BMI2",
    "f16c": "HW_CPU_X86_F16C",
    "fma": "HW_CPU_X86_FMA3",
    "fma4": "HW_CPU_X86_FMA4",
    "mmx": "HW_CPU_X86_MMX",
    "pclmulqdq": "HW_CPU_X86_CLMUL",
    "pdpe1gb": "HW_CPU_X86_PDPE1GB",
    "pni": "HW_CPU_X86_SSE3",
    "sgx": "HW_CPU_X86_SGX",
    "sha_ni": "HW_CPU_X86_SHA",
    "sse": "HW_CPU_X86_SSE",
    "sse2": "HW_CPU_X86_SSE2",
    "sse4_1": "HW_CPU_X86_SSE41",
    "sse4_2": "HW_CPU_X86_SSE42",
    "sse4a": "HW_CPU_X86_SSE4A",
    "ssse3": "HW_CPU_X86_SSSE3",
    "stibp": "HW_CPU_X86_STIBP",
    "svm": "HW_CPU_X86_SVM",
    "tbm": "HW_CPU_X86_TBM",
    "vmx": "HW_CPU_X86_VMX",
    "xop": "HW_CPU_X86_XOP",
}
"""The kernel's CPU flag to the trait of os-traits, where the two mean the same."""
_LIBVIRT_NAMES = {"pclmuldq": "pclmulqdq"}
"""What libvirt calls by a name of its own."""


class HostCollector:
    """Reads this machine.

    Raises:
        ConfigError: ``agent.disk_path`` does not exist.
    """

    def __init__(self, settings: AgentSettings) -> None:
        if not settings.disk_path.exists():
            raise ConfigError(f"agent.disk_path: {settings.disk_path} does not exist")
        self._settings = settings
        self._boot_id = boot_id()
        self._name = settings.name or socket.gethostname()
        self._traits = tuple(sorted({*cpu_traits(), *settings.traits}))
        self._disks = _Selection(counted_disks)
        self._interfaces = _Selection(counted_interfaces)

    def watch(self, wake: Callable[[], None]) -> None:
        """Does nothing: the kernel tells of no change by itself."""

    def usage(self) -> UsageReading:
        """What is in use now."""
        memory = psutil.virtual_memory()
        disk = psutil.disk_usage(str(self._settings.disk_path))
        inventories = self._inventories(memory.total, disk.total)
        disk_counters = _sums(
            psutil.disk_io_counters(perdisk=True, nowrap=False),
            self._disks,
            ("read_bytes", "write_bytes", "read_count", "write_count"),
        )
        net_counters = _sums(
            psutil.net_io_counters(pernic=True, nowrap=False),
            self._interfaces,
            ("bytes_recv", "bytes_sent", "packets_recv", "packets_sent"),
        )
        cpu = psutil.cpu_times()
        return UsageReading(
            boot_id=self._boot_id,
            monotonic_ns=_since_boot_ns(),
            vcpus_capacity=inventories["VCPU"].capacity,
            vcpus_allocated=0,
            memory_mb_capacity=inventories["MEMORY_MB"].capacity,
            memory_mb_allocated=0,
            disk_gb_capacity=inventories["DISK_GB"].capacity,
            disk_gb_allocated=0,
            memory_mb_available=memory.available // _MIB,
            disk_gb_available=disk.free // _GIB,
            cpu_count=inventories["VCPU"].total,
            # Linux counts guests in user and nice already.
            cpu_busy_ns=_ns(sum(getattr(cpu, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))),
            cpu_iowait_ns=_ns(cpu.iowait) if hasattr(cpu, "iowait") else None,
            cpu_steal_ns=_ns(cpu.steal) if hasattr(cpu, "steal") else None,
            disk_read_bytes=disk_counters[0],
            disk_write_bytes=disk_counters[1],
            disk_read_ops=disk_counters[2],
            disk_write_ops=disk_counters[3],
            net_rx_bytes=net_counters[0],
            net_tx_bytes=net_counters[1],
            net_rx_packets=net_counters[2],
            net_tx_packets=net_counters[3],
            cpu_pressure_us=_pressure_us("cpu"),
            memory_pressure_us=_pressure_us("memory"),
            io_pressure_us=_pressure_us("io"),
            instances=0,
        )

    def inventory(self) -> InventoryReading:
        """What the machine is."""
        settings = self._settings
        return InventoryReading(
            boot_id=self._boot_id,
            name=self._name,
            zone=settings.zone,
            inventories=self._inventories(
                psutil.virtual_memory().total, psutil.disk_usage(str(settings.disk_path)).total
            ),
            traits=self._traits,
            aggregates=settings.aggregates,
            numa_cells=numa_cells(),
            allocated={},  # it has no instances
            source="host",
        )

    def _inventories(self, memory_bytes: int, disk_bytes: int) -> dict[str, Inventory]:
        return inventories(self._settings, psutil.cpu_count() or 1, memory_bytes // _MIB, disk_bytes // _GIB)


def inventories(settings: AgentSettings, vcpus: int, memory_mb: int, disk_gb: int) -> dict[str, Inventory]:
    """The resource classes that every node has, with what is reserved and the ratios that are set."""
    return {
        "VCPU": Inventory(vcpus, settings.reserved_vcpus, vcpus, settings.vcpu_allocation_ratio),
        "MEMORY_MB": Inventory(memory_mb, settings.reserved_memory_mb, memory_mb, settings.memory_allocation_ratio),
        "DISK_GB": Inventory(disk_gb, settings.reserved_disk_gb, disk_gb, settings.disk_allocation_ratio),
    }


class _Selection:
    """Which of the devices there are count; decided anew only when the devices change."""

    def __init__(self, rule: Callable[[Collection[str]], Collection[str]]) -> None:
        self._rule = rule
        self._names: frozenset[str] = frozenset()
        self._counted: Collection[str] = ()

    def __call__(self, names: Iterable[str]) -> Collection[str]:
        present = frozenset(names)
        if present != self._names:
            self._names, self._counted = present, self._rule(present)
        return self._counted


def counted_disks(names: Collection[str], sysfs: Path = Path("/sys")) -> Collection[str]:
    """Those whole disks whose I/O reaches hardware; all of them where there is no sysfs."""
    blocks = sysfs / "block"
    if not blocks.is_dir():
        return names

    def counts(name: str) -> bool:
        block = blocks / name.replace("/", "!")
        # A path of a multipath NVMe disk is hidden; the disk that it belongs to is not.
        return block.exists() and "/virtual/block/" not in str(block.resolve()) and _text(block / "hidden") != "1"

    return [name for name in names if counts(name)]


def counted_interfaces(names: Collection[str], sysfs: Path = Path("/sys")) -> Collection[str]:
    """Those interfaces that carry the node's traffic, each byte once; see the module's rule."""
    net = sysfs / "class" / "net"
    others = [name for name in names if not _is_loopback(name, net / name)]
    hardware = [name for name in others if (net / name).exists() and "/virtual/net/" not in str((net / name).resolve())]
    return hardware or [name for name in others if not any((net / name).glob("lower_*"))]


def _is_loopback(name: str, directory: Path) -> bool:
    kind = _text(directory / "type")
    return re.fullmatch(r"lo\d*", name) is not None if kind is None else kind == "772"  # ARPHRD_LOOPBACK


def cpu_traits(cpuinfo: Path = Path("/proc/cpuinfo")) -> set[str]:
    """The traits that the first CPU's flags stand for; empty where the kernel does not list them."""
    try:
        with cpuinfo.open(encoding="utf-8", errors="replace") as lines:
            flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    except OSError:
        return set()
    return traits_of(flags)


def traits_of(features: Iterable[str]) -> set[str]:
    """The traits that CPU features stand for, by the kernel's names for them or by libvirt's."""
    return {_TRAITS[name] for name in map(_plain, features) if name in _TRAITS}


def _plain(feature: str) -> str:
    """A feature's name without what the kernel and libvirt write differently: sse4_1 is sse4.1, sha_ni is sha-ni."""
    return re.sub(r"[-._]", "", feature)


_TRAITS = {_plain(flag): trait for flag, trait in _X86_TRAITS.items()}
_TRAITS |= {name: _TRAITS[flag] for name, flag in _LIBVIRT_NAMES.items()}


def numa_cells(sysfs: Path = Path("/sys")) -> tuple[NumaCell, ...]:
    """The NUMA cells, by number; no CPU is pinned on a plain machine. Empty where the kernel does not list them."""
    nodes = (sysfs / "devices" / "system" / "node").glob("node[0-9]*")
    return tuple(_numa_cell(node) for node in sorted(nodes, key=lambda node: int(node.name.removeprefix("node"))))


def _numa_cell(node: Path) -> NumaCell:
    cpus = parse_cpu_list(_text(node / "cpulist") or "")
    total = re.search(r"MemTotal:\s+(\d+) kB", _text(node / "meminfo") or "")
    return NumaCell(
        id=int(node.name.removeprefix("node")),
        cpus=cpus,
        free_cpus=cpus,
        memory_mb=int(total[1]) // 1024 if total else 0,
        pages=_huge_pages(node / "hugepages"),
    )


def _huge_pages(directory: Path) -> tuple[HugePages, ...]:
    """The sizes of which there are pages, smallest first."""
    pages = []
    for entry in directory.glob("hugepages-*kB"):
        size_kb = int(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        if total := int(_text(entry / "nr_hugepages") or 0):
            pages.append(HugePages(size_kb, total, int(_text(entry / "free_hugepages") or 0)))
    return tuple(sorted(pages, key=lambda page: page.size_kb))


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The kernel's list format: ``"0-2,5"`` is (0, 1, 2, 5)."""
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        cpus.extend(range(int(first), int(last or first) + 1))
    return tuple(cpus)


def boot_id() -> str:
    """Changes with every boot: the kernel's own id, or one made of the time of the boot."""
    if text := _text(Path("/proc/sys/kernel/random/boot_id")):
        return text
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"boot at {psutil.boot_time():.0f}"))


def _since_boot_ns() -> int:
    if _LINUX:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()


def _pressure_us(resource: str) -> int | None:
    """PSI's ``some`` total; None where the kernel has no PSI, or has it switched off."""
    text = _text(Path("/proc/pressure") / resource)
    match = re.match(r"some .*\btotal=(\d+)", text or "")
    return int(match[1]) if match else None


def _sums(counters: dict[str, Any] | None, selection: _Selection, fields: tuple[str, ...]) -> list[int | None]:
    """Each field summed over the devices that count; Nones where there is none."""
    counters = counters or {}
    counted = selection(counters)
    if not counted:
        return [None] * len(fields)
    return [sum(getattr(counters[name], field) for name in counted) for field in fields]


def _ns(seconds: float) -> int:
    return round(seconds * _NS)


def _text(file: Path) -> str | None:
    """A small file of the kernel, stripped; None if it cannot be read."""
    try:
        descriptor = os.open(file, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(descriptor, 65_536).decode("utf-8", "replace").strip()
    except OSError:
        return None
    finally:
        os.close(descriptor)
