"""The libvirt collector: a hypervisor's figures, from libvirt and from the kernel.

What the node itself does is the kernel's to say, as on a plain machine (``machine``): CPU time, which has
the guests' in it, available memory and disk, pressure. What is promised to whom, and what guests read, write, receive
and send, is libvirt's, over one connection that may only read.

What holds a node's resources, as Nova's libvirt driver counts:

- A running domain holds the VCPUs that it has now, and the memory that it is defined with: what a balloon holds back
  the guest may have again without asking. One that is paused, or that a migration has brought, is running.
- A domain's disks hold their virtual size whether it runs or not: files, block devices and volumes of local pools, as
  they may grow. Cinder's volumes, disks on the network and CD-ROMs are not the node's. Where ``agent.disk_pools`` names
  pools of libvirt's, these are the node's disk: what they have, and the disks that are in them.

What always holds:

- A domain is counted whole: while libvirt is starting one, its disks cannot be asked for. It becomes one of the recent
  consumers with the very reading that counts it, so that the claim for it is settled then and it never counts twice. A
  domain that is defined and has not been started yet is left to its claim. Only one that libvirt stays busy with, such
  as a migration is bringing, counts after :data:`PATIENCE_S` without the disks that are not told, and that is said.
- What was counted stays counted until it is known to be gone: a domain that libvirt lists, and whose figures it cannot
  tell now, counts with those that it had, and ``unknown`` says so. A guest whose QEMU hangs delays one reading, by half
  a second as a rule, and the counters of the others by one reading.
- Without libvirt there is no reading. After a connection has broken each reading opens another.
- No call waits for libvirt longer than :data:`CALL_LIMIT_S`.
- Sums over guests do not go back when one ends (``guest_counters``); with the agent they begin anew.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from vacancy.connectors.collectors import libvirt_xml
from vacancy.connectors.collectors.collector import Inventory, InventoryReading, UsageReading
from vacancy.connectors.collectors.guest_counters import Sums
from vacancy.connectors.collectors.libvirt_connection import Connection, LibvirtError, LibvirtSilentError
from vacancy.connectors.collectors.libvirt_guests import (
    COUNTERS,
    NOT_TOLD,
    Device,
    Guest,
    Run,
    all_guests,
    listed_guests,
)
from vacancy.connectors.collectors.libvirt_node import Node, look_at_node, mdev_class, numa_cell
from vacancy.connectors.collectors.libvirt_pools import PoolDisk, PoolState, StorageAsker
from vacancy.connectors.collectors.libvirt_xml import Definition, DiskSource
from vacancy.connectors.collectors.machine import HostCollector, inventories
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError

CALL_LIMIT_S = 5.0
RECENT_S = 300.0
"""How long a domain is listed after it began to count: longer than events may be late, and than claims last."""
SETTLING_S = 1.0
"""How long after an event a domain that libvirt is still busy with is looked at again and again: it tells early."""
PATIENCE_S = 10.0
GUESTS_LIMIT_S = 0.5
"""How long the figures of all guests are waited for; four times as long as they last took, where that is longer."""
_MOST_HUNG_GUESTS = 8
"""Calls that a guest's QEMU holds up, because that hangs: each has the next ones pass over this guest."""
_LOG = logging.getLogger("vacancy.agent")
_KB_PER_MB = 1024
_BYTES_PER_GB = 2**30
_SHARE = ("vcpu.current", "balloon.maximum")
_FIGURES = {
    "block": ("disk_read_bytes", "disk_write_bytes", "disk_read_ops", "disk_write_ops"),
    "net": ("net_rx_bytes", "net_tx_bytes", "net_rx_packets", "net_tx_packets"),
}
_OF_GUESTS = (
    "vcpus_allocated",
    "memory_mb_allocated",
    "disk_gb_allocated",
    *(name for names in _FIGURES.values() for name in names),
)
"""The figures that are made of what libvirt tells of guests."""


