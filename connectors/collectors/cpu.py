"""What a Linux machine's CPUs have done since boot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from vacancy.connectors.collectors.kernel_files import count, read

_NS_PER_TICK = 1_000_000_000 // (os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100)
_NEEDED, _BUSY = 3, (0, 1, 2, 5, 6)
"""Columns of /proc/stat: user, nice, system; these with irq and softirq. Guests are in user and nice already."""
_IOWAIT, _STEAL = 4, 7


@dataclass(frozen=True)
class CpuTimes:
    """Over all CPUs online, in ns; None: not known.

    Attributes:
        cpus: how many.
        busy_ns: running user, nice, system, irq or softirq code.
        iowait_ns: idle with I/O outstanding.
        steal_ns: given to others by a hypervisor below.
    """

    cpus: int
    busy_ns: int | None
    iowait_ns: int | None
    steal_ns: int | None


def cpu_times(proc: Path = Path("/proc")) -> CpuTimes:
    """This machine's.

    Raises:
        OSError: it cannot be told how many CPUs there are.
    """
    try:
        text = read(f"{proc}/stat")
    except OSError:
        text = ""
    name, *columns = text.partition("\n")[0].split() or [""]
    cpus = f"\n{text}".count("\ncpu") - (name == "cpu") or os.cpu_count()
    if not cpus:
        raise OSError("the number of CPUs is not to be had")
    ticks = [count(column) for column in columns] if name == "cpu" else []
    busy = [ticks[index] for index in _BUSY if index < len(ticks)]
    return CpuTimes(
        cpus,
        _ns(busy) if len(ticks) >= _NEEDED else None,
        _ns(ticks[_IOWAIT : _IOWAIT + 1]),
        _ns(ticks[_STEAL : _STEAL + 1]),
    )


def _ns(ticks: list[int | None]) -> int | None:
    """The sum in ns; None where one is not known, or there is none."""
    known = [tick for tick in ticks if tick is not None]
    total = sum(known) * _NS_PER_TICK
    return total if known and len(known) == len(ticks) else None
