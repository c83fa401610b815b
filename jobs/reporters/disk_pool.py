"""What an agent sends of the storage pool that its node's disk comes from, if it is the one that reports the pool."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta

from vacancy.connectors.collectors.collector import InventoryReading, UsageReading
from vacancy.connectors.collectors.disk_pool import inventory_of_pool, pool_id, usage_of_pool
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.reporters.writer import EventWriter, Looks
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event


class PoolReporter:
    """Sends a pool's events by the readings of the node, when the node's own are due.

    Args:
        settings: names the pool.
        pool: its name.
        events: takes the events.
        encoders: one for each kind of event.
        window: the job's, for `agent.tolerance`.
    """

    def __init__(
        self,
        settings: AgentSettings,
        pool: str,
        events: HostEvents,
        encoders: Mapping[Event, Encoder],
        window: timedelta = timedelta(seconds=60),
    ) -> None:
        self._pool = pool
        self._host_id = pool_id(pool)
        self._aggregates = settings.disk_pool_aggregates
        self._events = events
        self._writer = EventWriter(encoders, settings.reporting_interval)
        self._looks = Looks(settings, window)
        self._sent: InventoryReading | None = None

    def usage(self, reading: UsageReading, unknown: Collection[str] = ()) -> None:
        """Sends the pool's usage if it is due, by a reading of the node and what is not known of it."""
        own_unknown = {"disk_gb_available"} & {*unknown}
        for due, its_unknown in self._looks.take(usage_of_pool(reading), own_unknown):
            self._events.send(Event.USAGE, self._host_id, self._writer.usage(self._host_id, due, its_unknown))
        self._events.serve()

    def inventory(self, reading: InventoryReading, even_if_same: bool) -> None:
        """Sends the pool's inventory, if it has changed or has to be sent in any case."""
        inventory = inventory_of_pool(reading, self._pool, self._aggregates)
        if even_if_same or inventory != self._sent or self._host_id in self._events.to_repeat:
            self._events.to_repeat.clear()
            self._events.send(Event.INVENTORY, self._host_id, self._writer.inventory(self._host_id, inventory))
            self._sent = inventory

    def close(self, limit_s: float) -> int:
        """Delivers what it can within a time; returns how many events are left."""
        return self._events.close(limit_s)
