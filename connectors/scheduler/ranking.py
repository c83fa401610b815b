"""How full a host measurably is, for schedulers that rank hosts themselves, such as Nova's.

What always holds: only the standard library is imported, since this code runs in other programs' environments.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

_ROUNDING = 1.1
"""Fractions may exceed 1 a little by rounding; a value above this is garbage."""


class Measured(NamedTuple):
    """The measured figures of a host's row; None: unknown.

    Attributes:
        age_s: seconds since the host's newest event.
        cpu_utilization: busy fraction of all CPUs; the other fractions are those of the table.
        memory_mb_available: MiB that the kernel reports as available, less the claims in flight.
        vcpus_claimed: VCPUs of the claims in flight.
    """

    age_s: float
    cpu_utilization: float | None = None
    cpu_steal: float | None = None
    cpu_pressure: float | None = None
    memory_pressure: float | None = None
    io_pressure: float | None = None
    memory_mb_available: float | None = None
    vcpus_claimed: float | None = 0


class Amount(NamedTuple):
    """The amounts that a request needs, or that a whole host has."""

    vcpus: float
    memory_mb: float

    def __add__(self, other: object) -> Amount:
        if not isinstance(other, Amount):
            return NotImplemented
        return Amount(self.vcpus + other.vcpus, self.memory_mb + other.memory_mb)


@dataclass(frozen=True)
class Limits:
    """The value of each measured fraction at which a host counts as full."""

    cpu_utilization: float = 1.0
    cpu_steal: float = 0.1
    cpu_pressure: float = 0.5
    memory_pressure: float = 0.1
    io_pressure: float = 0.5


_FRACTIONS = tuple((Measured._fields.index(name), name) for name in Limits.__annotations__)
"""Index and name of the fractions; indexing is fast enough for thousands of hosts."""
_CONTENTION = tuple((place, name) for place, name in _FRACTIONS if name != "cpu_utilization")
"""Of those that measure contention."""


def fullness(host: Measured, needs: Amount, total: Amount, limits: Limits) -> tuple[float, str] | None:
    """How full a host would be with the request on it, and by which figure: 0 is empty, 1 at a limit, more beyond it.

    The figure that is nearest to its limit decides. CPUs and memory count what is used now, the claims in flight and
    the request; the limit of memory is all of it.

    Args:
        host: the host's row.
        needs: the amounts of the request, and of other instances known to be on their way to the host.
        total: the machine's amounts, without overcommitment.
        limits: the values at which the host counts as full.

    Returns:
        fullness and the name of the deciding figure; None if the row has no plausible figure.
    """
    worst, by = -1.0, ""
    known = _fraction(host.cpu_utilization)
    if known is not None and total.vcpus > 0:
        coming = needs.vcpus + (host.vcpus_claimed if host.vcpus_claimed and 0 < host.vcpus_claimed < math.inf else 0)
        worst, by = (known + coming / total.vcpus) / limits.cpu_utilization, "cpu_utilization"
    available = host.memory_mb_available
    if available is not None and math.isfinite(available) and total.memory_mb > 0:
        used = 1 - (min(available, total.memory_mb) - needs.memory_mb) / total.memory_mb
        if used > worst:
            worst, by = used, "memory_mb_available"
    for place, name in _CONTENTION:
        value = host[place]
        if value and (known := _fraction(value)) is not None:
            share = known / getattr(limits, name)
            if share > worst:
                worst, by = share, name
    return (worst, by) if by else None


def with_typical(hosts: Sequence[Measured]) -> list[Measured]:
    """The hosts, each with the median of those that know a fraction where it does not know it itself.

    So what is not known is never taken for idle; a fraction that nobody knows stays unknown.
    """
    typical = {}
    for place, name in _FRACTIONS:
        known = [value for host in hosts if (value := host[place]) is not None and 0 <= value <= _ROUNDING]
        if 0 < len(known) < len(hosts):
            typical[place, name] = median(known)
    if not typical:
        return list(hosts)
    return [
        host._replace(**{name: value for (place, name), value in typical.items() if _fraction(host[place]) is None})
        for host in hosts
    ]


def over_limit(host: Measured, needs: Amount, limits: Limits, min_memory_mb_available: float) -> str | None:
    """The measured figure that rules a host out: a fraction above its limit, or too little memory. None: no figure.

    An unknown figure does not rule a host out. These limits are set by the operator, not by the request, and a filter
    that rejected every host without a figure would stop all scheduling when figures are missing.
    """
    for place, name in _FRACTIONS:
        known = _fraction(host[place])
        if known is not None and known > getattr(limits, name):
            return name
    available = host.memory_mb_available
    if available is not None and math.isfinite(available) and available - needs.memory_mb < min_memory_mb_available:
        return "memory_mb_available"
    return None


def makes_sense(host: Measured) -> bool:
    """Whether every figure that the row has is plausible."""
    fractions = host[1:6]
    return all(value is None or _fraction(value) is not None for value in fractions) and math.isfinite(
        host.memory_mb_available or 0
    )


def _fraction(value: float | None) -> float | None:
    """The value within 0 to 1, or None if it cannot be a fraction: NaN, infinite, negative, above 1."""
    if value is None or not 0 <= value <= _ROUNDING:
        return None
    return min(value, 1.0)
