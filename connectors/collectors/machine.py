"""The host collector: a plain machine's figures, from the kernel.

On Linux it reads /proc and /sys, on other platforms what psutil knows. Nothing here walks over processes; one usage
reading costs some 0.3 ms.

What always holds: a figure that cannot be had, because its file is missing or garbled or does not answer, costs itself
alone: it is null (or, where an event has no null for it, nothing is free), and ``unknown`` says why. Only what a host
cannot do without, its memory and the number of its CPUs, fails the reading.

What it counts: of disks and interfaces see ``devices``, of memory ``memory``. VCPUs are the
CPUs online, disk the file system of ``agent.disk_path``; nothing is allocated, there are no instances.
"""

from __future__ import annotations

import mmap
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vacancy.connectors.collectors.collector import HugePages, Inventory, InventoryReading, NumaCell, UsageReading
from vacancy.connectors.collectors.cpu import CpuTimes, cpu_times
from vacancy.connectors.collectors.devices import (
    Counters,
    LinkChanges,
    counted_disks,
    counted_interfaces,
    disk_rows,
    interface_rows,
)
from vacancy.connectors.collectors.disk_id import disk_id
from vacancy.connectors.collectors.file_system import room_of
from vacancy.connectors.collectors.guest_counters import Row
from vacancy.connectors.collectors.kernel_files import count, read_if_there
from vacancy.connectors.collectors.memory import Memory, MemoryReader
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError

