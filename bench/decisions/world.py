"""A fleet whose true state is known at each second: what instances do to hosts, and what is asked for.

The model, and what of it is measured and what is assumed:

- **Load** of an instance is its trace (traces.py) times its VCPUs. A trace has steps of 5 minutes; the model moves
  to a new step within 30 s, each instance at a phase of its own, and each second adds noise (`Load.noise`). What
  load does within 5 minutes is an assumption, since no trace says it. A new instance also keeps one CPU busy for its
  first 20 s.
- **Memory**: an instance touches a share of its own of what it was promised, and gets there within minutes. Assumed,
  not measured.
- **A host** has CPUs, VCPUs at a ratio of 7, and memory at a ratio of 1.5. `cpu` is demand by CPUs, above 1 where
  instances wait. CPU pressure is the chance that a task waits in a queue with so many servers (Sakasegawa's
  approximation of Erlang C). Memory pressure begins at 90 % of the memory. Steal is the share of the demand that a
  host cannot serve.
- **Requests** come one by one (Poisson) and in bursts of 100 alike. An instance is decided at one moment, its host
  counts it 2 to 20 s later, and it leaves after minutes (three quarters) or hours.

All that is random and not decided is drawn from the seed before the first decision, so that arms with one seed see
the same requests, loads and noise. Arrays: a value a host, or a value an instance; times are whole seconds.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bench.decisions.traces import STEP_S

Reals = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

VCPUS_PER_CPU = 7.0
MEMORY_RATIO = 1.5
MEMORY_MB_PER_CPU = 12_288
DISK_GB_PER_CPU = 150
FLAVOURS: Integers = np.array(
    [(2, 4096, 20), (4, 8192, 40), (4, 16_384, 40), (8, 16_384, 80), (16, 32_768, 160), (8, 32_768, 80)], dtype=np.int64
)
"""VCPUs, MiB of memory and GB of disk."""
_FLAVOUR_SHARES = (0.15, 0.25, 0.15, 0.2, 0.15, 0.1)
_RAMP_S = 30
_BOOT_S = 20
_MEMORY_RAMP_S = 180.0
BURST = 100
QUIET_S = 200
"""From the start until the first request and the first departure: windows fill meanwhile."""
HISTORY_S = 300
"""How far back the sums over time go: the longest window and interval, and how long a new instance is watched."""
NEVER = 1 << 40


@dataclass(frozen=True)
class Load:
    """How much is asked of a fleet.

    Attributes:
        filled: share of the fleet's VCPUs that instances hold.
        requests_per_s: for each host; half of them in bursts of 100. Half of the changes that 30,000 hosts
            make are boots: 0.005 where they make 300 a second.
        noise: standard deviation of an instance's load from second to second, as a share of its VCPUs.
    """

    filled: float = 0.88
    requests_per_s: float = 0.005
    noise: float = 0.05


class World:
    """Hosts, instances and requests.

    Args:
        hosts: how many.
        levels: how busy instances are, a row each (traces.py); each instance gets a random row and place in it.
        seconds: how long it lasts: no request comes later.
    """

    def __init__(self, hosts: int, levels: Reals, seconds: int, seed: int, load: Load) -> None:
        chance = np.random.default_rng([seed, 1])
        self.hosts, self.seconds, self.load = hosts, seconds, load
        self._levels = levels
        self._noise = np.random.default_rng([seed, 2])
        self.cpus = chance.choice([32, 48, 64], hosts).astype(np.float64)
        self.memory_mb = self.cpus * MEMORY_MB_PER_CPU
        self.capacity: Integers = np.stack(
            [self.cpus * VCPUS_PER_CPU, self.memory_mb * MEMORY_RATIO, self.cpus * DISK_GB_PER_CPU], axis=1
        ).astype(np.int64)
        self.allocated: Integers = np.zeros((hosts, 3), np.int64)  # decided, whether the host counts it yet or not
        self.counted: Integers = np.zeros((hosts, 3), np.int64)
        self.starting: Integers = np.zeros(hosts, np.int64)  # decided and not counted yet
        self.recent: list[deque[tuple[int, str]]] = [deque() for _ in range(hosts)]

        permanent, passing = self._first_instances()
        requested = self._requests(chance)
        self.instances = permanent + passing + len(requested)
        first = self.instances - len(requested)
        self.first_request = first
        size = self.instances
        self.flavour: Integers = chance.choice(len(FLAVOURS), size, p=_FLAVOUR_SHARES)
        self.amounts = FLAVOURS[self.flavour]
        self._trace: Integers = chance.integers(0, len(levels), size)
        self._offset: Integers = chance.integers(0, levels.shape[1] * STEP_S, size)
        self._touches = chance.beta(4, 2.5, size)
        stays = chance.exponential(1, size) * np.where(chance.random(size) < 0.75, 600, 7200)
        # Of those that are there already the most are of the long-lived kind.
        stays[:permanent] = NEVER
        stays[permanent:first] = chance.exponential(1, passing) * np.where(chance.random(passing) < 0.2, 600, 7200)
        self._stays: Integers = np.maximum(stays, 60).astype(np.int64)
        self._takes: Integers = chance.integers(2, 21, size)
        self.asked_at: Integers = np.concatenate([np.zeros(first, np.int64), requested])
        self.host: Integers = np.full(size, -1)
        self.counts_from: Integers = np.full(size, NEVER)
        self.leaves_at: Integers = np.full(size, NEVER)
        self._seed = seed

        self.now = 0
        self._calendar: dict[int, list[tuple[bool, int]]] = {}  # by second: (whether it comes, instance)
        self._live: Integers = np.empty(0, np.int64)
        self._live_changed = True
        self._next_request = first
        everyone = np.arange(size)
        self._before, self._level = self._at_step(everyone, -1), self._at_step(everyone, 0)
        by_phase = np.argsort(-self._offset % STEP_S, kind="stable")
        bounds = np.searchsorted(-self._offset[by_phase] % STEP_S, np.arange(1, STEP_S))
        self._turning = np.split(by_phase, bounds)  # by second of a step: the instances that move to their next one
        length = HISTORY_S + 1
        self._sums = {
            name: np.zeros((length, hosts)) for name in ("cpu", "used", "cpu_pressure", "memory_pressure", "steal")
        }
        self._place_first(chance, first)
        self._measure()

    # What is asked

    def _first_instances(self) -> tuple[int, int]:
        """How many instances are there from the start: for good, and those that will leave."""
        mean_vcpus = float(FLAVOURS[:, 0] @ np.array(_FLAVOUR_SHARES))
        total = int(self.load.filled * self.capacity[:, 0].sum() / mean_vcpus)
        rate = self.load.requests_per_s * self.hosts
        passing = min(int(rate * (0.75 * 600 + 0.25 * 7200)), total // 2)
        return total - passing, passing

    def _requests(self, chance: np.random.Generator) -> Integers:
        rate = self.load.requests_per_s * self.hosts / 2
        lasts_s = self.seconds - QUIET_S
        single = chance.integers(QUIET_S, self.seconds, chance.poisson(rate * lasts_s))
        bursts = chance.integers(QUIET_S, self.seconds, chance.poisson(rate * lasts_s / BURST))
        return np.sort(np.concatenate([single, np.repeat(bursts, BURST)])).astype(np.int64)

    def _place_first(self, chance: np.random.Generator, first: int) -> None:
        """Puts each of the first instances on the emptier of two random hosts, by promise."""
        pairs = chance.integers(0, self.hosts, (first, 4))
        room = self.capacity.tolist()
        whole = self.capacity[:, 0].tolist()
        for instance, (tried, (vcpus, memory, disk)) in enumerate(
            zip(pairs.tolist(), self.amounts[:first].tolist(), strict=True)
        ):
            host, least, fitting = -1, 2.0, 0
            for one in tried:
                left = room[one]
                if vcpus <= left[0] and memory <= left[1] and disk <= left[2]:
                    fitting += 1
                    held = (whole[one] - left[0]) / whole[one]
                    if held < least:
                        host, least = one, held
                    if fitting == 2:
                        break
            if host < 0:
                self.leaves_at[instance] = -1
                continue
            left = room[host]
            room[host] = [left[0] - vcpus, left[1] - memory, left[2] - disk]
            self.host[instance] = host
            self.counts_from[instance] = -NEVER
            self.leaves_at[instance] = leaves_at = QUIET_S + int(self._stays[instance])
            if leaves_at < NEVER:
                self._calendar.setdefault(leaves_at, []).append((False, instance))
        self._there = self.host >= 0
        self._live = np.flatnonzero(self._there)
        np.add.at(self.counted, self.host[self._live], self.amounts[self._live])
        self.allocated[:] = self.counted

    def requests(self) -> Integers:
        """The instances asked for since the last call."""
        began = self._next_request
        self._next_request = (
            int(np.searchsorted(self.asked_at[self.first_request :], self.now, side="right")) + self.first_request
        )
        return np.arange(began, self._next_request)

    def consumer(self, instance: int) -> str:
        """The instance's UUID."""
        return f"{self._seed & 0xFFFFFFFF:08x}-0000-4000-8000-{instance:012x}"

    def room(self, instance: int) -> Flags:
        """On which hosts it fits, by promise and by the memory that is really left."""
        fits = (self.allocated + self.amounts[instance] <= self.capacity).all(axis=1)
        return np.asarray(fits & (self.memory_mb_available >= self.amounts[instance, 1]))

    def place(self, instance: int, host: int) -> bool:
        """Puts it on a host; false where the host has no room for what it is promised, and then it is gone."""
        if (self.allocated[host] + self.amounts[instance] > self.capacity[host]).any():
            return False
        self.host[instance] = host
        self.allocated[host] += self.amounts[instance]
        self.starting[host] += 1
        begins = self.now + int(self._takes[instance])
        self.counts_from[instance], self.leaves_at[instance] = begins, begins + self._stays[instance]
        self._calendar.setdefault(begins, []).append((True, instance))
        self._calendar.setdefault(int(self.leaves_at[instance]), []).append((False, instance))
        return True

    # Time

    def advance(self) -> tuple[Integers, Integers]:
        """One second. Returns the instances that came and those that left; their hosts' promises have changed."""
        self.now += 1
        events = self._calendar.pop(self.now, [])
        came = np.array([instance for comes, instance in events if comes], np.int64)
        left = np.array([instance for comes, instance in events if not comes], np.int64)
        for instance in came.tolist():
            host = int(self.host[instance])
            self.counted[host] += self.amounts[instance]
            self.starting[host] -= 1
            self.recent[host].append((self.now, self.consumer(instance)))
        for instance in left.tolist():
            host = int(self.host[instance])
            self.counted[host] -= self.amounts[instance]
            self.allocated[host] -= self.amounts[instance]
        if events:
            self._there[came], self._there[left] = True, False
            self._live = np.flatnonzero(self._there)
            self._live_changed = True
        self._measure()
        return came, left

    def _measure(self) -> None:
        """What the hosts do in this second."""
        live = self._live
        if self._live_changed:
            self._of = self.host[live]
            self._vcpus = self.amounts[live, 0].astype(np.float64)
            self._memory = self.amounts[live, 1] * self._touches[live]
            self._places = self._offset[live]
            self._deviation = np.sqrt(np.bincount(self._of, self._vcpus**2, self.hosts)) * self.load.noise
            self._live_changed = False
        turning = self._turning[self.now % STEP_S]
        self._before[turning] = self._level[turning]
        self._level[turning] = self._at_step(turning, 0)
        within = (self.now + self._places) % STEP_S
        before, level = self._before[live], self._level[live]
        share = before + (level - before) * np.minimum(1.0, within / _RAMP_S)
        age = np.minimum(self.now - self.counts_from[live], 100_000).astype(np.float64)
        demand = self._vcpus * share
        young = age < _BOOT_S
        demand[young] = np.maximum(demand[young], 1.0)
        total = np.bincount(self._of, demand, self.hosts) + self._deviation * self._noise.standard_normal(self.hosts)
        self.cpu = np.maximum(total, 0.0) / self.cpus
        memory = np.bincount(self._of, self._memory * (1 - np.exp(-age / _MEMORY_RAMP_S)), self.hosts)
        self.memory_used = memory / self.memory_mb
        self.memory_mb_available = np.maximum(self.memory_mb - memory, 0.0)
        self.used = np.minimum(self.cpu, 1.0)
        self.cpu_pressure = self.used ** np.sqrt(2 * (self.cpus + 1))
        self.memory_pressure = np.clip((self.memory_used - 0.9) / 0.1, 0, 1) ** 2
        self.steal = np.maximum(1 - 1 / np.maximum(self.cpu, 1.0), 0.0)
        place, last = self.now % (HISTORY_S + 1), (self.now - 1) % (HISTORY_S + 1)
        for name, sums in self._sums.items():
            np.add(sums[last], getattr(self, name), out=sums[place])

    def _at_step(self, instances: Integers, later: int) -> Reals:
        """The levels of instances in the present step of their traces, or so many steps later."""
        step = (self.now + self._offset[instances]) // STEP_S + later
        return np.asarray(self._levels[self._trace[instances], step % self._levels.shape[1]])

    def mean(self, name: str, seconds: int, hosts: Integers | None = None) -> Reals:
        """The mean of a figure over the last seconds, of all hosts or of some."""
        seconds = max(1, min(seconds, HISTORY_S, self.now + 1))
        sums = self._sums[name]
        now, then = sums[self.now % (HISTORY_S + 1)], sums[(self.now - seconds) % (HISTORY_S + 1)]
        if hosts is not None:
            now, then = now[hosts], then[hosts]
        return np.asarray((now - then) / seconds)
