"""The agent as a process of its own, against a real broker that comes and goes."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest
from confluent_kafka import Consumer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families

from vacancy.connectors.kafka.client import client_config, ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.schemas.codec import decode

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 60.0


class AgentProcess:
    """`vacancy agent` with its own topics; ``lines`` is what it has said so far."""

    def __init__(
        self,
        settings: KafkaSettings,
        directory: Path,
        *,
        interval: str,
        buffer_events: int = 600,
        metrics_port: int | None = None,
    ) -> None:
        config = directory / "vacancy.toml"
        config.write_text(
            f'[kafka]\nbootstrap_servers = "{settings.bootstrap_servers}"\nusage_topic = "{settings.usage_topic}"\n'
            f'inventory_topic = "{settings.inventory_topic}"\n[agent]\nbuffer_events = {buffer_events}\n'
            + (f"metrics_port = {metrics_port}\n" if metrics_port else "")
        )
        self._metrics_port = metrics_port
        program = "from vacancy.jobs.commands.cli import main; main()"
        arguments = ["agent", "--config", str(config), "--host-id", "host-1", "--interval", interval]
        self._log = directory / "agent.log"
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", program, *arguments], stdout=subprocess.DEVNULL, stderr=log, cwd=directory
            )

    @property
    def lines(self) -> str:
        return self._log.read_text()

    def wait_for(self, pattern: str) -> re.Match[str]:
        wait_until(
            lambda: re.search(pattern, self.lines) or self.process.poll() is not None, f"the agent says {pattern}"
        )
        match = re.search(pattern, self.lines)
        assert match, f"the agent ended without it: {self.lines}"
        return match

    def figures(self) -> dict[str, float]:
        """Its metrics, by name and labels' values: ``events_delivered_total usage``; {} before its start."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                text = response.read().decode()
        except URLError:
            assert self.process.poll() is None, self.lines
            return {}
        return {
            " ".join([sample.name.removeprefix("vacancy_agent_"), *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(LIMIT_S)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def wait_until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {LIMIT_S:g} s: {what}"
        time.sleep(0.05)


@pytest.fixture
def settings(kafka_broker: KafkaServer) -> KafkaSettings:
    """Topics that no other test has."""
    name = uuid.uuid4().hex
    settings = KafkaSettings(
        bootstrap_servers=kafka_broker.bootstrap_servers,
        usage_topic=f"{name}.usage",
        inventory_topic=f"{name}.inventory",
        dead_letter_topic=f"{name}.dead-letters",
    )
    ensure_topics(settings)
    return settings


@pytest.fixture
def start(settings: KafkaSettings, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents, and ends what is left of them."""
    agents: list[AgentProcess] = []

    def start_agent(settings: KafkaSettings = settings, **options: Any) -> AgentProcess:
        agents.append(AgentProcess(settings, tmp_path, **options))
        return agents[-1]

    yield start_agent
    for agent in agents:
        agent.end()


def _records(settings: KafkaSettings, topic: str) -> list[dict[str, Any]]:
    """What is in a topic now, decoded; of one host, so it is all in one partition."""
    consumer = Consumer(client_config(settings) | {"group.id": "test", "enable.auto.commit": False})
    records: list[dict[str, Any]] = []
    for partition in range(settings.partitions):
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=20)
        if end:
            consumer.assign([TopicPartition(topic, partition, 0)])
        while len(records) < end:
            message = consumer.poll(20)
            assert message is not None, "the broker gives nothing"
            assert message.error() is None
            assert message.key() == b"host-1"
            value = message.value()
            assert value is not None
            records.append(decode(value).record)
    consumer.close()
    return records


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_sends_each_interval_and_delivers_all_before_it_ends(
    settings: KafkaSettings, start: Callable[..., AgentProcess], number: signal.Signals
) -> None:
    agent = start(interval="50ms")
    agent.wait_for("host host-1 sends to")
    wait_until(lambda: len(_records(settings, settings.usage_topic)) >= 20, "20 usage events")
    assert agent.stop(number) == 0
    delivered = int(agent.wait_for(r"stopped; (\d+) usage events delivered, 0 dropped\n")[1])

    usage = _records(settings, settings.usage_topic)
    assert [record["seq"] for record in usage] == list(range(delivered))
    boottime_s = [record["monotonic_ns"] / 1e9 for record in usage]
    assert boottime_s[-1] - boottime_s[0] == pytest.approx(0.05 * (delivered - 1), abs=0.5)
    (inventory,) = _records(settings, settings.inventory_topic)
    match = re.search(r"^MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert match
    assert inventory["inventories"]["MEMORY_MB"]["total"] == int(match[1]) // 1024
    assert inventory["reporting_interval_ms"] == 50


def test_a_broker_that_comes_late_gets_the_newest_and_the_drops_are_counted(
    kafka_broker: KafkaServer, settings: KafkaSettings, start: Callable[..., AgentProcess]
) -> None:
    kafka_broker.stop()
    try:
        agent = start(interval="50ms", buffer_events=20)
        agent.wait_for(rf"topic {settings.usage_topic} at \S+ takes no events: .*; keeping the newest 20 events")
    finally:
        kafka_broker.start()
    back = agent.wait_for(
        rf"topic {settings.usage_topic} takes events again after \d+ s; (\d+) usage events were dropped, (\d+) waited"
    )
    first_seqs = len(_records(settings, settings.usage_topic))
    wait_until(lambda: len(_records(settings, settings.usage_topic)) > first_seqs, "events after the broker is back")
    assert agent.stop() == 0
    end = agent.wait_for(r"stopped; (\d+) usage events delivered, (\d+) dropped\n")

    seqs = [record["seq"] for record in _records(settings, settings.usage_topic)]
    dropped = int(end[2])
    # On a busy machine the broker may fall behind once more.
    assert dropped >= int(back[1]) >= 50
    assert int(back[2]) == 20
    assert len(seqs) == int(end[1])
    assert seqs == sorted(set(seqs))
    assert seqs[-1] + 1 == len(seqs) + dropped
    # All but the few that were handed over already are the newest.
    late = seqs[5:]
    assert late == list(range(late[0], seqs[-1] + 1))
    assert len(_records(settings, settings.inventory_topic)) == 1


def test_a_broker_that_is_away_for_a_while_misses_nothing(
    kafka_broker: KafkaServer, settings: KafkaSettings, start: Callable[..., AgentProcess]
) -> None:
    agent = start(interval="50ms", buffer_events=10_000)
    wait_until(lambda: len(_records(settings, settings.usage_topic)) >= 5, "5 usage events")
    kafka_broker.stop()
    try:
        agent.wait_for(rf"topic {settings.usage_topic} at \S+ takes no events")
    finally:
        kafka_broker.start()
    agent.wait_for(rf"topic {settings.usage_topic} takes events again")
    assert agent.stop() == 0
    delivered = int(agent.wait_for(r"stopped; (\d+) usage events delivered, 0 dropped\n")[1])
    assert [record["seq"] for record in _records(settings, settings.usage_topic)] == list(range(delivered))


def test_without_a_broker_it_ends_in_time_and_says_what_it_could_not_deliver(
    settings: KafkaSettings, start: Callable[..., AgentProcess]
) -> None:
    agent = start(interval="50ms", settings=settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}))
    agent.wait_for("host host-1 sends to")
    began = time.monotonic()
    assert agent.stop() == 0
    assert time.monotonic() - began < 10
    agent.wait_for("stopped; 0 usage events delivered, 0 dropped; not delivered within 5 s: .* usage events")


def test_its_metrics_say_what_it_delivers(start: Callable[..., AgentProcess]) -> None:
    agent = start(interval="50ms", metrics_port=ports.free_port())
    wait_until(lambda: agent.figures().get("events_delivered_total usage", 0) >= 10, "10 usage events delivered")
    figures = agent.figures()
    assert figures["events_produced_total usage"] >= figures["events_delivered_total usage"]
    assert figures["events_produced_total inventory"] == figures["events_delivered_total inventory"] == 1
    assert figures["collect_seconds_count usage"] >= figures["events_produced_total usage"] >= 10
    assert 0 < figures["collect_seconds_sum usage"] < LIMIT_S
    assert time.time() - figures["last_delivery_timestamp_seconds"] < 10
    assert figures["events_waiting"] < 10
    assert {name for name in figures if name.startswith("info")} == {f"info host-1 {metadata.version('vacancy')}"}
    assert figures["process_resident_memory_bytes"] > 1_000_000
    for name in ("events_dropped_total", "delivery_errors_total", "collect_failures_total usage"):
        assert figures[name] == 0
    assert agent.stop() == 0


def test_its_metrics_say_what_it_cannot_deliver(settings: KafkaSettings, start: Callable[..., AgentProcess]) -> None:
    missing = settings.model_copy(update={"usage_topic": f"{settings.usage_topic}.missing"})
    agent = start(settings=missing, interval="50ms", buffer_events=5, metrics_port=ports.free_port())
    wait_until(
        lambda: min(agent.figures().get(name, 0) for name in ("delivery_errors_total", "events_dropped_total")) >= 1,
        "errors and drops",
    )
    figures = agent.figures()
    assert figures["events_delivered_total usage"] == 0
    assert 0 < figures["events_waiting"] <= 6
    assert figures["events_delivered_total inventory"] == 1


def test_a_metrics_port_that_is_taken_is_said(start: Callable[..., AgentProcess]) -> None:
    with socket.create_server(("0.0.0.0", 0)) as taken:  # noqa: S104  # as the agent does
        agent = start(interval="50ms", metrics_port=taken.getsockname()[1])
        assert agent.process.wait(LIMIT_S) == 1
    assert re.search(r"vacancy: agent\.metrics_port: .* cannot be opened: .*; .* or set another\n", agent.lines)


def test_a_second_agent_of_one_machine_is_refused_while_the_first_runs(
    settings: KafkaSettings, start: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    """The two would take turns to show in the table."""
    first = start(interval="50ms")
    first.wait_for("host host-1 sends to")
    (tmp_path / "second").mkdir()
    second = AgentProcess(settings, tmp_path / "second", interval="50ms")
    assert second.process.wait(LIMIT_S) == 1
    assert re.fullmatch(
        rf"vacancy: another agent on this machine \(process {first.process.pid}\) sends as host host-1 to \S+ already; "
        r"end it \(`vacancy up` starts one\), or set agent\.host_id\n",
        second.lines,
    ), second.lines
    first.process.kill()
    first.process.wait(LIMIT_S)
    third = start(interval="50ms")
    third.wait_for("host host-1 sends to")
    assert third.stop() == 0