_LINUX = sys.platform == "linux"
_MIB = 2**20
_GIB = 2**30
_MOST_CPUS = 65_536
_PAGE_KB = mmap.PAGESIZE // 1024
_DISK_FIGURES = ("disk_read_bytes", "disk_write_bytes", "disk_read_ops", "disk_write_ops")
_NO_COUNTERS: Row = (None,) * 4
_NET_FIGURES = ("net_rx_bytes", "net_tx_bytes", "net_rx_packets", "net_tx_packets")

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

    Args:
        settings: the file system of instances, what is reserved, names.
        proc: where the kernel shows itself.
        sysfs: where it shows devices.

    Attributes:
        unknown: what the last usage reading does not know, and why.

    Raises:
        ConfigError: ``agent.disk_path`` does not exist.
    """

    def __init__(self, settings: AgentSettings, *, proc: Path = Path("/proc"), sysfs: Path = Path("/sys")) -> None:
        self._settings = settings
        self._proc = proc
        self._sysfs = sysfs
        self._source = _kernel(proc, sysfs) if _LINUX else _psutil()
        path = settings.disk_path
        self._file_system = room_of(path, f"the file system of agent.disk_path {path}")
        try:
            self._file_system()
        except (FileNotFoundError, NotADirectoryError):
            raise ConfigError(f"agent.disk_path: {path} does not exist") from None
        except OSError:
            pass  # each reading says so
        self._disk_gb = 0
        self._device: int | None = None
        self._disk_ids: dict[tuple[Path, int | None], str] = {}
        self.unknown: dict[str, str] = {}
        self._boot_id = boot_id(proc)
        self._name = settings.name or socket.gethostname()
        self._traits = tuple(sorted({*cpu_traits(proc / "cpuinfo"), *settings.traits}))

    def watch(self, wake: Callable[[], None]) -> None:
        """Does nothing: the kernel tells of no change by itself."""

    def usage(self, *, devices: bool = True) -> UsageReading:
        """What is in use now.

        Args:
            devices: whether to read what disks and interfaces have counted.

        Raises:
            OSError: how much memory or how many CPUs there are cannot be read.
            ValueError: the same.
        """
        unknown: dict[str, str] = {}
        self.unknown = unknown
        memory = self._source.memory()
        disk_gb, disk_gb_available = self._disk(unknown)
        # Counters and clock at one moment: what may take its time comes before them.
        monotonic_ns = _since_boot_ns()
        cpu = self._source.cpu_times()
        disk = net = _NO_COUNTERS
        if devices:
            disk = self._counters(self._source.disks, _DISK_FIGURES, unknown)
            net = self._counters(self._source.interfaces, _NET_FIGURES, unknown)
        for figure, value in (("busy", cpu.busy_ns), ("iowait", cpu.iowait_ns), ("steal", cpu.steal_ns)):
            if value is None and figure in self._source.cpu_figures:
                unknown[f"cpu_{figure}_ns"] = f"the first line of {self._proc / 'stat'} does not tell it"
        inventories = self._inventories(cpu.cpus, memory.total, disk_gb)
        return UsageReading(
            boot_id=self._boot_id,
            monotonic_ns=monotonic_ns,
            vcpus_capacity=inventories["VCPU"].capacity,
            vcpus_allocated=0,
            memory_mb_capacity=inventories["MEMORY_MB"].capacity,
            memory_mb_allocated=0,
            disk_gb_capacity=inventories["DISK_GB"].capacity,
            disk_gb_allocated=0,
            memory_mb_available=memory.available // _MIB,
            disk_gb_available=disk_gb_available,
            cpu_count=cpu.cpus,
            cpu_busy_ns=cpu.busy_ns,
            cpu_iowait_ns=cpu.iowait_ns,
            cpu_steal_ns=cpu.steal_ns,
            disk_read_bytes=disk[0],
            disk_write_bytes=disk[1],
            disk_read_ops=disk[2],
            disk_write_ops=disk[3],
            net_rx_bytes=net[0],
            net_tx_bytes=net[1],
            net_rx_packets=net[2],
            net_tx_packets=net[3],
            cpu_pressure_us=self._pressure_us("cpu", unknown),
            memory_pressure_us=self._pressure_us("memory", unknown),
            io_pressure_us=self._pressure_us("io", unknown),
            instances=0,
            uncertain=("disk_gb_capacity",) if "disk_gb_available" in unknown else None,
        )

    def inventory(self) -> InventoryReading:
        """What the machine is.

        Raises:
            OSError: how much memory or how many CPUs there are cannot be read.
            ValueError: the same.
        """
        settings = self._settings
        disk_gb, _ = self._disk({})
        return InventoryReading(
            boot_id=self._boot_id,
            name=self._name,
            zone=settings.zone,
            inventories=self._inventories(self._source.cpu_times().cpus, self._source.memory().total, disk_gb),
            traits=self._traits,
            aggregates=settings.aggregates,
            numa_cells=numa_cells(self._sysfs),
            allocated={},  # it has no instances
            source="host",
            disk_id=self.disk_id(settings.disk_path, self._device),
        )

    def disk_id(self, path: Path, device: int | None) -> str | None:
        """Which file system a path is on, as other nodes know it too; device is what stat() says of it, if known."""
        if (path, device) in self._disk_ids:  # on nodes with thousands of mounts it takes a while to find out
            return self._disk_ids[path, device]
        found = disk_id(path, device, self._boot_id, proc=self._proc, sysfs=self._sysfs)
        if found is not None:
            self._disk_ids[path, device] = found
        return found

    def _inventories(self, cpus: int, memory_bytes: int, disk_gb: int) -> dict[str, Inventory]:
        return inventories(self._settings, cpus, memory_bytes // _MIB, disk_gb)

    def _disk(self, unknown: dict[str, str]) -> tuple[int, int]:
        """GiB of the file system and GiB free on it; while that does not answer what it was, and none free."""
        try:
            device, total, free = self._file_system()
        except OSError as error:
            unknown["disk_gb_available"] = str(error)
            return self._disk_gb, 0
        self._device, self._disk_gb = device, total // _GIB
        return self._disk_gb, free // _GIB

    def _counters(self, counters: Counters, figures: Sequence[str], unknown: dict[str, str]) -> Row:
        """The sums, in the order of the figures."""
        try:
            sums = counters.read()
        except (OSError, ValueError, NotImplementedError) as error:
            unknown |= dict.fromkeys(figures, str(error))
            return _NO_COUNTERS
        missing = [figure for figure, value in zip(figures, sums, strict=True) if value is None]
        if counters.counted:
            unknown |= {figure: f"not all of {', '.join(sorted(counters.counted))} tell it" for figure in missing}
        return sums

    def _pressure_us(self, resource: str, unknown: dict[str, str]) -> int | None:
        """PSI's ``some`` total; None where the kernel has no PSI, or has it switched off."""
        file = f"{self._proc}/pressure/{resource}"
        text = read_if_there(file)
        if not text:
            return None
        match = re.match(r"some .*\btotal=(\d+)", text)
        total = count(match[1]) if match else None
        if total is None:
            unknown[f"{resource}_pressure_us"] = f"{file} does not tell it"
        return total


@dataclass(frozen=True)
class _Source:
    """Where the figures of this platform come from."""

    memory: Callable[[], Memory]
    cpu_times: Callable[[], CpuTimes]
    cpu_figures: frozenset[str]  # those that it always has
    disks: Counters
    interfaces: Counters


def _kernel(proc: Path, sysfs: Path) -> _Source:
    return _Source(
        MemoryReader(proc, sysfs / "fs" / "cgroup"),
        lambda: cpu_times(proc),
        frozenset({"busy", "iowait", "steal"}),
        Counters(lambda: disk_rows(proc), lambda names: counted_disks(names, sysfs)),
        Counters(lambda: interface_rows(proc), lambda names: counted_interfaces(names, sysfs), LinkChanges()),
    )


def _psutil() -> _Source:
    from vacancy.connectors.collectors import portable  # some MiB that only other platforms pay

    return _Source(
        portable.memory,
        portable.cpu_times,
        frozenset({"busy"}),
        Counters(portable.disk_rows, counted_disks),
        Counters(portable.interface_rows, counted_interfaces),
    )


