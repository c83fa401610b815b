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
import functools
import logging
import math
import re
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Set
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

from vacancy.connectors.collectors import libvirt_xml
from vacancy.connectors.collectors.collector import HugePages, Inventory, InventoryReading, NumaCell, UsageReading
from vacancy.connectors.collectors.file_system import Room, room_of
from vacancy.connectors.collectors.guest_counters import Sums
from vacancy.connectors.collectors.libvirt_xml import Definition, DiskSource
from vacancy.connectors.collectors.limited import Limited
from vacancy.connectors.collectors.machine import (
    HostCollector,
    cpu_traits,
    inventories,
    reserved_pages,
    traits_of,
    with_base_pages,
)
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.errors import ConfigError

try:
    import libvirt
except ImportError:
    raise ConfigError(
        "agent.collector = \"libvirt\" needs libvirt's bindings: pip install 'vacancy[libvirt]', which builds them with"
        " libvirt-dev, pkg-config and a C compiler"
    ) from None

CALL_LIMIT_S = 5.0
RECENT_S = 300.0
"""How long a domain is listed after it began to count: longer than events may be late, and than claims last."""
SETTLING_S = 1.0
"""How long after an event a domain that libvirt is still busy with is looked at again and again: it tells early."""
PATIENCE_S = 10.0
GUESTS_LIMIT_S = 0.5
"""How long the figures of all guests are waited for; four times as long as they last took, where that is longer."""
_MOST_LEFT_BEHIND = 12
"""Calls, of which libvirtd answers 20 at once."""
_MOST_HUNG_GUESTS = 8
"""Calls that a guest's QEMU holds up, because that hangs: each has the next ones pass over this guest."""
_KEEPALIVE_INTERVAL_S = 5
_KEEPALIVE_COUNT = 3
_LOG = logging.getLogger("vacancy.agent")
_T = TypeVar("_T")
_KB_PER_MB = 1024
_BYTES_PER_GB = 2**30
_STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
_DEVICES = (
    libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV_TYPES
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV
)
_SHARE = ("vcpu.current", "balloon.maximum")
_ABSENT = {libvirt.VIR_ERR_NO_SUPPORT, libvirt.VIR_ERR_NO_CONNECT, libvirt.VIR_ERR_SYSTEM_ERROR}
_REFUSALS = {
    libvirt.VIR_ERR_AUTH_FAILED,
    libvirt.VIR_ERR_AUTH_UNAVAILABLE,
    libvirt.VIR_ERR_AUTH_CANCELLED,
    libvirt.VIR_ERR_ACCESS_DENIED,
    libvirt.VIR_ERR_OPERATION_DENIED,
}
_COUNTERS = {
    "block": ("rd.bytes", "wr.bytes", "rd.reqs", "wr.reqs"),
    "net": ("rx.bytes", "tx.bytes", "rx.pkts", "tx.pkts"),
}


_FIGURES = {
    "block": ("disk_read_bytes", "disk_write_bytes", "disk_read_ops", "disk_write_ops"),
    "net": ("net_rx_bytes", "net_tx_bytes", "net_rx_packets", "net_tx_packets"),
}
NOT_TOLD = libvirt_xml.definition("<domain/>")
"""In place of the definition of a domain of which libvirt cannot tell it."""


class LibvirtError(OSError):
    """libvirt cannot be asked now; says where, why and what to do."""


class LibvirtSilentError(LibvirtError):
    """libvirt does not answer in time."""


class Run(NamedTuple):
    """A domain from one start to its end; id is -1 while it does not run, and new with every start."""

    uuid: str
    id: int

    @property
    def running(self) -> bool:
        """Whether it runs; a paused one does."""
        return self.id >= 0


class Device(NamedTuple):
    """A disk (``block``) or an interface (``net``) of a running domain."""

    run: Run
    kind: str
    name: str


