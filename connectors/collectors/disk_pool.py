"""A node whose disk comes from a storage pool that hosts share, and the pool as one of them can tell it.

What always holds: the disk is the pool's alone. The node's own readings have none, so that nobody counts it twice; what
its instances hold of the pool stays in disk_gb_allocated, since no other node knows it.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence

from vacancy.connectors.collectors.collector import InventoryReading, UsageReading

SHARES = "MISC_SHARES_VIA_AGGREGATE"
"""The trait from os-traits that marks a sharing provider in Placement."""
_NAMESPACE = uuid.UUID("6a2d8f7e-0e0f-4d0a-9a1d-3c2f5f1c7b55")


def pool_id(name: str) -> str:
    """A pool's host id; whoever reports it computes the same one."""
    return str(uuid.uuid5(_NAMESPACE, name))


def usage_of_node(reading: UsageReading) -> UsageReading:
    """A node's usage without the disk."""
    return dataclasses.replace(reading, disk_gb_capacity=0, disk_gb_available=0)


def inventory_of_node(reading: InventoryReading, pool: str) -> InventoryReading:
    """A node's inventory without the disk, and with the name of the pool."""
    others = {name: inventory for name, inventory in reading.inventories.items() if name != "DISK_GB"}
    return dataclasses.replace(reading, inventories=others, disk_pool=pool)


def usage_of_pool(reading: UsageReading) -> UsageReading:
    """The pool's usage, by that of a node that has it: what it promises, and what is free on it.

    It allocates nothing itself: what each host's instances hold of it, that host says.
    """
    return UsageReading(
        boot_id=reading.boot_id,
        monotonic_ns=reading.monotonic_ns,
        vcpus_capacity=0,
        vcpus_allocated=0,
        memory_mb_capacity=0,
        memory_mb_allocated=0,
        disk_gb_capacity=reading.disk_gb_capacity,
        disk_gb_allocated=0,
        memory_mb_available=0,
        disk_gb_available=reading.disk_gb_available,
        cpu_count=1,  # an event has one at least; it is idle
        cpu_busy_ns=0,
        instances=0,
    )


def inventory_of_pool(reading: InventoryReading, pool: str, aggregates: Sequence[str]) -> InventoryReading:
    """The pool's inventory, by that of a node that has it.

    Raises:
        ValueError: the node has no disk.
    """
    if "DISK_GB" not in reading.inventories:
        raise ValueError(f"no DISK_GB is told, and so nothing of the storage pool {pool}")
    return InventoryReading(
        boot_id=reading.boot_id,
        name=pool,
        inventories={"DISK_GB": reading.inventories["DISK_GB"]},
        traits=(SHARES,),
        aggregates=tuple(aggregates),
        allocated={},
        source=reading.source,
    )
