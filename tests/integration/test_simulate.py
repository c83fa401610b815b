"""`vacancy simulate` and a real broker: what it says was acknowledged is what the topics hold."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from tests.harness.topic import count_records, own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.simulator.fleet import NS_PER_S, Behaviour, Fleet
from vacancy.jobs.simulator.simulation import Outbox, Progress, Simulation, Totals
from vacancy.schemas.codec import decode

TOTALS = re.compile(r"acknowledged (\d+) usage and (\d+) inventory events, dropped (\d+), in (\d+\.\d) s \(\d+ usage")


class Counts(NamedTuple):
    """What a topic, or the last line of a run, says."""

    usage: int
    inventory: int


@pytest.fixture
def kafka(kafka_broker: KafkaServer) -> KafkaSettings:
    """The broker with topics of the test's own."""
    return own_topics(kafka_broker.bootstrap_servers)


@contextmanager
def a_command(kafka: KafkaSettings, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    environment = {
        f"VACANCY_KAFKA__{name.upper()}": str(value)
        for name, value in kafka.model_dump(include={"bootstrap_servers", "partitions"}).items()
    } | {
        f"VACANCY_KAFKA__{name.upper()}": str(getattr(kafka, name))
        for name in ("usage_topic", "inventory_topic", "dead_letter_topic")
    }
    with subprocess.Popen(
        [sys.executable, "-c", "from vacancy.jobs.commands.cli import main; main()", "simulate", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def finish(process: subprocess.Popen[str]) -> Counts:
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    totals = TOTALS.match(output.splitlines()[-1])
    assert totals is not None, output
    assert int(totals[3]) == 0, output
    return Counts(int(totals[1]), int(totals[2]))


def counts(kafka: KafkaSettings) -> Counts:
    return Counts(count_records(kafka, kafka.usage_topic), count_records(kafka, kafka.inventory_topic))


def records(kafka: KafkaSettings, topic: str) -> list[dict[str, Any]]:
    """Every event of a topic, in order within a host."""
    found = []
    for each in read_topic(kafka, topic):
        record = decode(each.value or b"").record
        assert each.key == record["host_id"].encode()
        found.append(record)
    return found


def wait_for_more(kafka: KafkaSettings, events: int) -> None:
    enough = counts(kafka).usage + events
    wait_until(lambda: counts(kafka).usage >= enough, 60, f"fewer than {events} more usage events in the topic")


class Run:
    """A simulation in a thread, and how it stands."""

    def __init__(self, simulation: Simulation) -> None:
        self.progress: list[Progress] = []
        self.totals: list[Totals] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(simulation,))
        self._thread.start()

    def _run(self, simulation: Simulation) -> None:
        self.totals.append(simulation.run(None, self._stop.is_set, self.progress.append, 0.1))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)


@contextmanager
def running(simulation: Simulation) -> Iterator[Run]:
    run = Run(simulation)
    try:
        yield run
    finally:
        run.stop()


def test_a_run_leaves_in_the_topics_what_it_says_was_acknowledged(kafka: KafkaSettings) -> None:
    with a_command(kafka, "--hosts", "500", "--interval", "500ms", "--for", "3") as process:
        said = finish(process)
    assert said == counts(kafka)
    assert 500 < said.usage <= 3000  # all but what a slow machine or a silent host leaves out
    inventory = {record["host_id"]: record for record in records(kafka, kafka.inventory_topic)}
    assert len(inventory) == 500 <= said.inventory  # a few have come again
    assert {record["host_id"] for record in records(kafka, kafka.usage_topic)} == inventory.keys()
    assert all(record["reporting_interval_ms"] == 500 for record in inventory.values())


def test_with_a_tolerance_it_sends_the_first_looks_and_then_its_heartbeat(kafka: KafkaSettings) -> None:
    tolerant = ("--tolerance", "1", "--max-silence", "1s")
    with a_command(kafka, "--hosts", "300", "--interval", "100ms", "--for", "3", *tolerant) as process:
        said = finish(process)
    assert said == counts(kafka)
    by_host: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in records(kafka, kafka.usage_topic):
        by_host[record["host_id"]].append(record)
    assert len(by_host) == 300
    # 30 looks each: two at first, and then one each second, or sooner where an instance starts or ends.
    assert 2 * 300 <= said.usage < 8 * 300
    for events in by_host.values():
        assert [event["seq"] for event in events] == list(range(len(events)))
        assert all(after["monotonic_ns"] - before["monotonic_ns"] > 0 for before, after in pairwise(events))
    assert {each["reporting_interval_ms"] for each in records(kafka, kafka.inventory_topic)} == {1000}


def test_sigterm_flushes_and_counts(kafka: KafkaSettings) -> None:
    ensure_topics(kafka)
    with a_command(kafka, "--hosts", "2000") as process:
        wait_for_more(kafka, 3000)
        process.send_signal(signal.SIGTERM)
        assert finish(process) == counts(kafka)


def test_a_restart_is_a_reboot_of_the_same_hosts(kafka: KafkaSettings) -> None:
    ensure_topics(kafka)
    for _ in range(2):
        with a_command(kafka, "--hosts", "50", "--interval", "200ms", "--seed", "9") as process:
            wait_for_more(kafka, 150)  # three rounds, however slow the machine is
            process.send_signal(signal.SIGTERM)
            finish(process)
    boots: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for record in records(kafka, kafka.usage_topic):
        boots[record["host_id"]][record["boot_id"]].append(record)
    assert len(boots) == 50
    for by_boot in boots.values():
        assert len(by_boot) == 2
        for events in by_boot.values():
            assert [event["seq"] for event in events] == list(range(len(events)))
            for before, after in pairwise(events):
                assert before["monotonic_ns"] < after["monotonic_ns"]
                assert before["cpu_busy_ns"] <= after["cpu_busy_ns"]


def test_goes_on_through_a_broker_that_is_away(
    kafka: KafkaSettings, kafka_broker: KafkaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vacancy.jobs.simulator.simulation.QUEUE_EVENTS", 3000)
    ensure_topics(kafka)
    calm = Behaviour(reboots_per_s=0.0, silences_per_s=0.0)
    fleet = Fleet(1000, NS_PER_S, 1, 0, behaviour=calm, inventory_interval_ns=10**9 * NS_PER_S)
    with running(Simulation(fleet, Outbox(kafka, 1000.0), kafka)) as run:
        wait_until(
            lambda: run.progress and run.progress[-1].acknowledged > 2000, 60, "fewer than 2,000 events acknowledged"
        )
        kafka_broker.stop()
        try:
            wait_until(lambda: run.progress[-1].dropped > 1000, 60, "fewer than 1,000 events dropped")
            # The client library's own news count as queued.
            assert run.progress[-1].queued < 3100
        finally:
            kafka_broker.start()
        before = run.progress[-1].acknowledged
        wait_until(lambda: run.progress[-1].acknowledged > before + 3000, 60, "fewer than 3,000 more acknowledged")
        run.stop()
    [totals] = run.totals
    # Nothing is unaccounted for: seq counts from 0, and every host has sent its inventory.
    assert totals.usage + totals.inventory + totals.dropped == fleet.seq.sum() + 1000 + 1000
    # The schedule went on.
    assert fleet.tick_at_ns(fleet.ticks) / NS_PER_S == pytest.approx(totals.seconds - totals.lost_s, abs=2.0)
    # An event that was dropped while it was in flight may have arrived all the same.
    in_topics = sum(counts(kafka))
    assert totals.usage + totals.inventory <= in_topics <= totals.usage + totals.inventory + totals.dropped


def test_says_when_it_cannot_keep_up(kafka: KafkaSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vacancy.jobs.simulator.simulation.QUEUE_EVENTS", 10_000)
    ensure_topics(kafka)
    fleet = Fleet(20_000, 1_000_000, 1, 0, inventory_spread_ns=3600 * NS_PER_S)
    progress: list[Progress] = []
    simulation = Simulation(fleet, Outbox(kafka, 20e6), kafka)
    totals = simulation.run(4.0, lambda: False, progress.append, 0.5)
    assert totals.lost_s > 0
    assert "the schedule slipped by" in str(totals)
    late = [str(each) for each in progress if each.lost_s]
    assert late
    assert re.search(r"cannot keep up: reached [\d,]+ of 20,000,000 looks/s", late[-1])


def test_an_unreachable_broker_is_one_line() -> None:
    nowhere = KafkaSettings(bootstrap_servers="127.0.0.1:1")
    with a_command(nowhere, "--hosts", "1", "--for", "1") as process:
        output, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert output == ""
    assert re.fullmatch(r"vacancy: no Kafka broker answers at 127\.0\.0\.1:1 .*\n", errors)