@dataclasses.dataclass(frozen=True)
class Guest:
    """A domain as one call shows it.

    Attributes:
        run: which.
        name: of the domain.
        definition: what its XML says.
        figures: its statistics as libvirt names them; incomplete while libvirt is busy with it.
        disk_bytes: virtual size of its disks, as far as libvirt tells.
    """

    run: Run
    name: str
    definition: Definition
    figures: Mapping[str, Any]
    disk_bytes: Mapping[str, int]

    @property
    def tells_all(self) -> bool:
        """Whether libvirt tells the counters of all its disks now."""
        return "block.count" in self.figures and None not in self.counters("block").values()

    @property
    def vcpus(self) -> int:
        """How many it has now."""
        return int(self.figures.get("vcpu.current", self.definition.vcpus))

    @property
    def memory_kb(self) -> int:
        """KiB that it may have."""
        return int(self.figures.get("balloon.maximum", self.definition.memory_kb))

    def counters(self, kind: str) -> dict[Device, tuple[int, ...] | None]:
        """Of each of its devices; None where libvirt does not tell them now."""
        found: dict[Device, tuple[int, ...] | None] = {}
        for number, name in _numbered(self.figures, kind):
            values = [self.figures.get(f"{kind}.{number}.{field}") for field in _COUNTERS[kind]]
            whole = tuple(value for value in values if value is not None)
            found[Device(self.run, kind, name)] = whole if len(whole) == len(values) else None
        return found


@dataclasses.dataclass(frozen=True)
class Node:
    """The machine as libvirt shows it."""

    name: str
    vcpus: int
    memory_mb: int
    traits: frozenset[str]
    cells: tuple[libvirt_xml.Cell, ...]
    free_pages: Mapping[int, Mapping[int, int]]
    """By cell and size in KiB."""
    devices: tuple[str, ...]
    without_devices: str | None
    """Why there are none; None: they were listed."""
    definitions: Mapping[Run, Definition]
    pools: Mapping[str, PoolState]
    volume_bytes: Mapping[DiskSource, int]
    """Of the volumes of pools that guests have."""


