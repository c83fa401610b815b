"""The usage topic: names of its own for each test, what to send to it, and what stands in it."""

from __future__ import annotations

import math
import time
import uuid
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tests.harness.histories import decode_usage
from tests.harness.oracle import Record
from tests.harness.table import TABLE_SECONDS
from tests.harness.waiting import wait_until
from tests.harness.witnesses import POISON
from vacancy.connectors.kafka.client import client_config
from vacancy.connectors.settings import KafkaSettings


class TopicRecord(NamedTuple):
    """A record as it stands in its topic; append_ms is the broker's time in ms since 1970."""

    partition: int
    offset: int
    append_ms: int
    value: bytes | None


def own_topics(bootstrap_servers: str, partitions: int = 2) -> KafkaSettings:
    """Topics that no other test has; made by :func:`install`."""
    name = uuid.uuid4().hex
    return KafkaSettings(
        bootstrap_servers=bootstrap_servers,
        usage_topic=f"{name}.usage",
        inventory_topic=f"{name}.inventory",
        dead_letter_topic=f"{name}.dead-letters",
        partitions=partitions,
    )


def read_topic(kafka: KafkaSettings, topic: str) -> list[TopicRecord]:
    """Every record up to the present end of a topic, in order within a partition."""
    config = {"group.id": "test", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
    consumer = Consumer(client_config(kafka) | config)
    found: list[TopicRecord] = []
    try:
        ends = {}
        for number in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
            start, end = _offsets(consumer, TopicPartition(topic, number))
            if end > start:
                ends[number] = end
        consumer.assign([TopicPartition(topic, number, 0) for number in ends])
        deadline = time.monotonic() + 60
        while ends:
            assert time.monotonic() < deadline, f"partitions {sorted(ends)} of {topic} were not read to their end"
            for message in consumer.consume(10_000, timeout=0.5):
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None and offset is not None
                if offset < ends.get(partition, 0):
                    found.append(TopicRecord(partition, offset, message.timestamp()[1], message.value()))
                if offset >= ends.get(partition, math.inf) - 1:
                    ends.pop(partition)
    finally:
        consumer.close()
    return found


def _offsets(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []

    def answered() -> bool:
        try:
            answers.append(consumer.get_watermark_offsets(partition, timeout=10))
        except KafkaException:
            return False  # a broker that has just started may not know yet that it leads
        return True

    wait_until(answered, 60, f"the broker does not tell the end of {partition}")
    return answers[0]


def count_records(kafka: KafkaSettings, topic: str) -> int:
    """How many records a topic has taken; nothing may have been deleted from it."""
    consumer = Consumer(client_config(kafka) | {"group.id": "test"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return sum(_offsets(consumer, TopicPartition(topic, number))[1] for number in partitions)
    finally:
        consumer.close()


def histories(records: Iterable[TopicRecord]) -> dict[str, list[Record]]:
    """The usage events of a topic by host, in the order of their partition; what does not decode is left out."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        try:
            event = decode_usage(record.value or b"")
        except ValueError:
            continue
        found[event["host_id"]].append(Record(record.append_ms, event))
    return dict(found)


class Raw(NamedTuple):
    """A record of a host; append_ms is the broker's time in ms since 1970."""

    append_ms: int
    value: bytes


class Topic:
    """Follows the usage topic; keeps the newest records of each host, undecoded, so that it can go on for hours.

    Args:
        kafka: the broker and the topic.
        keep_ms: how far the records of a host reach back from its newest one after :meth:`forget`; more than a window
            and a step.
    """

    def __init__(self, kafka: KafkaSettings, keep_ms: int) -> None:
        self.hosts: defaultdict[str, deque[Raw]] = defaultdict(deque)
        self.poison: list[tuple[int, int]] = []
        """Where the records are that are no events: partition and offset."""
        self.witnessed: dict[tuple[int, int], int] = {}
        """Of the witnesses' records and the poison: the hash of each, by partition and offset."""
        self.records = 0
        self._keep_ms = keep_ms
        self._consumer = Consumer(client_config(kafka) | {"group.id": "test", "enable.auto.commit": False})
        self._next = dict.fromkeys(range(kafka.partitions), 0)
        self._name = kafka.usage_topic
        self._consumer.assign([TopicPartition(self._name, number, 0) for number in self._next])

    def close(self) -> None:
        """Reads no more."""
        self._consumer.close()

    def read(self) -> None:
        """Reads on to what is the end now."""
        ends: dict[int, int] = {}

        def asked() -> bool:
            try:
                for number in self._next:
                    partition = TopicPartition(self._name, number)
                    ends[number] = self._consumer.get_watermark_offsets(partition, timeout=10)[1]
            except KafkaException:
                return False  # a broker that has just started may not know yet that it leads
            return True

        def at_the_end() -> bool:
            for message in self._consumer.consume(10_000, timeout=0.1):
                if message.error() is None:
                    self._take(message)
            return all(self._next[number] >= end for number, end in ends.items())

        wait_until(asked, TABLE_SECONDS, f"the broker does not tell the ends of {self._name}")
        wait_until(at_the_end, TABLE_SECONDS, f"{self._name} is not read to its end")

    def forget(self) -> None:
        """Forgets the records that are not needed for rows of what is newest now, or newer.

        Reading forgets nothing: when a host that was silent reports again, its row stays at the old event for a moment,
        and is compared with that.
        """
        for records in self.hosts.values():
            while records[0].append_ms < records[-1].append_ms - self._keep_ms:
                records.popleft()

    def history(self, host: str) -> list[Record]:
        """What is kept of a host."""
        return [Record(raw.append_ms, decode_usage(raw.value)) for raw in self.hosts[host]]

    def _take(self, message: Any) -> None:
        key, value, place = message.key().decode(), message.value(), (message.partition(), message.offset())
        self._next[place[0]] = place[1] + 1
        self.records += 1
        if key == POISON or key.startswith("witness"):
            self.witnessed[place] = hash(value)
        if key == POISON:
            self.poison.append(place)
            return
        self.hosts[key].append(Raw(message.timestamp()[1], value))