def inventories(settings: AgentSettings, vcpus: int, memory_mb: int, disk_gb: int) -> dict[str, Inventory]:
    """The resource classes that every node has, with what is reserved and the ratios that are set."""
    return {
        "VCPU": Inventory(vcpus, settings.reserved_vcpus, vcpus, settings.vcpu_allocation_ratio),
        "MEMORY_MB": Inventory(memory_mb, settings.reserved_memory_mb, memory_mb, settings.memory_allocation_ratio),
        "DISK_GB": Inventory(disk_gb, settings.reserved_disk_gb, disk_gb, settings.disk_allocation_ratio),
    }


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
    numbered = {int(node.name[4:]): node for node in nodes if node.name[4:].isdecimal()}
    reserved = reserved_pages(sysfs)
    return tuple(_numa_cell(number, numbered[number], reserved) for number in sorted(numbered))


def _numa_cell(number: int, node: Path, reserved: Mapping[int, int]) -> NumaCell:
    """What cannot be read of a cell is not there."""
    try:
        cpus = parse_cpu_list(read_if_there(f"{node}/cpulist") or "")
    except ValueError:
        cpus = ()
    total = re.search(r"MemTotal:\s+(\d+) kB", read_if_there(f"{node}/meminfo") or "")
    memory_mb = (count(total[1]) or 0) // 1024 if total else 0
    huge_pages = [
        HugePages(size_kb, total, max(0, min(total, free or 0) - reserved.get(size_kb, 0)))
        for size_kb, total, free in _page_counts(node / "hugepages", "free_hugepages")
    ]
    return NumaCell(
        id=number, cpus=cpus, free_cpus=cpus, memory_mb=memory_mb, pages=with_base_pages(memory_mb, huge_pages, 0)
    )


def with_base_pages(memory_mb: int, huge_pages: Sequence[HugePages], held_kb: int) -> tuple[HugePages, ...]:
    """The pages of a cell with those of the kernel's own size, which all the memory is that is in no huge page.

    Args:
        memory_mb: of the cell.
        huge_pages: its huge pages, smallest first.
        held_kb: what instances hold of the rest.
    """
    left_kb = max(0, memory_mb * 1024 - sum(pages.size_kb * pages.total for pages in huge_pages))
    base = HugePages(_PAGE_KB, left_kb // _PAGE_KB, max(0, left_kb - held_kb) // _PAGE_KB)
    return (base, *huge_pages)


def reserved_pages(sysfs: Path = Path("/sys")) -> dict[int, int]:
    """Huge pages by size in KiB that processes have been promised and have not touched yet.

    The kernel counts them as free, and does not say in which cell they will be: none of them is free in any.
    """
    pages = _page_counts(sysfs / "kernel" / "mm" / "hugepages", "resv_hugepages")
    return {size_kb: total if reserved is None else reserved for size_kb, total, reserved in pages}


def _page_counts(directory: Path, second: str) -> list[tuple[int, int, int | None]]:
    """The sizes in KiB of which there are pages, smallest first; how many, and what another file counts."""
    pages = []
    for entry in directory.glob("hugepages-*kB"):
        size_kb = count(entry.name.removeprefix("hugepages-").removesuffix("kB"))
        total = count(read_if_there(f"{entry}/nr_hugepages"))
        if size_kb and total:
            pages.append((size_kb, total, count(read_if_there(f"{entry}/{second}"))))
    return sorted(pages)


def parse_cpu_list(text: str) -> tuple[int, ...]:
    """The kernel's list format: ``"0-2,5"`` is (0, 1, 2, 5).

    Raises:
        ValueError: it is garbled, or has numbers that no CPU has.
    """
    cpus: list[int] = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers = range(int(first), int(last or first) + 1)
        if numbers and not 0 <= numbers[0] <= numbers[-1] < _MOST_CPUS:
            raise ValueError(f"{part} is no range of CPUs")
        cpus.extend(numbers)
    return tuple(cpus)


def boot_id(proc: Path = Path("/proc")) -> str:
    """Changes with every boot: the kernel's own id, or one made of the time of the boot."""
    if text := read_if_there(f"{proc}/sys/kernel/random/boot_id"):
        return text
    booted = re.search(r"^btime (\d+)$", read_if_there(f"{proc}/stat") or "", re.MULTILINE)
    if booted:
        return str(uuid.uuid5(uuid.NAMESPACE_OID, f"boot at {booted[1]}"))
    if _LINUX:
        return str(uuid.uuid4())  # then the counters begin anew with the agent
    from vacancy.connectors.collectors import portable

    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"boot at {portable.boot_time_s()}"))


def _since_boot_ns() -> int:
    if _LINUX:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return time.monotonic_ns()
