"""The agent: reads this compute node's figures every interval and sends them as events.

What always holds:

- It looks at the node at ``first + k * interval`` on a monotonic clock, where ``first`` is random within the first
  interval: a fleet does not beat in step, nothing drifts, and what was missed (a stall, a suspend) is not made up for.
- Each look leaves at once as a usage event, unless `agent.tolerance` lets it be (``vacancy.schemas.shown``).
- Where a collector says that something should not wait there is one more look, at once, but no more often than
  :data:`EXTRA_EVENTS_PER_S`; the moments of the others stay.
- No failing read and no broker ends the agent; it says once that it fails and once that it works again.
- A figure that is not known, or that no event can hold, costs itself alone; that too is said once.
- On SIGTERM and SIGINT it delivers what it can within :data:`FLUSH_LIMIT_S`, says what it could not, and ends with 0.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import TypeVar

from vacancy.connectors.collectors.collector import Collector, InventoryReading
from vacancy.connectors.collectors.disk_pool import inventory_of_node, usage_of_node
from vacancy.connectors.kafka.outbox import Outbox
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.reporters.disk_pool import PoolReporter
from vacancy.jobs.reporters.writer import EventWriter, Looks
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event
from vacancy.schemas.fitting import no_counts

FLUSH_LIMIT_S = 5.0
EXTRA_EVENTS_PER_S = 20
_LOOK_FOR_CHANGES_S = 5.0
_REGISTRY_RETRY_S = 5.0
_APPLICATION = uuid.UUID("0f0bd27e-25ce-4c1b-b4b8-1dd2a4c5c8f2")
_LOG = logging.getLogger("vacancy.agent")
_T = TypeVar("_T")


class Schedule:
    """Moments ``first + k * interval`` on a monotonic clock, in seconds."""

    def __init__(self, first: float, interval: float) -> None:
        self._first = first
        self._interval = interval

    def after(self, now: float) -> float:
        """The first moment later than now."""
        k = max(0, math.floor((now - self._first) / self._interval) + 1)
        moment = self._first + k * self._interval
        # Rounding may put it on now itself.
        return moment if moment > now else moment + self._interval


@dataclasses.dataclass
class Readings:
    """What reading one kind of event came to; each figure only grows.

    Attributes:
        reads: times that the collector was asked.
        failures: times that no event came of it.
        seconds: how long the collector took, in all.
        produced: events put into the outbox.
    """

    reads: int = 0
    failures: int = 0
    seconds: float = 0.0
    produced: int = 0


class Agent:
    """What is due when: usage every interval; the inventory at the start, on change and every inventory interval.

    And after a usage event that lists a new consumer: its claim holds devices until an inventory newer than that comes.

    Args:
        settings: the intervals.
        host_id: who this is.
        collector: reads the figures.
        outbox: takes the events.
        encoders: one for each event.
        pool: reports the storage pool that the disk comes from, if this agent is to.
        window: the job's, for `agent.tolerance`.
        clock: monotonic seconds.
        wall_clock: seconds since 1970.
        rng: picks the phases.
    """

    def __init__(
        self,
        settings: AgentSettings,
        host_id: str,
        collector: Collector,
        outbox: Outbox,
        encoders: Mapping[Event, Encoder],
        pool: PoolReporter | None = None,
        *,
        window: timedelta = timedelta(seconds=60),
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._host_id = host_id
        self._collector = collector
        self._outbox = outbox
        self._writer = EventWriter(encoders, settings.reporting_interval, wall_clock)
        self._looks = Looks(settings, window)
        self._pool = pool
        self._clock = clock
        self._sent: InventoryReading | None = None
        self._listed: frozenset[str] = frozenset()
        self._failing: dict[str, str] = {}
        self._doubts = Doubts(clock)
        self._woken = False
        self.readings = {event: Readings() for event in Event}
        self.unknown: Counter[str] = Counter()
        """Usage readings that went on without a figure, or with one that is not certain, by the figure."""
        rng = rng or random.Random()  # noqa: S311  # spreads a fleet, hides nothing
        now = clock()
        self._usage_schedule = _with_random_phase(now, settings.interval.total_seconds(), rng)
        # A phase of its own: agents that are started together would otherwise send their inventories together.
        self._inventory_schedule = _with_random_phase(now, settings.inventory_interval.total_seconds(), rng)
        self._usage_due = self._usage_schedule.after(now)
        self._inventory_due = now
        self._look_due = now + _LOOK_FOR_CHANGES_S
        self._next_extra = now

    def wake(self) -> None:
        """Has a usage event leave at the next turn, or as soon as one more may; for any thread."""
        self._woken = True

    def turn(self) -> float:
        """Does what is due, and returns when the next thing is, on the agent's clock."""
        now = self._clock()
        if now >= self._inventory_due:
            self._inventory(even_if_same=True)
            self._inventory_due = self._inventory_schedule.after(now)
        elif now >= self._usage_due and now >= self._look_due:
            self._inventory(even_if_same=False)
            self._look_due = now + _LOOK_FOR_CHANGES_S
        extra = self._woken and now >= self._next_extra
        if extra or now >= self._usage_due:
            # Before the reading: what happens during it may be missing in it.
            self._woken = False
            self._next_extra = now + 1 / EXTRA_EVENTS_PER_S
            self._usage()
        if now >= self._usage_due:
            self._usage_due = self._usage_schedule.after(now)
        return self.due

    @property
    def due(self) -> float:
        """When the next turn has something to do, on the agent's clock."""
        due = min(self._usage_due, self._inventory_due)
        return min(due, self._next_extra) if self._woken else due

    def _usage(self) -> None:
        with self._going_on(Event.USAGE):
            reading = self._read(Event.USAGE, self._collector.usage)
            unknown = {**getattr(self._collector, "unknown", {}), **no_counts(dataclasses.asdict(reading))}
            self._take_note(unknown)
            own = reading if self._settings.disk_pool is None else usage_of_node(reading)
            for due, its_unknown in self._looks.take(own, unknown):
                self._outbox.add_usage(self._writer.usage(self._host_id, due, its_unknown))
                self.readings[Event.USAGE].produced += 1
            if self._pool is not None:
                self._pool.usage(reading, unknown)
            listed = frozenset(reading.recent_consumers)
            if listed - self._listed:
                self._inventory_due = self._clock()
            self._listed = listed

    def _inventory(self, even_if_same: bool) -> None:
        with self._going_on(Event.INVENTORY):
            reading = self._read(Event.INVENTORY, self._collector.inventory)
            pool = self._settings.disk_pool
            own = reading if pool is None else inventory_of_node(reading, pool)
            if own != self._sent or even_if_same:
                self._outbox.set_inventory(self._writer.inventory(self._host_id, own))
                self._sent = own
                self.readings[Event.INVENTORY].produced += 1
            if self._pool is not None:
                self._pool.inventory(reading, even_if_same)

    def _read(self, event: Event, read: Callable[[], _T]) -> _T:
        """Has the collector read, and keeps how long that took."""
        readings, began = self.readings[event], self._clock()
        readings.reads += 1
        try:
            return read()
        finally:
            readings.seconds += self._clock() - began

    def _take_note(self, unknown: Mapping[str, str]) -> None:
        self._doubts.take(unknown)
        self.unknown.update({name.partition(" ")[0] for name in unknown})

    def _going_on(self, event: Event) -> _GoingOn:
        return _GoingOn(event.name.lower(), self._failing, self.readings[event])


