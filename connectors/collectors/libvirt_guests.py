"""libvirt's domains, as one call shows all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from contextlib import suppress
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

import libvirt

from vacancy.connectors.collectors import libvirt_xml
from vacancy.connectors.collectors.libvirt_connection import is_of_itself
from vacancy.connectors.collectors.libvirt_xml import Definition

_STATS = (
    libvirt.VIR_DOMAIN_STATS_STATE
    | libvirt.VIR_DOMAIN_STATS_VCPU
    | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_BLOCK
    | libvirt.VIR_DOMAIN_STATS_INTERFACE
)
COUNTERS = {
    "block": ("rd.bytes", "wr.bytes", "rd.reqs", "wr.reqs"),
    "net": ("rx.bytes", "tx.bytes", "rx.pkts", "tx.pkts"),
}
"""What libvirt counts of disks and interfaces, by its names."""
NOT_TOLD = libvirt_xml.definition("<domain/>")
"""In place of the definition of a domain of which libvirt cannot tell it."""


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
            values = [self.figures.get(f"{kind}.{number}.{field}") for field in COUNTERS[kind]]
            whole = tuple(value for value in values if value is not None)
            found[Device(self.run, kind, name)] = whole if len(whole) == len(values) else None
        return found


def all_guests(connection: Any, known: Mapping[Run, Definition], counting: Set[Run]) -> list[Guest]:
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
        guests = {guest.run: guest for guest in listed_guests(connection, known)} | guests
    return list(guests.values())


def listed_guests(connection: Any, known: Mapping[Run, Definition]) -> list[Guest]:
    """All domains without figures, for which no guest is asked."""
    guests = (_guest(connection, domain, {}, known) for domain in connection.listAllDomains())
    return [guest for guest in guests if guest is not None]


def _guest(connection: Any, domain: Any, figures: Mapping[str, Any], known: Mapping[Run, Definition]) -> Guest | None:
    """A domain; None if it went meanwhile."""
    run = Run(domain.UUIDString(), domain.ID())
    definition = known.get(run)
    if definition is None or {name for _, name in _numbered(figures, "block")} - definition.disks:
        newer = definition_of(connection, domain)
        if newer is None:
            return None
        definition = definition if newer is NOT_TOLD and definition is not None else newer
    return Guest(run, domain.name(), definition, figures, _disk_bytes(domain, definition, figures))


def definition_of(connection: Any, domain: Any) -> Definition | None:
    """A domain's; None if it went meanwhile, and :data:`NOT_TOLD` where libvirt cannot tell it."""
    try:
        return libvirt_xml.definition(domain.XMLDesc())
    except (libvirt.libvirtError, ValueError, ET.ParseError) as error:
        if isinstance(error, libvirt.libvirtError) and error.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
            return None
        if not is_of_itself(error, connection):
            raise
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
