"""A seeded fleet of compute nodes, stored as columns of numbers that each tick advances.

Shapes: a fleet of N hosts is N rows; a column is an array of N values. Rows are sorted by the hosts' phases, so that
the hosts which report in one tick are one slice of every column. The interval between two reports of a host is divided
into ``slices`` equal ticks; in tick t the hosts of slice ``t % slices`` report.

What always holds:

- Pure: nothing here reads a clock, a file or a socket. Equal arguments and equal calls give equal events.
- A host's id, hardware and phase depend only on the seed and the host's index: a larger fleet contains the smaller one.
- Within a boot no counter decreases, and monotonic_ns grows by the whole time between two events.
- No figure is negative; allocations never exceed the capacity.
- ``seq`` starts at 0 with every boot and then grows by one per event.
- With a tolerance an event is left out if and only if vacancy.jobs.simulator.looks lets it be.
- ``boot_id`` depends on ``started_ms`` too: all hosts of a restarted fleet look rebooted, so that their counters are
  not compared with those of the previous run.
"""

from __future__ import annotations

import uuid
from collections import deque
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt

from vacancy.connectors.collectors.disk_pool import SHARES, pool_id
from vacancy.jobs.simulator.looks import Columns, Looks
from vacancy.jobs.simulator.shapes import FLAVOURS, MAX_INSTANCES, SHAPES, allocated, inventories, numa_cells, pci_pools
from vacancy.schemas.usage import COUNTERS

Integers = npt.NDArray[np.int64]
Reals = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]
Objects = npt.NDArray[np.object_]

NAMESPACE = uuid.UUID("6f0d5f2e-7a38-5f4d-9a0c-5f7f2f6f0b1d")
NS_PER_S = 1_000_000_000
RECENT_NS = 300 * NS_PER_S
"""How long a new instance stays in recent_consumers."""
SLICE_NS = 50_000_000
"""Target length of a tick: short enough for an even flow of events, long enough to process many hosts at once."""
NEVER = np.iinfo(np.int64).max

_COUNTERS = (
    *(counter.field for counter in COUNTERS),
    *("disk_read_ops", "disk_write_ops", "net_rx_packets", "net_tx_packets"),
)
"""Those of which the job makes rates come first."""
PRESSURE = ("cpu_pressure_us", "memory_pressure_us", "io_pressure_us")
_VERSION = metadata.version("vacancy")
_DAY_S = 86_400.0
_NOISE_MEMORY_S = 30.0  # decay time of the noise in a host's load
_FLAVOUR_AMOUNTS: Integers = np.array(
    [(flavour.vcpus, flavour.memory_mb, flavour.disk_gb) for flavour in FLAVOURS], dtype=np.int64
)
_FLAVOUR_BOUNDS: Reals = np.cumsum([flavour.share for flavour in FLAVOURS])
_SHAPE_BOUNDS: Reals = np.cumsum([shape.share for shape in SHAPES])


@dataclass(frozen=True)
class Behaviour:
    """How often events happen to one host.

    Attributes:
        changes_per_s: instances booted or deleted; 30,000 hosts make 300 a second.
        reboots_per_s: reboots.
        reboot_s: least and most time a reboot takes.
        silences_per_s: failures in which the host's agent hangs and stops reporting.
        silence_s: least and most length of such a failure.
        lost: share of these failures that never end.
    """

    changes_per_s: float = 1 / 100
    reboots_per_s: float = 1 / 86_400
    reboot_s: tuple[float, float] = (30.0, 180.0)
    silences_per_s: float = 1 / 43_200
    silence_s: tuple[float, float] = (5.0, 600.0)
    lost: float = 0.02


@dataclass(frozen=True)
class Reporting:
    """Which looks are sent.

    Attributes:
        window_ns: the job's.
        tolerance: as `agent.tolerance`.
        max_silence_ns: as `agent.max_silence`.
    """

    window_ns: int = 60 * NS_PER_S
    tolerance: float = 0.0
    max_silence_ns: int = 10 * NS_PER_S


