"""One process that sends the events of a whole fleet.

The fleet (:mod:`vacancy.jobs.simulator.fleet`) says what the hosts of each tick report; here that becomes Avro, a tick
at a time, and goes to Kafka on a schedule that does not drift.

What always holds:

- An event counts as acknowledged if and only if the broker has acknowledged it.
- The schedule goes on while the broker is away: the queue is bounded, what it cannot hold is dropped and counted.
- A schedule that cannot be kept is said, with the rate that was reached.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyruhvro
from confluent_kafka import KafkaError, Message

from vacancy.connectors.kafka.client import ensure_topics, producer
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.settings import Settings
from vacancy.jobs.simulator.fleet import NS_PER_S, PRESSURE, Fleet, Report, Reporting
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event, newest
from vacancy.schemas.units import milliseconds_of

QUEUE_EVENTS = 400_000
"""Most events that wait for the broker, some 600 bytes each."""
MAX_LAG_S = 1.0
"""How late a tick may be before the schedule gives up the time that was lost."""
INVENTORY_PER_S = 3_000
"""How many hosts a second send their first inventory, and with a tolerance begin: a tenth of a core."""
REPORT_S = 10.0
FLUSH_S = 10.0
_LOG = logging.getLogger("vacancy.simulate")
_KEEP_S = (5.0, 60.0)  # least and most time that events wait for the broker
_LIVE_S = 0.5


@dataclass(frozen=True)
class Progress:
    """How a run stands.

    Attributes:
        seconds: since its start.
        events_per_s: usage events produced a second since the last report.
        looks_per_s: looks of hosts at themselves a second since then; without a tolerance each is an event.
        target_per_s: the same if the schedule had been kept.
        acknowledged: events of both kinds that the broker has acknowledged, at least.
        queued: events that wait for it, at most.
        dropped: events that will never be sent.
        lost_s: time by which the schedule slipped since the last report.
    """

    seconds: float
    events_per_s: float
    looks_per_s: float
    target_per_s: float
    acknowledged: int
    queued: int
    dropped: int
    lost_s: float

    def __str__(self) -> str:
        """One line."""
        line = (
            f"{self.seconds:.0f} s: {self.events_per_s:,.0f} usage events/s, {self.acknowledged:,} acknowledged, "
            f"{self.queued:,} queued, {self.dropped:,} dropped"
        )
        if self.lost_s:
            line += f"; cannot keep up: reached {self.looks_per_s:,.0f} of {self.target_per_s:,.0f} looks/s"
        return line


@dataclass(frozen=True)
class Totals:
    """What a run came to.

    Attributes:
        usage: usage events that the broker acknowledged.
        inventory: inventory events that it acknowledged.
        dropped: events of both kinds that it did not acknowledge.
        seconds: how long events were produced.
        lost_s: time by which the schedule slipped.
    """

    usage: int
    inventory: int
    dropped: int
    seconds: float
    lost_s: float

    def __str__(self) -> str:
        """One line; numbers without separators, for programs that read it."""
        rate = self.usage / self.seconds if self.seconds else 0.0
        line = (
            f"acknowledged {self.usage} usage and {self.inventory} inventory events, dropped {self.dropped}, "
            f"in {self.seconds:.1f} s ({rate:.0f} usage events/s)"
        )
        return line + (f"; the schedule slipped by {self.lost_s:.1f} s" if self.lost_s else "")


class Schedule:
    """When ticks are due, in seconds on a clock that never steps.

    A tick that is a little late is followed by the next one at once. One that is later than MAX_LAG_S moves all that
    follow: hosts then report late rather than in a burst.
    """

    def __init__(self, start_s: float) -> None:
        self.start_s = start_s
        self.lost_s = 0.0

    def wait_s(self, tick_at_s: float, now_s: float) -> float:
        """How long to wait for a tick that the fleet has at tick_at_s since its start; 0 if it is late."""
        wait = self.start_s + self.lost_s + tick_at_s - now_s
        if wait < -MAX_LAG_S:
            self.lost_s -= wait
        return max(0.0, wait)


class UsageEncoder:
    """Usage events of a tick as Kafka messages."""

    def __init__(self) -> None:
        version = newest(Event.USAGE)
        self._text = version.text
        self._header = version.header
        self._schema = pyruhvro.avro_to_arrow_schema(version.text)
        # pyarrow imports pandas with the first array, which takes long enough to spoil a schedule.
        pa.array(np.zeros(1))

    def messages(self, report: Report) -> list[dict[str, bytes]]:
        """A message for each of the report's rows, in their order."""
        if not len(report.rows):
            return []
        columns = [self._column(field, report) for field in self._schema]
        batch = pa.RecordBatch.from_arrays(columns, schema=self._schema)
        encoded = pyruhvro.serialize_record_batch(batch, self._text, 1)[0]
        return [
            {"key": host_id.encode(), "value": self._header + datum}
            for host_id, datum in zip(report.usage["host_id"], _binaries(encoded), strict=True)
        ]

    def _column(self, field: pa.Field, report: Report) -> pa.Array:
        if field.name not in report.usage:
            return pa.nulls(len(report.rows), field.type)  # a counter that is not simulated is one that no host has
        values: npt.NDArray[Any] = report.usage[field.name]
        if values.dtype == np.int64 and field.name not in PRESSURE:
            # They are as Arrow has them; pa.array would look at them for longer than the rest of a small tick takes.
            return pa.Array.from_buffers(field.type, len(values), [None, pa.py_buffer(np.ascontiguousarray(values))])
        return pa.array(values, type=field.type, mask=report.without_pressure if field.name in PRESSURE else None)


