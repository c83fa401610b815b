"""A Linux machine's memory: what it has, and what it could give out without swapping.

Beyond what the kernel calls available, as it does with its own page cache: what ZFS's cache (the ARC) holds above its
least size, which it gives back when others ask.

Where the machine is a container, the container's limit is the machine's. It is the limit of the first process, which
all others here descend from. So a limit on the agent's own service never counts, nor does that of a container which is
there for the agent alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vacancy.connectors.collectors.kernel_files import count, read, read_if_there

_KIB = 1024
_MOST_KIB = 2**49
"""512 PiB; an event holds no more than twice as much."""
_INITS = {"tini", "dumb-init", "docker-init", "catatonit", "pause"}
"""First processes of containers that have one program beside them, and nothing to say."""


@dataclass(frozen=True)
class Memory:
    """Bytes."""

    total: int
    available: int


class MemoryReader:
    """Reads this machine's memory.

    Args:
        proc: where the kernel shows itself.
        cgroups: where it shows control groups.
    """

    def __init__(self, proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> None:
        self._meminfo = f"{proc}/meminfo"
        self._arcstats = f"{proc}/spl/kstat/zfs/arcstats"
        self._groups = tuple(_groups(proc, cgroups))

    def __call__(self) -> Memory:
        """What there is now.

        Raises:
            OSError: /proc/meminfo cannot be read.
            ValueError: it does not say how much there is, or what is free.
        """
        figures = _figures(read(self._meminfo))
        total, free, available = figures.get("MemTotal"), figures.get("MemFree"), figures.get("MemAvailable")
        if not total or total > _MOST_KIB:
            raise ValueError(f"{self._meminfo} has no MemTotal that a machine can have: {total}")
        if available is None:  # before Linux 3.14, and in some containers
            if free is None:
                raise ValueError(f"{self._meminfo} has neither MemAvailable nor MemFree")
            cached = sum(figures.get(name, 0) for name in ("Buffers", "Cached", "SReclaimable"))
            available = free + max(0, cached - figures.get("Shmem", 0))
        total, available = total * _KIB, available * _KIB + _given_back_by_zfs(self._arcstats)
        for group in self._groups:
            limit = count(read_if_there(group.limit))  # "max", or nothing: no limit
            if limit is not None and limit < total:
                total, available = limit, min(available, max(0, limit - group.used()))
        return Memory(total, min(available, total))


_FIGURES = re.compile(r"^(MemTotal|MemFree|MemAvailable|Buffers|Cached|SReclaimable|Shmem): +(\d+) kB$", re.MULTILINE)


def _figures(meminfo: str) -> dict[str, int]:
    """KiB by name; those that are garbled are left out."""
    return {name: figure for name, text in _FIGURES.findall(meminfo) if (figure := count(text)) is not None}


def _given_back_by_zfs(arcstats: str) -> int:
    """Bytes that the ARC holds above its least size."""
    figures = dict(re.findall(r"^(size|c_min)\s+\d+\s+(\d+)$", read_if_there(arcstats) or "", re.MULTILINE))
    size, least = count(figures.get("size")), count(figures.get("c_min"))
    return 0 if size is None or least is None else max(0, size - least)


@dataclass(frozen=True)
class _Group:
    """Files of a control group.

    Attributes:
        limit: its limit, in bytes.
        usage: what it has, page cache included.
        stat: of what kinds that is.
        cache: those kinds that are given back when memory is short.
    """

    limit: str
    usage: str
    stat: str
    cache: tuple[str, str]

    def used(self) -> int:
        """Bytes that it would not give back."""
        stat = dict(re.findall(r"^(\w+) (\d+)$", read_if_there(self.stat) or "", re.MULTILINE))
        return max(0, (count(read_if_there(self.usage)) or 0) - sum(count(stat.get(kind)) or 0 for kind in self.cache))


def _groups(proc: Path, cgroups: Path) -> Iterator[_Group]:
    """The groups whose limits bound this machine."""
    if _is_only_the_agents(proc):
        return
    for line in (read_if_there(f"{proc}/1/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if ".." in path.split("/"):  # the first process is outside of what the agent sees
            continue
        if not controllers:
            for group in _along(cgroups, path, "memory.max"):
                yield _Group(
                    f"{group}/memory.max",
                    f"{group}/memory.current",
                    f"{group}/memory.stat",
                    ("active_file", "inactive_file"),
                )
        elif "memory" in controllers.split(","):
            for group in _along(cgroups / "memory", path, "memory.limit_in_bytes"):
                yield _Group(
                    f"{group}/memory.limit_in_bytes",
                    f"{group}/memory.usage_in_bytes",
                    f"{group}/memory.stat",
                    ("total_active_file", "total_inactive_file"),
                )


def _along(root: Path, path: str, file: str) -> Iterator[Path]:
    """Those directories from a group up to the root that have a file."""
    directory = root / path.strip("/")
    yield from (
        group for group in (directory, *directory.parents) if group.is_relative_to(root) and (group / file).exists()
    )


def _is_only_the_agents(proc: Path) -> bool:
    """Whether the agent is the first process itself, or the child of one that is there only to start it.

    It then is in a container of its own and speaks for the node around that.
    """
    return os.getpid() == 1 or (os.getppid() == 1 and read_if_there(f"{proc}/1/comm") in _INITS)
