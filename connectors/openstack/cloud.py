"""A cloud's compute hosts: the last full reading from the cloud's APIs, updated by the notifications since then.

What always holds:

- For each instance, service and aggregate the newest notification counts, by its sender's clock. A notification older
  than the last full reading (the truth) is ignored. So after a reading the state equals the truth, whichever
  notifications were lost, repeated or reordered before it, and late ones change nothing.
- A host counts as alive only because of its own reports (:meth:`Cloud.told`, :meth:`Cloud.sync_services`).
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from vacancy.connectors.collectors.collector import Inventory, InventoryReading, UsageReading
from vacancy.connectors.collectors.guest_counters import Sums
from vacancy.connectors.openstack.ceilometer import CPU, METERS, RESIDENT, Sample
from vacancy.connectors.openstack.notifications import AggregateSeen, CpuCounters, InstanceSeen, Notification, Service

RECENT_S = 300.0
"""How long a consumer is listed after it began to count; the agent uses the same time."""
_DEFAULT_ZONE = "nova"
"""The default of Nova's default_availability_zone; the next reading of the services corrects it if it is set."""
_IN_USAGE = frozenset({"VCPU", "MEMORY_MB", "DISK_GB"})
_NOTHING = Inventory(total=0, reserved=0, max_unit=0, allocation_ratio=1.0)
Outcome = Literal["applied", "old", "unknown", "nothing"]
Amounts = Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Provider:
    """A compute node as Placement and Nova have it.

    Attributes:
        id: UUID of both the compute node and the resource provider.
        name: the hypervisor's hostname.
        service: the host name of its nova-compute.
        inventories: by resource class, nested providers included.
        traits: nested providers' traits included.
        aggregates: UUIDs.
        held: by consumer, the amount that it holds of each resource class, of its storage pool included.
        disk_pool: UUID of the storage pool that its disk comes from; None: it has a disk of its own.
    """

    id: str
    name: str
    service: str
    inventories: Mapping[str, Inventory]
    traits: frozenset[str]
    aggregates: frozenset[str]
    held: Mapping[str, Amounts]
    disk_pool: str | None = None


@dataclass(frozen=True, slots=True)
class SharedDisk:
    """A resource provider that shares its disk with the compute nodes in its aggregates.

    Attributes:
        id: its UUID.
        name: its name in Placement.
        inventory: of DISK_GB.
        traits: that of sharing among them.
        aggregates: UUIDs.
        held_gb: what consumers hold of it that are on none of the nodes which take their disk from it.
    """

    id: str
    name: str
    inventory: Inventory
    traits: frozenset[str]
    aggregates: frozenset[str]
    held_gb: int


@dataclass(frozen=True, slots=True)
class Truth:
    """All compute nodes and the storage pools that they take their disk from.

    Attributes:
        at: when the reading began, in seconds since 1970.
        providers: by id.
        pools: by id.
    """

    at: float
    providers: Mapping[str, Provider]
    pools: Mapping[str, SharedDisk] = field(default_factory=dict)


def with_pools(at: float, nodes: Mapping[str, Provider], pools: Mapping[str, Provider]) -> Truth:
    """Joins nodes to the providers that share their disk with them, as Placement does: by aggregates.

    A node without DISK_GB takes it from a pool of which it shares an aggregate; of several from the first by name. What
    its instances hold of the pool it then holds itself.
    """
    disks = {id_: pool for id_, pool in pools.items() if "DISK_GB" in pool.inventories and id_ not in nodes}
    in_order = sorted(disks.values(), key=lambda pool: (pool.name, pool.id))
    joined: dict[str, Provider] = {}
    on_nodes: dict[str, set[str]] = {id_: set() for id_ in disks}
    for id_, node in nodes.items():
        near = (pool for pool in in_order if pool.aggregates & node.aggregates)
        pool = None if "DISK_GB" in node.inventories else next(near, None)
        if pool is not None:
            drawn = {name: pool.held[name].get("DISK_GB", 0) for name in node.held.keys() & pool.held.keys()}
            on_nodes[pool.id] |= drawn.keys()
            held = {
                name: {**amounts, "DISK_GB": drawn[name]} if name in drawn else amounts
                for name, amounts in node.held.items()
            }
            node = replace(node, held=held, disk_pool=pool.id)
        joined[id_] = node
    shared = {
        id_: SharedDisk(
            id=id_,
            name=pool.name,
            inventory=pool.inventories["DISK_GB"],
            traits=pool.traits,
            aggregates=pool.aggregates,
            held_gb=sum(amounts.get("DISK_GB", 0) for name, amounts in pool.held.items() if name not in on_nodes[id_]),
        )
        for id_, pool in disks.items()
    }
    return Truth(at, joined, shared)


