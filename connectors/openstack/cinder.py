"""Cinder's pools: what Cinder's scheduler knows about them, read from its API.

What always holds: a pool's free figure agrees with Cinder's own capacity filter, for a volume with the pool's own kind
of provisioning (thin where the pool supports it): a volume of that many GiB passes the filter, a larger one does not.

A pool is what Placement calls a sharing provider: it holds volumes for the hosts in its aggregates, and the disks of
instances for hosts that name it as their `agent.disk_pool`.
"""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

try:
    from keystoneauth1 import adapter, loading, session
    from keystoneauth1.exceptions import ClientException, EmptyCatalog, MissingRequiredOptions, NoMatchingPlugin
    from keystoneauth1.exceptions import http as refusals
except ModuleNotFoundError as missing:
    from vacancy.schemas.errors import ConfigError as _ConfigError

    raise _ConfigError(f"Cinder's pools need {missing.name}; pip install 'vacancy[cinder]'") from None

from vacancy.connectors.collectors.collector import Inventory, InventoryReading, UsageReading
from vacancy.connectors.collectors.disk_pool import SHARES, pool_id
from vacancy.connectors.settings import StorageSettings
from vacancy.schemas.errors import ConfigError

UNLIMITED_GB = 2**31 - 1
"""The capacity of a pool that reports it as infinite or unknown; Cinder treats both as enough."""
_ENDLESS = ("infinite", "unknown")
_INITIAL_AUTO_RATIO = 20.0


