"""The libvirt collector: a hypervisor's figures, from libvirt and from the kernel.

What the node itself does is the kernel's to say, as on a plain machine (``machine``): CPU time, which has
the guests' in it, available memory and disk, pressure. What is promised to whom, and what guests read, write, receive
and send, is libvirt's, over one connection that may only read.

What holds a node's resources, as Nova's libvirt driver counts:

- A running domain holds the VCPUs that it has now, and the memory that it is defined with: what a balloon holds back
  the guest may have again without asking. One that is paused, or that a migration has brought, is running.
- A domain's disks hold their virtual size whether it runs or not: files and block devices, as they may grow. Nova's
  volumes, disks on the network and CD-ROMs are not the node's.

What always holds:

- A domain is counted whole: while libvirt is starting one, its disks cannot be asked for. It becomes one of the recent
  consumers with the very reading that counts it, so that the claim for it is settled then and it never counts twice. A
  domain that is defined and has not been started yet is left to its claim. Only one that libvirt stays busy with, such
  as a migration is bringing, counts after :data:`PATIENCE_S` without the disks that are not told, and that is said.
- A reading is whole or it fails. After a connection has broken each reading opens another.
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
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from vacancy.connectors.collectors import libvirt_xml
from vacancy.connectors.collectors.collector import HugePages, Inventory, InventoryReading, NumaCell, UsageReading
from vacancy.connectors.collectors.guest_counters import Sums
from vacancy.connectors.collectors.libvirt_xml import Definition
from vacancy.connectors.collectors.machine import HostCollector, cpu_traits, inventories, traits_of
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
_MOST_LEFT_BEHIND = 2
"""Calls. One that a guest's QEMU holds up, because that hangs, has the next ones pass over this guest."""
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


