"""What the kernel says of mounted file systems; no path is looked at, since a file system may hang."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from vacancy.connectors.collectors.kernel_files import read_if_there


class Mount(NamedTuple):
    """A line of mountinfo.

    Attributes:
        device: the file system's number, ``major:minor``.
        point: where it is mounted.
        kind: the file system's type, such as ``nfs4`` and ``fuse.sshfs``.
        source: what is mounted, in the file system's own words.
        options: of the file system, by name; "" for one without a value.
    """

    device: str
    point: str
    kind: str
    source: str
    options: dict[str, str]


def mount_of(path: Path, mounts: str = "/proc/self/mountinfo", device: int | None = None) -> Mount | None:
    """The mount that a path is on: that of the device, or else by its name; None where that is not told.

    Args:
        path: is not looked at, so that where a link leads outside of its directory only the device tells the mount.
        mounts: where the kernel tells what is mounted.
        device: what stat() says of the path, if that is known.
    """
    absolute, found, longest = os.path.abspath(path), None, -1  # noqa: PTH100  # Path.resolve() would look at it
    number = None if device is None else f"{os.major(device)}:{os.minor(device)}"
    for mount in _mounts(mounts):
        inside = absolute == mount.point or absolute.startswith(f"{mount.point.rstrip('/')}/")
        if inside and len(mount.point) >= longest:  # of two at one place the later hides the former
            found, longest = mount, len(mount.point)
    if number is not None and (found is None or found.device != number):
        found = next((mount for mount in _mounts(mounts) if mount.device == number), found)
    return found


def _mounts(mounts: str) -> Iterator[Mount]:
    for line in (read_if_there(mounts) or "").splitlines():
        before, _, after = line.partition(" - ")
        columns, (kind, source, options) = before.split(" "), [*after.split(" "), "", "", ""][:3]
        if len(columns) >= 5:
            pairs = (option.partition("=") for option in options.split(","))
            yield Mount(
                columns[2], _plain(columns[4]), kind, _plain(source), {name: _plain(value) for name, _, value in pairs}
            )


def _plain(text: str) -> str:
    """A text in which the kernel has written blanks and the like as octal numbers."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), text)
