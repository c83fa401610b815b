"""The kinds of compute nodes and of instances that a simulated fleet is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

MAX_INSTANCES = 32
"""Most instances that any simulated host takes."""


@dataclass(frozen=True)
class Flavour:
    """The resources allocated to one instance.

    Attributes:
        share: fraction of all requests that ask for this flavour.
    """

    vcpus: int
    memory_mb: int
    disk_gb: int
    share: float


FLAVOURS = (
    Flavour(vcpus=1, memory_mb=2_048, disk_gb=20, share=0.20),
    Flavour(vcpus=2, memory_mb=4_096, disk_gb=40, share=0.30),
    Flavour(vcpus=4, memory_mb=8_192, disk_gb=80, share=0.25),
    Flavour(vcpus=8, memory_mb=32_768, disk_gb=160, share=0.15),
    Flavour(vcpus=16, memory_mb=65_536, disk_gb=320, share=0.08),
    Flavour(vcpus=32, memory_mb=262_144, disk_gb=640, share=0.02),
)


@dataclass(frozen=True)
class Shape:
    """One kind of compute node.

    Attributes:
        share: fraction of the fleet that is of this kind.
        max_instances: most instances on one such node, at most MAX_INSTANCES.
        cpu_count: hardware threads.
        vcpu_ratio: how often a hardware thread is allocated; 1.0 means instances are pinned.
        memory_reserved_mb: MiB reserved for the node itself.
        numa_cells: cells that CPUs and memory are split evenly over.
        huge_page_kb: size of the pages that all of its instances' memory comes from; 0: ordinary pages.
        gpus: GPUs for instances, one per instance.
        utilization: mean share of its vcpus that an instance keeps busy, 0..1.
        steal: extra time that an underlying hypervisor steals, as a share of the node's busy time; 0 on bare metal.
        disk_bytes_per_s: maximum disk throughput, each way.
        nic_bytes_per_s: maximum network throughput, each way.
        pressure: whether its kernel has PSI.
        traits: standard names of os-traits and CUSTOM_*.
    """

    name: str
    share: float
    max_instances: int
    cpu_count: int
    vcpu_ratio: float
    memory_mb: int
    memory_reserved_mb: int
    memory_ratio: float
    disk_gb: int
    numa_cells: int
    huge_page_kb: int
    gpus: int
    utilization: float
    steal: float
    disk_bytes_per_s: int
    nic_bytes_per_s: int
    pressure: bool
    traits: tuple[str, ...]

    @property
    def capacity(self) -> tuple[int, int, int]:
        """Vcpus, MiB and GiB that can be allocated: floor((total - reserved) * allocation ratio)."""
        return (
            math.floor(self.cpu_count * self.vcpu_ratio),
            math.floor((self.memory_mb - self.memory_reserved_mb) * self.memory_ratio),
            self.disk_gb,
        )


_X86 = ("HW_CPU_X86_AESNI", "HW_CPU_X86_AVX2", "HW_CPU_HYPERTHREADING")

SHAPES = (
    Shape(
        name="general", share=0.55, max_instances=32, cpu_count=64, vcpu_ratio=4.0,
        memory_mb=262_144, memory_reserved_mb=8_192, memory_ratio=1.0, disk_gb=3_840, numa_cells=2, huge_page_kb=0,
        gpus=0, utilization=0.30, steal=0.0, disk_bytes_per_s=2_000_000_000, nic_bytes_per_s=3_125_000_000,
        pressure=True, traits=(*_X86, "STORAGE_DISK_SSD"),
    ),
    Shape(
        name="pinned", share=0.20, max_instances=32, cpu_count=128, vcpu_ratio=1.0,
        memory_mb=524_288, memory_reserved_mb=16_384, memory_ratio=1.0, disk_gb=7_680, numa_cells=4,
        huge_page_kb=1_048_576, gpus=0, utilization=0.55, steal=0.0, disk_bytes_per_s=3_000_000_000,
        nic_bytes_per_s=12_500_000_000, pressure=True,
        traits=(*_X86, "HW_CPU_X86_AVX512F", "HW_NIC_SRIOV", "STORAGE_DISK_SSD"),
    ),
    Shape(
        name="memory", share=0.10, max_instances=32, cpu_count=96, vcpu_ratio=2.0,
        memory_mb=1_572_864, memory_reserved_mb=32_768, memory_ratio=1.0, disk_gb=7_680, numa_cells=2, huge_page_kb=0,
        gpus=0, utilization=0.35, steal=0.0, disk_bytes_per_s=3_000_000_000, nic_bytes_per_s=6_250_000_000,
        pressure=True, traits=(*_X86, "HW_CPU_X86_AVX512F", "STORAGE_DISK_SSD", "CUSTOM_MEMORY_LARGE"),
    ),
    Shape(
        name="gpu", share=0.05, max_instances=8, cpu_count=96, vcpu_ratio=1.0,
        memory_mb=786_432, memory_reserved_mb=16_384, memory_ratio=1.0, disk_gb=7_680, numa_cells=2, huge_page_kb=0,
        gpus=8, utilization=0.60, steal=0.0, disk_bytes_per_s=3_000_000_000, nic_bytes_per_s=12_500_000_000,
        pressure=True, traits=(*_X86, "HW_CPU_X86_AVX512F", "STORAGE_DISK_SSD", "CUSTOM_GPU_A100"),
    ),
    # Old nodes at the edge: a spinning disk, memory overcommitted, a kernel without PSI, themselves virtual.
    Shape(
        name="edge", share=0.10, max_instances=12, cpu_count=16, vcpu_ratio=4.0,
        memory_mb=65_536, memory_reserved_mb=4_096, memory_ratio=1.5, disk_gb=1_900, numa_cells=1, huge_page_kb=0,
        gpus=0, utilization=0.20, steal=0.03, disk_bytes_per_s=180_000_000, nic_bytes_per_s=125_000_000,
        pressure=False, traits=("HW_CPU_X86_AESNI", "STORAGE_DISK_HDD"),
    ),
)  # fmt: skip  # a table with one node per entry


def inventories(shape: Shape) -> dict[str, dict[str, Any]]:
    """The node's inventory by resource class, in the form of HostInventory.inventories."""
    amounts = {
        "VCPU": _amount(shape.cpu_count, shape.vcpu_ratio),
        "MEMORY_MB": _amount(shape.memory_mb, shape.memory_ratio, shape.memory_reserved_mb),
        "DISK_GB": _amount(shape.disk_gb, 1.0),
    }
    if shape.gpus:
        amounts["PGPU"] = _amount(shape.gpus, 1.0)
    return amounts


