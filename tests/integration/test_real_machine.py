"""`vacancy up` on this very machine: its row against the kernel's own figures over the same window.

Other programs use the machine too, so that what is compared is always the same span of time: the steps of the row, from
the agent's event before the window to the newest one in it. The kernel's files are read here every 50 ms, and what the
row says between two events is held against what they say between the same two moments.

Root runs the stack in a network namespace of its own, whose one interface carries a transfer of known size and nothing
else; others cannot make one, and skip the network.
"""

from __future__ import annotations

import json
import mmap
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.harness.installation import config_file
from tests.harness.process import END_SECONDS, own_environment, vacancy
from tests.harness.servers import reachable_directory
from tests.harness.stack import Up

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="reads /proc"),
    pytest.mark.timeout(900),
]

ROOT = Path(__file__).parents[2]
WINDOW_MS = 12_000
DISK_BYTES = 256 << 20
DISK_SECONDS = 4.0
SENT_BYTES = 96 << 20
RECEIVED_BYTES = 64 << 20
SAMPLE_SECONDS = 0.05

# Both run inside the namespace, where the stack's addresses are.
WATCH_TABLE = """
import json, sys, time
ALL = "SELECT * FROM vacancy.schedulable_host"
from contextlib import closing
from pathlib import Path
from vacancy.connectors.postgres.documents import documents
from vacancy.jobs.commands.connections import open_reader
from vacancy.jobs.settings import load_settings
with closing(open_reader(load_settings(Path(sys.argv[1])))) as connection:
    while True:
        print(json.dumps(list(documents(connection, ALL, {}))), flush=True)
        time.sleep(0.2)
"""
READ_EVENTS = """
import json, sys
from pathlib import Path
from vacancy.jobs.settings import load_settings
from tests.harness.topic import histories, read_topic
kafka = load_settings(Path(sys.argv[1])).kafka
((host, history),) = histories(read_topic(kafka, kafka.usage_topic)).items()
events = [(each.append_ms, each.event["agent_time"].timestamp(), each.event["monotonic_ns"]) for each in history]
print(json.dumps(events))
"""
SPIN = "while True: pass"
SERVE = """
import socket, sys
n_bytes = int(sys.argv[1])
with socket.create_server(("192.0.2.2", 5000)) as listener:
    print("listening", flush=True)
    connection, _ = listener.accept()
    with connection:
        while connection.recv(1 << 20):
            pass
        connection.sendall(bytes(n_bytes))
"""
TRANSFER = """
import socket, sys
n_bytes = int(sys.argv[1])
with socket.create_connection(("192.0.2.2", 5000)) as connection:
    connection.sendall(bytes(n_bytes))
    connection.shutdown(socket.SHUT_WR)
    while connection.recv(1 << 20):
        pass
"""


class Sample(NamedTuple):
    """What the kernel says at a moment (s since 1970): counters since boot, but for memory."""

    at: float
    cpu_busy: int
    cpu_all: int
    memory_total_kb: int
    memory_available_kb: int
    disk_written: int
    net_received: int
    net_sent: int


class Network(NamedTuple):
    """The stack's network namespace and the one that it talks to."""

    ours: str
    others: str

    def inside(self, namespace: str) -> list[str]:
        """What runs a command in a namespace."""
        return ["ip", "netns", "exec", namespace]


class Observation(NamedTuple):
    """What `vacancy hosts` lists, and one row with the kernel's figures at both ends of the steps that it sums up."""

    hosts: list[dict[str, Any]]
    row: dict[str, Any]
    elapsed_s: float
    before: Sample
    after: Sample
    disk_bytes: int


class Sampler:
    """Reads the kernel's files, again and again, in a thread; a context manager."""

    def __init__(self, pid: int) -> None:
        self._net = Path(f"/proc/{pid}/net/dev")
        self._samples: list[Sample] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def at(self, moment: float) -> Sample:
        """The sample nearest to a moment."""
        nearest = min(self._samples, key=lambda sample: abs(sample.at - moment))
        assert abs(nearest.at - moment) < 1, "no sample near that moment"
        return nearest

    def _run(self) -> None:
        while not self._stop.wait(SAMPLE_SECONDS):
            self._samples.append(self._sample())

    def _sample(self) -> Sample:
        user, nice, system, idle, iowait, irq, softirq, steal = map(int, _lines("/proc/stat")[0].split()[1:9])
        busy = user + nice + system + irq + softirq
        memory = {line.split(":")[0]: int(line.split()[1]) for line in _lines("/proc/meminfo")}
        disks = {block.name for block in Path("/sys/block").iterdir() if "/virtual/" not in str(block.resolve())}
        writes = [line.split() for line in _lines("/proc/diskstats")]
        traffic = [line.split() for line in self._net.read_text(encoding="ascii").splitlines()[2:]]
        others = [fields for fields in traffic if fields[0] != "lo:"]
        return Sample(
            time.time(),
            busy,
            busy + idle + iowait + steal,
            memory["MemTotal"],
            memory["MemAvailable"],
            sum(int(fields[9]) * 512 for fields in writes if fields[2] in disks),
            sum(int(fields[1]) for fields in others),
            sum(int(fields[9]) for fields in others),
        )


