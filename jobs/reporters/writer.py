"""Assembles and encodes the events of one or many hosts from a reading, its sender, its time and its number."""

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
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event
from vacancy.schemas.fitting import FittingEncoder, no_counts
from vacancy.schemas.units import milliseconds_of

_LOG = logging.getLogger("vacancy.agent")


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
