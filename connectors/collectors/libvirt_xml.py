"""What libvirt's XML documents say, as far as the collector asks; needs no libvirt.

The documents are those of libvirt's own pages: formatdomain, formatcaps and formatnode.
"""

from __future__ import annotations

import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from vacancy.connectors.collectors.collector import PciPool
from vacancy.connectors.collectors.machine import parse_cpu_list

_PCI_ID = re.compile("[0-9a-f]{4}")


@dataclass(frozen=True)
class Definition:
    """A domain as it is defined; a running one as it runs.

    Attributes:
        vcpus: how many it has now, of those it may have.
        memory_kb: KiB that it may have; a balloon may hold some back, and give them up again.
        disks: all, by the guest's names for them.
        sources: where those are that may take room on the node: neither a CD-ROM nor one of Cinder's volumes.
        local_disks: those of them that are files or block devices.
        pins: of the host's CPUs, what each of its VCPUs, its emulator and its I/O threads is pinned to.
        bound_memory: KiB that are in no huge pages, with the cells of the host that they may be in.
        pci_devices: the host's that it has, by address (``0000:0a:10.0``).
        mdevs: mediated devices that it has, by UUID.
    """

    vcpus: int
    memory_kb: int
    disks: frozenset[str]
    sources: Mapping[str, DiskSource]
    pins: tuple[frozenset[int], ...]
    bound_memory: tuple[tuple[frozenset[int], int], ...]
    pci_devices: frozenset[str]
    mdevs: frozenset[str]

    @property
    def local_disks(self) -> frozenset[str]:
        """Those that are files or block devices."""
        return frozenset(name for name, source in self.sources.items() if not source.pool)

    @property
    def pinned_cpus(self) -> frozenset[int]:
        """Of the host, that any of it is pinned to."""
        return frozenset().union(*self.pins)

    def own_cpus(self, cells: Iterable[Cell]) -> frozenset[int]:
        """The host's CPUs that it has to itself, as far as its pins say.

        What may run on more CPUs than there are of it floats over them, as Nova has guests do that share the CPUs of a
        cell, or those of it that are in ``cpu_shared_set``. So does what is pinned to all CPUs of a cell.
        """
        whole = [frozenset(cell.cpus) for cell in cells if len(cell.cpus) > 1]
        return frozenset().union(
            *(
                cpus
                for cpus, number in Counter(self.pins).items()
                if len(cpus) <= number and not any(cell <= cpus for cell in whole)
            )
        )


@dataclass(frozen=True)
class DiskSource:
    """Where a disk is: a path, or the name of a volume of a pool."""

    path: str
    pool: str = ""


@dataclass(frozen=True)
class Pool:
    """One of libvirt's storage pools.

    Attributes:
        type: such as ``dir`` and ``logical``.
        target: the directory that its volumes are under, file systems and /dev alike.
        source: of storage on the network, what it is called there, the same on all hosts; "" for all other.
    """

    type: str
    target: str
    source: str = ""

    @property
    def is_of_files(self) -> bool:
        """Whether its volumes are files."""
        return self.type in {"dir", "fs", "netfs"}

    @property
    def is_local(self) -> bool:
        """Whether its volumes take room on the node, as far as the type says."""
        return self.type in {"dir", "fs", "logical", "disk", "zfs", "scsi"}

    def has(self, path: str) -> bool:
        """Whether a path is one of its volumes."""
        if not self.target or self.target.rstrip("/") == "/dev" or self.target.startswith("/dev/disk/"):
            return False  # it shares that directory
        if path.startswith(f"{self.target.rstrip('/')}/"):
            return True
        # The device mapper's name of a volume: vg-lv, with what dashes the two have doubled.
        group = self.target.rpartition("/")[2].replace("-", "--")
        return self.type == "logical" and re.match(rf"/dev/mapper/{re.escape(group)}-[^-]", path) is not None


@dataclass(frozen=True)
class Cell:
    """A NUMA cell; pages are (KiB a page, pages) of each size but the smallest."""

    id: int
    cpus: tuple[int, ...]
    memory_mb: int
    pages: tuple[tuple[int, int], ...]


