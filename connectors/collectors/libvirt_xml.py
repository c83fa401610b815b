"""What libvirt's XML documents say, as far as the collector asks; needs no libvirt.

The documents are those of libvirt's own pages: formatdomain, formatcaps and formatnode.
"""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass
from xml.etree import ElementTree as ET

from vacancy.connectors.collectors.collector import PciPool
from vacancy.connectors.collectors.machine import parse_cpu_list


@dataclass(frozen=True)
class Definition:
    """A domain as it is defined; a running one as it runs.

    Attributes:
        vcpus: how many it has now, of those it may have.
        memory_kb: KiB that it may have; a balloon may hold some back, and give them up again.
        disks: all, by the guest's names for them.
        local_disks: those that take room on the node.
        pinned_cpus: of the host, that it or its emulator is pinned to.
        pci_devices: the host's that it has, by address (``0000:0a:10.0``).
        mdevs: mediated devices that it has, by UUID.
    """

    vcpus: int
    memory_kb: int
    disks: frozenset[str]
    local_disks: frozenset[str]
    pinned_cpus: frozenset[int]
    pci_devices: frozenset[str]
    mdevs: frozenset[str]


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
    disks = {_attribute(disk, "target", "dev"): _is_local(disk) for disk in domain.iterfind("devices/disk")}
    hostdevs = [(hostdev.get("type"), hostdev) for hostdev in domain.iterfind("devices/hostdev")]
    # An interface may be a virtual function of the host's.
    hostdevs += [("pci", interface) for interface in domain.iterfind("devices/interface[@type='hostdev']")]
    addresses = [(kind, address) for kind, device in hostdevs for address in device.iterfind("source/address")]
    pins = [pin.get("cpuset", "") for pin in domain.iterfind("cputune/vcpupin")]
    pins += [pin.get("cpuset", "") for pin in domain.iterfind("cputune/emulatorpin")]
    return Definition(
        vcpus=int(vcpu.get("current") or vcpu.text or 1) if vcpu is not None else 1,
        memory_kb=int(domain.findtext("memory") or 0),
        disks=frozenset(disks),
        local_disks=frozenset(name for name, local in disks.items() if local),
        pinned_cpus=frozenset(cpu for pin in pins for cpu in cpu_set(pin)),
        pci_devices=frozenset(_pci_address(address) for kind, address in addresses if kind == "pci"),
        mdevs=frozenset(address.get("uuid", "") for kind, address in addresses if kind == "mdev"),
    )


def _is_local(disk: ET.Element) -> bool:
    """Whether a disk takes room on the node, as Nova counts: no CD-ROM, nothing on the network, no volume."""
    if disk.get("device", "disk") != "disk" or disk.get("type") not in {"file", "block"}:
        return False
    # Nova gives a Cinder volume its id as the serial number, and nothing else a UUID.
    return not _is_uuid(disk.findtext("serial") or "")


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
    for nothing else, or has been given to one. A device that is split into mediated devices makes a pool for each of
    their types, tagged ``mdev_type``; what one type uses up, the others of the device lose.

    Args:
        documents: of the node's devices: PCI devices and mediated devices.
        given: addresses of PCI devices that running domains have.
        given_mdevs: UUIDs of mediated devices that running domains have.
    """
    devices = [parse(document) for document in documents]
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
            address = _pci_address(pci)
            is_function = pci.find("capability[@type='phys_function']") is not None
            if address in given or is_function or device.findtext("driver/name") == "vfio-pci":
                total[kind] += 1
                free[kind] += address not in given
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
            numa_node=None if numa is None else int(numa.get("node", 0)),
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
