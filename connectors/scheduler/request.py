"""What an instance needs of a host."""

from __future__ import annotations

import functools
import json
from datetime import timedelta
from typing import Annotated, Self

from pydantic import Field, model_validator

from vacancy.connectors.settings import SchedulerSettings, Section, Strategy
from vacancy.schemas.units import Duration, milliseconds_of

_Amount = Annotated[int, Field(ge=1, le=2**31 - 1)]
_PciId = Annotated[str, Field(pattern=r"^[0-9a-fA-F]{4}$")]


class Weights(Section):
    """What a fraction of each is worth in a host's score; see docs/claims.md."""

    vcpus: float = 1.0
    memory_mb: float = 1.0
    disk_gb: float = 1.0
    load: float = 1.0
    age: float = 0.1


class Numa(Section):
    """What an instance needs of one NUMA cell, whichever it is.

    Raises:
        pydantic.ValidationError: an amount is negative.
    """

    cpus: int = Field(default=0, ge=0, le=2**31 - 1, description="CPUs to pin.")
    pages: dict[_Amount, _Amount] = Field(default={}, description="Huge pages, by their size in KiB.")


class Pci(Section):
    """PCI devices that an instance needs, all of one kind: from pools that have all of what is given.

    Raises:
        pydantic.ValidationError: an id is not four hex digits, or nothing says which devices.
    """

    vendor_id: _PciId | None = Field(default=None, description="Four hex digits.")
    product_id: _PciId | None = Field(default=None, description="Four hex digits.")
    tags: dict[str, str] = Field(default={}, description="Tags of the pool, such as physical_network.")
    numa_node: int | None = Field(default=None, description="The cell that they hang off.")
    same_cell: bool = Field(default=False, description="One cell with `numa` and with all others that have this.")
    count: _Amount = Field(default=1, description="How many.")

    @model_validator(mode="after")
    def _which(self) -> Self:
        if not (self.vendor_id or self.product_id or self.tags):
            raise ValueError("say which devices: vendor_id, product_id or tags")
        return self


class Request(Section):
    """What an instance needs of a host. Hosts and pools are named by id or name; a part that is not given is no matter.

    Raises:
        pydantic.ValidationError: an amount is negative or a part is unknown.
    """

    vcpus: int = Field(default=0, ge=0, description="VCPUs.")
    memory_mb: int = Field(default=0, ge=0, description="MiB of memory.")
    disk_gb: int = Field(default=0, ge=0, description="GiB of disk.")
    resources: dict[str, _Amount] = Field(default={}, description="Amounts of other resource classes, by name.")
    numa: Numa = Field(default=Numa(), description="Pinned CPUs and huge pages, from one NUMA cell.")
    pci: tuple[Pci, ...] = Field(default=(), max_length=8, description="PCI devices.")
    distinct_hosts: bool = Field(default=False, description="No two of the claims on one host.")
    required: tuple[str, ...] = Field(default=(), description="Traits that the host must have.")
    any_of: tuple[tuple[str, ...], ...] = Field(
        default=(), description="Of each group it must have one trait at least."
    )
    forbidden: tuple[str, ...] = Field(default=(), description="Traits that it must not have.")
    aggregates: tuple[str, ...] = Field(default=(), description="It must be in one of these aggregates.")
    near: str | None = Field(default=None, description="It must share an aggregate with this storage pool.")
    zone: str | None = Field(default=None, description="Its availability zone.")
    include: tuple[str, ...] = Field(default=(), description="Only these hosts.")
    avoid: tuple[str, ...] = Field(default=(), description="None of these hosts.")
    max_cpu_utilization: float | None = Field(default=None, description="At most this fraction of its CPUs is busy.")
    max_cpu_steal: float | None = Field(default=None, description="At most this fraction is stolen.")
    max_cpu_pressure: float | None = Field(default=None, description="Tasks wait for a CPU at most this fraction.")
    max_memory_pressure: float | None = Field(default=None, description="Tasks wait for memory at most this fraction.")
    max_io_pressure: float | None = Field(default=None, description="Tasks wait for I/O at most this fraction.")
    min_memory_mb_available: int = Field(default=0, ge=0, description="MiB to be left available after the claim.")
    strategy: Strategy | None = Field(default=None, description="None: as the settings say.")
    weights: Weights = Weights()
    sample: int | None = Field(default=None, ge=1, description="None: as the settings say.")
    max_age: Duration | None = Field(default=None, description="None: as the settings say.")
    claim_ttl: Duration | None = Field(default=None, description="None: as the settings say.")

    def __hash__(self) -> int:
        # Not of each field, as pydantic has it, since dicts have none; requests that share one are still told apart.
        return hash((self.vcpus, self.memory_mb, self.disk_gb))

    @property
    def takes_anything(self) -> bool:
        """Whether it asks for an amount of anything."""
        return any((self.vcpus, self.memory_mb, self.disk_gb, self.resources, self.numa != Numa(), self.pci))

    @functools.lru_cache(maxsize=1024)  # noqa: B019  # requests are small, and few: flavours
    def document(self, settings: SchedulerSettings) -> str:
        """The request as the SQL functions take it, in JSON."""
        given = self.model_dump(exclude_defaults=True)
        for name in ("strategy", "sample", "max_age", "claim_ttl"):
            value = getattr(self, name) or getattr(settings, name)
            given[name] = f"{milliseconds_of(value)} ms" if isinstance(value, timedelta) else value
        return json.dumps(given)