class CinderError(OSError):
    """Cinder did not answer as needed; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Room:
    """A pool's capacity in GiB, as Cinder's capacity filter counts it.

    Attributes:
        total: size of the storage.
        reserved: the part of the total that is kept back.
        ratio: how often the rest may be provisioned; 1 without thin provisioning.
        capacity: what can be provisioned.
        free: the part of the capacity that is not provisioned; negative if the pool is overcommitted.
        available: what the storage itself reports as free.
    """

    total: int
    reserved: int
    ratio: float
    capacity: int
    free: int
    available: int

    @classmethod
    def of(cls, capabilities: Mapping[str, Any], default_ratio: float | str) -> Room:
        """Computes a pool's capacity from its capabilities.

        Args:
            capabilities: as Cinder's API returns them.
            default_ratio: for pools that report no ``max_over_subscription_ratio``.

        Raises:
            ValueError: a figure is not a number.
        """
        total, free = capabilities.get("total_capacity_gb", 0), capabilities.get("free_capacity_gb", 0)
        reserved_percentage = float(capabilities.get("reserved_percentage", 0))
        if free in _ENDLESS or total in _ENDLESS:
            # Nothing can be reserved of an infinite total: Cinder then accepts no volume unless free is infinite too.
            passes = free in _ENDLESS or reserved_percentage == 0
            available = UNLIMITED_GB if free in _ENDLESS else _whole(float(free))
            return cls(UNLIMITED_GB, 0, 1.0, UNLIMITED_GB, UNLIMITED_GB if passes else 0, available)
        total, free = float(total), float(free)
        provisioned = float(capabilities.get("provisioned_capacity_gb", capabilities.get("allocated_capacity_gb", 0)))
        thin = bool(capabilities.get("thin_provisioning_support"))
        ratio = _ratio(capabilities, default_ratio, total - free, provisioned) if thin else 1.0
        reserved = math.floor(total * reserved_percentage / 100)
        capacity = (total - reserved) * ratio
        left = capacity - provisioned
        if not thin:
            left = min(left, free)
        if total <= 0 or ratio < 1:
            left = min(left, 0.0)  # such a pool is filtered out
        return cls(_whole(total), reserved, ratio, max(0, _whole(capacity)), _whole(left), max(0, _whole(free)))


def _ratio(capabilities: Mapping[str, Any], default: float | str, used: float, provisioned: float) -> float:
    """How often a thinly provisioned pool may provision its capacity."""
    ratio = capabilities.get("max_over_subscription_ratio") or default
    if ratio != "auto":
        return float(ratio)
    return 1 + provisioned / (used + 1) if provisioned else _INITIAL_AUTO_RATIO


def _whole(gb: float) -> int:
    """A figure in whole GiB; Cinder itself rounds its figures to hundredths."""
    return min(UNLIMITED_GB, math.floor(round(gb, 2)))


@dataclass(frozen=True, slots=True)
class Pool:
    """One pool.

    Attributes:
        name: ``host@backend#pool``.
        room: its capacity.
        reported_at: when its volume service last reported to Cinder; None: Cinder does not say.
        is_up: whether its driver says that the storage is up.
    """

    name: str
    room: Room
    reported_at: datetime | None
    is_up: bool

    @property
    def host_id(self) -> str:
        """Its host id; every reader computes the same one."""
        return pool_id(self.name)

    def usage(self, boot_id: str, monotonic_ns: int) -> UsageReading:
        """What is provisioned and what is free, as the usage of a host without CPUs and memory."""
        room = self.room
        return UsageReading(
            boot_id=boot_id,
            monotonic_ns=monotonic_ns,
            vcpus_capacity=0,
            vcpus_allocated=0,
            memory_mb_capacity=0,
            memory_mb_allocated=0,
            disk_gb_capacity=room.capacity,
            disk_gb_allocated=room.capacity - room.free,
            memory_mb_available=0,
            disk_gb_available=room.available,
            cpu_count=1,  # an event has one at least; it is idle
            cpu_busy_ns=0,
            instances=0,
        )

    def inventory(self, boot_id: str, settings: StorageSettings) -> InventoryReading:
        """What it is."""
        room = self.room
        what = f"pool {room.ratio:.4g}x, {room.reserved * 100 / room.total if room.total else 0:.3g}% reserved"
        shared = (
            aggregate
            for pattern, aggregates in settings.aggregates.items()
            if fnmatch.fnmatchcase(self.name, pattern)
            for aggregate in aggregates
        )
        return InventoryReading(
            boot_id=boot_id,
            name=self.name,
            inventories={"DISK_GB": Inventory(room.total, room.reserved, max(1, room.capacity), room.ratio)},
            status="ENABLED" if self.is_up else "DISABLED",
            status_reason=what if self.is_up else f"{what}, down",
            traits=(SHARES,),
            aggregates=tuple(dict.fromkeys(shared)),
            allocated={},
            source="cinder",
        )


class Cinder:
    """Reads the pools.

    Raises:
        ConfigError: the settings do not say how to log in.
    """

    def __init__(self, settings: StorageSettings) -> None:
        self._settings = settings
        options = {name: value.get_secret_value() for name, value in settings.auth.items()}
        try:
            login: Any = loading.get_plugin_loader(options.pop("auth_type", "password")).load_from_options(**options)
        except NoMatchingPlugin as error:
            raise ConfigError(f"storage.auth: {error}; correct auth_type") from None
        except (MissingRequiredOptions, TypeError) as error:
            # keystoneauth1 raises TypeError for an option that this auth_type does not have.
            raise ConfigError(f"storage.auth: {error}; see keystoneauth1's options of this auth_type") from None
        self._api = adapter.Adapter(
            session.Session(
                auth=login,
                verify=True if settings.ca_file is None else str(settings.ca_file),
                timeout=settings.timeout.total_seconds(),
            ),
            service_type="block-storage",
            interface=settings.interface,
            region_name=settings.region,
            endpoint_override=settings.endpoint,
            connect_retries=0,
        )

    def pools(self) -> list[Pool]:
        """All pools of volume services that Cinder considers up.

        Raises:
            CinderError: Cinder does not answer, or its answer is not a list of pools.
        """
        try:
            document = self._api.get("/scheduler-stats/get_pools", params={"detail": "True"}).json()
            return [self._pool(entry["name"], entry["capabilities"]) for entry in document["pools"]]
        except (refusals.Unauthorized, refusals.Forbidden) as error:
            raise CinderError(
                f"{error}; correct storage.auth: it takes a user whom Cinder's policy scheduler_extension:"
                "scheduler_stats:get_pools lets in, an administrator by default"
            ) from None
        except EmptyCatalog as error:
            raise CinderError(f"{error}; set storage.endpoint, or correct storage.auth") from None
        except ClientException as error:
            raise CinderError(
                f"{error}; is Cinder's API up, and are storage.endpoint and storage.auth right?"
            ) from None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CinderError(f"not an answer of Cinder's: {error!r}; correct storage.endpoint") from None

    def _pool(self, name: str, capabilities: Mapping[str, Any]) -> Pool:
        reported = capabilities.get("timestamp")
        return Pool(
            name=name,
            room=Room.of(capabilities, self._settings.max_over_subscription_ratio),
            reported_at=None if reported is None else datetime.fromisoformat(reported).replace(tzinfo=UTC),
            is_up=capabilities.get("backend_state", "up") != "down",
        )


def is_current(pool: Pool, now: datetime, max_report_age: timedelta) -> bool:
    """Whether a pool's last report to Cinder is recent enough to be sent."""
    return pool.reported_at is None or now - pool.reported_at <= max_report_age
