"""Which disks and network interfaces of a Linux machine count, and what each has counted.

Each byte counts once:

- Disks: whole disks whose I/O reaches hardware. The kernel keeps loop, RAM, device-mapper and RAID devices under
  /sys/devices/virtual/block, and their I/O shows up again on the disks below them; partitions are parts of disks.
- Network: interfaces backed by hardware (or by what a hypervisor presents as such). Bridges, bonds, VLANs, tunnels and
  the ends of containers and instances are under /sys/devices/virtual/net, and what they carry beyond this node passes a
  hardware interface too. So do the bytes of some that look like hardware: of one that is stacked under another such one
  (the virtual function under Hyper-V's or virtio's interface), of a card's switch the ends that lead to functions, the
  functions of such a card, and in Xen's first domain the ends of guests. Where no hardware is, as in a container, all
  interfaces count but loopback, those stacked on another, and tunnels. Traffic that stays on the node does not count.
"""

from __future__ import annotations

import os
import re
import socket
import sys
import weakref
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

from vacancy.connectors.collectors.guest_counters import Row, Sums
from vacancy.connectors.collectors.kernel_files import count, read, read_if_there

SECTOR_BYTES = 512
"""What /proc/diskstats counts in, whatever the disk's own sectors are."""
_WIDTH = 4
_LOOPBACK, _TUNNELS = "772", {"65534", "768", "769", "776", "778", "823"}
"""ARPHRD_*: none (TUN, WireGuard), IPIP, IP6IP6, SIT, GRE, GRE over IPv6."""
_TUNNEL_KINDS = {"wireguard", "vxlan", "geneve", "gretap", "ip6gretap", "bareudp", "amt"}
_REPRESENTOR = re.compile(r"\d+|hpf|.*(pf|vfr?|sf)\d+")
"""The name of a switch's port that leads to a function and not out: pf0vf1 with devlink, p0pf0vf1 and pf0vfr1 with
drivers that name theirs themselves, 1 with old ones. p0 and p0s1 lead out.
"""


def disk_rows(proc: Path = Path("/proc")) -> dict[str, Row]:
    """By device, partitions among them: bytes read, bytes written, reads, writes.

    Raises:
        OSError: /proc/diskstats cannot be read.
    """
    rows: dict[str, Row] = {}
    for line in read(f"{proc}/diskstats").splitlines():
        columns = line.split()
        if len(columns) < 3:
            continue
        reads, read_sectors, writes, written_sectors = (
            count(columns[index]) if index < len(columns) else None for index in (3, 5, 7, 9)
        )
        rows[columns[2]] = (_bytes(read_sectors), _bytes(written_sectors), reads, writes)
    return rows


def _bytes(sectors: int | None) -> int | None:
    return None if sectors is None else sectors * SECTOR_BYTES


def interface_rows(proc: Path = Path("/proc")) -> dict[str, Row]:
    """By interface: bytes received, bytes sent, packets received, packets sent.

    Raises:
        OSError: /proc/net/dev cannot be read.
    """
    rows: dict[str, Row] = {}
    for line in read(f"{proc}/net/dev").splitlines():
        name, colon, rest = line.rpartition(":")
        if colon:  # the heading has none
            columns = rest.split()
            rows[name.strip()] = tuple(
                count(columns[index]) if index < len(columns) else None for index in (0, 8, 1, 9)
            )
    return rows


class Counters:
    """The sums over those devices that count, which go on when devices come and go; see :class:`Sums`.

    Args:
        rows: reads each device's counters.
        rule: which of the devices count.
        changed: whether the rule may come to another end for the same devices.
    """

    def __init__(
        self,
        rows: Callable[[], Mapping[str, Row]],
        rule: Callable[[Collection[str]], Collection[str]],
        changed: Callable[[], bool] = lambda: False,
    ) -> None:
        self._rows = rows
        self._rule = rule
        self._changed = changed
        self._names: frozenset[str] | None = None
        self.counted: Collection[str] = ()
        """Those that counted at the last reading."""
        self._sums: Sums[str] = Sums(_WIDTH)

    def read(self) -> Row:
        """Each sum; None where a device that counts does not tell it, or it went back. All None: no device counts.

        Raises:
            OSError: they cannot be read.
        """
        rows = self._rows()
        names = frozenset(rows)
        changed = self._changed()
        if changed or names != self._names:
            self._names, self.counted = names, self._rule(names)
        sums = self._sums.take({name: rows[name] for name in self.counted}, began=lambda _: False)
        return sums if self.counted else (None,) * _WIDTH


