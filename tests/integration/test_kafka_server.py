"""A broker of our own keeps what it acknowledged, and its port, through a stop and a kill."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.local.processes import leftovers
from vacancy.schemas.errors import VacancyError

TOPIC = "kept"


@pytest.fixture
def server() -> Iterator[KafkaServer]:
    directory = Path(tempfile.mkdtemp(prefix="vacancy-kafka-"))
    server = KafkaServer(directory, 0, ensure_jars("kafka"))
    yield server
    server.stop()
    shutil.rmtree(directory)


def produce(server: KafkaServer, value: bytes) -> None:
    """Returns once the broker has acknowledged it."""
    producer = Producer({"bootstrap.servers": server.bootstrap_servers, "log_level": 0})
    errors: list[object] = []
    producer.produce(TOPIC, value, on_delivery=lambda error, _: errors.append(error))
    assert producer.flush(30) == 0, "not acknowledged after 30 s"
    assert errors == [None]


def consume(server: KafkaServer, count: int) -> list[bytes | None]:
    consumer = Consumer({"bootstrap.servers": server.bootstrap_servers, "group.id": "test", "log_level": 0})
    try:
        consumer.assign([TopicPartition(TOPIC, 0, 0)])
        messages = consumer.consume(count, timeout=30)
        return [message.value() for message in messages]
    finally:
        consumer.close()


def test_what_was_acknowledged_survives_a_stop_and_a_kill(server: KafkaServer) -> None:
    server.start()
    port = server.port
    ensure_topics(KafkaSettings(bootstrap_servers=server.bootstrap_servers, usage_topic=TOPIC, partitions=1))
    produce(server, b"before the stop")

    server.stop()
    assert ports.is_free(port)
    assert not leftovers(server.directory)
    server.start()
    assert server.port == port
    produce(server, b"before the kill")

    server.child.kill()
    assert not server.is_ready()
    server.start()
    assert consume(server, 2) == [b"before the stop", b"before the kill"]


def test_a_broker_that_cannot_start_says_why(server: KafkaServer) -> None:
    (server.directory / "data").mkdir()
    (server.directory / "data" / "meta.properties").write_text("version=1\n", encoding="utf-8")
    with pytest.raises(VacancyError, match=r"Kafka ended with status 1; .*kafka\.log ends with: .*meta\.properties"):
        server.start()
