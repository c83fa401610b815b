"""The agent's schedule, its outbox and its turns; the clock is advanced by hand, and no broker ever answers."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import os
import random
import signal
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.harness.clock import Clock
from vacancy.connectors.collectors.collector import Inventory, InventoryReading, UsageReading
from vacancy.connectors.collectors.disk_pool import pool_id
from vacancy.connectors.kafka.host_events import HostEvents
from vacancy.connectors.kafka.outbox import Left, Outbox
from vacancy.connectors.settings import AgentSettings, KafkaSettings
from vacancy.jobs.reporters.agent import EXTRA_EVENTS_PER_S, Agent, Schedule, run
from vacancy.jobs.reporters.disk_pool import PoolReporter
from vacancy.jobs.reporters.encoders import make_encoders
from vacancy.jobs.reporters.identity import default_host_id, host_id_of, only_agent
from vacancy.jobs.signals import StopSignal
from vacancy.schemas.codec import Encoder, decode
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event

NOWHERE = KafkaSettings(bootstrap_servers="127.0.0.1:1")
MACHINE_ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"


class StillNode:
    """A collector with readings that the test sets."""

    def __init__(self) -> None:
        self.usage_reading = UsageReading("boot", 1, 2, 0, 3, 0, 4, 0, 5, 6, 2, 7, 0)
        self.inventory_reading = InventoryReading("boot", "node", {"VCPU": Inventory(2, 0, 2, 1.0)})
        self.error: Exception | None = None
        self.unknown: dict[str, str] = {}

    def usage(self) -> UsageReading:
        if self.error:
            raise self.error
        return self.usage_reading

    def inventory(self) -> InventoryReading:
        if self.error:
            raise self.error
        return self.inventory_reading

    def watch(self, wake: Callable[[], None]) -> None: ...


class Sink(Outbox):
    """An outbox that records what is put into it."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(NOWHERE, "host", 1_000_000, clock)
        self.usage: list[bytes] = []
        self.inventories: list[bytes] = []

    def add_usage(self, payload: bytes) -> None:
        self.usage.append(payload)

    def set_inventory(self, payload: bytes) -> None:
        self.inventories.append(payload)


@dataclasses.dataclass
class Bench:
    """An agent between an unchanging node and a sink."""

    clock: Clock
    node: StillNode
    sink: Sink
    agent: Agent

    def until(self, moment: float) -> list[float]:
        """Lets the agent take its turns up to a time; returns the times at which usage events left."""
        times = []
        while True:
            events = len(self.sink.usage)
            due = self.agent.turn()
            times += [self.clock.now] * (len(self.sink.usage) - events)
            if due > moment:
                self.clock.now = moment
                return times
            self.clock.now = due


@pytest.fixture
def bench() -> Bench:
    return _bench(AgentSettings())


def _bench(settings: AgentSettings, seed: int = 1) -> Bench:
    clock, node = Clock(), StillNode()
    sink = Sink(clock)
    encoders = {event: Encoder(event) for event in Event}
    agent = Agent(settings, "host", node, sink, encoders, clock=clock, wall_clock=lambda: 12.5, rng=random.Random(seed))
    return Bench(clock, node, sink, agent)


# A storage pool


class PoolEvents(HostEvents):
    """Records what is sent."""

    def __init__(self) -> None:
        super().__init__(NOWHERE, "test")
        self.sent: list[tuple[Event, str, dict[str, Any]]] = []

    def send(self, event: Event, host_id: str, payload: bytes | None) -> None:
        assert payload is not None
        self.sent.append((event, host_id, decode(payload).record))


