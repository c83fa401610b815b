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
    """The weight of each fraction in a host's score; see docs/claims.md."""

    vcpus: float = 1.0
    memory_mb: float = 1.0
    disk_gb: float = 1.0
    load: float = 1.0
    age: float = 0.1


class Numa(Section):
    """What an instance needs from a single NUMA cell of the host.

    Raises:
        pydantic.ValidationError: an amount is negative.
    """

    cpus: int = Field(default=0, ge=0, le=2**31 - 1, description="CPUs to pin.")
    pages: dict[_Amount, _Amount] = Field(default={}, description="Huge pages, by their size in KiB.")


class Pci(Section):
    """PCI devices of one kind that an instance needs, from pools that match every given field.

    Raises:
        pydantic.ValidationError: an id is not four hex digits, or no field says which devices.
    """

    vendor_id: _PciId | None = Field(default=None, description="Four hex digits.")
    product_id: _PciId | None = Field(default=None, description="Four hex digits.")
    tags: dict[str, str] = Field(default={}, description="Tags of the pool, such as physical_network.")
    numa_node: int | None = Field(default=None, description="The NUMA cell that they are attached to.")
    same_cell: bool = Field(default=False, description="Same cell as `numa` and all other devices that set this.")
    count: _Amount = Field(default=1, description="How many.")

    @model_validator(mode="after")
    def _which(self) -> Self:
        if not (self.vendor_id or self.product_id or self.tags):
            raise ValueError("say which devices: vendor_id, product_id or tags")
        return self


class Request(Section):
    """What an instance needs from a host. Hosts and pools are given by id or name. Omitted fields impose no constraint.

    Raises:
        pydantic.ValidationError: an amount is negative or a field is unknown.
    """

    vcpus: int = Field(default=0, ge=0, description="VCPUs.")
    memory_mb: int = Field(default=0, ge=0, description="MiB of memory.")
    disk_gb: int = Field(default=0, ge=0, description="GiB of disk.")
    resources: dict[str, _Amount] = Field(default={}, description="Amounts of other resource classes, by name.")
    numa: Numa = Field(default=Numa(), description="Pinned CPUs and huge pages, from one NUMA cell.")
    pci: tuple[Pci, ...] = Field(default=(), max_length=8, description="PCI devices.")
    distinct_hosts: bool = Field(default=False, description="Each claim on a different host.")
    required: tuple[str, ...] = Field(default=(), description="Traits that the host must have.")
    any_of: tuple[tuple[str, ...], ...] = Field(
        default=(), description="It must have at least one trait of each group."
    )
    forbidden: tuple[str, ...] = Field(default=(), description="Traits that it must not have.")
    aggregates: tuple[str, ...] = Field(default=(), description="It must be in one of these aggregates.")
    near: str | None = Field(default=None, description="It must share an aggregate with this storage pool.")
    zone: str | None = Field(default=None, description="Its availability zone.")
    include: tuple[str, ...] = Field(default=(), description="Only these hosts.")
    avoid: tuple[str, ...] = Field(default=(), description="None of these hosts.")
    max_cpu_utilization: float | None = Field(default=None, description="At most this fraction of its CPUs is busy.")
    max_cpu_steal: float | None = Field(default=None, description="At most this fraction of CPU time is stolen.")
    max_cpu_pressure: float | None = Field(
        default=None, description="Tasks wait for a CPU at most this fraction of time."
    )
    max_memory_pressure: float | None = Field(
        default=None, description="Tasks wait for memory for at most this fraction."
    )
    max_io_pressure: float | None = Field(default=None, description="Tasks wait for I/O at most this fraction of time.")
    min_memory_mb_available: int = Field(default=0, ge=0, description="MiB that must stay available after the claim.")
    strategy: Strategy | None = Field(default=None, description="None: as the settings say.")
    weights: Weights = Weights()
    sample: int | None = Field(default=None, ge=1, description="None: as the settings say.")
    max_age: Duration | None = Field(default=None, description="None: as the settings say.")
    claim_ttl: Duration | None = Field(default=None, description="None: as the settings say.")

    def __hash__(self) -> int:
        # pydantic would hash every field, and dicts have no hash. Requests with equal hashes are still told apart.
        return hash((self.vcpus, self.memory_mb, self.disk_gb))

    @property
    def takes_anything(self) -> bool:
        """Whether it requests an amount of any resource."""
        return any((self.vcpus, self.memory_mb, self.disk_gb, self.resources, self.numa != Numa(), self.pci))

    @functools.lru_cache(maxsize=1024)  # noqa: B019  # requests are small, and few: flavours
    def document(self, settings: SchedulerSettings) -> str:
        """The request as the JSON document that the SQL functions take."""
        given = self.model_dump(exclude_defaults=True)
        for name in ("strategy", "sample", "max_age", "claim_ttl"):
            value = getattr(self, name) or getattr(settings, name)
            given[name] = f"{milliseconds_of(value)} ms" if isinstance(value, timedelta) else value
        return json.dumps(given)
