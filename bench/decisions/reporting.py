"""What the table shows at each second: which hosts report, and what their rows say then.

A row is made of a host's figures at the second of its report: rates are means over the window that ends there (or
over the interval, where that is longer, as the job has it), memory and promises are those of that second. The table
has the row `LAG_S` later.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np

from bench.decisions.world import Flags, Integers, Reals, World

LAG_S = 1
"""From a report to its row; 0 for the arm with an age of 0.1 s, since nothing in the model changes within a second."""

Due = Callable[[World, "Rows", "Rows", Integers], Flags]
"""Which hosts report: of the world, what rows would say now, what they said at the last report, and when that was."""


@dataclass
class Rows:
    """Rows of the table, a value a host."""

    cpu_utilization: Reals
    cpu_pressure: Reals
    memory_pressure: Reals
    memory_mb_available: Reals
    counted: Integers
    reported_at: Integers

    def take(self, other: Rows, hosts: Integers) -> None:
        """Copies some hosts' rows from other rows."""
        for field in fields(self):
            getattr(self, field.name)[hosts] = getattr(other, field.name)[hosts]

    def copy(self) -> Rows:
        """Rows of its own with the same values."""
        return Rows(**{field.name: getattr(self, field.name).copy() for field in fields(self)})


def each(interval_s: int) -> Due:
    """Each host reports once an interval, at a phase of its own that only its number decides."""

    def due(world: World, would: Rows, said: Rows, last: Integers) -> Flags:
        del would, said, last
        return np.asarray((world.now + _phase(world)) % interval_s == 0)

    return due


def on_change(tolerance: float, max_silence_s: int) -> Due:
    """A host looks each second, and reports when its row would differ by more than a tolerance, or after a silence."""

    def due(world: World, would: Rows, said: Rows, last: Integers) -> Flags:
        off = np.maximum.reduce(
            [
                np.abs(would.cpu_utilization - said.cpu_utilization),
                np.abs(would.cpu_pressure - said.cpu_pressure),
                np.abs(would.memory_pressure - said.memory_pressure),
                np.abs(would.memory_mb_available - said.memory_mb_available) / world.memory_mb,
            ]
        )
        changed = (would.counted != said.counted).any(axis=1)
        return np.asarray((off > tolerance) | changed | (world.now - last >= max_silence_s))

    return due


def each_and_instances(interval_s: int) -> Due:
    """Once an interval, and at once when an instance comes or leaves."""
    regular = each(interval_s)

    def due(world: World, would: Rows, said: Rows, last: Integers) -> Flags:
        return np.asarray(regular(world, would, said, last) | (would.counted != said.counted).any(axis=1))

    return due


def _phase(world: World) -> Integers:
    return np.arange(world.hosts) * 7919


class Reporter:
    """The table as it is at each second.

    Attributes:
        shown: the rows that a scheduler sees now.
        reported: the hosts that report in this second.
        reports: reports so far.
    """

    def __init__(self, world: World, due: Due, *, window_s: int, lag_s: int = LAG_S) -> None:
        self._world, self._due, self._window_s, self._lag_s = world, due, window_s, lag_s
        self._said = self._now()
        self._last = world.now - _phase(world) % 10
        self.shown = self._said.copy()
        self.consumers: list[tuple[str, ...]] = [()] * world.hosts
        self._pending: list[tuple[int, Integers, Rows, list[tuple[str, ...]]]] = []
        self.reported = np.empty(0, np.int64)
        self.reports = 0

    def advance(self) -> None:
        """One second of the world has passed."""
        world = self._world
        would = self._now()
        hosts = np.flatnonzero(self._due(world, would, self._said, self._last))
        self.reported = hosts
        self.reports += len(hosts)
        self._last[hosts] = world.now
        self._said.take(would, hosts)
        self._pending.append((world.now + self._lag_s, hosts, would, [self.recent(host) for host in hosts.tolist()]))
        while self._pending and self._pending[0][0] <= world.now:
            _, arrived, rows, consumers = self._pending.pop(0)
            self.shown.take(rows, arrived)
            for host, listed in zip(arrived.tolist(), consumers, strict=True):
                self.consumers[host] = listed

    def ages_s(self) -> Reals:
        """How old each row is; within the second that a decision is made."""
        return np.asarray(self._world.now - self.shown.reported_at + 0.1)

    def recent(self, host: int) -> tuple[str, ...]:
        """The instances that a host began to count in the last ten minutes."""
        recent = self._world.recent[host]
        while recent and recent[0][0] < self._world.now - 600:
            recent.popleft()
        return tuple(consumer for _, consumer in recent)

    def _now(self) -> Rows:
        world = self._world
        return Rows(
            cpu_utilization=world.mean("used", self._window_s),
            cpu_pressure=world.mean("cpu_pressure", self._window_s),
            memory_pressure=world.mean("memory_pressure", self._window_s),
            memory_mb_available=world.memory_mb_available.copy(),
            counted=world.counted.copy(),
            reported_at=np.full(world.hosts, world.now),
        )