def test_a_host_of_a_storage_pool_has_no_disk_of_its_own_and_one_reports_the_pool() -> None:
    settings = AgentSettings(disk_pool="nfs-vms", reports_disk_pool=True, disk_pool_aggregates=("rack",))
    bench, events = _bench(settings), PoolEvents()
    encoders = {event: Encoder(event) for event in Event}
    pool = PoolReporter(settings, "nfs-vms", events, encoders)
    bench.agent = Agent(settings, "host", bench.node, bench.sink, encoders, pool, clock=bench.clock)
    disk = Inventory(total=100, reserved=10, max_unit=100, allocation_ratio=2.0)
    bench.node.usage_reading = dataclasses.replace(
        bench.node.usage_reading, disk_gb_capacity=180, disk_gb_allocated=30, disk_gb_available=60
    )
    bench.node.inventory_reading = dataclasses.replace(
        bench.node.inventory_reading, inventories={**bench.node.inventory_reading.inventories, "DISK_GB": disk}
    )
    bench.until(bench.clock.now + 3.5)
    own = decode(bench.sink.usage[0]).record
    assert (own["disk_gb_capacity"], own["disk_gb_allocated"], own["disk_gb_available"]) == (0, 30, 0)
    assert (own["vcpus_capacity"], own["memory_mb_available"]) == (2, 5)
    inventory = decode(bench.sink.inventories[0]).record
    assert (set(inventory["inventories"]), inventory["disk_pool"]) == ({"VCPU"}, "nfs-vms")
    usages = [record for event, _, record in events.sent if event is Event.USAGE]
    (told,) = [record for event, _, record in events.sent if event is Event.INVENTORY]
    assert {host_id for _, host_id, _ in events.sent} == {pool_id("nfs-vms")} != {"host"}
    assert len(usages) == len(bench.sink.usage) >= 3
    shared = usages[-1]
    assert (shared["disk_gb_capacity"], shared["disk_gb_allocated"], shared["disk_gb_available"]) == (180, 0, 60)
    assert (shared["vcpus_capacity"], shared["memory_mb_capacity"], shared["instances"], shared["seq"]) == (
        0,
        0,
        0,
        len(usages) - 1,
    )
    assert (told["name"], told["aggregates"], told["status"]) == ("nfs-vms", ["rack"], "ENABLED")
    assert told["traits"] == ["MISC_SHARES_VIA_AGGREGATE"]
    assert told["disk_pool"] is None
    assert told["inventories"]["DISK_GB"] == dataclasses.asdict(disk)
    # What the node tells no disk of costs the pool alone.
    bench.node.inventory_reading = dataclasses.replace(bench.node.inventory_reading, inventories={})
    bench.until(bench.clock.now + 20.0)
    assert decode(bench.sink.inventories[-1]).record["inventories"] == {}
    assert len([event for event, *_ in events.sent if event is Event.INVENTORY]) == 1


def test_a_pool_is_reported_by_name(bench: Bench) -> None:
    with pytest.raises(ValidationError, match="about disk_pool, which is not set"):
        AgentSettings(reports_disk_pool=True)
    bench.until(bench.clock.now + 2.5)
    assert decode(bench.sink.inventories[0]).record["disk_pool"] is None


# Schedule


@given(first=st.floats(0, 1e7), interval=st.floats(0.001, 1e5), now=st.floats(0, 1e7))
def test_the_next_moment_is_later_than_now_and_on_the_grid(first: float, interval: float, now: float) -> None:
    moment = Schedule(first, interval).after(now)
    assert moment > now
    assert moment - max(now, first) <= interval + 1e-6
    steps = (moment - first) / interval
    assert abs(steps - round(steps)) * interval < 1e-5


def test_a_fleet_does_not_beat_in_step() -> None:
    phases = {round(_bench(AgentSettings(), seed).until(1001.0)[0] - 1000, 6) for seed in range(50)}
    assert len(phases) == 50
    assert min(phases) < 0.2
    assert max(phases) > 0.8


def test_events_leave_each_interval_and_never_drift(bench: Bench) -> None:
    times = bench.until(1100.0)
    assert len(times) == 100
    assert all(abs((time - times[0]) - k) < 1e-6 for k, time in enumerate(times))


def test_what_a_stall_missed_is_not_made_up_for(bench: Bench) -> None:
    before = bench.until(1010.0)
    bench.clock.now = 4610.25
    after = bench.until(4612.0)
    assert len(after) <= 3
    assert abs((after[-1] - before[0]) % 1.0 - 0.5) > 0.49  # still on the grid


# Usage and inventory


