"""The bridge: turns a cloud's notifications into events of all its compute hosts, without any agent.

What always holds:

- A usage event of a host is sent only if the host shows that it is alive, never on a timer: its nova-compute has sent
  a notification, or has reported to Nova since the last reading. So the row of a silent host becomes stale.
- The truth is read at the start, every ``bridge.resync_interval``, after RabbitMQ was away and when a notification
  names an unknown host. The log then says what was wrong before, and for how long at most.
- A notification is applied as soon as it arrives, and acknowledged after that. A malformed one is logged and
  acknowledged: no notification stops the bridge.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from vacancy.connectors.collectors.collector import InventoryReading
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.openstack import ceilometer, notifications
from vacancy.connectors.openstack.api import OpenStack
from vacancy.connectors.openstack.cloud import Cloud, Difference
from vacancy.connectors.settings import BridgeSettings
from vacancy.jobs.reporters.writer import EventWriter
from vacancy.schemas.codec import Encoder
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event

LEAST_TURN_S = 0.05
"""Least time between two events of a host; an agent's shortest interval is the same."""
FRESH_S = 15.0
"""A notification older than this does not show that its host is alive: it was delayed on its way."""
_LATELY = 3
"""A reading of the services shows which hosts are alive if it follows the last one within this many intervals."""
_LEAST_RESYNC_S = 5.0
"""Least time between two unscheduled readings of the truth."""
_UNKNOWN_S = 60.0
"""An unknown host triggers a reading only if the truth is older than this: some hosts may never be in the truth."""
_MOST_A_TURN = 500
"""Hosts."""
_FLUSH_S = 5.0
_LOG = logging.getLogger("vacancy.bridge")


