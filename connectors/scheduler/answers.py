"""What the database answers: claims, candidates, and why there is none."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from vacancy.schemas.errors import VacancyError
from vacancy.schemas.units import format_duration

UNITS = {"vcpus": "VCPUs", "memory_mb": "MiB", "disk_gb": "GiB"}
FREE = {
    "vcpus_free": ("vcpus", "free"),
    "memory_mb_free": ("memory_mb", "free by what is promised"),
    "disk_gb_free": ("disk_gb", "free by what is promised"),
    "memory_mb_available": ("memory_mb", "available by what the kernel measures"),
    "disk_gb_available": ("disk_gb", "available by what the kernel measures"),
}
LOADS = {
    "cpu_utilization": "of its CPUs busy",
    "cpu_steal": "of its CPU time stolen",
    "cpu_pressure": "pressure on its CPUs",
    "memory_pressure": "pressure on its memory",
    "io_pressure": "pressure on its I/O",
}
"""Units of amounts; the dimensions that are amounts, with how they are measured; those that are fractions."""
_RULE = "by min_unit, max_unit and step_size,"
_LABELS = {
    "vcpus_unit": f"vcpus, {_RULE}",
    "memory_mb_unit": f"memory_mb, {_RULE}",
    "disk_gb_unit": f"disk_gb, {_RULE}",
    "vcpus_free": "vcpus",
    "memory_mb_free": "memory_mb, by what is promised,",
    "disk_gb_free": "disk_gb, by what is promised,",
    "memory_mb_available": "memory_mb, by what the kernel measures,",
    "disk_gb_available": "disk_gb, by what the kernel measures,",
    "numa_cpus": "CPUs to pin in one NUMA cell",
    "numa_memory_mb": "memory_mb of one NUMA cell",
    "numa": "one NUMA cell with all of it",
    "pci": "PCI devices, all of them together,",
}


@dataclass(frozen=True)
class Claim:
    """A claim in flight, or one that its host already reports as allocated.

    Attributes:
        consumer: id of the instance that it is for.
        host_id: the claimed host.
        host_name: the host's name; None if the host has been retired since.
        claimed_at: when it was made, by the database's clock.
        expires_at: when it stops to count unless the host reports the consumer earlier.
        already: whether the claim existed before this call; one that this call has moved did not.
        held: amounts that it holds of resource classes, NUMA cells and PCI pools, by their labels, such as
            "numa 0 cpus"; None: none.
    """

    consumer: uuid.UUID
    host_id: str
    host_name: str | None
    claimed_at: datetime
    expires_at: datetime
    already: bool
    held: dict[str, int] | None


@dataclass(frozen=True)
class Candidate:
    """A host that fits; a higher score is better. Scores of different requests cannot be compared."""

    host_id: str
    host_name: str
    score: float


@dataclass(frozen=True)
class NearestMiss:
    """The host that came nearest; `had` is its amount of the dimension that ran out, None if that has no amount."""

    host_id: str
    name: str
    had: float | None
    ruled_out_by: list[str]


@dataclass(frozen=True)
class Refusal:
    """Why no host fits.

    Attributes:
        hosts: number of hosts examined, which is all of them.
        ruled_out: number of hosts by the first dimension that ruled each out.
        dimension: the dimension that ran out: it ruled out the last remaining hosts. "hosts": the table has none.
        requested: the requested amount of it; None if it has no amount.
        nearest: the host that came nearest to having it.
        claimable: how many of `count` could have been claimed.
        count: number of claims requested.
    """

    hosts: int
    ruled_out: dict[str, int]
    dimension: str
    requested: float | None
    nearest: NearestMiss | None
    claimable: int
    count: int


class NoHostFitsError(VacancyError):
    """No host fits, or not enough do; nothing was claimed."""

    exit_status = 3

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        super().__init__(_explain(refusal))


@dataclass(frozen=True)
class Contradiction:
    """A consumer's claim that is not true to a request.

    Attributes:
        consumer: whose claim it is.
        host_id: the host that it is on.
        host_name: the host's name; None if the host has been retired since.
        differs: the parts of the request that it is not true to, such as "vcpus" or "include"; "host" if the host has
            been retired, "distinct_hosts" if another one of the consumers has its claim there.
    """

    consumer: uuid.UUID
    host_id: str
    host_name: str | None
    differs: list[str]


class ContradictionError(VacancyError):
    """Consumers have claims that are not true to the request; nothing was claimed and nothing given back.

    Attributes:
        contradictions: those claims, 100 at most, in the order of the consumers.
    """

    def __init__(self, contradictions: list[Contradiction]) -> None:
        self.contradictions = contradictions
        first = contradictions[0]
        more = f", and {len(contradictions) - 1} more like it" if len(contradictions) > 1 else ""
        super().__init__(
            f"consumer {first.consumer} has a claim on {first.host_name or first.host_id} which is not true to the "
            f"request in: {', '.join(first.differs)}{more}; claim again with move (--move), or release it first"
        )


class ContendedError(VacancyError):
    """Others kept claiming the hosts that fit; nothing was claimed. Claiming again with the same consumers is safe."""


class TimedOutError(VacancyError):
    """The database took longer than `scheduler.statement_timeout`. Claiming again with the same consumers is safe."""


_POOL_LABELS = {
    "disk_pool_free": "disk_gb of the storage pool {}, by what is promised,",
    "disk_pool_available": "disk_gb of the storage pool {}, by what is measured,",
    "disk_pool_unit": f"disk_gb of the storage pool {{}}, {_RULE}",
    "disk_pool_missing": "the storage pool {}, which is not in the table,",
    "disk_pool_disabled": "the storage pool {}, which is disabled,",
    "disk_pool_elsewhere": "the storage pool {}, which is in no aggregate of theirs,",
    "disk_pool_no_usage": "the storage pool {}, of which there is no usage yet,",
    "disk_pool_clock_ahead": "the storage pool {}, whose newest event is from the future,",
    "disk_pool_stale": "the storage pool {}, whose figures are stale,",
    "disk_pool_duplicate_id": "the storage pool {}, under whose id several nodes report,",
    "disk_pool_own_disk": "the storage pool {}, whose hosts still report a disk of their own,",
}


def dimension_label(dimension: str) -> str:
    """A dimension's name for people."""
    kind, _, pool = dimension.partition(" ")
    if kind in _POOL_LABELS:
        return _POOL_LABELS[kind].format(pool)
    if dimension.startswith("near "):
        return f"no aggregate shared with the storage pool {dimension.removeprefix('near ')}"
    if dimension.startswith("numa_pages_"):
        return f"huge pages of {dimension.removeprefix('numa_pages_')} KiB in one NUMA cell"
    if dimension.endswith("_unit") and dimension not in _LABELS:
        return f"{dimension.removesuffix('_unit')}, {_RULE}"
    if dimension.endswith("_allocated"):
        return f"{dimension.removesuffix('_allocated')}, of which hosts do not say what their instances hold,"
    if dimension.endswith("_unknown"):
        return f"{dimension.removesuffix('_unknown')}, which the hosts do not know,"
    return _LABELS.get(dimension, dimension)