@dataclasses.dataclass(frozen=True)
class PoolState:
    """A storage pool of libvirt's, in bytes."""

    pool: libvirt_xml.Pool
    is_active: bool
    capacity: int
    available: int


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
        self._definitions: Mapping[Run, Definition] = {}
        self._guests: dict[Run, Guest] = {}
        self._telling: set[Run] = set()
        self._took_s = math.inf
        self._disk_bytes: dict[tuple[str, str], int] = {}
        self._born: set[str] | None = None
        self._running: set[str] = set()
        self._unclear: dict[Run, float] = {}
        self._without_devices: str | None = None
        self._began: dict[str, float] = {}
        self._sums = {kind: Sums[Device](len(fields)) for kind, fields in _COUNTERS.items()}
        self._seen: dict[str, set[Run]] = {kind: set() for kind in _COUNTERS}

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
        uncertain = _OF_GUESTS if unknown else ()
        host = self._host.usage(devices=False)
        unknown |= self._host.unknown
        capacity = inventories(self._settings, node.vcpus, node.memory_mb, 0)
        held_bytes = sum(self._local_bytes(guest) for guest in [*running, *resting])
        reading = dataclasses.replace(
            host,
            vcpus_capacity=capacity["VCPU"].capacity,
            vcpus_allocated=sum(guest.vcpus for guest in running),
            memory_mb_capacity=capacity["MEMORY_MB"].capacity,
            memory_mb_allocated=_rounded_up(sum(guest.memory_kb for guest in running), _KB_PER_MB),
            disk_gb_allocated=_rounded_up(held_bytes, _BYTES_PER_GB),
            instances=len(running),
            recent_consumers=tuple(self._began),
            uncertain=uncertain or host.uncertain,
            **self._sum("block", running),
            **self._sum("net", running),
        )
        if self._settings.disk_pools:
            unknown.pop("disk_gb_available", None)  # of another disk
            total, available = self._disk.read(node.pools, held_bytes, unknown)
            disk = inventories(self._settings, 0, 0, total // _BYTES_PER_GB)["DISK_GB"]
            reading = dataclasses.replace(
                reading, disk_gb_capacity=disk.capacity, disk_gb_available=available // _BYTES_PER_GB
            )
        self.unknown = unknown
        return reading

    def inventory(self) -> InventoryReading:
        """What the machine is, and what of it no running domain has."""
        node = self._look_at_node()
        host = self._host.inventory()
        running = [definition for run, definition in node.definitions.items() if run.running]
        disk_gb = host.inventories["DISK_GB"].total
        if self._settings.disk_pools:
            disk_gb = self._disk.capacity(node.pools) // _BYTES_PER_GB
        pci_pools = libvirt_xml.pools(
            node.devices,
            frozenset().union(*(definition.pci_devices for definition in running)),
            frozenset().union(*(definition.mdevs for definition in running)),
        )
        mdevs, held_mdevs = libvirt_xml.mdevs_by_type(pci_pools)
        return dataclasses.replace(
            host,
            source="libvirt",
            name=self._settings.name or node.name,
            inventories=inventories(self._settings, node.vcpus, node.memory_mb, disk_gb)
            | {_mdev_class(mdev): Inventory(total, 0, total, 1.0) for mdev, total in mdevs.items() if total},
            allocated={_mdev_class(mdev): count for mdev, count in held_mdevs.items() if count},
            traits=tuple(sorted({*node.traits, *self._settings.traits})),
            numa_cells=tuple(_numa_cell(cell, node, running) for cell in node.cells),
            pci_pools=pci_pools,
        )

    def _on_event(self) -> None:
        self._event_at = self._clock()
        self._wake()

    def _look_at_node(self) -> Node:
        with_pools, known = bool(self._settings.disk_pools), self._definitions
        self._node = node = self._connection.call(lambda connection: _node(connection, known, with_pools))
        self._definitions = {**self._definitions, **node.definitions}
        if node.without_devices != self._without_devices:
            self._without_devices = node.without_devices
            if node.without_devices:
                _LOG.warning("no PCI pools, libvirt does not list devices: %s", node.without_devices)
        return node

    def _ask_guests(self, unknown: dict[str, str]) -> list[Guest]:
        """All domains; where one of them holds libvirt up, all of them without figures."""
        known, counting = self._definitions, self._guests.keys()

        def ask(connection: Any) -> list[Guest]:
            began = time.monotonic()
            guests = _guests(connection, known, counting)
            self._took_s = time.monotonic() - began  # of a call that was left behind, too
            return guests

        if self._connection.left_behind() <= _MOST_HUNG_GUESTS:
            with suppress(LibvirtSilentError):
                return self._connection.call(ask, max(GUESTS_LIMIT_S, 4 * self._took_s))
        unknown["domains"] = "libvirt does not tell their figures in time, and they count as they did; virsh domstats"
        return self._connection.call(lambda connection: _listed(connection, known))

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
        pools = self._node.pools if self._node else {}
        return [name for name, source in guest.definition.sources.items() if self._disk.takes(source, pools)]

    def _size(self, guest: Guest, disk: str) -> int | None:
        """Bytes of a disk, its virtual size; None: not told yet."""
        volumes = self._node.volume_bytes if self._node else {}
        size = self._disk_bytes.get((guest.run.uuid, disk))
        return volumes.get(guest.definition.sources[disk]) if size is None else size

    def _local_bytes(self, guest: Guest) -> int:
        return sum(self._size(guest, disk) or 0 for disk in self._local_disks(guest))

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


class PoolDisk:
    """The node's disk where it is pools of libvirt's.

    Args:
        names: of the pools; none: the disk is a file system, and what is not elsewhere takes room on it.
    """

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._file_systems: dict[str, Limited[Room]] = {}
        self._capacity = 0

    def takes(self, source: DiskSource, pools: Mapping[str, PoolState]) -> bool:
        """Whether a disk takes room on it."""
        if not self._names:
            state = pools.get(source.pool)
            return not source.pool or state is None or state.pool.is_local
        if source.pool:
            return source.pool in self._names
        return any(name in pools and pools[name].pool.has(source.path) for name in self._names)

    def capacity(self, pools: Mapping[str, PoolState]) -> int:
        """Bytes that it has, or had when it could last be told."""
        return self.read(pools, 0, {})[0]

    def read(self, pools: Mapping[str, PoolState], held_bytes: int, unknown: dict[str, str]) -> tuple[int, int]:
        """Bytes that it has, and bytes that are free.

        Args:
            pools: all of libvirt's.
            held_bytes: what guests hold of it.
            unknown: takes what is not known.
        """
        found: dict[object, tuple[int, int]] = {}
        for name in self._names:
            state = pools.get(name)
            if state is None or not state.is_active:
                unknown["disk_gb_available"] = f"libvirt has no active storage pool {name}; virsh pool-list --all"
                return self._capacity, 0
            if not state.pool.is_of_files:
                # libvirt learns of what others make there when it is told to refresh the pool.
                found[state.pool.target or name] = state.capacity, state.available
                continue
            try:
                # Pools of one file system have it in common.
                device, total, available = self._file_system(state.pool.target)()
            except PermissionError:
                found[state.pool.target] = state.capacity, state.available
            except OSError as error:
                unknown["disk_gb_available"] = f"storage pool {name}: {error}"
                return self._capacity, 0
            else:
                found[device] = total, available
        self._capacity = sum(total for total, _ in found.values())
        available = sum(available for _, available in found.values())
        if not any(pools[name].pool.is_of_files for name in self._names):
            available = min(available, max(0, self._capacity - held_bytes))
        return self._capacity, available

    def _file_system(self, path: str) -> Limited[Room]:
        if path not in self._file_systems:
            self._file_systems[path] = room_of(Path(path), f"the file system of {path}")
        return self._file_systems[path]


class _Open(NamedTuple):
    """A connection and its registration for events."""

    connection: Any
    registration: int

    def close(self) -> None:
        """Gives it back; where it is broken either may fail, and without the first its socket is kept."""
        with suppress(libvirt.libvirtError):
            self.connection.domainEventDeregisterAny(self.registration)
        with suppress(libvirt.libvirtError):
            self.connection.close()


class Connection:
    """A connection to libvirt that is opened when it is asked for, and again after it has broken.

    A call that is left behind keeps its connection, and the next one opens another: before libvirt 9.10 threads that
    shared one could wait for ever, each for the other to read its answer.

    Args:
        uri: of libvirt.
        on_event: is called, by a thread of its own, when a domain has begun, ended or changed its state.
    """

    def __init__(self, uri: str, on_event: Callable[[], None]) -> None:
        self._uri = uri
        self._on_event = on_event
        self._open: _Open | None = None
        self._calls: list[threading.Thread] = []
        _start_event_loop()

    def left_behind(self) -> int:
        """How many calls libvirt has not answered yet."""
        self._calls = [call for call in self._calls if call.is_alive()]
        return len(self._calls)

    def call(self, ask: Callable[[Any], _T], limit_s: float = math.inf) -> _T:
        """What libvirt answers.

        Args:
            ask: is called with the connection by a thread of its own, which may have to be left behind.
            limit_s: how long to wait; never longer than :data:`CALL_LIMIT_S`.

        Raises:
            LibvirtSilentError: it does not answer in time.
            LibvirtError: there is no connection, or libvirt refuses.
        """
        if self.left_behind() > _MOST_LEFT_BEHIND:
            raise self._silent()
        answer = Future[_T]()
        former, self._open = self._open, None
        call = threading.Thread(target=self._answer, args=(former, ask, answer), daemon=True, name="libvirt call")
        self._calls.append(call)
        call.start()
        try:
            return answer.result(min(limit_s, CALL_LIMIT_S))
        except libvirt.libvirtError as error:
            raise LibvirtError(f"libvirt at {self._uri}: {error}; {self._remedy(error)}") from None
        except TimeoutError:
            if not answer.cancel():
                return answer.result()  # it came at the last moment
            raise self._silent() from None

    def _answer(self, former: _Open | None, ask: Callable[[Any], _T], answer: Future[_T]) -> None:
        opened = None
        try:
            opened = self._connected(former)
            result = ask(opened.connection)
        except BaseException as error:  # noqa: BLE001  # the caller's to deal with
            if self._is_awaited(answer, opened):
                answer.set_exception(error)
        else:
            if self._is_awaited(answer, opened):
                answer.set_result(result)

    def _is_awaited(self, answer: Future[Any], opened: _Open | None) -> bool:
        """Whether somebody still waits for a call; its connection is the next one's then, or else it is closed."""
        if answer.set_running_or_notify_cancel():
            self._open = opened
            return True
        if opened is not None:
            opened.close()
        return False

    def _connected(self, former: _Open | None) -> _Open:
        if former is not None:
            if former.connection.isAlive():
                return former
            former.close()
        connection = libvirt.openReadOnly(self._uri)
        try:
            connection.setKeepAlive(_KEEPALIVE_INTERVAL_S, _KEEPALIVE_COUNT)
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_SUPPORT:  # a driver within this process
                raise
        lifecycle = libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE
        return _Open(connection, connection.domainEventRegisterAny(None, lifecycle, lambda *_: self._on_event(), None))

    def _remedy(self, error: Any) -> str:
        """What to do about an error of libvirt's."""
        if error.get_error_code() in _REFUSALS or "Permission denied" in str(error):
            return "let the agent's user read, by unix_sock_ro_perms and auth_unix_ro in libvirtd.conf (docs/agent.md)"
        if self._open is None or not self._open.connection.isAlive():
            return (
                "is libvirtd (or virtqemud) running, and is agent.libvirt_uri right? trying to connect at each interval"
            )
        return f"see whether virsh -r -c {self._uri} domstats says the same, and libvirt's log"

    def _silent(self) -> LibvirtSilentError:
        return LibvirtSilentError(
            f"libvirt at {self._uri} has not answered for {CALL_LIMIT_S:g} s;"
            f" see whether virsh -r -c {self._uri} domstats does, and its log"
        )


@functools.cache
def _start_event_loop() -> None:
    """One for the process: it takes events, and asks libvirt whether it is there still."""
    # What fails is raised as well; libvirt would print it.
    libvirt.registerErrorHandler(lambda *_: None, None)
    libvirt.virEventRegisterDefaultImpl()
    threading.Thread(target=_run_event_loop, daemon=True, name="libvirt events").start()


def _run_event_loop() -> None:
    while True:
        try:
            libvirt.virEventRunDefaultImpl()
        except libvirt.libvirtError:
            _LOG.exception("libvirt's event loop")
            time.sleep(1)  # lest one that goes on failing takes a core


def _guests(connection: Any, known: Mapping[Run, Definition], counting: Set[Run]) -> list[Guest]:
    """All domains, by one call and one more for each whose definition is not known.

    Args:
        connection: to libvirt.
        known: definitions.
        counting: domains that are gone only if libvirt does not list them either.
    """
    guests = {}
    # A guest that libvirt is busy with is not waited for: it could hold up all others for half a minute.
    stats = connection.getAllDomainStats(_STATS, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    for domain, figures in stats:
        guest = _guest(connection, domain, figures, known)
        if guest is not None:
            guests[guest.run] = guest
    if counting - guests.keys():
        guests = {guest.run: guest for guest in _listed(connection, known)} | guests
    return list(guests.values())


def _listed(connection: Any, known: Mapping[Run, Definition]) -> list[Guest]:
    """All domains without figures, for which no guest is asked."""
    guests = (_guest(connection, domain, {}, known) for domain in connection.listAllDomains())
    return [guest for guest in guests if guest is not None]


def _guest(connection: Any, domain: Any, figures: Mapping[str, Any], known: Mapping[Run, Definition]) -> Guest | None:
    """A domain; None if it went meanwhile."""
    run = Run(domain.UUIDString(), domain.ID())
    definition = known.get(run)
    if definition is None or {name for _, name in _numbered(figures, "block")} - definition.disks:
        newer = _definition(connection, domain)
        if newer is None:
            return None
        definition = definition if newer is NOT_TOLD and definition is not None else newer
    return Guest(run, domain.name(), definition, figures, _disk_bytes(domain, definition, figures))


def _definition(connection: Any, domain: Any) -> Definition | None:
    """A domain's; None if it went meanwhile, and :data:`NOT_TOLD` where libvirt cannot tell it."""
    try:
        return libvirt_xml.definition(domain.XMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        if not connection.isAlive() or error.get_error_code() in _REFUSALS:
            raise
    except (ValueError, ET.ParseError):
        pass
    return NOT_TOLD


def _disk_bytes(domain: Any, definition: Definition, figures: Mapping[str, Any]) -> dict[str, int]:
    if figures and "vcpu.current" not in figures:  # a driver that has next to no statistics
        with suppress(libvirt.libvirtError):
            return {disk: domain.blockInfo(disk)[0] for disk in definition.local_disks}
    sizes = ((name, figures.get(f"block.{number}.capacity")) for number, name in _numbered(figures, "block"))
    return {name: size for name, size in sizes if size is not None}


def _numbered(figures: Mapping[str, Any], kind: str) -> list[tuple[int, str]]:
    """A domain's devices of a kind: the number and the name of each."""
    count = figures.get(f"{kind}.count", 0)
    return [(number, figures[f"{kind}.{number}.name"]) for number in range(count) if f"{kind}.{number}.name" in figures]


def _node(connection: Any, known: Mapping[Run, Definition], with_pools: bool) -> Node:
    capabilities = libvirt_xml.parse(connection.getCapabilities())
    _, memory_mb, vcpus, *_ = connection.getInfo()
    definitions = {}
    for domain in connection.listAllDomains():
        run, definition = Run(domain.UUIDString(), domain.ID()), _definition(connection, domain)
        if definition is NOT_TOLD:
            definition = known.get(run)
        if definition is not None:
            definitions[run] = definition
    volumes = {source for definition in definitions.values() for source in definition.sources.values() if source.pool}
    cells = libvirt_xml.cells(capabilities)
    devices, without_devices = _devices(connection)
    return Node(
        name=connection.getHostname(),
        vcpus=vcpus,
        memory_mb=memory_mb,
        traits=_traits(connection, libvirt_xml.host_cpu(capabilities)),
        cells=cells,
        free_pages={cell.id: _free_pages(connection, cell) for cell in cells},
        devices=devices,
        without_devices=without_devices,
        definitions=definitions,
        pools=_pools(connection) if with_pools or volumes else {},
        volume_bytes=_volume_bytes(connection, volumes),
    )


def _pools(connection: Any) -> dict[str, PoolState]:
    """The storage pools by name; none where this libvirt has no driver for them."""
    try:
        listed = connection.listAllStoragePools()
    except libvirt.libvirtError as error:
        if connection.isAlive() and error.get_error_code() in _ABSENT:
            return {}
        raise
    pools = {}
    for pool in listed:
        try:
            state, capacity, _, available = pool.info()
            described = libvirt_xml.pool(pool.XMLDesc())
        except libvirt.libvirtError:  # it went meanwhile, or cannot be read now: it counts as one that is not there
            if not connection.isAlive():
                raise
        else:
            pools[pool.name()] = PoolState(described, state == libvirt.VIR_STORAGE_POOL_RUNNING, capacity, available)
    return pools


def _volume_bytes(connection: Any, volumes: Iterable[DiskSource]) -> dict[DiskSource, int]:
    """The virtual size of volumes; those that libvirt does not tell are missing."""
    found = {}
    for volume in volumes:
        try:
            of_pool = connection.storagePoolLookupByName(volume.pool)
            found[volume] = of_pool.storageVolLookupByName(volume.path).info()[1]
        except libvirt.libvirtError:
            if not connection.isAlive():
                raise
    return found


def _traits(connection: Any, cpu: str | None) -> frozenset[str]:
    """Of the host's CPU, as Nova asks for them; as the kernel lists them where libvirt knows no model."""
    if cpu is None:
        return frozenset(cpu_traits())
    expanded = connection.baselineCPU([cpu], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
    return frozenset(traits_of(libvirt_xml.features(expanded)))


def _free_pages(connection: Any, cell: libvirt_xml.Cell) -> dict[int, int]:
    sizes_kb = [size_kb for size_kb, total in cell.pages if total]
    if not sizes_kb:
        return {}
    free: dict[int, dict[int, int]] = connection.getFreePages(sizes_kb, cell.id, 1)
    return free[cell.id]


def _devices(connection: Any) -> tuple[tuple[str, ...], str | None]:
    """The documents of the node's PCI devices and mediated devices; or why this libvirt has none to tell."""
    try:
        devices = connection.listAllDevices(_DEVICES)
    except libvirt.libvirtError as error:
        # Its driver for devices is a package, and with virtqemud a daemon, of its own.
        if connection.isAlive() and error.get_error_code() in _ABSENT:
            return (), str(error)
        raise
    documents = []
    for device in devices:
        try:
            documents.append(device.XMLDesc())
        except libvirt.libvirtError as error:
            if error.get_error_code() != libvirt.VIR_ERR_NO_NODE_DEVICE:  # it went meanwhile
                raise
    return tuple(documents), None


def _numa_cell(cell: libvirt_xml.Cell, node: Node, running: Iterable[Definition]) -> NumaCell:
    """A cell, and what of it no running domain has."""
    pinned = frozenset().union(*(definition.own_cpus(node.cells) for definition in running))
    # Of memory that may be in several cells nobody says how much is in which: all of it may be in any.
    bound = (bound for definition in running for bound in definition.bound_memory)
    held_kb = sum(memory_kb for cells, memory_kb in bound if cell.id in cells)
    free, reserved = node.free_pages[cell.id], reserved_pages()
    huge_pages = [
        # libvirt may know of fewer pages than the kernel has by now.
        HugePages(size_kb, total, max(0, min(total, free.get(size_kb, 0)) - reserved.get(size_kb, 0)))
        for size_kb, total in cell.pages
        if total
    ]
    return NumaCell(
        id=cell.id,
        cpus=cell.cpus,
        free_cpus=tuple(cpu for cpu in cell.cpus if cpu not in pinned),
        memory_mb=cell.memory_mb,
        pages=with_base_pages(cell.memory_mb, huge_pages, held_kb),
    )


def _mdev_class(mdev_type: str) -> str:
    """The resource class of a type of mediated devices: of nvidia-35 it is CUSTOM_NVIDIA_35."""
    return f"CUSTOM_{re.sub('[^A-Z0-9]', '_', mdev_type.upper())}"


def _rounded_up(amount: int, unit: int) -> int:
    return -(-amount // unit)
