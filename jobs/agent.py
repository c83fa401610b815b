"""`vacancy agent`: reads this compute node's figures every interval and sends them as events.

What always holds:

- A usage event leaves at ``first + k * interval`` on a monotonic clock, where ``first`` is random within the first
  interval: a fleet does not beat in step, nothing drifts, and what was missed (a stall, a suspend) is not made up for.
- What a collector says should not wait leaves as one more usage event, at once, but no more often than
  :data:`EXTRA_EVENTS_PER_S`; the moments of the others stay.
- No failing read and no broker ends the agent; it says once that it fails and once that it works again.
- On SIGTERM and SIGINT it delivers what it can within :data:`FLUSH_LIMIT_S`, says what it could not, and ends with 0.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import logging
import math
import os
import random
import select
import signal
import socket
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from importlib import metadata
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TypeVar

import click

from connectors.collector import Collector, InventoryReading
from connectors.host import HostCollector
from connectors.outbox import Outbox
from connectors.settings import AgentSettings, KafkaSettings
from jobs.logs import configure, log_format_option
from jobs.options import DurationType, flags, load, settings_options
from jobs.settings import default_data_dir
from schemas.codec import Encoder
from schemas.errors import ConfigError, VacancyError
from schemas.events import Event
from schemas.fitting import FittingEncoder
from schemas.units import format_duration, milliseconds_of

FLUSH_LIMIT_S = 5.0
EXTRA_EVENTS_PER_S = 20
_LOOK_FOR_CHANGES_S = 5.0
_REGISTRY_RETRY_S = 5.0
_APPLICATION = uuid.UUID("0f0bd27e-25ce-4c1b-b4b8-1dd2a4c5c8f2")
_LOG = logging.getLogger("vacancy.agent")
_T = TypeVar("_T")


@click.command(
    help="""Emit this compute node's events until SIGTERM or Ctrl-C.

    \b
    Into the local stack:     vacancy agent
    On a compute node:        vacancy agent --config /etc/vacancy.toml
    Ten times a second:       vacancy agent --interval 100ms
    Without a settings file:  VACANCY_KAFKA__BOOTSTRAP_SERVERS=kafka:9092 vacancy agent
    """
)
@settings_options
@click.option("--host-id", help="Identity of this node.  [default: made from the machine id]")
@click.option("--interval", type=DurationType(), help="Time between two usage events.  [default: 1s]")
@log_format_option
def command(
    config: Path | None, data_dir: Path | None, host_id: str | None, interval: Any, log_format: str | None
) -> None:
    """Runs the agent."""
    settings = load(
        config, data_dir, flags(agent={"host_id": host_id, "interval": interval}, log={"format": log_format})
    )
    identity = host_id_of(settings.agent, data_dir or default_data_dir())
    configure(settings.log.format, host=settings.agent.name or socket.gethostname(), host_id=identity, job="agent")
    collector = make_collector(settings.agent)
    outbox = Outbox(settings.kafka, identity, settings.agent.buffer_events)
    with StopSignal() as stop:
        encoders = make_encoders(settings.kafka, stop)
        if encoders is None:
            return
        _LOG.info(
            "host %s sends to %s every %s",
            identity,
            settings.kafka.bootstrap_servers,
            format_duration(settings.agent.interval),
        )
        agent = Agent(settings.agent, identity, collector, outbox, encoders)

        def wake() -> None:
            agent.wake()
            stop.interrupt()

        collector.watch(wake)
        with _exported(settings.agent, agent, outbox, identity):
            run(agent, outbox, stop)
            left = outbox.close(FLUSH_LIMIT_S)
        what = f"{left.usage} usage events{' and the inventory' if left.inventory else ''}"
        total = f"{outbox.delivered} usage events delivered, {outbox.dropped} dropped"
        if left:
            _LOG.warning("stopped; %s; not delivered within %g s: %s", total, FLUSH_LIMIT_S, what)
        else:
            _LOG.info("stopped; %s", total)


def make_collector(settings: AgentSettings) -> Collector:
    """The collector that is set.

    Raises:
        ConfigError: it lacks something, or there is no such class.
    """
    if settings.collector == "host":
        return HostCollector(settings)
    if settings.collector == "libvirt":
        from connectors.libvirt_host import LibvirtCollector  # a package that only hypervisors have

        return LibvirtCollector(settings)
    entry = metadata.EntryPoint("collector", settings.collector, "vacancy.collectors")
    try:
        made: Collector = entry.load()(settings)
    except (ImportError, AttributeError) as error:
        raise ConfigError(
            f"agent.collector: {settings.collector} cannot be loaded: {error}; "
            "write it as module:Class, and have Python find the module (PYTHONPATH)"
        ) from None
    return made


def _exported(settings: AgentSettings, agent: Agent, outbox: Outbox, host_id: str) -> AbstractContextManager[None]:
    """Serves the agent's metrics while it lasts, where a port is set for them."""
    if settings.metrics_port is None:
        return nullcontext()
    from jobs.agent_metrics import AgentCollector, exported  # some MiB that only those pay who want them

    collector = AgentCollector(agent, outbox, host_id)
    return exported("agent", settings.metrics_port, settings.metrics_address, collector)


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
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._settings = settings
        self._host_id = host_id
        self._collector = collector
        self._outbox = outbox
        self._encoders = {event: FittingEncoder(event, encoder, _LOG) for event, encoder in encoders.items()}
        self._clock = clock
        self._wall_clock = wall_clock
        self._version = metadata.version("vacancy")
        self._seq = 0
        self._sent: InventoryReading | None = None
        self._listed: frozenset[str] = frozenset()
        self._failing: dict[str, str] = {}
        self._woken = False
        self.readings = {event: Readings() for event in Event}
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
            record = dataclasses.asdict(reading) | self._sender() | {"seq": self._seq}
            payload = self._encoders[Event.USAGE].encode(record)
            self._seq += 1
            self._outbox.add_usage(payload)
            self.readings[Event.USAGE].produced += 1
            listed = frozenset(reading.recent_consumers)
            if listed - self._listed:
                self._inventory_due = self._clock()
            self._listed = listed

    def _inventory(self, even_if_same: bool) -> None:
        with self._going_on(Event.INVENTORY):
            reading = self._read(Event.INVENTORY, self._collector.inventory)
            if reading == self._sent and not even_if_same:
                return
            more = {
                "reporting_interval_ms": milliseconds_of(self._settings.interval),
                "agent_version": self._version,
            }
            record = dataclasses.asdict(reading) | self._sender() | more
            self._outbox.set_inventory(self._encoders[Event.INVENTORY].encode(record))
            self._sent = reading
            self.readings[Event.INVENTORY].produced += 1

    def _read(self, event: Event, read: Callable[[], _T]) -> _T:
        """Has the collector read, and keeps how long that took."""
        readings, began = self.readings[event], self._clock()
        readings.reads += 1
        try:
            return read()
        finally:
            readings.seconds += self._clock() - began

    def _sender(self) -> dict[str, Any]:
        return {"host_id": self._host_id, "agent_time": round(self._wall_clock() * 1000)}

    def _going_on(self, event: Event) -> _GoingOn:
        return _GoingOn(event.name.lower(), self._failing, self.readings[event])


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


