"""The agent as a process of its own, against a real broker that comes and goes."""

from __future__ import annotations

import re
import signal
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.error import URLError

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.harness.installation import config_file
from tests.harness.process import Process, vacancy
from tests.harness.topic import own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.schemas.codec import decode

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 60.0


class AgentProcess(Process):
    """`vacancy agent` with its own topics, and its metrics."""

    def __init__(
        self,
        settings: KafkaSettings,
        directory: Path,
        *,
        interval: str,
        buffer_events: int = 600,
        metrics_port: int | None = None,
        more: str = "",
    ) -> None:
        config = config_file(directory)
        config.write_text(
            f'[kafka]\nbootstrap_servers = "{settings.bootstrap_servers}"\nusage_topic = "{settings.usage_topic}"\n'
            f'inventory_topic = "{settings.inventory_topic}"\n[agent]\nbuffer_events = {buffer_events}\n'
            # They leave at a random phase of it, which shall not fall into a test.
            'inventory_interval = "7d"\n' + (f"metrics_port = {metrics_port}\n" if metrics_port else "") + more
        )
        self._metrics_port = metrics_port
        command = vacancy("agent", "--config", config, "--host-id", "host-1", "--interval", interval)
        super().__init__(command, directory, directory / "agent.log")

    def figures(self) -> dict[str, float]:
        """Its metrics, by name and labels' values: ``events_delivered_total usage``; {} before its start."""
        url = f"http://127.0.0.1:{self._metrics_port}/metrics"
        try:
            with urllib.request.urlopen(url, timeout=10) as response:
                text = response.read().decode()
        except URLError:
            assert not self.ended, self.output
            return {}
        return {
            " ".join([sample.name.removeprefix("vacancy_agent_"), *sample.labels.values()]): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def settings(kafka_broker: KafkaServer) -> KafkaSettings:
    """Topics that no other test has."""
    settings = own_topics(kafka_broker.bootstrap_servers, partitions=4)
    ensure_topics(settings)
    return settings


@pytest.fixture
def start(settings: KafkaSettings, tmp_path: Path) -> Iterator[Callable[..., AgentProcess]]:
    """Starts agents, and ends what is left of them."""
    agents: list[AgentProcess] = []

    def start_agent(settings: KafkaSettings = settings, **options: Any) -> AgentProcess:
        agents.append(AgentProcess(settings, tmp_path, **options))
        agents[-1].start()
        return agents[-1]

    yield start_agent
    for agent in agents:
        agent.kill()


def _records(settings: KafkaSettings, topic: str) -> list[dict[str, Any]]:
    """What is in a topic now, decoded; of one host, so it is all in one partition."""
    records = read_topic(settings, topic)
    assert {record.key for record in records} <= {b"host-1"}
    return [decode(record.value or b"").record for record in records]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_sends_each_interval_and_delivers_all_before_it_ends(
    settings: KafkaSettings, start: Callable[..., AgentProcess], number: signal.Signals
) -> None:
    agent = start(interval="50ms")
    agent.wait_for("host host-1 sends to")
    wait_until(lambda: len(_records(settings, settings.usage_topic)) >= 20, LIMIT_S, "20 usage events")
    assert agent.end(number) == 0
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


def test_with_a_tolerance_it_sends_the_first_window_and_then_its_heartbeat(
    settings: KafkaSettings, start: Callable[..., AgentProcess]
) -> None:
    # No figure drifts by more than 1, so what this machine does meanwhile changes nothing.
    start(interval="50ms", more='tolerance = 1\nmax_silence = "500ms"\n[job]\nwindow = "1 s"\n')

    def seconds() -> list[float]:
        """When events were read, since the first one."""
        times = [record["monotonic_ns"] / 1e9 for record in _records(settings, settings.usage_topic)]
        return [time - times[0] for time in times]

    wait_until(lambda: seconds()[-1:] >= [3.5], LIMIT_S, "usage events of 3.5 s")
    found = seconds()
    first, later = [s for s in found if s < 1], [s for s in found if 1.1 < s <= 3.5]
    # Each look of the first window, though a busy machine may miss some; then two a second.
    assert len(later) <= 6 < len(first)
    (inventory, *_) = _records(settings, settings.inventory_topic)
    assert inventory["reporting_interval_ms"] == 500


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
    wait_until(
        lambda: len(_records(settings, settings.usage_topic)) > first_seqs, LIMIT_S, "events after the broker is back"
    )
    assert agent.end() == 0
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
    wait_until(lambda: len(_records(settings, settings.usage_topic)) >= 5, LIMIT_S, "5 usage events")
    kafka_broker.stop()
    try:
        agent.wait_for(rf"topic {settings.usage_topic} at \S+ takes no events")
    finally:
        kafka_broker.start()
    agent.wait_for(rf"topic {settings.usage_topic} takes events again")
    assert agent.end() == 0
    delivered = int(agent.wait_for(r"stopped; (\d+) usage events delivered, 0 dropped\n")[1])
    assert [record["seq"] for record in _records(settings, settings.usage_topic)] == list(range(delivered))


def test_without_a_broker_it_ends_in_time_and_says_what_it_could_not_deliver(
    settings: KafkaSettings, start: Callable[..., AgentProcess]
) -> None:
    agent = start(interval="50ms", settings=settings.model_copy(update={"bootstrap_servers": "127.0.0.1:1"}))
    agent.wait_for("takes no events")
    began = time.monotonic()
    assert agent.end() == 0
    assert time.monotonic() - began < 10
    agent.wait_for("stopped; 0 usage events delivered, 0 dropped; not delivered within 5 s: .* usage events")


def test_its_metrics_say_what_it_delivers(start: Callable[..., AgentProcess]) -> None:
    agent = start(interval="50ms", metrics_port=ports.free_port())
    wait_until(
        lambda: agent.figures().get("events_delivered_total usage", 0) >= 10, LIMIT_S, "10 usage events delivered"
    )
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
    assert agent.end() == 0


def test_its_metrics_say_what_it_cannot_deliver(settings: KafkaSettings, start: Callable[..., AgentProcess]) -> None:
    missing = settings.model_copy(update={"usage_topic": f"{settings.usage_topic}.missing"})
    agent = start(settings=missing, interval="50ms", buffer_events=5, metrics_port=ports.free_port())
    wait_until(
        lambda: min(agent.figures().get(name, 0) for name in ("delivery_errors_total", "events_dropped_total")) >= 1,
        LIMIT_S,
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
    assert re.search(r"vacancy: agent\.metrics_port: .* cannot be opened: .*; .* or set another\n", agent.output)


def test_a_second_agent_of_one_machine_is_refused_while_the_first_runs(
    settings: KafkaSettings, start: Callable[..., AgentProcess], tmp_path: Path
) -> None:
    """The two would take turns to show in the table."""
    first = start(interval="50ms")
    first.wait_for("host host-1 sends to")
    (tmp_path / "second").mkdir()
    second = AgentProcess(settings, tmp_path / "second", interval="50ms")
    with second:
        wait_until(lambda: second.ended, LIMIT_S, "the second agent goes on")
    assert re.fullmatch(
        rf"vacancy: another agent on this machine \(process {first.pid}\) sends as host host-1 to \S+ already; "
        r"end it \(`vacancy up` starts one\), or set agent\.host_id\n",
        second.output,
    ), second.output
    first.kill()
    third = start(interval="50ms")
    third.wait_for("host host-1 sends to")
    third.stop()