class LibvirtError(OSError):
    """libvirt cannot be asked now; says where, why and what to do."""


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
        self._definitions: Mapping[Run, Definition] = {}
        self._disk_bytes: dict[tuple[str, str], int] = {}
        self._born: set[str] | None = None
        self._running: set[str] = set()
        self._unclear: dict[Run, float] = {}
        self._said_unclear: set[Run] = set()
        self._without_devices: str | None = None
        self._began: dict[str, float] = {}
        self._sums = {kind: Sums[Device](len(fields)) for kind, fields in _COUNTERS.items()}

    def watch(self, wake: Callable[[], None]) -> None:
        """Has wake called at each event of a domain's life, such as started, stopped, migrated and crashed."""
        self._wake = wake

    def usage(self) -> UsageReading:
        """What is in use now."""
        node = self._node or self._look_at_node()
        definitions = self._definitions
        guests = self._counted(self._connection.call(lambda connection: _guests(connection, definitions)))
        host = self._host.usage()
        running = [guest for guest in guests if guest.run.running]
        capacity = inventories(self._settings, node.vcpus, node.memory_mb, 0)
        disk = self._sum("block", running)
        net = self._sum("net", running)
        return dataclasses.replace(
            host,
            vcpus_capacity=capacity["VCPU"].capacity,
            vcpus_allocated=sum(guest.vcpus for guest in running),
            memory_mb_capacity=capacity["MEMORY_MB"].capacity,
            memory_mb_allocated=_rounded_up(sum(guest.memory_kb for guest in running), _KB_PER_MB),
            disk_gb_allocated=_rounded_up(sum(self._local_bytes(guest) for guest in guests), _BYTES_PER_GB),
            disk_read_bytes=disk[0],
            disk_write_bytes=disk[1],
            disk_read_ops=disk[2],
            disk_write_ops=disk[3],
            net_rx_bytes=net[0],
            net_tx_bytes=net[1],
            net_rx_packets=net[2],
            net_tx_packets=net[3],
            instances=len(running),
            recent_consumers=tuple(self._began),
        )

    def inventory(self) -> InventoryReading:
        """What the machine is, and what of it no running domain has."""
        node = self._look_at_node()
        host = self._host.inventory()
        running = [definition for run, definition in node.definitions.items() if run.running]
        pinned = frozenset().union(*(definition.pinned_cpus for definition in running))
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
            inventories=inventories(self._settings, node.vcpus, node.memory_mb, host.inventories["DISK_GB"].total)
            | {_mdev_class(mdev): Inventory(total, 0, total, 1.0) for mdev, total in mdevs.items() if total},
            allocated={_mdev_class(mdev): count for mdev, count in held_mdevs.items() if count},
            traits=tuple(sorted({*node.traits, *self._settings.traits})),
            numa_cells=tuple(
                NumaCell(
                    id=cell.id,
                    cpus=cell.cpus,
                    free_cpus=tuple(cpu for cpu in cell.cpus if cpu not in pinned),
                    memory_mb=cell.memory_mb,
                    pages=tuple(
                        HugePages(size_kb, total, node.free_pages.get(cell.id, {}).get(size_kb, 0))
                        for size_kb, total in cell.pages
                        if total
                    ),
                )
                for cell in node.cells
            ),
            pci_pools=pci_pools,
        )

    def _on_event(self) -> None:
        self._event_at = self._clock()
        self._wake()

    def _look_at_node(self) -> Node:
        self._node = node = self._connection.call(_node)
        self._definitions = node.definitions
        if node.without_devices != self._without_devices:
            self._without_devices = node.without_devices
            if node.without_devices:
                _LOG.warning("no PCI pools, libvirt does not list devices: %s", node.without_devices)
        return node

    def _counted(self, guests: list[Guest]) -> list[Guest]:
        """Those that count; notes which of the running ones did not before."""
        for guest in guests:
            self._disk_bytes |= {(guest.run.uuid, disk): size for disk, size in guest.disk_bytes.items()}
        now = self._clock()
        unclear = {guest.run: guest.name for guest in guests if not self._is_whole(guest)}
        self._unclear = {run: self._unclear.get(run, now) for run in unclear}
        waited_for = {run for run, since in self._unclear.items() if now - since < PATIENCE_S}
        self._say_unclear({run: name for run, name in unclear.items() if run not in waited_for})
        whole = [guest for guest in guests if guest.run not in waited_for]
        if waited_for and now - self._event_at < SETTLING_S:
            self._wake()
        if self._born is None:
            # There is no telling which of them have a claim that waits for them; all are shown as new.
            if waited_for:
                name = unclear[next(iter(waited_for))]
                raise LibvirtError(f"libvirt is busy with domain {name}; virsh domjobinfo {name} says more")
            self._born = {guest.run.uuid for guest in guests}
        self._born |= {guest.run.uuid for guest in whole if guest.run.running}
        self._born &= {guest.run.uuid for guest in guests}
        counted = [guest for guest in whole if guest.run.uuid in self._born]
        self._definitions = {guest.run: guest.definition for guest in guests}
        there = {guest.run.uuid for guest in guests}
        self._disk_bytes = {key: size for key, size in self._disk_bytes.items() if key[0] in there}
        running = {guest.run.uuid for guest in counted if guest.run.running}
        self._began |= dict.fromkeys(sorted(running - self._running), now)
        self._began = {uuid: began for uuid, began in self._began.items() if now - began <= RECENT_S}
        self._running = running
        return counted

    def _say_unclear(self, names: Mapping[Run, str]) -> None:
        for run in names.keys() - self._said_unclear:
            _LOG.warning(
                "libvirt does not tell the size of the disks of domain %s, which counts without them until it does; "
                "virsh domjobinfo %s says more",
                names[run],
                names[run],
            )
        self._said_unclear = set(names)

    def _is_whole(self, guest: Guest) -> bool:
        """Whether libvirt has told all of it that counts; of one that does not run it never tells more."""
        told = guest.counters("block")
        return not guest.run.running or all(
            (guest.run.uuid, disk) in self._disk_bytes or told.get(Device(guest.run, "block", disk)) is not None
            for disk in guest.definition.local_disks
        )

    def _local_bytes(self, guest: Guest) -> int:
        return sum(self._disk_bytes.get((guest.run.uuid, disk), 0) for disk in guest.definition.local_disks)

    def _sum(self, kind: str, running: Iterable[Guest]) -> tuple[int, ...]:
        told = {device: values for guest in running for device, values in guest.counters(kind).items()}
        silent = {guest.run for guest in running if f"{kind}.count" not in guest.figures}
        return self._sums[kind].take(
            {device: values for device, values in told.items() if values is not None},
            lambda device: device in told or device.run in silent,
        )


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

    def call(self, ask: Callable[[Any], _T]) -> _T:
        """What libvirt answers.

        Args:
            ask: is called with the connection by a thread of its own, which may have to be left behind.

        Raises:
            LibvirtError: there is no connection, libvirt refuses, or it does not answer in time.
        """
        self._calls = [call for call in self._calls if call.is_alive()]
        if len(self._calls) > _MOST_LEFT_BEHIND:
            raise self._silent()
        answer = Future[_T]()
        former, self._open = self._open, None
        call = threading.Thread(target=self._answer, args=(former, ask, answer), daemon=True, name="libvirt call")
        self._calls.append(call)
        call.start()
        try:
            return answer.result(CALL_LIMIT_S)
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

    def _silent(self) -> LibvirtError:
        return LibvirtError(
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


def _guests(connection: Any, known: Mapping[Run, Definition]) -> list[Guest]:
    """All domains, by one call and one more for each whose definition is not known."""
    guests = []
    # A guest that libvirt is busy with is not waited for: it could hold up all others for half a minute.
    stats = connection.getAllDomainStats(_STATS, libvirt.VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT)
    for domain, figures in stats:
        run = Run(domain.UUIDString(), domain.ID())
        definition = known.get(run)
        names = {name for _, name in _numbered(figures, "block")}
        if definition is None or names - definition.disks:
            definition = _definition(domain)
        if definition is not None:
            guests.append(Guest(run, domain.name(), definition, figures, _disk_bytes(domain, definition, figures)))
    return guests


def _definition(domain: Any) -> Definition | None:
    """A domain's; None if it went meanwhile."""
    try:
        return libvirt_xml.definition(domain.XMLDesc())
    except libvirt.libvirtError as error:
        if error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        raise


def _disk_bytes(domain: Any, definition: Definition, figures: Mapping[str, Any]) -> dict[str, int]:
    if "vcpu.current" not in figures:  # a driver that has next to no statistics
        return {disk: domain.blockInfo(disk)[0] for disk in definition.local_disks}
    sizes = ((name, figures.get(f"block.{number}.capacity")) for number, name in _numbered(figures, "block"))
    return {name: size for name, size in sizes if size is not None}


def _numbered(figures: Mapping[str, Any], kind: str) -> list[tuple[int, str]]:
    """A domain's devices of a kind: the number and the name of each."""
    count = figures.get(f"{kind}.count", 0)
    return [(number, figures[f"{kind}.{number}.name"]) for number in range(count) if f"{kind}.{number}.name" in figures]


def _node(connection: Any) -> Node:
    capabilities = libvirt_xml.parse(connection.getCapabilities())
    _, memory_mb, vcpus, *_ = connection.getInfo()
    definitions = {
        Run(domain.UUIDString(), domain.ID()): definition
        for domain in connection.listAllDomains()
        if (definition := _definition(domain)) is not None
    }
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
    )


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


def _mdev_class(mdev_type: str) -> str:
    """The resource class of a type of mediated devices: of nvidia-35 it is CUSTOM_NVIDIA_35."""
    return f"CUSTOM_{re.sub('[^A-Z0-9]', '_', mdev_type.upper())}"


def _rounded_up(amount: int, unit: int) -> int:
    return -(-amount // unit)