class TickingNode(StillNode):
    """A node whose clock goes with the agent's; busy with all of its two CPUs from a time on."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock
        self.busy_from = float("inf")

    def usage(self) -> UsageReading:
        now = self._clock.now
        busy_ns = round(2e9 * max(0.0, now - self.busy_from))
        return dataclasses.replace(super().usage(), monotonic_ns=1 + round(now * 1e9), cpu_busy_ns=busy_ns)


def _tolerant() -> tuple[Bench, TickingNode]:
    """An agent with a tolerance, after the first window, in which it sends each look."""
    settings = AgentSettings.model_validate({"tolerance": 0.02, "max_silence": "10 s"})
    bench = _bench(settings)
    node = TickingNode(bench.clock)
    bench.agent = _agent(bench, node, None, settings)
    bench.until(bench.clock.now + 70)
    bench.sink.usage.clear()
    return bench, node


def test_with_a_tolerance_a_quiet_node_sends_only_its_heartbeat() -> None:
    bench, _ = _tolerant()
    times = bench.until(bench.clock.now + 60)
    assert [second - first for first, second in itertools.pairwise(times)] == pytest.approx([10] * (len(times) - 1))
    assert len(times) == 6
    numbers = [decode(payload).record["seq"] for payload in bench.sink.usage]
    assert numbers == list(range(numbers[0], numbers[0] + 6))
    assert decode(bench.sink.inventories[-1]).record["reporting_interval_ms"] == 10_000


def test_with_a_tolerance_what_drifts_is_sent_before_the_row_is_off_by_more() -> None:
    bench, node = _tolerant()
    node.busy_from = began = bench.clock.now
    times = bench.until(began + 20)
    # A mean over 60 s moves by 1/60 a second, so by more than 0.02 in two looks.
    assert max(second - first for first, second in itertools.pairwise([began, *times])) < 3
    assert len(times) >= 8


def test_with_a_tolerance_what_is_exact_is_sent_with_the_next_look_and_at_once_where_it_should_not_wait() -> None:
    bench, node = _tolerant()
    node.usage_reading = dataclasses.replace(node.usage_reading, vcpus_allocated=1, instances=1)
    bench.agent.wake()
    assert bench.until(bench.clock.now)
    assert decode(bench.sink.usage[-1]).record["vcpus_allocated"] == 1
    bench.until(bench.clock.now + 3)
    bench.sink.usage.clear()
    node.usage_reading = dataclasses.replace(node.usage_reading, vcpus_allocated=0, instances=0)
    bench.until(bench.clock.now + 1)
    # Until when the former amount held is said as well, for the least of the window.
    assert [decode(payload).record["vcpus_allocated"] for payload in bench.sink.usage] == [1, 0]
    node.unknown = {"disk_read_ops": "the disk is gone"}
    bench.sink.usage.clear()
    bench.until(bench.clock.now + 1)
    assert decode(bench.sink.usage[-1]).record["unknown"] == ["disk_read_ops"]


def test_with_a_tolerance_a_pool_that_the_agent_reports_is_as_silent() -> None:
    settings = AgentSettings.model_validate(
        {"tolerance": 0.02, "max_silence": "10 s", "disk_pool": "nfs-vms", "reports_disk_pool": True}
    )
    bench, events = _bench(settings), PoolEvents()
    pool = PoolReporter(settings, "nfs-vms", events, {event: Encoder(event) for event in Event})
    bench.agent = _agent(bench, TickingNode(bench.clock), pool, settings)
    bench.until(bench.clock.now + 130)
    sent = [event for event, *_ in events.sent if event is Event.USAGE]
    # Each look of the first minute, then the heartbeat.
    assert 60 <= len(sent) <= 70


def _agent(bench: Bench, node: StillNode, pool: PoolReporter | None, settings: AgentSettings) -> Agent:
    encoders = {event: Encoder(event) for event in Event}
    return Agent(settings, "host", node, bench.sink, encoders, pool, clock=bench.clock, rng=random.Random(1))


def test_usage_events_are_numbered_and_signed(bench: Bench) -> None:
    bench.until(1003.0)
    records = [decode(payload).record for payload in bench.sink.usage]
    assert [record["seq"] for record in records] == [0, 1, 2]
    assert {record["host_id"] for record in records} == {"host"}
    assert {record["agent_time"].timestamp() for record in records} == {12.5}


def test_the_inventory_leaves_at_the_start_and_each_inventory_interval(bench: Bench) -> None:
    bench.agent.turn()
    assert len(bench.sink.inventories) == 1
    record = decode(bench.sink.inventories[0]).record
    assert (record["name"], record["reporting_interval_ms"]) == ("node", 1000)
    bench.until(1000.0 + 300)
    assert len(bench.sink.inventories) == 2
    bench.until(1000.0 + 3000)
    assert len(bench.sink.inventories) == 11


def test_a_changed_inventory_leaves_within_seconds(bench: Bench) -> None:
    bench.until(1010.0)
    bench.node.inventory_reading = dataclasses.replace(bench.node.inventory_reading, status="DISABLED")
    bench.until(1017.0)
    assert decode(bench.sink.inventories[-1]).record["status"] == "DISABLED"


def test_an_inventory_follows_the_usage_that_lists_a_new_consumer(bench: Bench) -> None:
    """A claim of devices waits for this inventory, even if nothing has changed since the last one."""
    bench.until(1010.0)
    inventories, events = len(bench.sink.inventories), len(bench.sink.usage)
    consumer = "5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11"
    bench.node.usage_reading = dataclasses.replace(bench.node.usage_reading, recent_consumers=(consumer,))
    while len(bench.sink.usage) == events:
        assert len(bench.sink.inventories) == inventories
        bench.clock.now = bench.agent.turn()
    bench.agent.turn()
    assert len(bench.sink.inventories) == inventories + 1
    bench.until(1020.0)
    assert len(bench.sink.inventories) == inventories + 1


def test_a_failing_collector_is_said_once_and_gone_on_with(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """If both readings fail for the same reason, only one line is logged."""
    bench.until(1003.0)
    bench.node.error = OSError("no such device")
    bench.until(1010.0)
    bench.node.error = None
    bench.until(1013.0)
    assert [decode(payload).record["seq"] for payload in bench.sink.usage] == list(range(6))
    messages = [record.getMessage() for record in caplog.records]
    assert messages == [
        "the usage cannot be read, trying on: OSError: no such device",
        "the usage can be read again",
    ]


def test_a_reading_that_does_not_fit_the_schema_does_not_end_the_agent(bench: Bench) -> None:
    good = bench.node.usage_reading
    bench.node.usage_reading = dataclasses.replace(good, vcpus_capacity=2**63)
    bench.until(1003.0)
    bench.node.usage_reading = good
    bench.until(1005.0)
    assert len(bench.sink.usage) == 2


# What is not known


def test_a_counter_that_no_event_can_hold_costs_itself_and_is_said_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    good = dataclasses.replace(bench.node.usage_reading, net_rx_bytes=5, disk_read_bytes=6)
    bench.node.usage_reading = dataclasses.replace(good, net_rx_bytes=2**64 - 1, disk_write_bytes=-1)
    bench.until(1005.0)
    events = [decode(payload).record for payload in bench.sink.usage]
    assert len(events) == 5
    assert {(event["net_rx_bytes"], event["disk_write_bytes"], event["disk_read_bytes"]) for event in events} == {
        (None, None, 6)
    }
    bench.node.usage_reading = good
    bench.until(1006.0)
    assert decode(bench.sink.usage[-1]).record["net_rx_bytes"] == 5
    bench.until(1100.0)
    assert sorted(record.getMessage() for record in caplog.records) == [
        "disk_write_bytes is known again",
        "disk_write_bytes is not known for certain, going on: -1 is no count",
        "net_rx_bytes is known again",
        f"net_rx_bytes is not known for certain, going on: {2**64 - 1} is no count",
    ]
    assert bench.agent.unknown == {"net_rx_bytes": 5, "disk_write_bytes": 5}


def test_what_comes_and_goes_is_said_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Of guests, too, which count under one name."""
    for second in range(1, 100):
        bench.node.unknown = {"domain one": "busy", "domain two": "busy"} if second % 2 else {}
        bench.until(1000.0 + second)
    assert len(caplog.records) == 2
    assert set(bench.agent.unknown) == {"domain"}