def counted_disks(names: Collection[str], sysfs: Path = Path("/sys")) -> Collection[str]:
    """Those whole disks whose I/O reaches hardware; where there is no sysfs those whose names say so."""
    blocks = sysfs / "block"
    if not blocks.is_dir():
        return [name for name in names if not _is_virtual_or_part(name, names)]

    def counts(name: str) -> bool:
        block = blocks / name.replace("/", "!")
        # A path of a multipath NVMe disk is hidden; the disk that it belongs to is not.
        return (
            block.exists() and "/virtual/block/" not in str(block.resolve()) and read_if_there(f"{block}/hidden") != "1"
        )

    return [name for name in names if counts(name)]


def _is_virtual_or_part(name: str, names: Collection[str]) -> bool:
    if re.fullmatch(r"(loop|ram|dm-|md_?|zram|nbd|drbd|zd|bcache)\d+(p\d+)?", name):
        return True
    whole = re.fullmatch(r"(.*\d)p\d+|(.*\D)\d+", name)
    return whole is not None and (whole[1] or whole[2]) in names


def counted_interfaces(names: Collection[str], sysfs: Path = Path("/sys")) -> Collection[str]:
    """Those interfaces that carry the node's traffic, each byte once; see the module's rule."""
    net = sysfs / "class" / "net"
    others = [name for name in names if not _is_loopback(name, net / name)]
    hardware = [name for name in others if _is_hardware(net / name)]
    below = {lower for name in hardware for lower in _hardware_below(net / name, hardware)}
    below |= {name for name in hardware if _uppers(net / name) & set(hardware)}
    counted = [name for name in hardware if name not in below and not _is_of_a_switch(net / name)]
    unstacked = [name for name in others if not any((net / name).glob("lower_*"))]
    return counted or [name for name in unstacked if not _is_tunnel(net / name)] or unstacked


def _is_hardware(directory: Path) -> bool:
    if not directory.exists() or "/virtual/net/" in str(directory.resolve()):
        return False
    # In Xen's first domain the ends of guests look like hardware.
    return (directory / "device" / "subsystem").resolve().name != "xen-backend"


def _uppers(directory: Path) -> set[str]:
    uppers = {entry.name.removeprefix("upper_") for entry in directory.glob("upper_*")}
    master = directory / "master"
    return uppers | ({master.resolve().name} if master.is_symlink() else set())


def _hardware_below(directory: Path, hardware: Collection[str]) -> set[str]:
    return {entry.name.removeprefix("lower_") for entry in directory.glob("lower_*")} & set(hardware)


def _is_of_a_switch(directory: Path) -> bool:
    """Whether an interface is an end of a card's switch that leads to a function, or a function of such a card."""
    if read_if_there(f"{directory}/phys_switch_id"):
        return _REPRESENTOR.fullmatch(read_if_there(f"{directory}/phys_port_name") or "") is not None
    device = directory / "device"
    if (device / "sfnum").exists():
        return True
    return any(read_if_there(str(switch)) for switch in device.glob("physfn/net/*/phys_switch_id"))


def _is_loopback(name: str, directory: Path) -> bool:
    kind = read_if_there(f"{directory}/type")
    return re.fullmatch(r"lo\d*", name) is not None if kind is None else kind == _LOOPBACK


def _is_tunnel(directory: Path) -> bool:
    if (directory / "tun_flags").exists() or read_if_there(f"{directory}/type") in _TUNNELS:
        return True
    kind = re.search(r"^DEVTYPE=(.*)$", read_if_there(f"{directory}/uevent") or "", re.MULTILINE)
    return kind is not None and kind[1] in _TUNNEL_KINDS


class LinkChanges:
    """Whether any network interface has changed since the last time, by the kernel's own word (rtnetlink(7)).

    What is stacked on what can change while the names stay; looking at each interface each time would cost a node with
    many instances more than all else.
    """

    _RTMGRP_LINK = 1

    def __init__(self) -> None:
        self._descriptor: int | None = None
        if sys.platform == "linux":
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            with suppress(OSError), socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE) as opened:
                opened.bind((0, self._RTMGRP_LINK))
                self._descriptor = opened.detach()
                weakref.finalize(self, os.close, self._descriptor)

    def __call__(self) -> bool:
        """Whether one has; always where the kernel does not tell."""
        if self._descriptor is None:
            return True
        changed = False
        while True:
            try:
                os.read(self._descriptor, 1 << 16)
            except BlockingIOError:
                return changed
            except OSError:  # so many changes that some were lost
                changed = True
            else:
                changed = True