class InventoryEncoder:
    """Inventory events as Kafka messages."""

    def __init__(self) -> None:
        self._encoder = Encoder(Event.INVENTORY)

    def messages(self, fleet: Fleet, report: Report, now_ms: int) -> list[dict[str, bytes]]:
        """A message for each of the report's inventory rows."""
        records = (fleet.inventory(row, now_ms) for row in report.inventory_rows.tolist())
        return [{"key": record["host_id"].encode(), "value": self._encoder.encode(record)} for record in records]


class PoolEncoder:
    """The events of the fleet's storage pools as Kafka messages."""

    def __init__(self) -> None:
        self._usage, self._inventory = Encoder(Event.USAGE), Encoder(Event.INVENTORY)

    def messages(self, fleet: Fleet, now_ms: int) -> tuple[list[dict[str, bytes]], list[dict[str, bytes]]]:
        """Those of usage and those of inventory."""
        events = fleet.pool_events(now_ms)
        return (
            [{"key": usage["host_id"].encode(), "value": self._usage.encode(usage)} for usage, _ in events],
            [{"key": what["host_id"].encode(), "value": self._inventory.encode(what)} for _, what in events],
        )


class Outbox:
    """Hands messages to Kafka and counts exactly what becomes of them.

    A Python callback for every event would cost a fifth of all that producing does, so only failures call back: what
    was taken, has not failed and is not queued any more was acknowledged.

    Args:
        settings: where the brokers are.
        events_per_s: how many events to expect; oldest ones go when the queue would not hold newer ones.
    """

    def __init__(self, settings: KafkaSettings, events_per_s: float) -> None:
        least, most = _KEEP_S
        keep_s = min(max(0.8 * QUEUE_EVENTS / events_per_s, least), most)
        self._producer = producer(
            settings,
            delivery_report_only_error=True,
            queue_buffering_max_messages=QUEUE_EVENTS,
            message_timeout_ms=round(keep_s * 1000),
            linger_ms=20,
        )
        self._taken: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._refused = 0

    def send(self, topic: str, messages: list[dict[str, bytes]]) -> None:
        """Queues messages; those for which there is no room are dropped."""
        taken = self._producer.produce_batch(topic, messages, on_delivery=self._fail) if messages else 0
        self._taken[topic] += taken
        self._refused += len(messages) - taken

    def poll(self) -> None:
        """Serves what the client library has to tell; never waits."""
        self._producer.poll(0)

    @property
    def queued(self) -> int:
        """Events that wait to be acknowledged, at most."""
        return len(self._producer)

    @property
    def dropped(self) -> int:
        """Events that will not be sent."""
        return self._refused + self._failed.total()

    @property
    def acknowledged(self) -> int:
        """Events that the broker has acknowledged, at least; exact once closed."""
        # The queue's length also counts what the client library has to tell.
        return max(0, self._taken.total() - self._failed.total() - self.queued)

    def acknowledged_of(self, topic: str) -> int:
        """Events of one topic that the broker has acknowledged; right once closed."""
        return self._taken[topic] - self._failed[topic]

    def close(self, timeout_s: float) -> None:
        """Waits for what is queued, but no longer than timeout_s; then drops it."""
        if self._producer.flush(timeout_s):
            self._producer.purge()
            self._producer.flush(timeout_s)

    def _fail(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._failed[str(message.topic())] += 1


class Simulation:
    """A fleet and where its events go.

    Args:
        fleet: the hosts.
        outbox: the way to the broker.
        topics: names of the usage and the inventory topic.
    """

    def __init__(self, fleet: Fleet, outbox: Outbox, topics: KafkaSettings) -> None:
        self.fleet = fleet
        self._outbox = outbox
        self._topics = topics
        self._usage = UsageEncoder()
        self._inventory = InventoryEncoder()
        self._pools = PoolEncoder()
        self._produced = self._looks = 0

    def run(
        self,
        for_s: float | None,
        stopped: Callable[[], bool],
        tell: Callable[[Progress], None],
        tell_every_s: float = REPORT_S,
    ) -> Totals:
        """Runs the fleet on the real clock for a time (None: until stopped), then flushes."""
        fleet, schedule = self.fleet, Schedule(time.monotonic())
        told_s, told, told_lost_s = schedule.start_s, (0, 0), 0.0
        while not stopped():
            tick_at_s = fleet.tick_at_ns(fleet.ticks) / NS_PER_S
            now_s = time.monotonic()
            wait_s = schedule.wait_s(tick_at_s, now_s)
            if for_s is not None and tick_at_s + schedule.lost_s >= for_s:
                time.sleep(wait_s)
                break
            if now_s - told_s >= tell_every_s:
                tell(self._progress(schedule, now_s, told_s, told, told_lost_s))
                told_s, told, told_lost_s = now_s, (self._produced, self._looks), schedule.lost_s
            time.sleep(wait_s)
            self._tick()
        seconds = time.monotonic() - schedule.start_s
        self._outbox.close(FLUSH_S)
        return Totals(
            usage=self._outbox.acknowledged_of(self._topics.usage_topic),
            inventory=self._outbox.acknowledged_of(self._topics.inventory_topic),
            dropped=self._outbox.dropped,
            seconds=seconds,
            lost_s=schedule.lost_s,
        )

    def _tick(self) -> None:
        now_ms = time.time_ns() // 1_000_000
        report = self.fleet.advance(now_ms)
        self._outbox.send(self._topics.inventory_topic, self._inventory.messages(self.fleet, report, now_ms))
        self._outbox.send(self._topics.usage_topic, self._usage.messages(report))
        if self.fleet.pools and self.fleet.ticks % self.fleet.slices == 0:  # once an interval, after all hosts
            usage, inventory = self._pools.messages(self.fleet, now_ms)
            self._outbox.send(self._topics.inventory_topic, inventory)
            self._outbox.send(self._topics.usage_topic, usage)
        self._outbox.poll()
        self._produced += len(report.rows)
        self._looks += len(report.looks)

    def _progress(
        self, schedule: Schedule, now_s: float, told_s: float, told: tuple[int, int], told_lost_s: float
    ) -> Progress:
        lost_s = schedule.lost_s - told_lost_s
        produced, looks = told
        return Progress(
            seconds=now_s - schedule.start_s,
            events_per_s=(self._produced - produced) / (now_s - told_s),
            looks_per_s=(self._looks - looks) / (now_s - told_s),
            target_per_s=len(self.fleet) * NS_PER_S / self.fleet.interval_ns,
            acknowledged=self._outbox.acknowledged,
            queued=self._outbox.queued,
            dropped=self._outbox.dropped,
            lost_s=lost_s,
        )


def build_simulation(settings: Settings, hosts: int, seed: int, pools: int = 0) -> Simulation:
    """A fleet as the settings say, with its topics created if they are missing.

    Raises:
        VacancyError: no broker answers, or it lets us not write.
    """
    ensure_topics(settings.kafka, {settings.kafka.usage_topic: "WRITE", settings.kafka.inventory_topic: "WRITE"})
    interval_ns = milliseconds_of(settings.agent.interval) * 1_000_000
    inventory_interval_ns = milliseconds_of(settings.agent.inventory_interval) * 1_000_000
    fleet = Fleet(
        hosts,
        interval_ns,
        seed,
        time.time_ns() // 1_000_000,
        inventory_interval_ns=inventory_interval_ns,
        inventory_spread_ns=min(hosts * NS_PER_S // INVENTORY_PER_S, inventory_interval_ns),
        reporting=Reporting(
            window_ns=milliseconds_of(settings.job.window) * 1_000_000,
            tolerance=settings.agent.tolerance,
            max_silence_ns=milliseconds_of(settings.agent.max_silence) * 1_000_000,
        ),
        pools=pools,
    )
    return Simulation(fleet, Outbox(settings.kafka, hosts * NS_PER_S / interval_ns), settings.kafka)


def _binaries(array: pa.Array) -> list[bytes]:
    """A fresh binary array's values; several times as fast as its to_pylist."""
    _, offsets, data = array.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int32, count=len(array) + 1).tolist()
    content = data.to_pybytes()
    return [content[start:end] for start, end in pairwise(bounds)]