def parse(document: str) -> ET.Element:
    """The root of a document."""
    return ET.fromstring(document)  # noqa: S314  # libvirt wrote it, which may do anything on this node anyway


def definition(document: str) -> Definition:
    """A domain's."""
    domain = parse(document)
    vcpu = domain.find("vcpu")
    disks = {_attribute(disk, "target", "dev"): _source(disk) for disk in domain.iterfind("devices/disk")}
    hostdevs = [(hostdev.get("type"), hostdev) for hostdev in domain.iterfind("devices/hostdev")]
    # An interface may be a virtual function of the host's.
    hostdevs += [("pci", interface) for interface in domain.iterfind("devices/interface[@type='hostdev']")]
    addresses = [(kind, address) for kind, device in hostdevs for address in device.iterfind("source/address")]
    pins = [
        pin.get("cpuset", "")
        for kind in ("vcpupin", "emulatorpin", "iothreadpin")
        for pin in domain.iterfind(f"cputune/{kind}")
    ]
    return Definition(
        vcpus=int(vcpu.get("current") or vcpu.text or 1) if vcpu is not None else 1,
        memory_kb=int(domain.findtext("memory") or 0),
        disks=frozenset(disks),
        sources={name: source for name, source in disks.items() if source is not None},
        pins=tuple(frozenset(cpu_set(pin)) for pin in pins),
        bound_memory=tuple(_bound_memory(domain)),
        pci_devices=frozenset(_pci_address(address) for kind, address in addresses if kind == "pci"),
        mdevs=frozenset(address.get("uuid", "") for kind, address in addresses if kind == "mdev"),
    )


def _source(disk: ET.Element) -> DiskSource | None:
    """Where a disk is that may take room on the node, as Nova counts: no CD-ROM, no network, none of Cinder's."""
    # Nova gives a Cinder volume its id as the serial number, and nothing else a UUID.
    if disk.get("device", "disk") != "disk" or _is_uuid(disk.findtext("serial") or ""):
        return None
    kind, source = disk.get("type"), disk.find("source")
    if kind == "volume":
        return DiskSource(_attribute(disk, "source", "volume"), _attribute(disk, "source", "pool"))
    if kind not in {"file", "block"}:
        return None
    return DiskSource("" if source is None else source.get("file") or source.get("dev") or "")


def _bound_memory(domain: ET.Element) -> Iterator[tuple[frozenset[int], int]]:
    """See :class:`Definition`; a guest that is not bound to cells has none."""
    backing = domain.find("memoryBacking/hugepages")
    pages = [] if backing is None else [page.get("nodeset") for page in backing.iterfind("page")]
    in_pages = backing is not None and (not pages or None in pages)
    cells_in_pages = {cell for nodeset in pages if nodeset for cell in cpu_set(nodeset)}
    bound = _attribute(domain, "numatune/memory", "nodeset")
    bound_cells = {node.get("cellid"): node.get("nodeset", "") for node in domain.iterfind("numatune/memnode")}
    guest_cells = domain.findall("cpu/numa/cell")
    memory = [(cell.get("id", str(number)), int(cell.get("memory", 0))) for number, cell in enumerate(guest_cells)] or [
        ("0", int(domain.findtext("memory") or 0))
    ]
    for cell_id, memory_kb in memory:
        nodeset = cpu_set(bound_cells.get(cell_id, bound))
        if nodeset and not in_pages and int(cell_id) not in cells_in_pages:
            yield frozenset(nodeset), memory_kb


def _is_uuid(text: str) -> bool:
    try:
        uuid.UUID(text)
    except ValueError:
        return False
    return True


def cpu_set(text: str) -> set[int]:
    """libvirt's format of CPU sets: the kernel's with exclusions, ``"0-3,^2"`` is 0, 1 and 3."""
    parts = text.replace(" ", "").split(",")
    excluded = ",".join(part[1:] for part in parts if part.startswith("^"))
    included = ",".join(part for part in parts if not part.startswith("^"))
    return set(parse_cpu_list(included)) - set(parse_cpu_list(excluded))


