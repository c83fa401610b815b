"""Listening to a real RabbitMQ: it is back when every connection is, and not before."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kombu.connection import Connection
from oslo_config import cfg
from pydantic import SecretStr

from tests.harness.proxy import Proxy
from tests.harness.rabbitmq import RabbitMQ, running_rabbitmq
from tests.harness.waiting import wait_until
from vacancy.connectors.openstack.listener import Listener
from vacancy.connectors.settings import BridgeSettings

LIMIT_S = 60.0
QUEUES = ("bridge", "bridge-samples")


class Taker:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self.was_away: list[bool] = []

    def notification(self, event_type: str, publisher_id: str, timestamp: str, payload: Any) -> bool:
        del publisher_id, timestamp, payload
        self.heard.append(event_type)
        return True

    def samples(self, payload: Any) -> bool:
        del payload
        self.heard.append("samples")
        return True

    def undecodable(self, reason: str) -> None:
        raise AssertionError(reason)

    def away(self, since: bool) -> None:
        self.was_away.append(since)


@pytest.fixture
def rabbitmq() -> Iterator[RabbitMQ]:
    with running_rabbitmq() as server:
        yield server


@contextmanager
def listening(url: str, taker: Taker) -> Iterator[None]:
    conf = cfg.ConfigOpts()
    conf([], project="vacancy")
    settings = BridgeSettings(transport_url=SecretStr(url), queue=QUEUES[0], ceilometer_topics=("metering",))
    listener = Listener(settings, conf, taker)
    listener.start()
    try:
        yield
    finally:
        listener.stop()


def consumers(rabbitmq: RabbitMQ, queue: str) -> int:
    """How many there are of a queue."""
    with amqp(rabbitmq) as connection:
        try:
            return int(connection.default_channel.queue_declare(queue, passive=True).consumer_count)
        except connection.channel_errors:
            return 0  # no such queue yet


def send(rabbitmq: RabbitMQ, exchange: str, routing_key: str, event_type: str, priority: str) -> None:
    message = {
        "message_id": "1", "publisher_id": "nova-compute:compute-1", "event_type": event_type, "priority": priority,
        "timestamp": "2026-01-01 00:00:00.0", "payload": {},
    }  # fmt: skip
    envelope = {"oslo.version": "2.0", "oslo.message": json.dumps(message)}
    with amqp(rabbitmq) as connection:
        connection.Producer().publish(json.dumps(envelope), exchange=exchange, routing_key=routing_key,
                                      content_type="application/json", content_encoding="utf-8")  # fmt: skip


def amqp(rabbitmq: RabbitMQ) -> Any:
    """A connection without oslo.messaging."""
    return Connection(rabbitmq.url.replace("rabbit:", "amqp:"))  # type: ignore[no-untyped-call]  # has no annotations


def test_rabbitmq_is_back_when_every_connection_is(rabbitmq: RabbitMQ) -> None:
    """Whichever comes back first: what is sent to the other one is lost until that is back, too."""
    taker = Taker()

    def connected() -> int:
        return sum(consumers(rabbitmq, queue) for queue in QUEUES)

    with Proxy(rabbitmq.port) as proxy, listening(rabbitmq.url.replace(str(rabbitmq.port), str(proxy.port)), taker):
        wait_until(lambda: connected() == len(QUEUES), LIMIT_S, "it does not listen")
        proxy.accept(0)
        rabbitmq.kill()
        wait_until(lambda: taker.was_away == [True], LIMIT_S, "nobody says that RabbitMQ is away")
        rabbitmq.start()
        proxy.accept(1)
        wait_until(lambda: connected() == 1, LIMIT_S, "no connection is back")
        assert taker.was_away == [True], "the other is away still"
        proxy.accept(math.inf)
        wait_until(lambda: taker.was_away == [True, False], LIMIT_S, "nobody says that RabbitMQ is back")
        send(rabbitmq, "nova", "versioned_notifications.info", "instance.create.end", "INFO")
        send(rabbitmq, "ceilometer", "metering.sample", "telemetry", "SAMPLE")
        wait_until(lambda: len(taker.heard) == 2, LIMIT_S, f"what is sent now is lost: {taker.heard}")
        assert sorted(taker.heard) == ["instance.create.end", "samples"]
        assert taker.was_away == [True, False]