class StopSignal:
    """SIGTERM and SIGINT as something to wait for. A second Ctrl-C ends the process at once.

    Another thread may end a wait as well, without a signal.
    """

    def __init__(self) -> None:
        self._received = False

    def __enter__(self) -> Self:
        # The signal's number is written to one end, so that a wait on the other end sees it however they interleave.
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)
        self._wakeup_before = signal.set_wakeup_fd(self._writer.fileno())
        self._before = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup_before)
        self._reader.close()
        self._writer.close()

    def is_set(self) -> bool:
        """Whether one has come."""
        return self._received

    def wait(self, seconds: float) -> bool:
        """Waits for one or an interruption, but not longer than that; whether a signal has come."""
        if not self._received:
            select.select([self._reader], [], [], max(0.0, seconds))
            with suppress(BlockingIOError):
                self._reader.recv(4096)
        return self._received

    def interrupt(self) -> None:
        """Ends the present wait, or else the next one; for any thread."""
        with suppress(OSError):  # so many that it is full, or it is closed: nobody has to be woken
            self._writer.send(b"\0")

    def _receive(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._received = True
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)


def run(agent: Agent, outbox: Outbox, stop: StopSignal, clock: Callable[[], float] = time.monotonic) -> None:
    """Takes turns until stopped; between them it listens to the broker if it has to, and sleeps if not."""
    while not stop.is_set():
        agent.turn()
        while not stop.is_set() and (left_s := agent.due - clock()) > 0:
            if outbox.left:
                outbox.serve(min(left_s, 0.1))
            else:
                stop.wait(left_s)


