"""The storage reporter: reads Cinder's pools and sends each as a host that shares its capacity.

One process reports all pools of a cloud. What always holds:

- A pool is not sent, and its row becomes stale, if Cinder does not list it or its volume service has not reported to
  Cinder for long. It is not retired for that.
- Failures of Cinder or the broker do not end the process; it logs once that they fail and once that they work again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from vacancy.connectors.collectors.collector import InventoryReading
from vacancy.connectors.collectors.machine import boot_id
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.openstack.cinder import CinderError, Pool, is_current
from vacancy.connectors.settings import StorageSettings
from vacancy.jobs.reporters.writer import EventWriter
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

_LOG = logging.getLogger("vacancy.agent")


class Storage:
    """Sends each pool's usage every interval, and its inventory at first, on change and every inventory interval.

    Args:
        settings: the intervals.
        read: returns the pools.
        events: takes the events.
        encoders: one for each kind of event.
        clock: monotonic seconds.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: StorageSettings,
        read: Callable[[], list[Pool]],
        events: HostEvents,
        encoders: Mapping[Event, Encoder],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._settings = settings
        self._read = read
        self._events = events
        self._writer = EventWriter(encoders, settings.interval, wall_clock)
        self._clock = clock
        self._wall_clock = wall_clock
        self._boot_id = boot_id()
        self._sent: dict[str, tuple[InventoryReading, float]] = {}
        self._failing: str | None = None
        self._outdated: set[str] = set()

    def turn(self) -> float:
        """Reads and sends; returns the clock time of the next turn."""
        due = self._clock() + self._settings.interval.total_seconds()
        try:
            pools = self._read()
        except CinderError as error:
            if self._failing is None:
                _LOG.error("Cinder's pools cannot be read, trying on: %s", error)
            self._failing = str(error)
            return due
        if self._failing is not None:
            _LOG.warning("Cinder's pools can be read again")
            self._failing = None
        now = datetime.fromtimestamp(self._wall_clock(), UTC)
        for host_id in self._events.to_repeat:
            self._sent.pop(host_id, None)
        self._events.to_repeat.clear()
        current = [pool for pool in pools if is_current(pool, now, self._settings.max_report_age)]
        outdated = {pool.name for pool in pools} - {pool.name for pool in current}
        for name in sorted(outdated - self._outdated):
            _LOG.warning("pool %s: its volume service does not report to Cinder any more; not sent until it does", name)
        self._outdated = outdated
        for pool in current:
            self._send(pool)
        return due

    def _send(self, pool: Pool) -> None:
        now = self._clock()
        inventory = pool.inventory(self._boot_id, self._settings)
        former, sent_at = self._sent.get(pool.host_id, (None, 0.0))
        if inventory != former or now - sent_at >= self._settings.inventory_interval.total_seconds():
            self._events.send(Event.INVENTORY, pool.host_id, self._writer.inventory(pool.host_id, inventory))
            self._sent[pool.host_id] = inventory, now
        usage = pool.usage(self._boot_id, time.monotonic_ns())
        self._events.send(Event.USAGE, pool.host_id, self._writer.usage(pool.host_id, usage))
