"""`vacancy storage`: reads Cinder's pools and sends each as a host that shares its room.

One process speaks for all pools of a cloud. What always holds:

- A pool that Cinder does not tell of, or whose volume service has not reported to Cinder for long, is not sent: its row
  gets stale. None is retired for that.
- No failing read and no broker ends it; it says once that it fails and once that it works again.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from connectors.cinder import Cinder, CinderError, Pool, is_current
from connectors.collector import InventoryReading
from connectors.host import boot_id
from connectors.host_events import HostEvents
from connectors.settings import StorageSettings
from jobs.agent import FLUSH_LIMIT_S, StopSignal, make_encoders
from jobs.logs import configure, log_format_option
from jobs.options import DurationType, flags, load, settings_options
from schemas.codec import Encoder
from schemas.events import Event
from schemas.fitting import FittingEncoder
from schemas.units import format_duration, milliseconds_of

_LOG = logging.getLogger("vacancy.agent")


@click.command("storage")
@settings_options
@click.option("--interval", type=DurationType(), help="Time between two looks at the pools.  [default: 10s]")
@log_format_option
def command(config: Path | None, data_dir: Path | None, interval: Any, log_format: str | None) -> None:
    """Emit the events of Cinder's pools until SIGTERM or Ctrl-C.

    \b
    Example:  vacancy storage --config /etc/vacancy.toml
    """
    settings = load(config, data_dir, flags(storage={"interval": interval}, log={"format": log_format}))
    configure(settings.log.format, job="storage")
    cinder = Cinder(settings.storage)
    events = HostEvents(settings.kafka, "vacancy-storage")
    with StopSignal() as stop:
        encoders = make_encoders(settings.kafka, stop)
        if encoders is None:
            return
        every = format_duration(settings.storage.interval)
        _LOG.info("Cinder's pools go to %s every %s", settings.kafka.bootstrap_servers, every)
        storage = Storage(settings.storage, cinder.pools, events, encoders)
        while not stop.is_set():
            due = storage.turn()
            while not stop.is_set() and (left_s := due - time.monotonic()) > 0:
                if events.left:
                    events.serve(min(left_s, 0.1))
                else:
                    stop.wait(left_s)
        left = events.close(FLUSH_LIMIT_S)
    _LOG.info("stopped; %d events delivered%s", sum(events.delivered.values()), f", {left} not" if left else "")


class Storage:
    """What is due when: the usage of each pool every interval, its inventory at first, on change and now and then.

    Args:
        settings: the intervals.
        read: gives the pools.
        events: takes the events.
        encoders: one for each event.
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
        self._encoders = {event: FittingEncoder(event, encoder, _LOG) for event, encoder in encoders.items()}
        self._clock = clock
        self._wall_clock = wall_clock
        self._boot_id = boot_id()
        self._version = metadata.version("vacancy")
        self._seq: Counter[str] = Counter()
        self._sent: dict[str, tuple[InventoryReading, float]] = {}
        self._failing: str | None = None
        self._outdated: set[str] = set()

    def turn(self) -> float:
        """Reads and sends, and returns when to do so again, on the clock."""
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
        sender = {"host_id": pool.host_id, "agent_time": round(self._wall_clock() * 1000)}
        inventory = pool.inventory(self._boot_id, self._settings)
        former, sent_at = self._sent.get(pool.host_id, (None, 0.0))
        if inventory != former or now - sent_at >= self._settings.inventory_interval.total_seconds():
            more = {
                "reporting_interval_ms": milliseconds_of(self._settings.interval),
                "agent_version": self._version,
            }
            payload = self._encoders[Event.INVENTORY].encode(dataclasses.asdict(inventory) | sender | more)
            self._events.send(Event.INVENTORY, pool.host_id, payload)
            self._sent[pool.host_id] = inventory, now
        usage = dataclasses.asdict(pool.usage(self._boot_id, time.monotonic_ns()))
        payload = self._encoders[Event.USAGE].encode(usage | sender | {"seq": self._seq[pool.host_id]})
        self._events.send(Event.USAGE, pool.host_id, payload)
        self._seq[pool.host_id] += 1