class LibvirtCollector:
    """Reads this machine and its libvirt.

    Args:
        settings: where libvirt is, and what the host collector takes.
        clock: monotonic seconds.

    Raises:
        ConfigError: ``agent.libvirt_uri`` is another machine's, or ``agent.disk_path`` does not exist.
    """

    def __init__(self, settings: AgentSettings, *, clock: Callable[[], float] = time.monotonic) -> None:
        if urlsplit(settings.libvirt_uri).hostname not in {None, "localhost"}:
            raise ConfigError(
                f"agent.libvirt_uri: {settings.libvirt_uri} is another machine's; run an agent on each hypervisor"
            )
        self._settings = settings
        self._host = HostCollector(settings)
        self._connection = Connection(settings.libvirt_uri, self._on_event)
        self._clock = clock
        self._wake: Callable[[], None] = lambda: None
        self._event_at = -math.inf
        self._node: Node | None = None
        self.unknown: dict[str, str] = {}
        self._disk = PoolDisk(settings.disk_pools)
        self._ask_storage = StorageAsker(settings.libvirt_uri)
        self._pools: Mapping[str, PoolState] = {}
        self._definitions: Mapping[Run, Definition] = {}
        self._guests: dict[Run, Guest] = {}
        self._telling: set[Run] = set()
        self._took_s = math.inf
        self._disk_bytes: dict[tuple[str, str], int] = {}
        self._born: set[str] | None = None
        self._running: set[str] = set()
        self._unclear: dict[Run, float] = {}
        self._lacking: tuple[str, ...] = ()
        self._volume_bytes: dict[DiskSource, int] = {}
        self._began: dict[str, float] = {}
        self._sums = {kind: Sums[Device](len(fields)) for kind, fields in COUNTERS.items()}
        self._seen: dict[str, set[Run]] = {kind: set() for kind in COUNTERS}

    def watch(self, wake: Callable[[], None]) -> None:
        """Has wake called at each event of a domain's life, such as started, stopped, migrated and crashed."""
        self._wake = wake

    def usage(self) -> UsageReading:
        """What is in use now.

        Raises:
            OSError: libvirt cannot be asked, or what a host cannot do without cannot be read.
        """
        node = self._node or self._look_at_node()
        unknown: dict[str, str] = {}
        running, resting = self._counted(self._ask_guests(unknown), unknown)
        uncertain = {*_OF_GUESTS} if unknown else set[str]()
        host = self._host.usage(devices=False)
        unknown |= self._host.unknown
        uncertain |= {*(host.uncertain or ())}
        capacity = inventories(self._settings, node.vcpus, node.memory_mb, 0)
        held_bytes = self._local_bytes([*running, *resting])
        reading = dataclasses.replace(
            host,
            vcpus_capacity=capacity["VCPU"].capacity,
            vcpus_allocated=sum(guest.vcpus for guest in running),
            memory_mb_capacity=capacity["MEMORY_MB"].capacity,
            memory_mb_allocated=_rounded_up(sum(guest.memory_kb for guest in running), _KB_PER_MB),
            disk_gb_allocated=_rounded_up(held_bytes, _BYTES_PER_GB),
            instances=len(running),
            recent_consumers=tuple(self._began),
            **self._sum("block", running),
            **self._sum("net", running),
        )
        if self._settings.disk_pools:
            # Of another disk.
            unknown.pop("disk_gb_available", None)
            uncertain.discard("disk_gb_capacity")
            total, available = self._disk.read(self._pools, held_bytes, unknown)
            if "disk_gb_available" in unknown:
                uncertain.add("disk_gb_capacity")
            disk = inventories(self._settings, 0, 0, total // _BYTES_PER_GB)["DISK_GB"]
            reading = dataclasses.replace(
                reading, disk_gb_capacity=disk.capacity, disk_gb_available=available // _BYTES_PER_GB
            )
        self.unknown = unknown
        return dataclasses.replace(reading, uncertain=tuple(sorted(uncertain)) or None)

    def inventory(self) -> InventoryReading:
        """What the machine is, and what of it no running domain has."""
        node = self._look_at_node()
        host = self._host.inventory()
        running = [definition for run, definition in node.definitions.items() if run.running]
        disk_gb, disk_id = host.inventories["DISK_GB"].total, host.disk_id
        if self._settings.disk_pools:
            disk_gb = self._disk.capacity(self._pools) // _BYTES_PER_GB
            disk_id = self._disk.id(self._pools, self._host.disk_id)
        pci_pools = libvirt_xml.pools(
            node.devices,
            frozenset().union(*(definition.pci_devices for definition in running)),
            frozenset().union(*(definition.mdevs for definition in running)),
        )
        mdevs, held_mdevs = libvirt_xml.mdevs_by_type(pci_pools)
        return dataclasses.replace(
            host,
            source="libvirt",
            name=self._settings.name or node.name or host.name,
            inventories=inventories(self._settings, node.vcpus, node.memory_mb, disk_gb)
            | {mdev_class(mdev): Inventory(total, 0, total, 1.0) for mdev, total in mdevs.items() if total},
            allocated={mdev_class(mdev): count for mdev, count in held_mdevs.items() if count},
            traits=tuple(sorted({*node.traits, *self._settings.traits})),
            numa_cells=tuple(numa_cell(cell, node, running) for cell in node.cells),
            pci_pools=pci_pools,
            disk_id=disk_id,
        )

    def _on_event(self) -> None:
        self._event_at = self._clock()
        self._wake()

    def _look_at_node(self) -> Node:
        known = self._definitions
        node = self._connection.call(lambda connection: look_at_node(connection, known), CALL_LIMIT_S)
        self._definitions = {**self._definitions, **node.definitions}
        lacking = (*node.lacking, *self._look_at_storage(node))
        for line in sorted({*lacking} - {*self._lacking}):
            _LOG.warning("%s", line)
        self._lacking = lacking
        self._node = node
        return node

    def _look_at_storage(self, node: Node) -> tuple[str, ...]:
        """Asks for the pools if the node's disk or a guest's is in one; says it if that is not told."""
        sources = {source for definition in node.definitions.values() for source in definition.sources.values()}
        volumes = {source for source in sources if source.pool}
        if not volumes and not self._settings.disk_pools:
            return ()
        try:
            told = self._ask_storage(volumes)
        except OSError as error:
            return (f"storage pools and volumes count as they did: {error}",)
        # A pool that is not told now is what it was, and has what it had.
        sizes = {**self._volume_bytes, **told.volume_bytes}
        self._volume_bytes = {source: size for source, size in sizes.items() if source in volumes}
        used = {source.pool for source in volumes}
        away = {name: dataclasses.replace(pool, is_active=False) for name, pool in self._pools.items() if name in used}
        self._pools = {**away, **told.pools}
        return ()

    def _ask_guests(self, unknown: dict[str, str]) -> list[Guest]:
        """All domains; where one of them holds libvirt up, all of them without figures."""
        known, counting = self._definitions, self._guests.keys()

        def ask(connection: Any) -> list[Guest]:
            began = time.monotonic()
            guests = all_guests(connection, known, counting)
            self._took_s = time.monotonic() - began  # of a call that was left behind, too
            return guests

        if self._connection.left_behind() <= _MOST_HUNG_GUESTS:
            with suppress(LibvirtSilentError):
                return self._connection.call(ask, min(CALL_LIMIT_S, max(GUESTS_LIMIT_S, 4 * self._took_s)))
        unknown["domains"] = "libvirt does not tell their figures in time, and they count as they did; virsh domstats"
        return self._connection.call(lambda connection: listed_guests(connection, known), CALL_LIMIT_S)

    def _counted(self, asked: list[Guest], unknown: dict[str, str]) -> tuple[list[Guest], list[Guest]]:
        """Those that run and count, and those of which the disks alone do; notes which of the first did not before."""
        now = self._clock()
        guests = [self._with_last_known(guest, unknown) for guest in asked]
        for guest in guests:
            self._disk_bytes |= {(guest.run.uuid, disk): size for disk, size in guest.disk_bytes.items()}
        unclear = {guest.run: guest.name for guest in guests if not self._is_whole(guest)}
        self._unclear = {run: self._unclear.get(run, now) for run in unclear}
        # What counted already goes on.
        waited_for = {
            run for run, since in self._unclear.items() if now - since < PATIENCE_S and run not in self._guests
        }
        for run, name in unclear.items():
            if run not in waited_for:
                unknown[f"domain {name}"] = (
                    "libvirt does not tell the size of its disks, and it counts without them until that is told;"
                    f" virsh domjobinfo {name} says more"
                )
        if waited_for and now - self._event_at < SETTLING_S:
            self._wake()
        if self._born is None:
            # There is no telling which of them have a claim that waits for them; all are shown as new.
            if waited_for:
                name = unclear[next(iter(waited_for))]
                raise LibvirtError(f"libvirt is busy with domain {name}; virsh domjobinfo {name} says more")
            self._born = {guest.run.uuid for guest in guests}
        running = [guest for guest in guests if guest.run.running and guest.run not in waited_for]
        runs = {guest.run for guest in running}
        there = {guest.run.uuid for guest in guests}
        self._born = (self._born | {guest.run.uuid for guest in running}) & there
        # One that is being started again holds its disks all the while.
        resting = [guest for guest in guests if guest.run not in runs and guest.run.uuid in self._born]
        self._guests = {guest.run: guest for guest in running}
        self._telling = (self._telling | {guest.run for guest in running if guest.tells_all}) & runs
        self._definitions = {guest.run: guest.definition for guest in guests if guest.definition is not NOT_TOLD}
        self._disk_bytes = {key: size for key, size in self._disk_bytes.items() if key[0] in there}
        uuids = {guest.run.uuid for guest in running}
        self._began |= dict.fromkeys(sorted(uuids - self._running), now)
        self._began = {uuid: began for uuid, began in self._began.items() if now - began <= RECENT_S}
        self._running = uuids
        return running, resting

    def _with_last_known(self, guest: Guest, unknown: dict[str, str]) -> Guest:
        """A guest with the VCPUs and memory that it had, where libvirt does not tell them now."""
        last = self._guests.get(guest.run)
        if last is None:
            return guest
        if guest.run in self._telling and not guest.tells_all and "domains" not in unknown:
            unknown[f"domain {guest.name}"] = (
                "libvirt does not tell its figures now, and it counts as it did;"
                f" virsh domjobinfo {guest.name} says more"
            )
        kept = {name: last.figures[name] for name in _SHARE if name in last.figures}
        definition = last.definition if guest.definition is NOT_TOLD else guest.definition
        return dataclasses.replace(guest, figures={**kept, **guest.figures}, definition=definition)

    def _is_whole(self, guest: Guest) -> bool:
        """Whether libvirt has told all of it that counts; of one that does not run it never tells more."""
        if not guest.run.running:
            return True
        told = guest.counters("block")
        return guest.definition is not NOT_TOLD and all(
            self._size(guest, disk) is not None or told.get(Device(guest.run, "block", disk)) is not None
            for disk in self._local_disks(guest)
        )

    def _local_disks(self, guest: Guest) -> list[str]:
        """Those that take room on what is the node's disk."""
        pools = self._pools if self._node else {}
        return [name for name, source in guest.definition.sources.items() if self._disk.takes(source, pools)]

    def _size(self, guest: Guest, disk: str) -> int | None:
        """Bytes of a disk, its virtual size; None: not told yet."""
        size = self._disk_bytes.get((guest.run.uuid, disk))
        return self._volume_bytes.get(guest.definition.sources[disk]) if size is None else size

    def _local_bytes(self, guests: Iterable[Guest]) -> int:
        """Bytes that guests hold of the node's disk; of a disk that several have once."""
        held: dict[object, int] = {}
        for guest in guests:
            for disk in self._local_disks(guest):
                source = guest.definition.sources[disk]
                key = source if source.path else (guest.run.uuid, disk)
                held[key] = max(held.get(key, 0), self._size(guest, disk) or 0)
        return sum(held.values())

    def _sum(self, kind: str, running: Iterable[Guest]) -> dict[str, Any]:
        """The counters by the names of a reading."""
        told = {device: values for guest in running for device, values in guest.counters(kind).items()}
        silent = {guest.run for guest in running if f"{kind}.count" not in guest.figures}
        began = {guest.run for guest in running} - self._seen[kind]
        self._seen[kind] = {guest.run for guest in running}
        sums = self._sums[kind].take(
            {device: values for device, values in told.items() if values is not None},
            lambda device: device in told or device.run in silent,
            lambda device: device.run in began,
        )
        return dict(zip(_FIGURES[kind], sums, strict=True))


def _rounded_up(amount: int, unit: int) -> int:
    return -(-amount // unit)