def _lines(file: str) -> list[str]:
    return Path(file).read_text(encoding="ascii").splitlines()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """The directory of a stack, on the disk that temporary files are on."""
    parent = reachable_directory()
    yield parent / "stack"
    shutil.rmtree(parent)


@pytest.fixture(scope="module")
def network() -> Iterator[Network | None]:
    """Two network namespaces with a cable between them; None for those who may not make any."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield None
        return
    name = uuid.uuid4().hex[:8]
    network = Network(f"vacancy-{name}-a", f"vacancy-{name}-b")
    try:
        for namespace in network:
            _ip("netns", "add", namespace)
        peer = ("peer", "name", "cable", "netns", network.others)
        _ip("link", "add", "cable", "netns", network.ours, "type", "veth", *peer)
        for address, namespace in enumerate(network, 1):
            _ip("-n", namespace, "link", "set", "lo", "up")
            _ip("-n", namespace, "address", "add", f"192.0.2.{address}/24", "dev", "cable")
            _ip("-n", namespace, "link", "set", "cable", "up")
        yield network
    finally:
        for namespace in network:
            subprocess.run(["ip", "netns", "delete", namespace], check=False)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


@pytest.fixture(scope="module")
def observation(directory: Path, network: Network | None) -> Observation:
    """A run of `vacancy up`, with a busy core, a write and a transfer in the window of the row that is looked at.

    ::

        busy core   |-------------------------------------
        transfers          |--|
        row's window    |------------------|
    """
    from vacancy.jobs.jars import ensure_jars

    for group in ("kafka", "flink"):
        ensure_jars(group)  # there is no way out of the namespace
    prefix = network.inside(network.ours) if network else []
    with Up(directory, "--for", "120", "--window", f"{WINDOW_MS}ms", prefix=prefix) as up:
        up.wait_for("Settings file  ")
        with Sampler(up.process.pid) as sampler, a_process(sys.executable, "-c", SPIN):
            spinning_since_ms = now_ms()
            with watch_table(prefix, directory) as rows:
                next(row for row in rows if observed_ms(row) > spinning_since_ms + 4000)
                began_ms = now_ms()
                disk_bytes = write_to_disk(directory.parent / "written")
                if network:
                    transfer(network)
                # Both ends of what happened are inside of the row's window, and so is nothing but the busy core.
                ended_ms = max(now_ms() + 500, spinning_since_ms + WINDOW_MS + 1000)
                row = next(row for row in rows if observed_ms(row) > ended_ms)
            assert observed_ms(row) - WINDOW_MS < began_ms, "the transfers took longer than the window"
            hosts = run_json(*prefix, *vacancy("hosts", "--json", "--data-dir", directory))
            events = run_json(*prefix, sys.executable, "-c", READ_EVENTS, config_file(directory))
        up.stop()
    newest = observed_ms(row)
    in_window = [n for n, (append_ms, *_) in enumerate(events) if newest - WINDOW_MS <= append_ms <= newest]
    assert len(in_window) == row["samples"]
    (_, first_at, first_ns), (_, last_at, last_ns) = events[in_window[0] - 1], events[in_window[-1]]
    elapsed_s = (last_ns - first_ns) / 1e9
    observation = Observation(hosts, row, elapsed_s, sampler.at(first_at), sampler.at(last_at), disk_bytes)
    print(observation)  # shown when a test fails
    return observation


def test_there_is_one_row_for_this_machine(observation: Observation) -> None:
    (host,) = observation.hosts
    assert host["name"] == socket.gethostname()
    assert host["reason"] is None
    assert host["age"] < 10


def test_memory_is_the_kernels(observation: Observation) -> None:
    """Within 5 %: the row's moment and the sample's are some ms apart, and MiB are whole."""
    row, kernel = observation.row, observation.after
    memory = row["inventories"]["MEMORY_MB"]
    assert memory["total"] == pytest.approx(kernel.memory_total_kb / 1024, rel=0.05)
    assert row["memory_mb_capacity"] == memory["total"] - memory["reserved"]
    assert row["memory_mb_available"] == pytest.approx(kernel.memory_available_kb / 1024, rel=0.05)


def test_cpu_utilization_is_the_kernels(observation: Observation) -> None:
    """Within 0.1, with one core kept busy; 0.05 of that is room for ticks and for what the hypervisor takes."""
    row, before, after = observation.row, observation.before, observation.after
    kernel = (after.cpu_busy - before.cpu_busy) / (after.cpu_all - before.cpu_all)
    assert row["cpu_utilization"] == pytest.approx(kernel, abs=0.1)
    assert row["cpu_utilization"] > 0.8 / (os.cpu_count() or 1)


def test_the_rate_of_disk_writes_is_that_of_a_known_write(observation: Observation) -> None:
    """Within 10 % of the known size, once what others wrote meanwhile, by the kernel's count, is taken off."""
    kernel = observation.after.disk_written - observation.before.disk_written
    if kernel < 0.9 * observation.disk_bytes:
        pytest.skip("temporary files do not reach a disk that the kernel counts")
    others = max(0, kernel - observation.disk_bytes)
    written = observation.row["disk_write_bytes_per_s"] * observation.elapsed_s
    assert written - others == pytest.approx(observation.disk_bytes, rel=0.1)