def pool(document: str) -> Pool:
    """A storage pool."""
    root = parse(document)
    kind = root.get("type", "")
    return Pool(kind, _text(root, "target/path"), _network_source(root) if kind in _ON_THE_NETWORK else "")


_ON_THE_NETWORK = {"rbd", "gluster", "iscsi", "iscsi-direct", "sheepdog"}


def _network_source(pool: ET.Element) -> str:
    """The servers and what the pool is on them; of Gluster the volume alone, which any server of the cluster gives."""
    hosts = sorted(host.get("name", "") for host in pool.iterfind("source/host"))
    name = _text(pool, "source/name") or _attribute(pool, "source/device", "path")
    if not name or pool.get("type") == "gluster":
        return name
    return f"{','.join(hosts)}/{name}"


def cells(capabilities: ET.Element) -> tuple[Cell, ...]:
    """The host's NUMA cells, by number."""
    found = [
        Cell(
            id=int(cell.get("id", 0)),
            cpus=tuple(sorted(int(cpu.get("id", 0)) for cpu in cell.iterfind("cpus/cpu"))),
            memory_mb=int(cell.findtext("memory") or 0) // 1024,
            pages=tuple(
                sorted((int(pages.get("size", 0)), int(pages.text or 0)) for pages in cell.iterfind("pages"))[1:]
            ),
        )
        for cell in capabilities.iterfind("host/topology/cells/cell")
    ]
    return tuple(sorted(found, key=lambda cell: cell.id))


def host_cpu(capabilities: ET.Element) -> str | None:
    """The document that describes the host's CPU; None where libvirt knows no model for it."""
    cpu = capabilities.find("host/cpu")
    return ET.tostring(cpu, encoding="unicode") if cpu is not None and cpu.find("model") is not None else None


def features(cpu: str) -> set[str]:
    """The names of a CPU's features, by libvirt."""
    return {feature.get("name", "") for feature in parse(cpu).iterfind("feature")}


def pools(documents: Iterable[str], given: Set[str], given_mdevs: Set[str]) -> tuple[PciPool, ...]:
    """The PCI devices and mediated devices that instances may have, by kind; without the settings of Nova to go by.

    A PCI device may be given to an instance if it is bound to vfio-pci for that, is a virtual function, which is there
    for nothing else, or has been given to one. It is not free while a driver of the host's has it, while mediated
    devices are made of it, or while the card whose function it is, or a function of the card that it is, has been given
    away. A device that is split into mediated devices makes a pool for each of their types, tagged ``mdev_type``; what
    one type uses up, the others of the device lose.

    Args:
        documents: of the node's devices: PCI devices and mediated devices.
        given: addresses of PCI devices that running domains have.
        given_mdevs: UUIDs of mediated devices that running domains have.
    """
    devices = list(_readable(documents))
    mdevs = [
        (_text(device, "parent"), _text(mdev, "uuid"), _attribute(mdev, "type", "id"))
        for device in devices
        for mdev in device.iterfind("capability[@type='mdev']")
    ]
    total: Counter[_Kind] = Counter()
    free: Counter[_Kind] = Counter()
    for device in devices:
        for pci in device.iterfind("capability[@type='pci']"):
            kind = _Kind.of(pci)
            for mdev_type, available in _mdev_types(pci):
                of_type = kind.split(mdev_type)
                made = [
                    mdev for parent, mdev, made_as in mdevs if (parent, made_as) == (_text(device, "name"), mdev_type)
                ]
                total[of_type] += available + len(made)
                free[of_type] += available + len(set(made) - given_mdevs)
            address, driver = _pci_address(pci), device.findtext("driver/name")
            card = pci.find("capability[@type='phys_function']")
            if address in given or card is not None or (driver and _is_for_guests(driver)):
                functions = pci.iterfind("capability[@type='virt_functions']/address")
                kin = {_pci_address(function) for function in functions}
                kin |= {
                    _pci_address(function) for function in pci.iterfind("capability[@type='phys_function']/address")
                }
                is_split = any(parent == _text(device, "name") for parent, _, _ in mdevs)
                total[kind] += 1
                in_use = driver is not None and not _is_for_guests(driver)
                free[kind] += not in_use and not is_split and not given & {address, *kin}
    return tuple(
        PciPool(
            vendor_id=kind.vendor_id,
            product_id=kind.product_id,
            numa_node=kind.numa_node,
            total=count,
            free=free[kind],
            tags={} if kind.mdev_type is None else {"mdev_type": kind.mdev_type},
        )
        for kind, count in sorted(total.items(), key=lambda item: str(item[0]))
    )


