"""The figures of machines that are not Linux, as psutil has them; the rows and sums of ``devices``."""

from __future__ import annotations

import psutil

from vacancy.connectors.collectors.cpu import CpuTimes
from vacancy.connectors.collectors.guest_counters import Row
from vacancy.connectors.collectors.memory import Memory

_NS = 1_000_000_000


def boot_time_s() -> int:
    """When the machine was booted, in seconds since 1970."""
    return round(psutil.boot_time())


def memory() -> Memory:
    """What there is, and what could be given out without swapping."""
    figures = psutil.virtual_memory()
    return Memory(figures.total, figures.available)


def cpu_times() -> CpuTimes:
    """Since boot, over all CPUs."""
    times = psutil.cpu_times()
    busy = sum(getattr(times, name, 0.0) for name in ("user", "nice", "system", "irq", "softirq"))
    iowait, steal = (getattr(times, name, None) for name in ("iowait", "steal"))
    return CpuTimes(psutil.cpu_count() or 1, _ns(busy), _ns(iowait), _ns(steal))


def _ns(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * _NS)


def disk_rows() -> dict[str, Row]:
    """By device: bytes read, bytes written, reads, writes."""
    counters = psutil.disk_io_counters(perdisk=True, nowrap=False) or {}
    return {name: (c.read_bytes, c.write_bytes, c.read_count, c.write_count) for name, c in counters.items()}


def interface_rows() -> dict[str, Row]:
    """By interface: bytes received, bytes sent, packets received, packets sent."""
    counters = psutil.net_io_counters(pernic=True, nowrap=False) or {}
    return {name: (c.bytes_recv, c.bytes_sent, c.packets_recv, c.packets_sent) for name, c in counters.items()}