def test_an_event_names_the_figures_that_are_not_known(bench: Bench) -> None:
    """And no others; a counter that has no null counts as null by that alone."""
    bench.until(1001.0)
    good = bench.node.usage_reading
    bench.node.unknown = {"disk_gb_available": "it hangs", "domain one": "busy", "cpu_iowait_ns": "garbled"}
    bench.node.usage_reading = dataclasses.replace(
        good, cpu_busy_ns=None, net_rx_bytes=2**64 - 1, uncertain=("disk_gb_capacity",)
    )
    bench.until(1002.0)
    bench.node.unknown, bench.node.usage_reading = {}, good
    bench.until(1003.0)
    before, event, after = (decode(payload).record for payload in bench.sink.usage)
    assert event["unknown"] == ["cpu_busy_ns", "cpu_iowait_ns", "disk_gb_available", "net_rx_bytes"]
    assert event["uncertain"] == ["disk_gb_capacity"]
    assert (event["cpu_busy_ns"], event["net_rx_bytes"]) == (0, None)
    for known in (before, after):
        assert (known["unknown"], known["uncertain"], known["cpu_busy_ns"]) == (None, None, 7)


# Events that do not wait


def test_what_should_not_wait_leaves_at_once_and_the_others_stay(bench: Bench) -> None:
    before = bench.until(1010.0)
    bench.agent.wake()
    assert bench.agent.due <= 1010.0
    first, *others = bench.until(1020.0)
    assert first == 1010.0
    assert len(others) == 10
    assert all(abs((time - before[0] + 0.5) % 1.0 - 0.5) < 1e-6 for time in others)