def _readable(documents: Iterable[str]) -> Iterator[ET.Element]:
    """The roots of those documents that are whole and say what they are of: of others nothing is offered."""
    for document in documents:
        try:
            device = parse(document)
            is_known = all(_is_known(pci) for pci in device.iterfind("capability[@type='pci']"))
        except (ValueError, ET.ParseError):
            continue
        if is_known:
            yield device


def _is_known(pci: ET.Element) -> bool:
    """Whether a PCI device says of which kind it is.

    Raises:
        ValueError: a number of it is garbled.
    """
    kind = _Kind.of(pci)
    for address in (pci, *pci.iterfind("capability/address")):
        _pci_address(address)
    list(_mdev_types(pci))
    return all(_PCI_ID.fullmatch(part) for part in (kind.vendor_id, kind.product_id))


def _is_for_guests(driver: str) -> bool:
    """Whether a driver is there to give a device away: vfio-pci, what is made of it for one card, and older ones."""
    return re.search(r"vfio[-_]pci$", driver) is not None or driver in {"pci-stub", "pciback"}


def mdevs_by_type(pci_pools: Iterable[PciPool]) -> tuple[Counter[str], Counter[str]]:
    """How many mediated devices of each type there can be, and how many of them running domains have."""
    total: Counter[str] = Counter()
    held: Counter[str] = Counter()
    for pool in pci_pools:
        if mdev_type := pool.tags.get("mdev_type"):
            total[mdev_type] += pool.total
            held[mdev_type] += pool.total - pool.free
    return total, held


@dataclass(frozen=True)
class _Kind:
    """What the devices of a pool have in common."""

    vendor_id: str
    product_id: str
    numa_node: int | None
    mdev_type: str | None = None

    @classmethod
    def of(cls, pci: ET.Element) -> _Kind:
        numa = pci.find("numa")
        return cls(
            vendor_id=_attribute(pci, "vendor", "id").removeprefix("0x").lower(),
            product_id=_attribute(pci, "product", "id").removeprefix("0x").lower(),
            numa_node=None if numa is None or int(numa.get("node", 0)) < 0 else int(numa.get("node", 0)),
        )

    def split(self, mdev_type: str) -> _Kind:
        return _Kind(self.vendor_id, self.product_id, self.numa_node, mdev_type)


def _mdev_types(pci: ET.Element) -> Iterator[tuple[str, int]]:
    """The types of mediated devices that a device can be split into, and how many more of each."""
    for mdev_type in pci.iterfind("capability[@type='mdev_types']/type"):
        yield mdev_type.get("id", ""), int(mdev_type.findtext("availableInstances") or 0)


def _pci_address(element: ET.Element) -> str:
    """Of an ``<address domain='0x0000' …/>``, or of a device's ``<domain>0</domain> …``."""
    parts = [
        int(element.get(name) or element.findtext(name) or "0", 0) for name in ("domain", "bus", "slot", "function")
    ]
    return "{:04x}:{:02x}:{:02x}.{:x}".format(*parts)


def _text(element: ET.Element, path: str) -> str:
    return element.findtext(path) or ""


def _attribute(element: ET.Element, path: str, name: str) -> str:
    found = element.find(path)
    return "" if found is None else found.get(name, "")
