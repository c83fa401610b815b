"""`vacancy bridge` with real RabbitMQ, Kafka, Placement and Nova API, and notifications sent by Nova's own code."""

from __future__ import annotations

import json
import math
import random
import re
import subprocess
import threading
import time
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest
from confluent_kafka import Consumer, TopicPartition
from kombu.connection import Connection
from prometheus_client.parser import text_string_to_metric_families

from bench.placement import environment
from tests.harness.installation import config_file
from tests.harness.process import Process, vacancy
from tests.harness.proxy import Proxy
from tests.harness.rabbitmq import RabbitMQ, running_rabbitmq
from tests.harness.waiting import wait_until
from tests.nova.conftest import PROGRAM_LIMIT_S, Nova
from vacancy.connectors.kafka.client import client_config, ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.schemas.codec import decode

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 60.0
HOSTS = 9
"""Each test uses its own hosts among these."""
CEILOMETER = environment.ROOT / "requirements" / "ceilometer.lock"


class Cloud:
    """The program ``tests.nova.programs.cloud``."""

    def __init__(self, nova: Nova, directory: Path, transport_url: str) -> None:
        environment.configure(directory, f"sqlite:///{directory / 'placement.db'}")
        self._process = subprocess.Popen(
            nova.command("cloud"),
            env=nova.variables(OS_PLACEMENT_CONFIG_DIR=str(directory)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        ports = self._say({"transport_url": transport_url})
        self.nova_conf = directory / "bridge-nova.conf"
        sections = {"placement": ports["placement"], "nova": ports["compute"]}
        self.nova_conf.write_text(
            f"[DEFAULT]\ntransport_url = {transport_url}\n"
            + "".join(
                f"[{name}]\nauth_type = admin_token\nendpoint = http://127.0.0.1:{port}\ntoken = admin\n"
                for name, port in sections.items()
            ),
            encoding="utf-8",
        )

    def do(self, order: str, **arguments: Any) -> Any:
        """Sends an order and returns its answer."""
        return self._say([[order, arguments]])[0]

    def boot(self, number: int, vcpus: int = 2, **more: Any) -> str:
        """Starts an instance and returns its UUID."""
        instance = str(uuid.uuid4())
        self.do("boot", uuid_=instance, number=number, vcpus=vcpus, memory_mb=1024, disk_gb=10, **more)
        return instance

    def end(self) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(LIMIT_S)
        self._process.stdout.close()

    def _say(self, what: Any) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the cloud has ended"
        return json.loads(answer)


class Bridge(Process):
    """`vacancy bridge` as a process, and the events that it has sent."""

    def __init__(self, directory: Path, broker: str, cloud: Cloud, **settings: Any) -> None:
        name = uuid.uuid4().hex
        kafka = KafkaSettings(
            bootstrap_servers=broker, usage_topic=f"u-{name}", inventory_topic=f"i-{name}", partitions=1
        )
        ensure_topics(kafka, {kafka.usage_topic: "WRITE", kafka.inventory_topic: "WRITE"})
        lines = [
            f'[kafka]\nbootstrap_servers = "{broker}"',
            f'usage_topic = "u-{name}"\ninventory_topic = "i-{name}"\n[bridge]',
            f'nova_conf = "{cloud.nova_conf}"',
            f'queue = "vacancy-{name}"',
            *(f"{key} = {json.dumps(value)}" for key, value in settings.items()),
        ]
        config_file(directory).write_text("\n".join(lines), encoding="utf-8")
        command = vacancy("bridge", "--config", config_file(directory))
        super().__init__(command, directory, directory / "bridge.log")
        self.queue = f"vacancy-{name}"
        self._metrics_port = settings.get("metrics_port")
        self.usage: dict[str, list[dict[str, Any]]] = {}
        self.inventory: dict[str, list[dict[str, Any] | None]] = {}
        self._usage_topic = kafka.usage_topic
        self._consumer = Consumer(client_config(kafka) | {"group.id": name, "enable.auto.commit": False})
        self._consumer.assign([TopicPartition(topic, 0, 0) for topic in (kafka.usage_topic, kafka.inventory_topic)])
        self._stop = threading.Event()
        self._reader = threading.Thread(target=self._read)

    def newest(self, number: int) -> dict[str, Any]:
        """The newest usage of a host; {} if there is none yet."""
        return next(reversed(self.usage.get(host_id(number), [])), {})

    def status(self, number: int) -> dict[str, Any]:
        """The newest inventory of a host; {} if there is none yet or the host is retired."""
        return next(reversed(self.inventory.get(host_id(number), [])), {}) or {}

    def figure(self, name: str, **labels: str) -> float:
        """The value of one of its metrics."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._metrics_port}/metrics", timeout=10) as response:
            text = response.read().decode()
        (value,) = (
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if (sample.name, sample.labels) == (name, labels)
        )
        return float(value)

    def wait_until(self, condition: Any, what: str) -> None:
        wait_until(condition, LIMIT_S, f"{what}; the bridge says: {self.output}")

    def wait_while_they_report(self, cloud: Cloud, numbers: list[int], condition: Any, what: str) -> None:
        """Makes hosts report repeatedly, like nova-compute: a late reading of the services does not show life."""

        def reported() -> bool:
            cloud.do("beat", numbers=numbers)
            return bool(condition())

        self.wait_until(reported, what)

    def __enter__(self) -> Self:
        super().__enter__()
        self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        self._stop.set()
        self._reader.join()
        self._consumer.close()

    def _read(self) -> None:
        while not self._stop.is_set():
            message = self._consumer.poll(0.05)
            if message is None or message.error():
                continue
            value = message.value()
            record = None if value is None else decode(value).record
            if record is not None:
                record["appended_s"] = message.timestamp()[1] / 1000
            host = (message.key() or b"").decode()
            if message.topic() == self._usage_topic:
                assert record is not None
                self.usage.setdefault(host, []).append(record)
            else:
                self.inventory.setdefault(host, []).append(record)


def host_id(number: int) -> str:
    """A host's id, as in the program."""
    return f"00000000-0000-4000-8000-{number:012d}"


def amqp(rabbitmq: RabbitMQ) -> Any:
    """A connection without oslo.messaging."""
    return Connection(rabbitmq.url.replace("rabbit:", "amqp:"))  # type: ignore[no-untyped-call]  # has no annotations


def consumers(rabbitmq: RabbitMQ, queue: str) -> int:
    """The number of messages in a queue."""
    with amqp(rabbitmq) as connection:
        try:
            return int(connection.default_channel.queue_declare(queue, passive=True).consumer_count)
        except connection.channel_errors:
            return 0  # no such queue yet


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQ]:
    with running_rabbitmq() as server:
        yield server


@pytest.fixture(scope="module")
def cloud(nova: Nova, rabbitmq: RabbitMQ, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    cloud = Cloud(nova, tmp_path_factory.mktemp("cloud"), rabbitmq.url)
    try:
        cloud.do("add_hosts", first=1, last=HOSTS)
        yield cloud
    finally:
        cloud.end()


@contextmanager
def running(directory: Path, broker: str, cloud: Cloud, **settings: Any) -> Iterator[Bridge]:
    with Bridge(directory, broker, cloud, **settings) as bridge:
        bridge.wait_for(r"\d+ hosts read from Placement and Nova", PROGRAM_LIMIT_S)
        try:
            yield bridge
        finally:
            bridge.stop()


@pytest.fixture(scope="module")
def network(rabbitmq: RabbitMQ) -> Iterator[Proxy]:
    """The first bridge's proxy to RabbitMQ."""
    with Proxy(rabbitmq.port) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def bridge(
    kafka_broker: KafkaServer,
    cloud: Cloud,
    rabbitmq: RabbitMQ,
    network: Proxy,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Bridge]:
    """A bridge that reads the truth once, so that all later knowledge comes from notifications."""
    settings = {
        "transport_url": rabbitmq.url.replace(str(rabbitmq.port), str(network.port)),
        "interval": "1 s",
        "resync_interval": "1 h",
        "ceilometer_topics": ["metering"],
        "metrics_address": "127.0.0.1",
        "metrics_port": ports.free_port(),
    }
    with running(tmp_path_factory.mktemp("bridge"), kafka_broker.bootstrap_servers, cloud, **settings) as bridge:
        yield bridge


@pytest.fixture(scope="module")
def rereading(kafka_broker: KafkaServer, cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bridge]:
    """A bridge that reads the truth repeatedly."""
    settings = {"interval": "1 s", "resync_interval": "4 s"}
    with running(tmp_path_factory.mktemp("bridge"), kafka_broker.bootstrap_servers, cloud, **settings) as bridge:
        yield bridge


def test_placement_says_what_a_host_is_and_only_its_own_sign_of_life_that_it_lives(
    bridge: Bridge, cloud: Cloud
) -> None:
    bridge.wait_until(lambda: len(bridge.inventory) == HOSTS, "every host has an inventory")
    told = bridge.status(1)
    assert told["name"] == "compute-1.example"
    assert told["inventories"]["VCPU"]["allocation_ratio"] == 4.0
    assert (told["status"], told["zone"], told["traits"]) == ("ENABLED", "nova", ["HW_CPU_X86_AVX2"])
    assert told["source"] == "notifications"
    cloud.do("switch", number=2, disabled=True, reason="memory errors")
    bridge.wait_until(lambda: bridge.status(2)["status"] == "DISABLED", "host 2 is disabled")
    assert bridge.status(2)["status_reason"] == "memory errors"
    cloud.do("switch", number=2, disabled=False, reason=None, forced_down=True)
    bridge.wait_until(lambda: bridge.status(2)["status_reason"] == "forced down", "host 2 is forced down")
    bridge.wait_while_they_report(cloud, [1], lambda: bridge.newest(1), "host 1 has reported")
    assert bridge.newest(1)["vcpus_capacity"] == 64
    assert bridge.newest(1)["memory_mb_capacity"] == bridge.newest(1)["memory_mb_available"] == 32_256
    assert bridge.usage.keys() == {host_id(1)}, "no other has said that it lives, whoever spoke of it"


def test_an_instance_counts_as_it_starts_and_its_claim_is_settled_with_it(bridge: Bridge, cloud: Cloud) -> None:
    began = time.time()
    instance = cloud.boot(3)
    bridge.wait_until(lambda: bridge.newest(3).get("vcpus_allocated") == 2, "the instance counts")
    event = next(event for event in bridge.usage[host_id(3)] if event["vcpus_allocated"])
    assert instance in event["recent_consumers"]
    assert (event["memory_mb_allocated"], event["disk_gb_allocated"], event["instances"]) == (1024, 10, 1)
    print(f"\nfrom before the order to the append: {event['appended_s'] - began:.3f} s")
    cloud.do("move", uuid_=instance, number=4)
    bridge.wait_until(lambda: bridge.newest(4).get("vcpus_allocated") == 2, "it counts where it has gone")
    bridge.wait_while_they_report(
        cloud, [3], lambda: bridge.newest(3)["vcpus_allocated"] == 0, "it no longer counts where it was"
    )
    cloud.do("delete", uuid_=instance)
    bridge.wait_until(lambda: bridge.newest(4)["vcpus_allocated"] == 0, "it is gone")
    assert bridge.output.count("hosts read from Placement") == 1, "all that was heard, not read"


def test_the_zone_is_that_of_the_aggregate(bridge: Bridge, cloud: Cloud) -> None:
    aggregate = cloud.do("aggregate", name="ssd", zone="az-1", numbers=[5])
    # The zone can come from two sources: the services, which Nova's API lists with their zones, and the notification.
    bridge.wait_until(lambda: bridge.status(5)["zone"] == "az-1", "host 5 is in the zone")
    bridge.wait_until(lambda: bridge.status(5)["aggregates"] == [aggregate], "host 5 is in the aggregate")
    assert bridge.status(1)["aggregates"] == []


def test_metrics_become_counters_that_rates_can_be_made_of(bridge: Bridge, cloud: Cloud) -> None:
    for step in (1, 2):
        cloud.do("measure", number=6, user_ns=step * 10_000, kernel_ns=step, idle_ns=step * 100_000, iowait_ns=step * 7)
        bridge.wait_until(lambda busy=step * 10_001: bridge.newest(6).get("cpu_busy_ns") == busy, "it is measured")
    first, *_, last = bridge.usage[host_id(6)]
    assert (first["boot_id"], last["cpu_iowait_ns"]) == (last["boot_id"], 14)
    assert first["monotonic_ns"] < last["monotonic_ns"]


def test_samples_of_ceilometer_refine_the_counters(bridge: Bridge, cloud: Cloud, rabbitmq: RabbitMQ) -> None:
    instance = cloud.boot(7)
    volumes = {"cpu": 5_000, "memory.resident": 300, "disk.device.write.bytes": 4_096, "network.incoming.bytes": 1_500}
    given = {"transport_url": rabbitmq.url, "instance": instance, "host": "compute-7", "volumes": volumes}
    done = subprocess.run(
        [environment.python(CEILOMETER), "-W", "ignore", "-m", "tests.nova.ceilometer_samples"],
        input=json.dumps(given),
        cwd=environment.ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PROGRAM_LIMIT_S,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    bridge.wait_until(lambda: bridge.status(7)["source"] == "ceilometer", "the samples are heard")
    bridge.wait_while_they_report(
        cloud, [7], lambda: bridge.newest(7).get("cpu_busy_ns") == 5_000, "they are in the event"
    )
    event = bridge.newest(7)
    assert (event["disk_write_bytes"], event["net_rx_bytes"], event["disk_read_bytes"]) == (4_096, 1_500, None)
    assert event["memory_mb_available"] == 32_768 - 512 - 300


def test_poison_is_said_and_gone_and_stops_nothing(bridge: Bridge, cloud: Cloud, rabbitmq: RabbitMQ) -> None:
    def send(body: Any, content_type: str) -> None:
        with amqp(rabbitmq) as connection:
            producer = connection.Producer()
            key = "versioned_notifications.info"
            producer.publish(
                body, exchange="nova", routing_key=key, content_type=content_type, content_encoding="utf-8"
            )

    message = {
        "message_id": "1", "publisher_id": "nova-compute:compute-1", "event_type": "instance.create.end",
        "priority": "INFO", "timestamp": "2026-01-01 00:00:00.0", "payload": {"nova_object.data": {"uuid": 7}},
    }  # fmt: skip
    envelope = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    send(json.dumps(envelope), "application/json")
    bridge.wait_for(r"instance\.create\.end of nova-compute:compute-1 is passed over: 'flavor' is missing")
    send(b"\xff no JSON", "application/json")
    bridge.wait_for(r"a message is passed over: ")
    cloud.do("act", uuid_=cloud.boot(1), action="power_on")
    bridge.wait_until(lambda: bridge.newest(1)["vcpus_allocated"] == 2, "what comes after it is heard")
    with amqp(rabbitmq) as connection:
        waiting = connection.default_channel.queue_declare(bridge.queue, passive=True).message_count
    assert waiting == 0
    assert bridge.figure("vacancy_bridge_notifications_total", outcome="refused") == 2


def test_lost_doubled_and_out_of_order_the_table_is_right_again_by_the_next_reading(
    rereading: Bridge, cloud: Cloud
) -> None:
    rng = random.Random(13)
    cloud.do("hold")
    alive = [(number, cloud.boot(number, vcpus=rng.randint(1, 4))) for number in [8, 9] * 6]
    for number, instance in rng.sample(alive, 4):
        cloud.do("delete", uuid_=instance)
        alive.remove((number, instance))
    for number, instance in rng.sample(alive, 3):
        cloud.do("move", uuid_=instance, number=17 - number)
        alive[alive.index((number, instance))] = (17 - number, instance)
    held = cloud.do("held")
    sent = rng.choices(range(held), k=held)
    assert set(sent) != set(range(held))
    cloud.do("send", numbers=sent)
    rereading.wait_for(r"on \d of them the table was wrong, for \d+ s at most: \d+ instances missed, \d+ gone")

    def right() -> bool:
        return all(
            rereading.newest(number).get("instances") == sum(place == number for place, _ in alive)
            and rereading.newest(number).get("vcpus_allocated") == cloud.do("vcpus", number=number)
            for number in (8, 9)
        )

    rereading.wait_while_they_report(cloud, [8, 9], right, "the events show what Placement has")
    print("\n" + "\n".join(line for line in rereading.output.splitlines() if "the table was" in line))


@pytest.mark.timeout(600)
def test_a_rabbitmq_that_was_killed_costs_no_more_than_a_reading(
    bridge: Bridge, cloud: Cloud, rabbitmq: RabbitMQ, network: Proxy
) -> None:
    """The bridge has one connection for notifications and one for samples, and waits until both are back.

    Otherwise messages sent between the reading and the return of the other connection would be lost.
    """

    def connected() -> int:
        return sum(consumers(rabbitmq, bridge.queue + suffix) for suffix in ("", "-samples"))

    readings = bridge.output.count("hosts read from Placement")
    bridge.wait_until(lambda: connected() == 2, "both connections are there")
    network.accept(0)
    rabbitmq.kill()
    bridge.wait_for("RabbitMQ cannot be reached, trying on")
    cloud.do("hold")
    instance = cloud.boot(5, vcpus=3)
    cloud.do("send", numbers=[])  # lost
    rabbitmq.start()
    network.accept(1)
    bridge.wait_until(lambda: connected() == 1, "one connection is back")
    assert "RabbitMQ is there again" not in bridge.output
    assert bridge.figure("vacancy_bridge_rabbitmq_up") == 0
    network.accept(math.inf)
    bridge.wait_for("RabbitMQ is there again")
    bridge.wait_until(lambda: connected() == 2, "both connections are there")
    bridge.wait_until(lambda: bridge.output.count("hosts read from Placement") > readings, "the truth is read")
    bridge.wait_while_they_report(
        cloud, [5], lambda: bridge.newest(5).get("vcpus_allocated") == 3, "what was lost is in the table"
    )
    assert instance in bridge.newest(5)["recent_consumers"]
    assert re.search(r"the table was wrong, for \d+ s at most: [1-9]\d* instances missed", bridge.output)
    assert bridge.figure("vacancy_bridge_stale_instances", kind="missed") >= 1
    assert bridge.figure("vacancy_bridge_stale_seconds") > 0
    assert bridge.figure("vacancy_bridge_rabbitmq_up") == 1
    assert bridge.output.count("RabbitMQ cannot be reached") == 1
    cloud.do("delete", uuid_=instance)
    bridge.wait_until(lambda: bridge.newest(5)["vcpus_allocated"] == 0, "notifications are heard again")


def test_what_kafka_did_not_take_in_time_is_sent_as_it_is_then(
    bridge: Bridge, cloud: Cloud, kafka_broker: KafkaServer
) -> None:
    kafka_broker.stop()
    try:
        cloud.do("switch", number=4, disabled=True, reason="first")
        bridge.wait_for("takes no events")
        cloud.do("switch", number=4, disabled=True, reason="then")
    finally:
        kafka_broker.start()
    bridge.wait_until(lambda: bridge.status(4)["status_reason"] == "then", "its inventory is sent")
    bridge.wait_for("takes events again")


def test_a_host_that_is_gone_from_the_cloud_is_retired(rereading: Bridge, cloud: Cloud) -> None:
    assert rereading.status(2)
    cloud.do("retire", number=2)
    rereading.wait_until(lambda: rereading.inventory[host_id(2)][-1] is None, "it is retired")
    assert rereading.status(1)