@given(wakes=st.lists(st.floats(0, 5), max_size=200))
def test_a_burst_of_them_is_a_few_events_and_none_is_forgotten(wakes: list[float]) -> None:
    bench = _bench(AgentSettings.model_validate({"interval": "1 h"}))
    bench.until(1000.0)
    times = []
    for wake in sorted(wakes):
        times += bench.until(1000.0 + wake)
        bench.agent.wake()
    times += bench.until(1010.0)
    assert all(later - earlier > 0.999 / EXTRA_EVENTS_PER_S for earlier, later in itertools.pairwise(times))
    for wake in wakes:
        assert any(-1e-6 <= time - 1000 - wake <= 1.001 / EXTRA_EVENTS_PER_S for time in times), wake


# Outbox


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _outbox(clock: Clock, capacity: int) -> Outbox:
    return Outbox(NOWHERE, "host", capacity, clock)


@given(capacity=st.integers(1, 200), added=st.integers(0, 500), served=st.sets(st.integers(0, 500), max_size=3))
def test_every_event_waits_or_is_counted_as_dropped(capacity: int, added: int, served: set[int]) -> None:
    outbox = _outbox(Clock(), capacity)
    for number in range(added):
        outbox.add_usage(b"%d" % number)
        if number in served:
            outbox.serve(0)
        assert outbox.left.usage <= max(capacity, 2)
        assert outbox.left.usage + outbox.dropped == number + 1
    assert outbox.close(0).usage + outbox.dropped == added


def test_the_oldest_are_dropped_and_the_newest_inventory_is_kept(clock: Clock) -> None:
    outbox = _outbox(clock, 100)
    for number in range(250):
        outbox.add_usage(b"%d" % number)
        outbox.set_inventory(b"i%d" % number)
    assert list(outbox._usage) == [b"%d" % number for number in range(150, 250)]
    assert outbox._inventory == b"i249"
    assert outbox.left == Left(100, True)
    assert outbox.dropped == 150


def test_what_is_handed_over_comes_back_in_order_when_it_fails(clock: Clock) -> None:
    outbox = _outbox(clock, 100)
    for number in range(100):
        outbox.add_usage(b"%d" % number)
    outbox.serve(0)
    assert outbox._usage_handed_over == 25
    outbox._producer.purge()  # makes all of them fail
    clock.now += 0.5
    outbox.serve(0)
    assert outbox._usage_handed_over == 0
    assert list(outbox._usage) == [b"%d" % number for number in range(100)]


def test_an_absent_broker_is_said_once(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    outbox = _outbox(clock, 7)
    outbox.add_usage(b"x")
    for _ in range(20):
        outbox.serve(0.01)
        clock.now += 1
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("topic vacancy.usage at 127.0.0.1:1 takes no events: ")
    assert line.endswith("keeping the newest 7 events")
    outbox.close(0)


def test_an_event_too_large_for_kafka_is_dropped_said_once_and_counted(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = _outbox(clock, 10)
    for _ in range(3):
        outbox.add_usage(bytes(3_000_000))
        outbox.set_inventory(bytes(3_000_000))
        outbox.serve(0)
        outbox.serve(0)
    assert outbox.left == Left(0, False)
    assert outbox.dropped == 3
    (line,) = (record.getMessage() for record in caplog.records)
    assert "of 3000000 bytes dropped" in line


# Stopping


@pytest.fixture
def stop() -> Iterator[StopSignal]:
    with StopSignal() as stop_signal:
        yield stop_signal


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_wait(stop: StopSignal, number: signal.Signals) -> None:
    timer = threading.Timer(0.05, os.kill, (os.getpid(), number))
    timer.start()
    assert stop.wait(60)
    timer.join()
    assert stop.wait(60)  # at once


def test_another_thread_ends_a_wait(stop: StopSignal) -> None:
    timer = threading.Timer(0.05, stop.interrupt)
    timer.start()
    assert not stop.wait(60)
    timer.join()
    for _ in range(100_000):
        stop.interrupt()
    assert not stop.wait(60)
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.wait(60)


def test_run_takes_turns_until_it_is_stopped(stop: StopSignal) -> None:
    settings = AgentSettings.model_validate({"interval": "10ms", "buffer_events": 5})
    outbox = Outbox(NOWHERE, "host", settings.buffer_events)
    agent = Agent(settings, "host", StillNode(), outbox, {event: Encoder(event) for event in Event})
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM))
    timer.start()
    run(agent, outbox, stop)
    timer.join()
    left = outbox.close(0)
    assert left == Left(5, True)
    assert 10 < outbox.dropped + left.usage <= 51