def test_the_rates_of_the_network_are_those_of_a_known_transfer(
    observation: Observation, network: Network | None
) -> None:
    """Within 10 % of the known size, headers included, and of the kernel's count."""
    if network is None:
        pytest.skip("a network namespace takes root and iproute2")
    row, before, after = observation.row, observation.before, observation.after
    sent = row["net_tx_bytes_per_s"] * observation.elapsed_s
    received = row["net_rx_bytes_per_s"] * observation.elapsed_s
    assert sent == pytest.approx(SENT_BYTES, rel=0.1)
    assert received == pytest.approx(RECEIVED_BYTES, rel=0.1)
    assert sent == pytest.approx(after.net_sent - before.net_sent, rel=0.1)
    assert received == pytest.approx(after.net_received - before.net_received, rel=0.1)


def now_ms() -> int:
    """Ms since 1970."""
    return time.time_ns() // 1_000_000


def observed_ms(row: dict[str, Any]) -> int:
    """When the row's newest event was appended, ms since 1970."""
    return round(datetime.fromisoformat(row["observed_at"]).timestamp() * 1000)


@contextmanager
def a_process(*arguments: str | Path) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the context; its output is a pipe."""
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=own_environment()) as process:
        try:
            yield process
        finally:
            process.kill()


def run_json(*arguments: str | Path) -> Any:
    """What a command prints, as parsed JSON."""
    return json.loads(subprocess.check_output(arguments, cwd=ROOT, env=own_environment(), timeout=END_SECONDS))


@contextmanager
def watch_table(prefix: list[str], directory: Path) -> Iterator[Iterator[dict[str, Any]]]:
    """The machine's row, again and again."""
    with a_process(*prefix, sys.executable, "-c", WATCH_TABLE, config_file(directory)) as process:
        assert process.stdout is not None
        yield (row for line in process.stdout for row in json.loads(line) if row["observed_at"] is not None)


def write_to_disk(file: Path) -> int:
    """Writes to the disk itself, past the page cache where that can be; returns how many bytes."""
    block = mmap.mmap(-1, 4 << 20)
    written = 0
    end = time.monotonic() + DISK_SECONDS
    try:
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_DIRECT)
    except OSError:  # not every file system can
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        while written < DISK_BYTES and time.monotonic() < end:
            written += os.write(descriptor, block)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
        file.unlink()
    return written


def transfer(network: Network) -> None:
    """Sends and receives over the one interface of the stack's namespace."""
    with a_process(*network.inside(network.others), sys.executable, "-c", SERVE, str(RECEIVED_BYTES)) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "listening\n"
        client = [*network.inside(network.ours), sys.executable, "-c", TRANSFER, str(SENT_BYTES)]
        subprocess.run(client, check=True, timeout=END_SECONDS)
