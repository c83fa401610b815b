"""The machine as libvirt shows it: CPUs, memory, cells, devices."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any
from xml.etree import ElementTree as ET

import libvirt

from vacancy.connectors.collectors import libvirt_xml
from vacancy.connectors.collectors.collector import HugePages, NumaCell
from vacancy.connectors.collectors.libvirt_connection import is_of_itself
from vacancy.connectors.collectors.libvirt_guests import NOT_TOLD, Run, definition_of
from vacancy.connectors.collectors.libvirt_xml import Definition
from vacancy.connectors.collectors.machine import cpu_traits, reserved_pages, traits_of, with_base_pages

_DEVICES = (
    libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_PCI_DEV
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV_TYPES
    | libvirt.VIR_CONNECT_LIST_NODE_DEVICES_CAP_MDEV
)
_OWN_ERRORS = (libvirt.libvirtError, ValueError, ET.ParseError)


@dataclasses.dataclass(frozen=True)
class Node:
    """The machine as libvirt shows it."""

    name: str
    """"" where libvirt does not tell it."""
    vcpus: int
    memory_mb: int
    traits: frozenset[str]
    cells: tuple[libvirt_xml.Cell, ...]
    free_pages: Mapping[int, Mapping[int, int]]
    """By cell and size in KiB."""
    devices: tuple[str, ...]
    lacking: tuple[str, ...]
    """What of it libvirt does not tell, and why: a line each."""
    definitions: Mapping[Run, Definition]


def look_at_node(connection: Any, known: Mapping[Run, Definition]) -> Node:
    """The machine as it is now.

    Args:
        connection: to libvirt.
        known: definitions, for the domains of which libvirt cannot tell it now.
    """
    lacking: list[str] = []
    _, memory_mb, vcpus, *_ = connection.getInfo()
    definitions = {}
    for domain in connection.listAllDomains():
        run, definition = Run(domain.UUIDString(), domain.ID()), definition_of(connection, domain)
        if definition is NOT_TOLD:
            definition = known.get(run)
        if definition is not None:
            definitions[run] = definition
    cells, traits = _capabilities(connection, lacking)
    return Node(
        name=_name(connection),
        vcpus=vcpus,
        memory_mb=memory_mb,
        traits=traits,
        cells=cells,
        free_pages={cell.id: _free_pages(connection, cell, lacking) for cell in cells},
        devices=_devices(connection, lacking),
        lacking=tuple(lacking),
        definitions=definitions,
    )


def _name(connection: Any) -> str:
    try:
        return str(connection.getHostname())
    except libvirt.libvirtError as error:
        if not is_of_itself(error, connection):
            raise
        return ""


def _capabilities(connection: Any, lacking: list[str]) -> tuple[tuple[libvirt_xml.Cell, ...], frozenset[str]]:
    """The cells, and the traits of the host's CPU."""
    try:
        capabilities = libvirt_xml.parse(connection.getCapabilities())
        return libvirt_xml.cells(capabilities), _traits(connection, libvirt_xml.host_cpu(capabilities))
    except _OWN_ERRORS as error:
        if not is_of_itself(error, connection):
            raise
        lacking.append(f"no NUMA cells, libvirt does not tell its capabilities: {error}")
        return (), frozenset(cpu_traits())


def _traits(connection: Any, cpu: str | None) -> frozenset[str]:
    """Of the host's CPU, as Nova asks for them; as the kernel lists them where libvirt does not know its features."""
    if cpu is not None:
        try:
            expanded = connection.baselineCPU([cpu], libvirt.VIR_CONNECT_BASELINE_CPU_EXPAND_FEATURES)
            return frozenset(traits_of(libvirt_xml.features(expanded)))
        except _OWN_ERRORS as error:  # such as on ARM
            if not is_of_itself(error, connection):
                raise
    return frozenset(cpu_traits())


def _free_pages(connection: Any, cell: libvirt_xml.Cell, lacking: list[str]) -> dict[int, int]:
    sizes_kb = [size_kb for size_kb, total in cell.pages if total]
    if not sizes_kb:
        return {}
    try:
        free: dict[int, dict[int, int]] = connection.getFreePages(sizes_kb, cell.id, 1)
    except libvirt.libvirtError as error:
        if not is_of_itself(error, connection):
            raise
        lacking.append(f"no free huge pages in NUMA cell {cell.id}, libvirt does not count them: {error}")
        return {}
    return free.get(cell.id, {})


def _devices(connection: Any, lacking: list[str]) -> tuple[str, ...]:
    """The documents of the node's PCI devices and mediated devices, as far as libvirt tells them."""
    try:
        devices = connection.listAllDevices(_DEVICES)
    except libvirt.libvirtError as error:
        # Its driver for devices is a package, and with virtqemud a daemon, of its own.
        if not is_of_itself(error, connection):
            raise
        lacking.append(f"no PCI pools, libvirt does not list devices: {error}")
        return ()
    documents = []
    for device in devices:
        try:
            documents.append(device.XMLDesc())
        except libvirt.libvirtError as error:  # it went meanwhile, or is not told
            if not is_of_itself(error, connection):
                raise
    return tuple(documents)


def numa_cell(cell: libvirt_xml.Cell, node: Node, running: Iterable[Definition]) -> NumaCell:
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


def mdev_class(mdev_type: str) -> str:
    """The resource class of a type of mediated devices: of nvidia-35 it is CUSTOM_NVIDIA_35."""
    return f"CUSTOM_{re.sub('[^A-Z0-9]', '_', mdev_type.upper())}"
