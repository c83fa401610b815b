"""What a collector is: something that reads a compute node's figures.

The agent knows nothing else of it, so that figures may come from the kernel, a hypervisor or another service. A
collector gives what it can read; the agent adds who sends it, when, and its number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, slots=True)
class UsageReading:
    """The fields of HostUsage that a collector knows, by the names, units and meanings of its schema.

    A counter that cannot be had now is None. ``uncertain`` names those fields that are, in whole or in part, what they
    were at an earlier reading; None: none.
    """

    boot_id: str
    monotonic_ns: int
    vcpus_capacity: int
    vcpus_allocated: int
    memory_mb_capacity: int
    memory_mb_allocated: int
    disk_gb_capacity: int
    disk_gb_allocated: int
    memory_mb_available: int
    disk_gb_available: int
    cpu_count: int
    cpu_busy_ns: int | None
    instances: int
    cpu_iowait_ns: int | None = None
    cpu_steal_ns: int | None = None
    disk_read_bytes: int | None = None
    disk_write_bytes: int | None = None
    disk_read_ops: int | None = None
    disk_write_ops: int | None = None
    net_rx_bytes: int | None = None
    net_tx_bytes: int | None = None
    net_rx_packets: int | None = None
    net_tx_packets: int | None = None
    cpu_pressure_us: int | None = None
    memory_pressure_us: int | None = None
    io_pressure_us: int | None = None
    recent_consumers: Sequence[str] = ()
    uncertain: Sequence[str] | None = None


FIGURES = frozenset(UsageReading.__annotations__)
"""The names of a UsageReading."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """One resource class, in Placement's terms and the class's unit."""

    total: int
    reserved: int
    max_unit: int
    allocation_ratio: float
    min_unit: int = 1
    step_size: int = 1

    @property
    def capacity(self) -> int:
        """What can be promised, rounded down as Placement rounds; never negative."""
        return max(0, math.floor((self.total - self.reserved) * self.allocation_ratio))


@dataclass(frozen=True, slots=True)
class HugePages:
    """Pages of one size in one cell: huge ones, and those of the kernel's own size, which hold what is in no huge page.

    Of these those are free that no instance holds which is bound to the cell.
    """

    size_kb: int
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class NumaCell:
    """One NUMA node."""

    id: int
    cpus: Sequence[int]
    free_cpus: Sequence[int]
    memory_mb: int
    pages: Sequence[HugePages] = ()


@dataclass(frozen=True, slots=True)
class PciPool:
    """PCI devices of one kind that instances may be given."""

    vendor_id: str
    product_id: str
    numa_node: int | None
    total: int
    free: int
    tags: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class InventoryReading:
    """The fields of HostInventory that a collector knows; equal readings describe the same node.

    What recent consumers hold must be in it by the time that a UsageReading lists them: the agent reads it after that.
    """

    boot_id: str
    name: str
    inventories: dict[str, Inventory]
    status: Literal["ENABLED", "DISABLED"] = "ENABLED"
    status_reason: str | None = None
    zone: str | None = None
    traits: Sequence[str] = ()
    aggregates: Sequence[str] = ()
    numa_cells: Sequence[NumaCell] = ()
    pci_pools: Sequence[PciPool] = ()
    allocated: dict[str, int] | None = None
    source: str = "unknown"
    disk_id: str | None = None
    disk_pool: str | None = None


class Collector(Protocol):
    """Reads one node.

    Either method may raise OSError or ValueError when what a host cannot do without cannot be read now. A collector may
    have an attribute ``unknown``: what its last usage reading does not know for certain, and why, by the figure or by
    what else it is (``domain one``). The agent logs each once and counts such readings; the event names the figures.
    """

    def usage(self) -> UsageReading:
        """What is in use at this moment; called every ``agent.interval``, so it has to be cheap."""

    def inventory(self) -> InventoryReading:
        """What the node is; called every few seconds to see whether it changed."""

    def watch(self, wake: Callable[[], None]) -> None:
        """Has wake called, by any thread, when a usage reading should not wait for its interval.

        Called once, before the first reading. A collector that learns of nothing but by reading does nothing here.
        """