def make_encoders(settings: KafkaSettings, stop: StopSignal) -> dict[Event, Encoder] | None:
    """An encoder for each event; with a schema registry it waits for that to answer. None: stopped before it did."""
    if settings.schema_registry_url is None:
        return {event: Encoder(event) for event in Event}
    from connectors.registry import Registry

    registry = Registry(settings.schema_registry_url)
    topics = {Event.USAGE: settings.usage_topic, Event.INVENTORY: settings.inventory_topic}
    failing = False
    while not stop.is_set():
        try:
            return {event: Encoder(event, registry.register(event, topic)) for event, topic in topics.items()}
        except VacancyError as error:
            if not failing:
                _LOG.warning("%s; waiting for it", error)
            failing = True
            stop.wait(random.uniform(0.5, 1.5) * _REGISTRY_RETRY_S)  # noqa: S311  # spreads a fleet, hides nothing
    return None


def host_id_of(settings: AgentSettings, state_dir: Path) -> str:
    """Who this node is: as it is set, as a file says, or made from the machine id.

    Raises:
        VacancyError: the file holds no UUID, or there is no identity to be had.
    """
    if settings.host_id:
        return settings.host_id
    if settings.host_id_file:
        try:
            return str(uuid.UUID(settings.host_id_file.read_text(encoding="ascii").strip()))
        except (OSError, ValueError) as error:
            what = getattr(error, "strerror", None) or "no UUID in it"
            raise VacancyError(
                f"agent.host_id_file {settings.host_id_file}: {what}; start nova-compute once, which writes it, "
                "or set agent.host_id"
            ) from None
    return default_host_id(state_dir)


def default_host_id(state_dir: Path, machine_id: Path = Path("/etc/machine-id")) -> str:
    """A UUID that stays the same: made from the machine id, or else made up once and kept in state_dir.

    The machine id itself is confidential (machine-id(5)), so what is used is a keyed hash of it.

    Raises:
        VacancyError: there is no machine id, and state_dir cannot be written.
    """
    try:
        key = bytes.fromhex(machine_id.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        key = b""
    if len(key) == 16 and any(key):
        return str(uuid.UUID(bytes=hmac.digest(key, _APPLICATION.bytes, hashlib.sha256)[:16], version=4))
    file = state_dir / "host-id"
    try:
        state_dir.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(f"host-id.{os.getpid()}")
        unfinished.write_text(f"{uuid.uuid4()}\n", encoding="ascii")
        try:
            # Unlike a rename this leaves one that another agent has just made.
            file.hardlink_to(unfinished)
        except FileExistsError:
            pass
        finally:
            unfinished.unlink()
        return str(uuid.UUID(file.read_text(encoding="ascii").strip()))
    except (OSError, ValueError) as error:
        raise VacancyError(f"{file}: cannot keep this node's identity: {error}; set agent.host_id") from None


def _with_random_phase(now: float, interval: float, rng: random.Random) -> Schedule:
    return Schedule(now + rng.uniform(0, interval), interval)