class Doubts:
    """Says once of each figure that it is not known, and once that it is again.

    One that comes and goes is said once, too: it is known again when it has been for a minute.

    Args:
        clock: monotonic seconds.
    """

    _SETTLED_S = 60.0

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._last: dict[str, float] = {}

    def take(self, unknown: Mapping[str, str]) -> None:
        """Takes what is not known of a reading, and why."""
        if not unknown and not self._last:
            return
        now = self._clock()
        for name in unknown.keys() - self._last.keys():
            _LOG.warning("%s is not known for certain, going on: %s", name, unknown[name])
        self._last |= dict.fromkeys(unknown, now)
        for name in [name for name, at in self._last.items() if now - at > self._SETTLED_S]:
            del self._last[name]
            _LOG.warning("%s is known again", name)


class _GoingOn:
    """Goes on after a failure, and counts it; says each reason once, and once that it is over.

    Args:
        what: is read.
        failing: what was said to fail and why, of all that is read.
        readings: where it is counted.
    """

    def __init__(self, what: str, failing: dict[str, str], readings: Readings) -> None:
        self._what = what
        self._failing = failing
        self._readings = readings

    def __enter__(self) -> None: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            if self._what in self._failing:
                del self._failing[self._what]
                _LOG.warning("the %s can be read again", self._what)
            return False
        if not isinstance(error, Exception):
            return False
        self._readings.failures += 1
        reason = f"{type(error).__name__}: {error}"
        if self._what not in self._failing and reason not in self._failing.values():
            self._failing[self._what] = reason
            _LOG.error("the %s cannot be read, trying on: %s", self._what, reason)
        return True


def run(agent: Agent, outbox: Outbox, stop: StopSignal, clock: Callable[[], float] = time.monotonic) -> None:
    """Takes turns until stopped; between them it listens to the broker if it has to, and sleeps if not."""
    while not stop.is_set():
        agent.turn()
        while not stop.is_set() and (left_s := agent.due - clock()) > 0:
            if outbox.left:
                outbox.serve(min(left_s, 0.1))
            else:
                stop.wait(left_s)


def _with_random_phase(now: float, interval: float, rng: random.Random) -> Schedule:
    return Schedule(now + rng.uniform(0, interval), interval)