class Difference(NamedTuple):
    """How far the state differed from the truth when that was read: instances per host, and for how long at most."""

    missed: int
    extra: int
    changed: int
    hosts: int
    since_s: float


@dataclass(slots=True)
class _Host:
    """A compute node with its current allocations."""

    provider: Provider
    held: dict[str, Amounts]
    began: dict[str, float] = field(default_factory=dict)
    cpu: CpuCounters | None = None
    guests: dict[str, dict[str, Sample]] = field(default_factory=dict)
    sums: dict[str, Sums[str]] = field(default_factory=dict)
    cpu_at: float = -math.inf
    counted_at: float = -math.inf
    monotonic_ns: int = 0

    def allocated(self, resource: str) -> int:
        """How much of a resource class is held."""
        return sum(amounts.get(resource, 0) for amounts in self.held.values())


class _Overlaid(NamedTuple):
    """An instance according to notifications: its host and its amounts; no host once it is gone."""

    at: float
    host: str | None
    amounts: Amounts
    flavor: Amounts


class Cloud:
    """The state. Its methods are for one thread at a time.

    Args:
        clock: monotonic seconds.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.monotonic, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._run = str(uuid.uuid4())
        self._hosts: dict[str, _Host] = {}
        self._pools: Mapping[str, SharedDisk] = {}
        self._by_name: dict[str, str] = {}
        self._by_service: dict[str, list[str]] = {}
        self._places: dict[str, set[str]] = {}
        self._at = -math.inf
        self._read_at = -math.inf
        self._services: dict[str, Service] = {}
        self._services_at = -math.inf
        self._heard: dict[str, str | None] = {}
        self._instances: dict[str, _Overlaid] = {}
        self._newer_services: dict[str, tuple[float, Service]] = {}
        self._newer_aggregates: dict[str, tuple[float, AggregateSeen]] = {}
        self.alive: set[str] = set()
        """Hosts that have shown they are alive; the caller removes each once it has reported it."""
        self.changed: set[str] = set()
        """Hosts of which anything has changed; the caller removes them likewise."""
        self.retired: set[str] = set()
        """Hosts that the cloud no longer has; the caller removes them likewise."""

    def __len__(self) -> int:
        return len(self._hosts)

    @property
    def hosts(self) -> Set[str]:
        """The ids of all hosts."""
        return self._hosts.keys()

    @property
    def pools(self) -> Set[str]:
        """The ids of all storage pools."""
        return self._pools.keys()

    @property
    def truth_age_s(self) -> float:
        """Seconds since the truth was last read; infinite before the first reading."""
        return self._clock() - self._read_at

    def told(self, notification: Notification, fresh_s: float) -> Outcome:
        """Applies a notification.

        Args:
            notification: what it says.
            fresh_s: a notification older than this does not prove that its host is alive: it may have been queued.
        """
        now = self._wall_clock()
        if notification.alive is not None and now - notification.at <= fresh_s:
            self.alive.update(self._by_service.get(notification.alive, ()))
        # A notification from a clock that is ahead must not outlive the next reading of the truth.
        at, told = min(notification.at, now), notification.told
        if told is None:
            return "nothing"
        if isinstance(told, InstanceSeen):
            return self._instance(at, told)
        if isinstance(told, CpuCounters):
            return self._cpu(at, told)
        if isinstance(told, Service):
            return self._service(at, told)
        return self._aggregate(at, told)

    def sampled(self, samples: Iterable[Sample]) -> Outcome:
        """Applies Ceilometer's samples; the newest one of each figure and resource counts."""
        outcome: Outcome = "nothing"
        for sample in samples:
            places = self._places.get(sample.instance, ())
            if len(places) != 1:
                outcome = "unknown" if outcome == "nothing" else outcome
                continue
            host = self._hosts[next(iter(places))]
            resources = host.guests.setdefault(sample.figure, {})
            before = resources.get(sample.resource)
            if before is not None and before.at >= sample.at:
                outcome = "old" if outcome == "nothing" else outcome
                continue
            resources[sample.resource] = sample
            host.counted_at = max(host.counted_at, min(sample.at, self._wall_clock()))
            self.changed.add(host.provider.id)
            outcome = "applied"
        return outcome

    def sync(self, truth: Truth) -> Difference | None:
        """Replaces the state by the truth; returns how far the state differed from it, None the first time."""
        now, first = self._clock(), self._at == -math.inf
        before = {(consumer, id_): held for id_, host in self._hosts.items() for consumer, held in host.held.items()}
        since_s = 0.0 if first else now - self._read_at
        self._instances = {key: seen for key, seen in self._instances.items() if seen.at > truth.at}
        self._newer_aggregates = {key: seen for key, seen in self._newer_aggregates.items() if seen[0] > truth.at}
        self.retired |= self._hosts.keys() | self._pools.keys()
        self.retired -= truth.providers.keys() | truth.pools.keys()
        self._pools = truth.pools
        self._rebuild(truth, now)
        self._at, self._read_at = truth.at, now
        if first:
            return None
        after = {(consumer, id_): held for id_, host in self._hosts.items() for consumer, held in host.held.items()}
        missed, extra = after.keys() - before.keys(), before.keys() - after.keys()
        changed = {key for key in after.keys() & before.keys() if dict(after[key]) != dict(before[key])}
        wrong = {id_ for _, id_ in missed | extra | changed}
        return Difference(len(missed), len(extra), len(changed), len(wrong), since_s)

    def sync_services(
        self, at: float, services: Mapping[str, Service], beats: Mapping[str, str | None], lately: bool
    ) -> None:
        """Applies the list of all services from Nova's API.

        Args:
            at: when the API was asked, in seconds since 1970.
            services: by the name of their host.
            beats: the last report of each service that is up, as Nova writes the time.
            lately: whether the previous request was so recent that a service that has reported since then is alive.
        """
        # An operator's change to a service also updates the time of its last report.
        set_anew = {name for name, service in services.items() if service != self._services.get(name)}
        for name in services.keys() | self._services.keys():
            if services.get(name) != self.service_of(name):
                self.changed.update(self._by_service.get(name, ()))
        self._services, self._services_at = dict(services), at
        self._newer_services = {key: seen for key, seen in self._newer_services.items() if seen[0] > at}
        for name, beat in beats.items():
            # Of one that was down at every look before, any report is news.
            if lately and name not in set_anew and self._heard.get(name) != beat:
                self.alive.update(self._by_service.get(name, ()))
        # Those that are down are kept: by its old report alone a service does not come back.
        self._heard = {name: beat for name, beat in (self._heard | dict(beats)).items() if name in services}

    def service_of(self, name: str) -> Service | None:
        """The last known state of a service, by the name of its host."""
        newer = self._newer_services.get(name)
        return self._services.get(name) if newer is None else newer[1]

    def usage(self, host_id: str) -> UsageReading:
        """What is in use on a host.

        The counters' clock is their source's wall clock at the time of the reading. Events between two readings are a
        few ns after the first one, so that a rate divides the counters' growth by the time that it took. A host
        without counters has a new boot id in every event, so that its events are never compared with each other.
        """
        host = self._hosts[host_id]
        now = self._clock()
        host.began = {consumer: began for consumer, began in host.began.items() if now - began <= RECENT_S}
        capacity = {name: host.provider.inventories.get(name, _NOTHING) for name in _IN_USAGE}
        allocated = {name: host.allocated(name) for name in _IN_USAGE}
        counters = self._counters(host)
        counted = CPU in counters
        if counted:
            host.monotonic_ns = max(host.monotonic_ns + 1, round(host.counted_at * 1e9))
        cpus = sum(
            host.provider.inventories[name].total for name in ("VCPU", "PCPU") if name in host.provider.inventories
        )
        return UsageReading(
            boot_id=self._run if counted else str(uuid.uuid4()),
            monotonic_ns=host.monotonic_ns if counted else round(now * 1e9),
            vcpus_capacity=capacity["VCPU"].capacity,
            vcpus_allocated=allocated["VCPU"],
            memory_mb_capacity=capacity["MEMORY_MB"].capacity,
            memory_mb_allocated=allocated["MEMORY_MB"],
            disk_gb_capacity=capacity["DISK_GB"].capacity,
            disk_gb_allocated=allocated["DISK_GB"],
            memory_mb_available=self._memory_mb_available(host, capacity["MEMORY_MB"], allocated["MEMORY_MB"]),
            disk_gb_available=max(0, capacity["DISK_GB"].capacity - allocated["DISK_GB"]),
            cpu_count=max(1, cpus),
            instances=sum(1 for amounts in host.held.values() if "MEMORY_MB" in amounts),
            recent_consumers=tuple(host.began),
            **({"cpu_busy_ns": 0} | counters),
        )

    def inventory(self, host_id: str) -> InventoryReading:
        """What a host is."""
        host = self._hosts[host_id]
        provider = host.provider
        service = self.service_of(provider.service)
        disabled = service is None or service.disabled or service.forced_down
        reason = "no nova-compute" if service is None else service.reason
        if service is not None and service.forced_down:
            reason = f"forced down: {reason}" if reason else "forced down"
        others = {name for amounts in host.held.values() for name in amounts} | provider.inventories.keys()
        return InventoryReading(
            boot_id=self._run,
            name=provider.name,
            inventories=dict(provider.inventories),
            status="DISABLED" if disabled else "ENABLED",
            status_reason=reason if disabled else None,
            zone=self._zone(provider, service),
            traits=tuple(sorted(provider.traits)),
            aggregates=tuple(sorted(self._aggregates(provider))),
            allocated={name: host.allocated(name) for name in sorted(others - _IN_USAGE)},
            source="ceilometer" if host.guests else "notifications",
            disk_pool=provider.disk_pool,
        )

    def pool_usage(self, pool_id: str) -> UsageReading:
        """What is held of a storage pool: by instances as its hosts have them, and by whatever else is in Placement."""
        pool = self._pools[pool_id]
        held_gb = pool.held_gb + sum(
            host.allocated("DISK_GB") for host in self._hosts.values() if host.provider.disk_pool == pool_id
        )
        return UsageReading(
            boot_id=self._run,
            monotonic_ns=round(self._clock() * 1e9),
            vcpus_capacity=0,
            vcpus_allocated=0,
            memory_mb_capacity=0,
            memory_mb_allocated=0,
            disk_gb_capacity=pool.inventory.capacity,
            disk_gb_allocated=held_gb,
            memory_mb_available=0,
            disk_gb_available=max(0, pool.inventory.capacity - held_gb),
            cpu_count=1,  # an event has one at least; it is idle
            cpu_busy_ns=0,
            instances=0,
        )

    def pool_inventory(self, pool_id: str) -> InventoryReading:
        """What a storage pool is."""
        pool = self._pools[pool_id]
        return InventoryReading(
            boot_id=self._run,
            name=pool.name,
            inventories={"DISK_GB": pool.inventory},
            traits=tuple(sorted(pool.traits)),
            aggregates=tuple(sorted(pool.aggregates)),
            allocated={},
            source="notifications",
        )

    def _instance(self, at: float, seen: InstanceSeen) -> Outcome:
        before = self._instances.get(seen.uuid)
        if at <= max(self._at, self._at if before is None else before.at):
            return "old"
        place = self._find(seen.host, seen.node)
        if seen.host is not None and place is None:
            return "unknown"
        was = set(self._places.get(seen.uuid, ()))
        if before is not None and before.host == place and before.flavor == seen.amounts:
            amounts = before.amounts
        elif before is None and place in was and place is not None and not seen.resizes:
            # Placement's amounts take precedence over the flavor's: a root disk may be a volume.
            amounts = self._hosts[place].held[seen.uuid]
        else:
            amounts = seen.amounts
        self._instances[seen.uuid] = _Overlaid(at, place, amounts, seen.amounts)
        for id_ in was - {place}:
            self._take(id_, seen.uuid)
        if place is not None:
            self._give(place, seen.uuid, amounts)
        return "applied"

    def _give(self, host_id: str, consumer: str, amounts: Amounts) -> None:
        host = self._hosts[host_id]
        if host.held.get(consumer) != amounts:
            self.changed.add(host_id)
        if consumer not in host.held:
            host.began[consumer] = self._clock()
        host.held[consumer] = amounts
        self._places.setdefault(consumer, set()).add(host_id)

    def _take(self, host_id: str, consumer: str) -> None:
        host = self._hosts[host_id]
        del host.held[consumer]
        host.began.pop(consumer, None)
        self.changed.add(host_id)
        self._places[consumer].discard(host_id)
        if not self._places[consumer]:
            del self._places[consumer]

    def _cpu(self, at: float, seen: CpuCounters) -> Outcome:
        place = self._find(seen.host, seen.node)
        if place is None:
            return "unknown"
        host = self._hosts[place]
        if at <= host.cpu_at:
            return "old"
        host.cpu, host.cpu_at, host.counted_at = seen, at, max(host.counted_at, at)
        self.changed.add(place)
        return "applied"

    def _service(self, at: float, seen: Service) -> Outcome:
        newer = self._newer_services.get(seen.host)
        if at <= max(self._services_at, -math.inf if newer is None else newer[0]):
            return "old"
        # The zone is its aggregates' to say, which have notifications of their own.
        zone = self._services[seen.host].zone if seen.host in self._services else seen.zone
        self._newer_services[seen.host] = (at, Service(seen.host, seen.disabled, seen.forced_down, seen.reason, zone))
        self.changed.update(self._by_service.get(seen.host, ()))
        return "applied"

    def _aggregate(self, at: float, seen: AggregateSeen) -> Outcome:
        newer = self._newer_aggregates.get(seen.uuid)
        if at <= max(self._at, -math.inf if newer is None else newer[0]):
            return "old"
        self._newer_aggregates[seen.uuid] = (at, seen)
        # Those that are no longer among its hosts, too.
        self.changed.update(self._hosts)
        return "applied"

    def _aggregates(self, provider: Provider) -> set[str]:
        found = set(provider.aggregates) - self._newer_aggregates.keys()
        return found | {id_ for id_, (_, seen) in self._newer_aggregates.items() if provider.service in seen.hosts}

    def _zone(self, provider: Provider, service: Service | None) -> str | None:
        zone = None if service is None else service.zone
        for at, seen in self._newer_aggregates.values():
            if at <= self._services_at or seen.zone is None:
                continue
            if provider.service in seen.hosts:
                return seen.zone
            if seen.uuid in provider.aggregates and zone == seen.zone:
                zone = _DEFAULT_ZONE
        return zone

    def _find(self, service: str | None, node: str | None) -> str | None:
        """A host by its hypervisor's name, or by its nova-compute's if that has only one hypervisor."""
        if node is not None and node in self._by_name:
            return self._by_name[node]
        hosts = self._by_service.get(service or "", [])
        return hosts[0] if len(hosts) == 1 else None

    def _rebuild(self, truth: Truth, now: float) -> None:
        """Rebuilds all hosts from the truth and the notifications that are newer."""
        former, self._hosts, self._by_service, self._places = self._hosts, {}, {}, {}
        newer: dict[str | None, dict[str, Amounts]] = {}
        for consumer, seen in self._instances.items():
            newer.setdefault(seen.host, {})[consumer] = seen.amounts
        for id_, provider in truth.providers.items():
            held = {consumer: amounts for consumer, amounts in provider.held.items() if consumer not in self._instances}
            held |= newer.get(id_, {})
            host = former.get(id_)
            if host is None:
                host = _Host(provider, {})
                self.changed.add(id_)
            elif (host.provider, host.held) != (provider, held):
                self.changed.add(id_)
            host.began = {consumer: now for consumer in held if consumer not in host.held} | {
                consumer: began for consumer, began in host.began.items() if consumer in held
            }
            host.provider, host.held = provider, held
            self._hosts[id_] = host
            self._by_service.setdefault(provider.service, []).append(id_)
            for consumer in held:
                self._places.setdefault(consumer, set()).add(id_)
        self._by_name = {host.provider.name: id_ for id_, host in self._hosts.items()}
        self.alive &= self._hosts.keys()
        self.changed &= self._hosts.keys()

    def _counters(self, host: _Host) -> dict[str, Any]:
        """A host's counters by their names in HostUsage: the host's own, and sums over its guests."""
        found: dict[str, Any] = {}
        for figure in METERS.values():
            resources = host.guests.get(figure)
            if resources is None or figure == RESIDENT:
                continue
            sums = host.sums.setdefault(figure, Sums(1))
            there = {name: sample for name, sample in resources.items() if sample.instance in host.held}
            host.guests[figure] = there
            (found[figure],) = sums.take({name: (sample.value,) for name, sample in there.items()}) or (0,)
        if host.cpu is not None:
            found[CPU] = host.cpu.busy_ns
            if host.cpu.iowait_ns is not None:
                found["cpu_iowait_ns"] = host.cpu.iowait_ns
        return found

    def _memory_mb_available(self, host: _Host, memory: Inventory, allocated: int) -> int:
        """Capacity less allocations; where guests' resident memory is sampled, the machine's memory less that."""
        samples = host.guests.get(RESIDENT, {}).values()
        resident = {sample.instance: sample.value for sample in samples if sample.instance in host.held}
        if not resident:
            return max(0, memory.capacity - allocated)
        used = sum(resident.get(consumer, amounts.get("MEMORY_MB", 0)) for consumer, amounts in host.held.items())
        return max(0, memory.total - memory.reserved - used)
