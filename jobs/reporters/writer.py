"""Which readings are sent, and their events: of a reading, its sender, its time and its number."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from datetime import timedelta
from importlib import metadata
from typing import Any

from vacancy.connectors.collectors.collector import FIGURES, InventoryReading, UsageReading
from vacancy.connectors.settings import AgentSettings
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event
from vacancy.schemas.fitting import FittingEncoder, no_counts
from vacancy.schemas.shown import Reports
from vacancy.schemas.units import milliseconds_of
from vacancy.schemas.usage import COUNTERS

_LOG = logging.getLogger("vacancy.agent")
_COUNTERS = frozenset(counter.field for counter in COUNTERS)
Look = tuple[UsageReading, Collection[str]]
"""A reading and what of it is not known."""


class Looks:
    """Which readings of one host are sent, by the settings.

    Args:
        settings: `agent.tolerance` and `agent.max_silence`.
        window: the job's.
    """

    def __init__(self, settings: AgentSettings, window: timedelta) -> None:
        window_ns, silence_ns = (1_000_000 * milliseconds_of(time) for time in (window, settings.max_silence))
        self._reports: Reports[Look] = Reports(window_ns, settings.tolerance, silence_ns)
        self._all = not settings.tolerance

    def take(self, reading: UsageReading, unknown: Collection[str]) -> list[Look]:
        """Takes a reading; what to send now, in order: nothing, this one, or the one before and this one."""
        if self._all:
            return [(reading, unknown)]
        fields = dataclasses.asdict(reading)
        names = FIGURES & {*unknown, *no_counts(fields)}
        return self._reports.take(
            fields | dict.fromkeys(names & _COUNTERS) | {"unknown": sorted(names)}, (reading, unknown)
        )


class EventWriter:
    """Turns readings into payloads; what is more than an event holds is left out, and said so.

    Args:
        encoders: one for each kind of event.
        interval: time between two reports of a host, which the inventory contains.
        wall_clock: seconds since 1970.

    Every method raises:
        ValueError: a figure cannot be encoded; the next event's number does not change.
    """

    def __init__(
        self, encoders: Mapping[Event, Encoder], interval: timedelta, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._encoders = {event: FittingEncoder(event, encoder, _LOG) for event, encoder in encoders.items()}
        self._reporter = {
            "reporting_interval_ms": milliseconds_of(interval),
            "agent_version": metadata.version("vacancy"),
        }
        self._wall_clock = wall_clock
        self._seq: Counter[str] = Counter()

    def usage(self, host_id: str, reading: UsageReading, unknown: Collection[str] = ()) -> bytes:
        """A host's next usage event; the counters that are no counts are not known in it either.

        Args:
            host_id: the host.
            reading: its figures.
            unknown: what of them, or else, is not known.
        """
        more: dict[str, Any] = dict.fromkeys(no_counts(dataclasses.asdict(reading)))
        unknown = FIGURES & {*unknown, *more}
        if more.get("cpu_busy_ns", reading.cpu_busy_ns) is None:
            more["cpu_busy_ns"] = 0  # it has no null
            unknown |= {"cpu_busy_ns"}
        # Lists: of a tuple the encoder would take the first for the name of a type.
        more |= {"unknown": sorted(unknown) or None, "uncertain": sorted(reading.uncertain or ()) or None}
        more["seq"] = self._seq[host_id]
        payload = self._encode(Event.USAGE, host_id, reading, more)
        self._seq[host_id] += 1
        return payload

    def inventory(self, host_id: str, reading: InventoryReading) -> bytes:
        """A host's inventory event."""
        return self._encode(Event.INVENTORY, host_id, reading, self._reporter)

    def _encode(
        self, event: Event, host_id: str, reading: UsageReading | InventoryReading, more: Mapping[str, Any]
    ) -> bytes:
        sender = {"host_id": host_id, "agent_time": round(self._wall_clock() * 1000)}
        return self._encoders[event].encode({**dataclasses.asdict(reading), **sender, **more})
