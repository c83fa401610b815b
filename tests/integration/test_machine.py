"""The host collector on real namespaces, a real control group and a real file system that hangs."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.harness.agent import Agent
from tests.harness.hanging import HangingFileSystem, hanging_file_system
from tests.harness.installation import config_file
from tests.harness.reading import Reader, reader
from tests.harness.topic import histories, own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.collectors.machine import HostCollector
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 60.0
PAYLOAD = bytes(1400)
root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip", path="/usr/sbin:/sbin:/usr/bin") is None, reason="as root"
)


# Interfaces


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=LIMIT_S)


class Network:
    """Network namespaces whose names nobody else has."""

    def __init__(self) -> None:
        self._names = (f"vacancy-{os.getpid()}-{number}" for number in itertools.count())
        self.made: list[str] = []

    def namespace(self) -> str:
        """A new one, its loopback up."""
        self.made.append(next(self._names))
        _ip("netns", "add", self.made[-1])
        _ip("-n", self.made[-1], "link", "set", "lo", "up")
        return self.made[-1]

    def link(self, namespace: str, *arguments: str) -> None:
        """`ip link` in a namespace."""
        _ip("-n", namespace, "link", *arguments)


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    for name in made.made:
        _ip("netns", "del", name)


@contextmanager
def _reader(namespace: str) -> Iterator[Reader]:
    with reader(["ip", "netns", "exec", namespace], reserved_memory_mb=0) as read:
        yield read


def _pair(network: Network, inside: str, outside: str, name: str, number: int = 1) -> None:
    """An interface in a namespace, with its end in another one, both with addresses."""
    network.link(outside, "add", f"out{number}", "type", "veth", "peer", "name", name, "netns", inside)
    for namespace, interface, host in ((outside, f"out{number}", 1), (inside, name, 2)):
        _ip("-n", namespace, "address", "add", f"10.0.{number}.{host}/24", "dev", interface)
        network.link(namespace, "set", interface, "up")


def _send(namespace: str, address: str, packets: int) -> None:
    """UDP packets that nobody listens for."""
    program = (
        "import socket, sys\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "for _ in range(int(sys.argv[2])):\n"
        "    try: s.sendto(bytes(1400), (sys.argv[1], 9))\n"
        "    except ConnectionRefusedError: pass\n"
    )
    command = ["ip", "netns", "exec", namespace, sys.executable, "-c", program, address, str(packets)]
    subprocess.run(command, check=True, timeout=LIMIT_S)


@root
def test_an_interface_that_comes_back_from_another_namespace_brings_no_traffic(network: Network) -> None:
    node, outside, elsewhere = network.namespace(), network.namespace(), network.namespace()
    _pair(network, node, outside, "eth0", 1)
    _pair(network, node, outside, "eth1", 2)
    with _reader(node) as read:
        _send(outside, "10.0.2.2", 100)
        before = read()
        assert before["net_rx_bytes"] > 100 * len(PAYLOAD)
        network.link(node, "set", "eth1", "netns", elsewhere)
        away = read()
        _ip("-n", elsewhere, "address", "add", "10.0.2.2/24", "dev", "eth1")
        network.link(elsewhere, "set", "eth1", "up")
        _send(outside, "10.0.2.2", 2000)
        network.link(elsewhere, "set", "eth1", "netns", node)
        back = read()
        _ip("-n", node, "address", "add", "10.0.2.2/24", "dev", "eth1")
        network.link(node, "set", "eth1", "up")
        _send(outside, "10.0.2.2", 50)
        after = read()
    assert back["net_rx_bytes"] - before["net_rx_bytes"] < 10 * len(PAYLOAD)
    assert away["net_rx_bytes"] >= before["net_rx_bytes"]
    # It counts again, beside neighbours' questions and answers.
    assert 50 * len(PAYLOAD) < after["net_rx_bytes"] - back["net_rx_bytes"] < 100 * len(PAYLOAD)


@root
@pytest.mark.parametrize("kind", ["bridge", "macvlan"])
def test_what_is_stacked_on_what_is_seen_at_once(network: Network, kind: str) -> None:
    """The names stay, and a byte counts once: before an interface is put upon another, while it is, and afterwards."""
    node, outside = network.namespace(), network.namespace()
    _pair(network, node, outside, "eth0")
    if kind == "bridge":
        network.link(node, "add", "upper0", "type", "bridge")
    else:
        network.link(node, "add", "upper0", "link", "eth0", "type", "macvlan", "mode", "bridge")
    network.link(node, "set", "upper0", "up")
    with _reader(node) as read:

        def seen() -> int:
            before = read()
            _send(outside, "10.0.1.2", 200)
            after = read()
            grown: int = after["net_rx_bytes"] - before["net_rx_bytes"]
            return grown

        once = 200 * len(PAYLOAD)
        assert once < seen() < 1.3 * once
        if kind == "bridge":
            network.link(node, "set", "eth0", "master", "upper0")
            _ip("-n", node, "address", "del", "10.0.1.2/24", "dev", "eth0")
            _ip("-n", node, "address", "add", "10.0.1.2/24", "dev", "upper0")
            assert once < seen() < 1.3 * once
            network.link(node, "set", "eth0", "nomaster")
            _ip("-n", node, "address", "del", "10.0.1.2/24", "dev", "upper0")
            _ip("-n", node, "address", "add", "10.0.1.2/24", "dev", "eth0")
            assert once < seen() < 1.3 * once


@root
def test_a_tunnel_counts_what_it_passes_once(network: Network) -> None:
    node, outside = network.namespace(), network.namespace()
    _pair(network, node, outside, "eth0")
    for namespace, remote, host in ((node, "10.0.1.1", 2), (outside, "10.0.1.2", 1)):
        network.link(namespace, "add", "vx0", "type", "vxlan", "id", "7", "remote", remote, "dstport", "4789")
        _ip("-n", namespace, "address", "add", f"10.9.0.{host}/24", "dev", "vx0")
        network.link(namespace, "set", "vx0", "up")
    with _reader(node) as read:
        before = read()
        _send(outside, "10.9.0.2", 200)
        grown = read()["net_rx_bytes"] - before["net_rx_bytes"]
    assert 200 * len(PAYLOAD) < grown < 1.5 * 200 * len(PAYLOAD)


# A container's limit


@root
def test_a_limit_on_a_container_is_its_memory_and_one_on_the_agent_alone_is_not() -> None:
    """The container has process ids of its own, so that everything in it descends from its first process."""
    with _control_group() as (enter, limit_mb):
        with reader([*enter], reserved_memory_mb=0) as read:
            assert read()["memory_mb_capacity"] > limit_mb
        container = [*enter, "unshare", "--pid", "--fork", "--mount-proc", "sh", "-c", '"$@"; exit $?', "sh"]
        with reader(container, reserved_memory_mb=0) as read:
            reading = read()
        assert reading["memory_mb_capacity"] == limit_mb
        assert 0 < reading["memory_mb_available"] < limit_mb


@contextmanager
def _control_group() -> Iterator[tuple[list[str], int]]:
    """A memory group with a limit in MiB, and the command that enters it; of either version, whichever there is."""
    first, second = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")
    version_1 = (first / "memory.limit_in_bytes").exists()
    group = (first if version_1 else second) / f"vacancy-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if version_1 else "memory.max")).write_text(str(600 * 2**20))
    except OSError as error:
        pytest.skip(f"no memory group can be made here: {error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"], 600
    finally:
        group.rmdir()


# A file system that hangs


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[HangingFileSystem]:
    directory = tmp_path / "nfs"
    directory.mkdir()
    with hanging_file_system(directory) as file_system:
        yield file_system


@root
def test_a_file_system_that_hangs_costs_its_figure_and_no_time(hanging: HangingFileSystem) -> None:
    collector = HostCollector(AgentSettings(disk_path=hanging.directory))
    usage = collector.usage()
    assert (usage.disk_gb_capacity, usage.disk_gb_available, collector.unknown) == (100, 40, {})
    hanging.answers.clear()
    took = []

    def is_given_up() -> bool:
        nonlocal usage
        began = time.monotonic()
        usage = collector.usage()
        took.append(time.monotonic() - began)
        assert usage.disk_gb_available == (0 if collector.unknown else 40)
        return bool(collector.unknown)

    wait_until(is_given_up, LIMIT_S, "it is waited for")
    assert sum(took[1:]) / len(took) < 0.2
    assert took[0] < 5
    assert (usage.disk_gb_capacity, usage.disk_gb_available) == (100, 0)
    assert collector.unknown == {
        "disk_gb_available": f"the file system of agent.disk_path {hanging.directory} does not answer"
    }
    assert usage.memory_mb_available > 0
    assert collector.inventory().inventories["DISK_GB"].total == 100
    hanging.answers.set()
    wait_until(lambda: collector.usage().disk_gb_available == 40, LIMIT_S, "it answers and is not read")
    assert collector.unknown == {}


@root
def test_an_agent_whose_file_system_hangs_goes_on_says_so_and_ends(
    hanging: HangingFileSystem, kafka_broker: KafkaServer, tmp_path: Path
) -> None:
    """From its very start."""
    kafka = own_topics(kafka_broker.bootstrap_servers)
    ensure_topics(kafka)
    agent = AgentSettings.model_validate({"host_id": "node", "disk_path": hanging.directory, "interval": "100 ms"})
    both = Settings().model_copy(update={"kafka": kafka, "agent": agent})
    config_file(tmp_path).write_text(settings_file.dumps(both), encoding="utf-8")
    hanging.answers.clear()

    def events() -> list[dict[str, Any]]:
        return [record.event for record in histories(read_topic(kafka, kafka.usage_topic)).get("node", [])]

    def sent() -> list[int]:
        return [event["disk_gb_available"] for event in events()]

    with Agent(tmp_path) as running:
        wait_until(lambda: len(sent()) > 10, LIMIT_S, "nothing is sent")
        assert set(sent()) == {0}
        assert (events()[-1]["unknown"], events()[-1]["uncertain"]) == (["disk_gb_available"], ["disk_gb_capacity"])
        hanging.answers.set()
        wait_until(lambda: sent()[-1] == 40, LIMIT_S, "the file system answers and is not read")
        assert (events()[-1]["unknown"], events()[-1]["uncertain"]) == (None, None)
        hanging.answers.clear()
        wait_until(lambda: sent()[-1] == 0, LIMIT_S, "it is still waited for")
        began = time.monotonic()
        said = running.stop()
    assert time.monotonic() - began < 20
    assert said.count("does not answer") == 1
    assert re.search(
        r"WARNING disk_gb_available is not known for certain, going on: the file system of \S+ /\S+/nfs", said
    )
    assert "Traceback" not in said