def _explain(refusal: Refusal) -> str:
    """A refusal in one line: what ran out, and the nearest miss."""
    if not refusal.hosts:
        return "no host fits: the table has no hosts; do agents report (`vacancy doctor`)?"
    last = refusal.ruled_out[refusal.dimension]
    text = f"no host fits: {dimension_label(refusal.dimension)} ruled out the last {last} of "
    text += f"{refusal.hosts} hosts"
    if refusal.count > 1:
        text = f"no host fits for {refusal.count - refusal.claimable} of {refusal.count}: {text.partition(': ')[2]}"
    if refusal.nearest:
        text += f"; nearest: {refusal.nearest.name}"
        if refusal.nearest.had is not None and refusal.requested is not None:
            text += f" {_with_amounts(refusal.dimension, refusal.nearest.had, refusal.requested)}"
    return text


def _with_amounts(dimension: str, had: float, requested: float) -> str:
    """What a host had of a dimension and what was asked for, with the unit: ``32 VCPUs for 33``."""
    if dimension in FREE or dimension.startswith(("disk_pool_free", "disk_pool_available")):
        unit = UNITS[FREE[dimension][0]] if dimension in FREE else "GiB"
        return f"with {had:,.0f} {unit} for {requested:,.0f}"
    if dimension in LOADS:
        return f"with {had:.1%} {LOADS[dimension]}, at most {requested:.1%} asked for"
    if dimension == "stale":
        return f"with figures that are {had:.1f} s old, at most {format_duration(timedelta(seconds=requested))} allowed"
    if dimension == "numa_memory_mb":
        return f"with {had:,.0f} MiB for {requested:,.0f}"
    return f"with {had:,g} for {requested:,g}"