@dataclass(frozen=True)
class Report:
    """What the fleet reports in one tick.

    Attributes:
        looks: the hosts that looked at themselves.
        rows: the n hosts that send a usage event, in this order; one that sends its look before too is in it twice.
        usage: n values by field of HostUsage; agent_time is ms since 1970-01-01, recent_consumers tuples of UUIDs.
            May lack the fields if n is 0.
        without_pressure: which of the n have no PSI: their pressure counters are null, whatever ``usage`` holds.
        inventory_rows: hosts that send an inventory event as well; see :meth:`Fleet.inventory`.
    """

    looks: Integers
    rows: Integers
    usage: dict[str, npt.NDArray[Any]]
    without_pressure: Flags
    inventory_rows: Integers


_NOTHING = Report(np.empty(0, np.int64), np.empty(0, np.int64), {}, np.empty(0, np.bool_), np.empty(0, np.int64))


class Fleet:
    """The hosts that a seed generates.

    Args:
        hosts: how many, at least 1.
        interval_ns: time between two looks of a host at itself, at least 1 ms.
        seed: any integer from 0.
        started_ms: wall clock at the start, ms since 1970-01-01; tells the runs of one seed apart.
        inventory_interval_ns: time between two inventory events of a host.
        inventory_spread_ns: time over which the first inventory events are spread, and with a tolerance the first usage
            events, since a host sends several then.
        behaviour: how often boots, failures and reboots happen.
        reporting: which looks are sent; by default each.
        pools: storage pools that the disk of three quarters of the hosts comes from; 0: each has a disk of its own.
    """

    def __init__(
        self,
        hosts: int,
        interval_ns: int,
        seed: int,
        started_ms: int,
        *,
        inventory_interval_ns: int = 300 * NS_PER_S,
        inventory_spread_ns: int = 0,
        behaviour: Behaviour | None = None,
        reporting: Reporting | None = None,
        pools: int = 0,
    ) -> None:
        self.seed = seed
        self.pools = tuple(f"sim-{seed}-pool-{number + 1}" for number in range(pools))
        self.interval_ns = interval_ns
        self.slices = max(1, interval_ns // SLICE_NS)
        self.ticks = 0
        self._started_ms = started_ms
        self._inventory_interval_ns = inventory_interval_ns
        self._behaviour = behaviour or Behaviour()
        self._reporting = reporting or Reporting()
        self._random = np.random.default_rng([seed, 0])

        slice_of = (self._trait("phase", hosts) * self.slices).astype(np.int64)
        self.index: Integers = np.argsort(slice_of, kind="stable").astype(np.int64)
        self._bounds = np.searchsorted(slice_of[self.index], np.arange(self.slices + 1))
        self._be_built(hosts)
        self._be_filled()
        self._be_running(hosts, inventory_spread_ns)
        self._figures: Columns = {
            "counters": self._counts,
            "allocated": self.allocated.T,
            "instances": self.instances,
            "memory_mb_available": self._memory_mb_available,
            "recent_consumers": self.recent_consumers,
            "listings": self._listings,
            "boots": self.boots,
        }
        self._looks: Looks | None = None
        if self._reporting.tolerance:
            self.silent_until_ns[:] = self.inventory_due_ns
            self._looks = Looks(
                self._figures,
                cpu_count=self.cpu_count,
                memory_mb_capacity=self.capacity[:, 1],
                pressure=self.pressure,
                window_ns=self._reporting.window_ns,
                tolerance=self._reporting.tolerance,
                # The look that is nearest to the end of the silence.
                max_silence_ns=self._reporting.max_silence_ns - interval_ns // 2,
            )

    def __len__(self) -> int:
        return len(self.index)

    @property
    def _reporting_interval_ns(self) -> int:
        """Most time between two usage events of a host."""
        return max(self.interval_ns, self._reporting.max_silence_ns) if self._reporting.tolerance else self.interval_ns

    def tick_at_ns(self, tick: int) -> int:
        """When a tick is due, in ns since the fleet's start."""
        return tick * self.interval_ns // self.slices

    def advance(self, now_ms: int) -> Report:
        """The next tick: what its hosts report at wall clock now_ms, which is only used for agent_time."""
        at_ns = self.tick_at_ns(self.ticks)
        turn = self.ticks % self.slices
        self.ticks += 1
        first, end = int(self._bounds[turn]), int(self._bounds[turn + 1])
        if first == end:
            return _NOTHING
        rows = slice(first, end)
        self._forget_consumers(at_ns)
        elapsed_ns = np.full(end - first, self.interval_ns if self.ticks > self.slices else 0, dtype=np.int64)
        self._come_back(rows, at_ns, elapsed_ns)
        self._boot_and_delete(rows, at_ns)
        self._count(rows, at_ns, elapsed_ns)
        self._fail(rows, at_ns)
        looking = self.silent_until_ns[rows] <= at_ns
        reporting, usage = self._sent(rows, looking, at_ns, now_ms)
        looks = first + np.flatnonzero(looking)
        inventory_rows = looks[self.inventory_due_ns[looks] <= at_ns]
        # Like agents, a host sends its first inventory at once and the others at its own phase.
        since_ns = (at_ns - self._inventory_phase_ns[inventory_rows]) % self._inventory_interval_ns
        self.inventory_due_ns[inventory_rows] = at_ns - since_ns + self._inventory_interval_ns
        return Report(looks, reporting, usage, ~self.pressure[reporting], inventory_rows)

    def _sent(
        self, rows: slice, looking: Flags, at_ns: int, now_ms: int
    ) -> tuple[Integers, dict[str, npt.NDArray[Any]]]:
        """Which of the hosts that look send that, and which the look before too; and the columns of HostUsage."""
        if self._looks is None:
            now_rows = rows.start + np.flatnonzero(looking)
            return now_rows, self._usage(now_rows, at_ns, now_ms, self._figures)
        before_rows, now_rows = self._looks.take(rows, looking, at_ns)
        before = self._usage(before_rows, self._looks.last_at_ns[before_rows], now_ms, self._looks.last)
        now = self._usage(now_rows, at_ns, now_ms, self._figures)
        self._looks.keep(rows, looking, at_ns)
        both = {name: np.concatenate([before[name], column]) for name, column in now.items()}
        return np.concatenate([before_rows, now_rows]), both

    def inventory(self, row: int, now_ms: int) -> dict[str, Any]:
        """One host's HostInventory."""
        shape = SHAPES[self.shape[row]]
        index = int(self.index[row])
        vcpus, memory_mb, _ = self.allocated[row].tolist()
        return {
            "host_id": self.host_id[row],
            "boot_id": self.boot_id[row],
            "agent_time": max(0, now_ms + int(self.skew_ms[row])),
            "name": f"{shape.name}-{index:06d}",
            "zone": f"zone-{self.zone[row] + 1}",
            "status": "DISABLED" if self.disabled[row] else "ENABLED",
            "status_reason": "maintenance" if self.disabled[row] else None,
            "inventories": {
                name: inventory
                for name, inventory in inventories(shape).items()
                if name != "DISK_GB" or self.pool[row] < 0
            },
            "traits": list(shape.traits),
            "aggregates": [
                str(uuid.uuid5(NAMESPACE, f"{self.seed}/aggregate/{shape.name}")),
                str(uuid.uuid5(NAMESPACE, f"{self.seed}/rack/{index // 40}")),
            ],
            "numa_cells": numa_cells(shape, vcpus, memory_mb),
            "pci_pools": pci_pools(shape, int(self.instances[row])),
            "reporting_interval_ms": self._reporting_interval_ns // 1_000_000,
            "agent_version": _VERSION,
            "allocated": allocated(shape, int(self.instances[row])),
            "source": "simulator",
            "disk_pool": self.pools[self.pool[row]] if self.pool[row] >= 0 else None,
        }

    def pool_events(self, now_ms: int) -> list[tuple[dict[str, Any], dict[str, Any]]]:
        """Each pool's HostUsage and HostInventory: as large as its hosts' disks would be, and as full."""
        self._pool_reports += 1
        return [self._pool_events(number, now_ms) for number in range(len(self.pools))]

    def _pool_events(self, number: int, now_ms: int) -> tuple[dict[str, Any], dict[str, Any]]:
        rows = np.flatnonzero(self.pool == number)
        capacity, allocated = int(self.capacity[rows, 2].sum()), int(self.allocated[rows, 2].sum())
        who = {
            "host_id": pool_id(self.pools[number]),
            "boot_id": str(uuid.uuid5(NAMESPACE, f"{self.seed}/{self._started_ms}/pool")),
            "agent_time": now_ms,
        }
        usage = {
            **who,
            "seq": self._pool_reports - 1,
            "monotonic_ns": self._pool_reports * self.interval_ns,
            **dict.fromkeys(("vcpus_capacity", "vcpus_allocated", "memory_mb_capacity", "memory_mb_allocated"), 0),
            "disk_gb_capacity": capacity,
            "disk_gb_allocated": allocated,
            "memory_mb_available": 0,
            "disk_gb_available": int((self._disk_gb[rows] - self._disk_used_gb(rows, self.allocated[rows])).sum()),
            "cpu_count": 1,
            "cpu_busy_ns": 0,
            "instances": 0,
        }
        inventory = {
            **who,
            "name": self.pools[number],
            "status": "ENABLED",
            "inventories": {"DISK_GB": {"total": capacity, "max_unit": max(1, capacity)}},
            "traits": [SHARES],
            "reporting_interval_ms": self.interval_ns // 1_000_000,
            "agent_version": _VERSION,
            "allocated": {},
            "source": "simulator",
        }
        return usage, inventory

    # The start

    def _trait(self, name: str, hosts: int) -> Reals:
        """One number in 0..1 per host, in order of index, that depends only on the seed, the name and the index."""
        return np.random.default_rng([self.seed, *name.encode()]).random(hosts)

    def _of_rows(self, name: str) -> Reals:
        """A trait in order of rows."""
        return self._trait(name, len(self.index))[self.index]

    def _be_built(self, hosts: int) -> None:
        """Sets what never changes: identity, hardware, habits."""
        self.host_id = _objects([str(uuid.uuid5(NAMESPACE, f"{self.seed}/host/{index}")) for index in self.index])
        self.shape: Integers = np.minimum(
            np.searchsorted(_SHAPE_BOUNDS, self._of_rows("shape"), side="right"), len(SHAPES) - 1
        )
        self.capacity = self._of_shape([shape.capacity for shape in SHAPES])
        self.cpu_count = self._of_shape([shape.cpu_count for shape in SHAPES]).astype(np.int32)
        self._max_instances = self._of_shape([shape.max_instances for shape in SHAPES])
        self._memory_mb = self._of_shape([shape.memory_mb for shape in SHAPES])
        self._disk_gb = self._of_shape([shape.disk_gb for shape in SHAPES])
        self._disk_bytes_per_s = self._of_shape([shape.disk_bytes_per_s for shape in SHAPES])
        self._nic_bytes_per_s = self._of_shape([shape.nic_bytes_per_s for shape in SHAPES])
        self._steal = np.array([shape.steal for shape in SHAPES])[self.shape]
        self._utilization = np.array([shape.utilization for shape in SHAPES])[self.shape]
        self.pressure: Flags = np.array([shape.pressure for shape in SHAPES])[self.shape]
        self.zone: Integers = (self._of_rows("zone") * 3).astype(np.int64)
        pools = len(self.pools)
        self.pool: Integers = np.where((self.index % 4 < 3) & (pools > 0), self.index // 4 % max(1, pools), -1)
        self._pool_reports = 0
        self.disabled: Flags = self._of_rows("disabled") < 0.01
        self._fill = 0.25 + 0.7 * self._of_rows("fill")  # share of the capacity that the host's instances tend to
        self._memory_touched = 0.5 + 0.4 * self._of_rows(
            "memory touched"
        )  # share of allocated memory that is really used
        self._disk_touched = 0.3 + 0.5 * self._of_rows("disk touched")
        self._iowait = 0.01 + 0.1 * self._of_rows("iowait") ** 2  # iowait for each busy CPU
        self._disk_appetite = 10 ** (5.5 + 1.5 * self._of_rows("disk"))  # bytes/s for each busy CPU
        self._net_appetite = 10 ** (5.5 + 2.0 * self._of_rows("net"))
        self._io_bytes: Integers = 4096 << (self._of_rows("io size") * 5).astype(np.int64)
        self._packet_bytes: Integers = (300 + 1100 * self._of_rows("packet size")).astype(np.int64)
        self._quick_period_s = 300 + 900 * self._of_rows("quick period")
        self._quick_phase = 2 * np.pi * self._of_rows("quick phase")
        self.skew_ms = _skew_ms(self._of_rows("skewed"), self._of_rows("skew"))
        self._noise: Reals = np.zeros(hosts)

    def _of_shape(self, values: list[Any]) -> Integers:
        """An attribute of each host's shape, as a column."""
        return np.array(values, dtype=np.int64)[self.shape]

    def _be_filled(self) -> None:
        """Creates the instances that exist when the fleet starts."""
        hosts = len(self)
        # A slot holds one instance. Its load is a mean plus a daily wave, in CPUs. All waves have the same period, so
        # the sum of a host's waves is one wave too; its cosine and sine parts are the sums of theirs.
        self._slot_flavour = np.full((hosts, MAX_INSTANCES), -1, dtype=np.int8)
        self._slot_load = np.zeros((hosts, MAX_INSTANCES, 3), dtype=np.float32)
        self._load: Reals = np.zeros((hosts, 3))
        self.allocated: Integers = np.zeros((hosts, 3), dtype=np.int64)
        self.instances: Integers = np.zeros(hosts, dtype=np.int64)
        self.recent_consumers = _objects([()] * hosts)
        self._listings: Integers = np.zeros(hosts, dtype=np.int64)  # changes of recent_consumers
        self._recent: deque[tuple[int, int]] = deque()  # (when it ends, row), in this order
        for _ in range(MAX_INSTANCES):
            self._boot_instances(np.flatnonzero(self._allocated_share(slice(None)) < self._fill))

    def _be_running(self, hosts: int, inventory_spread_ns: int) -> None:
        """Sets uptimes from an hour to 60 days, and the counters that such uptimes produce."""
        self.boots: Integers = np.zeros(hosts, dtype=np.int64)
        self.boot_id = _objects([self._new_boot_id(row) for row in range(hosts)])
        self.seq: Integers = np.full(hosts, -1, dtype=np.int64)
        uptime_ns = ((3_600 + 5_180_400 * self._of_rows("uptime")) * NS_PER_S).astype(np.int64)
        # A host's first report comes at its phase, not at the start.
        phase_ns = np.searchsorted(self._bounds, np.arange(hosts), side="right") - 1
        phase_ns = phase_ns * self.interval_ns // self.slices
        self.booted_at_ns: Integers = phase_ns - uptime_ns
        self._down_at_ns: Integers = np.zeros(hosts, dtype=np.int64)
        self._rebooting: Flags = np.zeros(hosts, dtype=np.bool_)
        self.silent_until_ns: Integers = np.zeros(hosts, dtype=np.int64)
        phase = self._of_rows("inventory")
        self._inventory_phase_ns: Integers = (self._inventory_interval_ns * phase).astype(np.int64)
        self.inventory_due_ns: Integers = (inventory_spread_ns * phase).astype(np.int64)
        self._counts: Integers = np.zeros((len(_COUNTERS), hosts), dtype=np.int64)
        self.counters: dict[str, Integers] = dict(zip(_COUNTERS, self._counts, strict=True))
        self._memory_mb_available: Integers = np.zeros(hosts, dtype=np.int64)
        self._count(slice(0, hosts), 0, uptime_ns)

    def _new_boot_id(self, row: int) -> str:
        run = f"{self.seed}/{self._started_ms}"
        return str(uuid.uuid5(NAMESPACE, f"{run}/boot/{self.index[row]}/{self.boots[row]}"))

    # Instances

    def _boot_and_delete(self, rows: slice, at_ns: int) -> None:
        """Boots or deletes an instance on the hosts whose turn it is; hosts move towards their usual fill level."""
        chance = self._chance(self._behaviour.changes_per_s)
        changing = rows.start + np.flatnonzero(self._random.random(rows.stop - rows.start) < chance)
        if not len(changing):
            return
        lack = self._fill[changing] - self._allocated_share(changing)
        boots = self._random.random(len(changing)) < np.clip(0.5 + 2 * lack, 0.05, 0.95)
        for row in self._boot_instances(changing[boots]).tolist():
            consumer = uuid.UUID(bytes=self._random.bytes(16), version=4)
            self.recent_consumers[row] = (*self.recent_consumers[row], str(consumer))
            self._listings[row] += 1
            self._recent.append((at_ns + RECENT_NS, row))
        self._delete_instances(changing[~boots])

    def _boot_instances(self, rows: Integers) -> Integers:
        """Boots one instance of a random flavour on each of these hosts where it fits; returns where it fitted."""
        flavour = np.searchsorted(_FLAVOUR_BOUNDS, self._random.random(len(rows)), side="right")
        flavour = np.minimum(flavour, len(FLAVOURS) - 1)
        load = self._random.random((len(rows), 3))
        fits = (self.allocated[rows] + _FLAVOUR_AMOUNTS[flavour] <= self.capacity[rows]).all(axis=1)
        fits &= self.instances[rows] < self._max_instances[rows]
        rows, flavour, load = rows[fits], flavour[fits], load[fits]
        slot = (self._slot_flavour[rows] < 0).argmax(axis=1)
        self._slot_flavour[rows, slot] = flavour
        mean = _FLAVOUR_AMOUNTS[flavour, 0] * self._utilization[rows] * (0.2 + 1.6 * load[:, 0])
        swing = mean * 0.7 * load[:, 1]
        angle = 1.5 * (load[:, 2] - 0.5)  # most instances are busy at about the same time of the day
        self._slot_load[rows, slot] = np.stack([mean, swing * np.cos(angle), swing * np.sin(angle)], axis=1)
        self._add(rows, slot, 1)
        return rows

    def _delete_instances(self, rows: Integers) -> None:
        """Deletes a random instance on each of these hosts that has one."""
        rows = rows[self.instances[rows] > 0]
        lottery = self._random.random((len(rows), MAX_INSTANCES))
        slot = np.where(self._slot_flavour[rows] >= 0, lottery, -1.0).argmax(axis=1)
        self._add(rows, slot, -1)
        self._slot_flavour[rows, slot] = -1

    def _add(self, rows: Integers, slot: Integers, sign: int) -> None:
        """Adds, or takes away, what is in one slot of each of these hosts to what the host has."""
        self.allocated[rows] += sign * _FLAVOUR_AMOUNTS[self._slot_flavour[rows, slot]]
        self.instances[rows] += sign
        self._load[rows] += sign * self._slot_load[rows, slot]

    def _allocated_share(self, rows: slice | Integers) -> Reals:
        """How full each host is in its scarcest dimension, 0..1."""
        return np.asarray((self.allocated[rows] / self.capacity[rows]).max(axis=1))

    def _forget_consumers(self, at_ns: int) -> None:
        """Forgets instances that are no longer recent. All stay recent equally long, so they expire in boot order."""
        while self._recent and self._recent[0][0] <= at_ns:
            _, row = self._recent.popleft()
            self.recent_consumers[row] = self.recent_consumers[row][1:]
            self._listings[row] += 1

    # Failures

    def _chance(self, per_s: float) -> float:
        """The probability that an event of this rate happens within one interval."""
        return float(-np.expm1(-per_s * self.interval_ns / NS_PER_S))

    def _fail(self, rows: slice, at_ns: int) -> None:
        """Makes some of the reporting hosts go silent, and some reboot."""
        behaviour = self._behaviour
        chance = self._random.random(rows.stop - rows.start)
        silences = self._chance(behaviour.silences_per_s)
        either = silences + self._chance(behaviour.reboots_per_s)
        for offset in np.flatnonzero((chance < either) & (self.silent_until_ns[rows] <= at_ns)).tolist():
            row = rows.start + offset
            self._rebooting[row] = chance[offset] >= silences
            self._down_at_ns[row] = at_ns
            if not self._rebooting[row] and self._random.random() < behaviour.lost:
                self.silent_until_ns[row] = NEVER
                continue
            least_s, most_s = behaviour.reboot_s if self._rebooting[row] else behaviour.silence_s
            length_s = least_s * (most_s / least_s) ** self._random.random()
            self.silent_until_ns[row] = at_ns + max(1, int(length_s * NS_PER_S))

    def _come_back(self, rows: slice, at_ns: int, elapsed_ns: Integers) -> None:
        """Resets hosts whose reboot is over: counters start near 0, and elapsed_ns is set in place to their uptime."""
        for offset in np.flatnonzero(self._rebooting[rows] & (self.silent_until_ns[rows] <= at_ns)).tolist():
            row = rows.start + offset
            self._rebooting[row] = False
            self.boots[row] += 1
            self.boot_id[row] = self._new_boot_id(row)
            self.seq[row] = -1
            uptime_ns = int((at_ns - self._down_at_ns[row]) * (0.2 + 0.4 * self._random.random()))
            self.booted_at_ns[row] = at_ns - uptime_ns
            elapsed_ns[offset] = uptime_ns
            self.inventory_due_ns[row] = at_ns
            self._counts[:, row] = 0

    # Load

    def _count(self, rows: slice, at_ns: int, elapsed_ns: Integers) -> None:
        """Advances each host of a slice by a time: one load drives all of the host's counters.

        The counters of silent hosts advance too, since only the agent is silent.
        """
        at_s = at_ns / NS_PER_S
        elapsed_s = elapsed_ns / NS_PER_S
        cpus = self.cpu_count[rows].astype(np.float64)
        counters = {name: column[rows] for name, column in self.counters.items()}

        # CPUs that the instances demand: the daily wave, a quick wave, noise, and the host's own work.
        keep = np.exp(-self.interval_ns / NS_PER_S / _NOISE_MEMORY_S)
        noise = self._noise[rows]
        noise *= keep
        noise += 0.12 * np.sqrt(1 - keep * keep) * self._random.standard_normal(len(noise))
        day = 2 * np.pi * at_s / _DAY_S
        wave = self._load[rows] @ np.array([1.0, np.cos(day), np.sin(day)])
        quick = 0.2 * np.sin(2 * np.pi * at_s / self._quick_period_s[rows] + self._quick_phase[rows])
        wanted = wave * np.maximum(0.05, 1.0 + quick + noise) + 0.01 * cpus

        # CPUs that they get. The three shares never add up to more than the host has.
        busy = np.minimum(wanted, 0.97 * cpus)
        steal = np.minimum(self._steal[rows] * busy, cpus - busy)
        iowait = np.minimum(self._iowait[rows] * busy, cpus - busy - steal)
        counters["cpu_busy_ns"] += (busy * elapsed_ns).astype(np.int64)
        counters["cpu_steal_ns"] += (steal * elapsed_ns).astype(np.int64)
        counters["cpu_iowait_ns"] += (iowait * elapsed_ns).astype(np.int64)

        for device, appetite, most, size, unit, ways in (
            ("disk", self._disk_appetite, self._disk_bytes_per_s, self._io_bytes, "ops", ("read", "write")),
            ("net", self._net_appetite, self._nic_bytes_per_s, self._packet_bytes, "packets", ("rx", "tx")),
        ):
            for way, share in zip(ways, (0.6, 0.4), strict=True):
                moved = np.minimum(share * appetite[rows] * busy, most[rows]) * elapsed_s
                amount = moved.astype(np.int64)
                counters[f"{device}_{way}_bytes"] += amount
                counters[f"{device}_{way}_{unit}"] += amount // size[rows]

        memory_mb = self._memory_mb[rows]
        used_mb = 0.02 * memory_mb + self.allocated[rows, 1] * self._memory_touched[rows] * (1 + 0.05 * quick)
        available_mb = np.clip(memory_mb - used_mb, 0.02 * memory_mb, memory_mb)
        self._memory_mb_available[rows] = available_mb
        elapsed_us = elapsed_s * 1e6
        for name, some in (
            ("cpu_pressure_us", np.clip(wanted / cpus - 0.6, 0.0, 0.95)),
            ("memory_pressure_us", np.clip(2.0 * (0.1 - available_mb / memory_mb), 0.0, 0.5)),
            ("io_pressure_us", np.minimum(0.9, 5.0 * iowait / cpus)),
        ):
            counters[name] += (some * elapsed_us).astype(np.int64)

    def _usage(
        self, rows: Integers, at_ns: int | Integers, now_ms: int, figures: Columns
    ) -> dict[str, npt.NDArray[Any]]:
        """The columns of HostUsage for some hosts' next events, by figures that were so at a time."""
        self.seq[rows] += 1
        agent_time = np.maximum(0, now_ms + self.skew_ms[rows])
        return {**self.look(rows, at_ns, figures), "seq": self.seq[rows], "agent_time": agent_time}

    def look(
        self, rows: Integers, at_ns: int | Integers, figures: Columns | None = None
    ) -> dict[str, npt.NDArray[Any]]:
        """What some hosts see of themselves, or saw at a time; an event has its number and its time in addition."""
        figures = self._figures if figures is None else figures
        capacity, allocated = self.capacity[rows], figures["allocated"].T[rows]
        counts = figures["counters"][:, rows]
        own_disk = self.pool[rows] < 0
        return {
            "host_id": self.host_id[rows],
            "boot_id": self.boot_id[rows],
            "monotonic_ns": at_ns - self.booted_at_ns[rows],
            "vcpus_capacity": capacity[:, 0],
            "vcpus_allocated": allocated[:, 0],
            "memory_mb_capacity": capacity[:, 1],
            "memory_mb_allocated": allocated[:, 1],
            "disk_gb_capacity": capacity[:, 2] * own_disk,
            "disk_gb_allocated": allocated[:, 2],
            "memory_mb_available": figures["memory_mb_available"][rows],
            "disk_gb_available": (self._disk_gb[rows] - self._disk_used_gb(rows, allocated)) * own_disk,
            "cpu_count": self.cpu_count[rows],
            **dict(zip(_COUNTERS, counts, strict=True)),
            "instances": figures["instances"][rows].astype(np.int32),
            "recent_consumers": figures["recent_consumers"][rows],
        }

    def _disk_used_gb(self, rows: Integers, allocated: Integers) -> Integers:
        """What the instances of some hosts have written, by what is allocated to them."""
        used_gb: Integers = (allocated[:, 2] * self._disk_touched[rows]).astype(np.int64)
        return used_gb


def _objects(values: list[Any]) -> Objects:
    """A column of Python objects; tuples stay tuples."""
    column = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        column[row] = value
    return column


def _skew_ms(kind: Reals, size: Reals) -> Integers:
    """Each host's clock offset: within ±50 ms for most hosts, one second to six hours for one in ten, either way."""
    small = (size - 0.5) * 100
    large = np.where(size < 0.5, -1, 1) * 10 ** (3.0 + 4.33 * np.abs(2 * size - 1))
    return np.where(kind < 0.9, small, large).astype(np.int64)