def numa_cells(shape: Shape, vcpus_allocated: int, memory_mb_allocated: int) -> list[dict[str, Any]]:
    """Its NUMA cells, in the form of HostInventory.numa_cells; instances fill one cell after the other."""
    cpus_per_cell = shape.cpu_count // shape.numa_cells
    memory_mb_per_cell = shape.memory_mb // shape.numa_cells
    pinned = vcpus_allocated if shape.vcpu_ratio == 1.0 else 0
    page_mb = shape.huge_page_kb // 1024
    cells = []
    for cell in range(shape.numa_cells):
        first, end = cell * cpus_per_cell, (cell + 1) * cpus_per_cell
        left_mb = memory_mb_per_cell - min(max(memory_mb_allocated - cell * memory_mb_per_cell, 0), memory_mb_per_cell)
        pages = [{"size_kb": 4, "total": memory_mb_per_cell * 256, "free": left_mb * 256}]
        if page_mb:
            total = (shape.memory_mb - shape.memory_reserved_mb) // shape.numa_cells // page_mb
            taken = -(-memory_mb_allocated // page_mb) - cell * total
            pages = [{"size_kb": shape.huge_page_kb, "total": total, "free": total - min(max(taken, 0), total)}]
        cells.append(
            {
                "id": cell,
                "cpus": list(range(first, end)),
                "free_cpus": list(range(min(max(pinned, first), end), end)),
                "memory_mb": memory_mb_per_cell,
                "pages": pages,
            }
        )
    return cells


def pci_pools(shape: Shape, instances: int) -> list[dict[str, Any]]:
    """Its GPUs, in the form of HostInventory.pci_pools; every instance of a GPU node holds one."""
    if not shape.gpus:
        return []
    free = max(shape.gpus - instances, 0)
    tags = {"resource_class": "PGPU"}
    return [
        {"vendor_id": "10de", "product_id": "20b5", "numa_node": 0, "total": shape.gpus, "free": free, "tags": tags}
    ]


def allocated(shape: Shape, instances: int) -> dict[str, int]:
    """What its instances hold of the resource classes that HostUsage does not contain."""
    return {"PGPU": min(instances, shape.gpus)} if shape.gpus else {}


def _amount(total: int, ratio: float, reserved: int = 0) -> dict[str, Any]:
    return {
        "total": total,
        "reserved": reserved,
        "min_unit": 1,
        "max_unit": total,
        "step_size": 1,
        "allocation_ratio": ratio,
    }
