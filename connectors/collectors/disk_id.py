"""Which file system a node's disk is: the same text on every node that sees the same one, and on no other.

A network or cluster file system is known by its server's or its cluster's own name. All others are the node's own, and
known by its boot: neither UUIDs of file systems nor device numbers tell machines apart that were made of one image.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Callable
from pathlib import Path

from vacancy.connectors.collectors.kernel_files import read_if_there
from vacancy.connectors.collectors.mounts import Mount, mount_of

_LONGEST = 200
"""Characters; what is longer is known by its hash."""
_FAMILIES = {"nfs4": "nfs", "smb3": "cifs"}
_CLUSTERED = {"ocfs2", "gfs2", "gfs"}
"""File systems that several nodes have on one block device."""


def disk_id(
    path: Path,
    device: int | None,
    boot_id: str,
    *,
    proc: Path = Path("/proc"),
    sysfs: Path = Path("/sys"),
    uuids: Path = Path("/dev/disk/by-uuid"),
) -> str | None:
    """What the file system of a path is; None where nobody tells.

    Args:
        path: on it; it is not looked at.
        device: what stat() has said of the path; None: not known.
        boot_id: of the node.
        proc: where the kernel shows itself.
        sysfs: where it shows devices.
        uuids: where udev names block devices by their file systems' UUIDs.
    """
    mount = mount_of(path, f"{proc}/self/mountinfo", device)
    if mount is None:
        return None
    if mount.kind in _CLUSTERED:
        known = _block_device(mount.device, sysfs, uuids)
    elif mount.kind.startswith("fuse."):
        known = _of_fuse(mount)
    elif mount.kind in _NETWORK and not _is_this_machine(_server(mount)):
        known = _NETWORK[mount.kind](mount, proc)
    else:
        return f"local:{boot_id}:{mount.device}"
    return fitting(f"{_FAMILIES.get(mount.kind, mount.kind)}:{known}") if known else None


def fitting(text: str) -> str:
    """A text that an event may hold."""
    text = os.fsencode(text).decode("utf-8", "backslashreplace")
    return text if len(text) <= _LONGEST else f"{text[:100]}:{hashlib.sha256(text.encode()).hexdigest()}"


def _server(mount: Mount) -> str:
    """The address of a mount's server, or else its name; "" where its type has none of them in the source."""
    if mount.kind in {"cifs", "smb3"}:
        server = mount.source.replace("\\", "/").strip("/").partition("/")[0]
    else:
        server = mount.source.rpartition(":")[0].strip("[]")
    return mount.options.get("addr", server)


def _nfs(mount: Mount, proc: Path) -> str:
    """The server's address and what it calls the file system, whichever of its directories is mounted."""
    for line in (read_if_there(f"{proc}/fs/nfsfs/volumes") or "").splitlines():
        _, *columns = line.split()
        if len(columns) >= 4 and columns[2] == mount.device and columns[3] != "0:0":
            return f"{columns[0]}:{columns[3]}"
    return f"{_server(mount)}:{mount.source.rpartition(':')[2]}"


def _cifs(mount: Mount, proc: Path) -> str:
    del proc
    _, _, share = mount.source.replace("\\", "/").strip("/").partition("/")
    return f"{_server(mount)}/{share.partition('/')[0]}".lower()


def _ceph(mount: Mount, proc: Path) -> str | None:
    """The cluster: all its file systems have its disks in common."""
    del proc
    if cluster := re.match(r"[^@]*@([0-9a-f-]{36})\.", mount.source):
        return cluster[1]
    monitors, _, _ = mount.source.rpartition(":/")
    return ",".join(sorted(re.split(r"[,/]", monitors))) if monitors else None


def _named(mount: Mount, proc: Path) -> str:
    del proc
    return mount.source.removeprefix("/dev/")


_NETWORK: dict[str, Callable[[Mount, Path], str | None]] = {
    "nfs": _nfs,
    "nfs4": _nfs,
    "cifs": _cifs,
    "smb3": _cifs,
    "ceph": _ceph,
    "lustre": _named,
    "gpfs": _named,
    "afs": _named,
    "pvfs2": _named,
}


def _of_fuse(mount: Mount) -> str | None:
    """The source as far as it names something beyond this machine."""
    if mount.kind == "fuse.glusterfs":
        # Any server of a cluster gives the volume, on a node that has bricks mostly itself.
        return mount.source.rpartition(":")[2].strip("/").partition("/")[0] or None
    server, colon, rest = mount.source.rpartition("@")[2].partition(":")
    return f"{server}:{rest}" if colon and server and not _is_this_machine(server) else None


def _is_this_machine(server: str) -> bool:
    try:
        return ipaddress.ip_address(server.partition("%")[0]).is_loopback
    except ValueError:
        return server == "localhost"


def _block_device(number: str, sysfs: Path, uuids: Path) -> str | None:
    """The UUID of the file system on a block device, or else what all nodes call the device."""
    try:
        entries = list(uuids.iterdir())
    except OSError:
        entries = []
    for entry in entries:
        try:
            found = entry.stat().st_rdev
        except OSError:
            continue
        if f"{os.major(found)}:{os.minor(found)}" == number:
            return entry.name.lower()
    device = f"{sysfs}/dev/block/{number}"
    part = read_if_there(f"{device}/partition")
    for file in ("dm/uuid", "wwid", "device/wwid", "../wwid", "../device/wwid"):
        if known := read_if_there(f"{device}/{file}"):
            return known if part is None else f"{known}:{part}"
    return None