def test_a_registry_that_does_not_answer_is_said_once_and_waited_for(stop: StopSignal) -> None:
    said = []

    def stop_when_said(record: logging.LogRecord) -> bool:
        said.append(record.getMessage())
        os.kill(os.getpid(), signal.SIGTERM)
        return True

    log = logging.getLogger("vacancy.agent")
    log.addFilter(stop_when_said)
    try:
        assert make_encoders(KafkaSettings(schema_registry_url="http://user:secret@127.0.0.1:1"), stop) is None
    finally:
        log.removeFilter(stop_when_said)
    (line,) = said
    assert line.startswith("the schema registry at 127.0.0.1:1 fails: ")
    assert "secret" not in line


def test_with_a_registry_events_are_in_confluents_format(stop: StopSignal) -> None:
    encoders = make_encoders(KafkaSettings(schema_registry_url="mock://agent"), stop)
    assert encoders is not None
    record = dataclasses.asdict(StillNode().usage()) | {"host_id": "h", "seq": 0, "agent_time": 0}
    assert encoders[Event.USAGE].encode(record)[:1] == b"\x00"


# Identity


def test_the_host_id_is_made_from_the_machine_id_without_showing_it(tmp_path: Path) -> None:
    file = tmp_path / "machine-id"
    file.write_text(f"{MACHINE_ID}\n")
    first, second = (default_host_id(tmp_path / "state", file) for _ in range(2))
    assert first == second
    assert uuid.UUID(first).hex != MACHINE_ID
    assert not (tmp_path / "state").exists()
    file.write_text(MACHINE_ID[::-1])
    assert default_host_id(tmp_path / "state", file) != first


@pytest.mark.parametrize("content", [None, "", "uninitialized\n", "0" * 32, "abc"])
def test_without_a_machine_id_one_is_made_up_and_kept(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "machine-id"
    if content is not None:
        file.write_text(content)
    first, second = (default_host_id(tmp_path / "state", file) for _ in range(2))
    assert first == second
    assert uuid.UUID(first)
    assert default_host_id(tmp_path / "other", file) != first


def test_an_identity_that_cannot_be_kept_is_an_error_that_says_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(VacancyError, match=r"set agent\.host_id"):
        default_host_id(tmp_path / "file", tmp_path / "none")


def test_one_agent_of_a_machine_sends_as_one_host_to_one_topic() -> None:
    node, kafka = f"node-{uuid.uuid4()}", NOWHERE
    with only_agent(node, kafka):
        with pytest.raises(VacancyError) as refused, only_agent(node, kafka):
            pass
        said = str(refused.value)
        assert said.startswith(f"another agent on this machine (process {os.getpid()}) sends as host {node} to ")
        assert said.endswith("; end it (`vacancy up` starts one), or set agent.host_id")
        with only_agent(f"{node}-2", kafka), only_agent(node, kafka.model_copy(update={"usage_topic": "other"})):
            pass
    with only_agent(node, kafka):  # it ends with the agent
        pass


def test_the_identity_is_nova_computes_where_its_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "compute_id"
    settings = AgentSettings(host_id_file=file)
    with pytest.raises(VacancyError, match=r"host_id_file .*No such file.* start nova-compute once"):
        host_id_of(settings, tmp_path)
    file.write_text("5E2F8A8C-7F0E-4A53-9A44-0A4F6F9C1D11\n", encoding="ascii")
    assert host_id_of(settings, tmp_path) == "5e2f8a8c-7f0e-4a53-9a44-0a4f6f9c1d11"
    assert host_id_of(settings.model_copy(update={"host_id": "node-1"}), tmp_path) == "node-1"
    file.write_text("none", encoding="ascii")
    with pytest.raises(VacancyError, match="no UUID in it"):
        host_id_of(settings, tmp_path)