class Bridge:
    """The state shared by the threads that listen, the thread that reads the truth and the thread that sends.

    Args:
        settings: the intervals.
        cloud: the state.
        events: takes the events.
        encoders: one for each kind of event.
        wake: makes the main thread call :meth:`turn` soon; any thread may call it.
    """

    def __init__(
        self,
        settings: BridgeSettings,
        cloud: Cloud,
        events: HostEvents,
        encoders: Mapping[Event, Encoder],
        wake: Callable[[], None],
        *,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._writer = EventWriter(encoders, settings.interval, wall_clock)
        self.cloud = cloud
        self.events = events
        self._wake = wake
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._known = threading.Event()
        self._closed = False
        self._sent: dict[str, InventoryReading] = {}
        self._listed: dict[str, frozenset[str]] = {}
        self._confirm: set[str] = set()
        self._pools_due = False
        self.resync = threading.Event()
        """Set when the truth must be read before its scheduled time."""
        self.heard: Counter[str] = Counter()
        """Numbers of notifications and messages with samples, by outcome."""
        self.difference: Difference | None = None
        """What the last reading of the truth corrected."""
        self.corrected: Counter[str] = Counter()
        """What all readings of the truth together have corrected."""
        self.rabbitmq_away = False

    @property
    def woken(self) -> bool:
        """Whether there is something to send."""
        return bool(self.cloud.alive or self.cloud.changed or self.cloud.retired or self._confirm or self._pools_due)

    def notification(self, event_type: str, publisher_id: str, timestamp: str, payload: Any) -> bool:
        """Takes one of Nova's notifications; waits for the first reading of the truth."""

        def take() -> str:
            outcome = self.cloud.told(notifications.read(event_type, publisher_id, timestamp, payload), FRESH_S)
            if outcome == "unknown" and self.cloud.truth_age_s > _UNKNOWN_S:
                self.resync.set()
            return outcome

        return self._take(take, f"{event_type} of {publisher_id}")

    def samples(self, payload: Any) -> bool:
        """Takes a message from Ceilometer; waits for the first reading of the truth."""

        def take() -> str:
            found = ceilometer.read(payload, lambda reason: self._refuse("a sample of Ceilometer's", reason))
            return self.cloud.sampled(found)

        return self._take(take, "samples")

    def undecodable(self, reason: str) -> None:
        """Counts a message that oslo.messaging could not read."""
        self._refuse("a message", reason)

    def away(self, since: bool) -> None:
        """Handles that RabbitMQ is away or back: messages sent meanwhile may be lost."""
        self.rabbitmq_away = since
        if not since:
            self.resync.set()

    def close(self) -> None:
        """Takes no more."""
        self._closed = True
        self._known.set()

    def truth(self, api: OpenStack) -> None:
        """Reads the truth, and logs how far the state differed from it.

        Raises:
            VacancyError: the truth cannot be read; the state does not change.
        """
        began = time.monotonic()
        truth = api.truth()
        with self._lock:
            difference = self.cloud.sync(truth)
        took_s = time.monotonic() - began
        what = f"{len(truth.providers)} hosts read from Placement and Nova in {took_s:.1f} s"
        if difference is None:
            _LOG.info("%s", what)
        elif difference.hosts:
            _LOG.warning(
                "%s; on %d of them the table was wrong, for %.0f s at most: %d instances missed, %d gone and still "
                "shown, %d with other amounts",
                what,
                difference.hosts,
                difference.since_s,
                difference.missed,
                difference.extra,
                difference.changed,
            )
        else:
            _LOG.info("%s; the table was right", what)
        if difference is not None:
            self.difference = difference
            self.corrected.update(missed=difference.missed, extra=difference.extra, changed=difference.changed)
        self._known.set()
        self._wake()

    def services(self, api: OpenStack, lately: bool) -> None:
        """Reads the services.

        Raises:
            VacancyError: the services cannot be read; the state does not change.
        """
        at = self._wall_clock()
        services, beats = api.services()
        with self._lock:
            self.cloud.sync_services(at, services, beats, lately)
            # Nobody but Placement tells of a pool: it is as fresh as the APIs.
            self._pools_due = bool(self.cloud.pools)
        self._wake()

    def turn(self) -> None:
        """Sends all events that are due."""
        with self._lock:
            confirm, self._confirm = self._confirm, set()
            self.cloud.changed |= (confirm | self.events.to_repeat) & self.cloud.hosts
            self.cloud.retired |= self.events.to_repeat - self.cloud.hosts - self.cloud.pools
            self.events.to_repeat.clear()
            usage = {id_: self.cloud.usage(id_) for id_ in _some(self.cloud.alive)}
            # Those to be confirmed now, whatever else there is.
            chosen = _some(self.cloud.changed) | (confirm & self.cloud.changed)
            self.cloud.changed -= confirm
            inventory = {id_: self.cloud.inventory(id_) for id_ in chosen}
            if self._pools_due:
                self._pools_due = False
                usage |= {id_: self.cloud.pool_usage(id_) for id_ in self.cloud.pools}
                inventory |= {id_: self.cloud.pool_inventory(id_) for id_ in self.cloud.pools}
            retired, self.cloud.retired = self.cloud.retired, set()
        for id_, reading in usage.items():
            self._send(Event.USAGE, id_, partial(self._writer.usage, id_, reading))
            listed = frozenset(reading.recent_consumers)
            if listed - self._listed.get(id_, frozenset()):
                # Their claims hold devices until an inventory newer than this event comes.
                self._confirm.add(id_)
            self._listed[id_] = listed
        for id_, what in inventory.items():
            if what != self._sent.get(id_) or id_ in confirm:
                self._send(Event.INVENTORY, id_, partial(self._writer.inventory, id_, what))
                self._sent[id_] = what
        for id_ in retired:
            self.events.send(Event.INVENTORY, id_, None)
            self._sent.pop(id_, None)
        self.events.serve()
        for id_ in self.events.to_repeat:
            self._sent.pop(id_, None)

    def _send(self, event: Event, host_id: str, write: Callable[[], bytes]) -> None:
        try:
            payload = write()
        except ValueError as error:
            self._refuse(f"the {event.name.lower()} of host {host_id}", str(error))
        else:
            self.events.send(event, host_id, payload)

    def _take(self, take: Callable[[], str], what: str) -> bool:
        self._known.wait()
        if self._closed:
            return False
        try:
            with self._lock:
                outcome = take()
        except ValueError as error:
            self._refuse(what, str(error))
        except Exception as error:  # noqa: BLE001  # an unforeseen error in one notification must not stop the others
            self._refuse(what, f"{type(error).__name__}: {error}")
        else:
            self.heard[outcome] += 1
        if self.woken:
            self._wake()
        return True

    def _refuse(self, what: str, reason: str) -> None:
        self.heard["refused"] += 1
        _LOG.error("%s is passed over: %s", what, " ".join(reason.split())[:300])


def _some(hosts: set[str]) -> set[str]:
    """Removes and returns at most _MOST_A_TURN hosts, so that the listening threads need not wait for all readings."""
    return {hosts.pop() for _ in range(min(len(hosts), _MOST_A_TURN))}


class Reader:
    """Reads the services and the truth when they are due, in its own thread."""

    def __init__(self, settings: BridgeSettings, api: OpenStack, bridge: Bridge) -> None:
        self._interval_s = settings.interval.total_seconds()
        self._resync_s = settings.resync_interval.total_seconds()
        self._api = api
        self._bridge = bridge
        self._stopped = False
        self._failing = False
        self._wanted = False
        self._looked_at = float("-inf")
        self._read_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="reader", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread after its current request; does not wait longer than a limit."""
        self._stopped = True
        self._bridge.resync.set()
        self._thread.join(1.0)

    def _run(self) -> None:
        while not self._stopped:
            try:
                self._turn()
            except VacancyError as error:
                self._failed(str(error))
            except Exception as error:  # noqa: BLE001  # an answer that is not from Nova or Placement, such as a proxy's
                self._failed(f"an answer of Placement or Nova's API is not understood: {error!r}")
            else:
                if self._failing:
                    _LOG.warning("Placement and Nova's API answer again")
                self._failing = False

    def _failed(self, why: str) -> None:
        if not self._failing:
            _LOG.warning("%s; the state stays as it is, trying on", why)
        self._failing = True
        time.sleep(min(1.0, self._interval_s))

    def _turn(self) -> None:
        now = time.monotonic()
        if now >= self._looked_at + self._interval_s:
            self._bridge.services(self._api, now - self._looked_at <= _LATELY * self._interval_s)
            self._looked_at = now
        if now >= self._truth_due:
            self._bridge.truth(self._api)
            self._read_at, self._wanted = time.monotonic(), False
        due = min(self._looked_at + self._interval_s, self._truth_due)
        if self._bridge.resync.wait(max(0.0, due - time.monotonic())):
            self._bridge.resync.clear()
            self._wanted = True

    @property
    def _truth_due(self) -> float:
        return self._read_at + (min(_LEAST_RESYNC_S, self._resync_s) if self._wanted else self._resync_s)
