"""Assembles and encodes the events of one or many hosts from a reading, its sender, its time and its number."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from datetime import timedelta
from importlib import metadata
from typing import Any

from vacancy.connectors.collectors.collector import InventoryReading, UsageReading
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
        self._busy: defaultdict[str, NeverNull] = defaultdict(NeverNull)

    def usage(self, host_id: str, reading: UsageReading) -> bytes:
        """A host's next usage event; without the counters that are none."""
        without = dict.fromkeys(no_counts(dataclasses.asdict(reading)))
        busy_ns = self._busy[host_id].take(None if "cpu_busy_ns" in without else reading.cpu_busy_ns)
        more = {**without, "cpu_busy_ns": busy_ns, "seq": self._seq[host_id]}
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


class NeverNull:
    """A counter for an event that has no null for it: over a step that is not known it goes back, as after a reset.

    No rate is formed of such a step (docs/semantics.md), neither from what was known to what is not nor back.
    """

    _HIGH = 10**9  # ns: less than any machine has been busy for since its boot, and more than readings can take away

    def __init__(self) -> None:
        self._sent: int | None = None
        self._known: int | None = None

    def take(self, value: int | None) -> int:
        """What to send for a reading."""
        if self._sent is None:
            self._sent = self._HIGH if value is None else value
        elif value is None or self._known is None:
            self._sent = max(0, self._sent - 1)
        else:
            self._sent = max(0, self._sent + value - self._known)
        self._known = value
        return self._sent
