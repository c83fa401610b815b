"""The usage topic: names of its own for each test, what to send to it, and what stands in it."""

from __future__ import annotations

import uuid
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import closing
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from tests.harness.histories import decode_usage
from tests.harness.oracle import Record
from tests.harness.table import TABLE_SECONDS
from tests.harness.waiting import wait_until
from tests.harness.witnesses import POISON
from vacancy.connectors.kafka.client import client_config
from vacancy.connectors.settings import KafkaSettings

READ_SECONDS = 60.0
STEPS_BEFORE = 5


class TopicRecord(NamedTuple):
    """A record as it stands in its topic; append_ms is the broker's time in ms since 1970."""

    partition: int
    offset: int
    append_ms: int
    value: bytes | None
    key: bytes | None


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


class Reader:
    """Reads a topic from its beginning, as far as it goes, and later on from there.

    Args:
        kafka: the broker.
        topic: a topic's name; it exists.
    """

    def __init__(self, kafka: KafkaSettings, topic: str) -> None:
        config = {
            "group.id": "test",
            "enable.auto.commit": False,
            "fetch.wait.max.ms": 50,
            "enable.partition.eof": True,
        }
        self._topic = topic
        self._consumer = Consumer(client_config(kafka) | config)
        self._partitions = list(self._consumer.list_topics(topic, timeout=30).topics[topic].partitions)
        self._next = {number: start for number, (start, _) in self._offsets().items()}
        self._consumer.assign([TopicPartition(topic, number, start) for number, start in self._next.items()])

    def close(self) -> None:
        """Reads no more."""
        self._consumer.close()

    def ends(self) -> dict[int, int]:
        """The offset behind the last record of each partition."""
        return {number: end for number, (_, end) in self._offsets().items()}

    def read(self, seconds: float = READ_SECONDS) -> list[TopicRecord]:
        """The records that were not read yet, to the present end at least, in order within a partition.

        Args:
            seconds: the limit; a broker that is away meanwhile is waited for.
        """
        ends = self.ends()
        found: list[TopicRecord] = []

        def at_the_end() -> bool:
            if left():
                messages = self._consumer.consume(10_000, timeout=0.1)
                found.extend(self._taken(message) for message in messages if message.error() is None)
                for message in messages:
                    self._pass_markers(message)
            return not left()

        def left() -> list[int]:
            return [number for number, end in ends.items() if self._next[number] < end]

        wait_until(at_the_end, seconds, lambda: f"partitions {left()} of {self._topic} were not read to their end")
        return found

    def _pass_markers(self, message: Message) -> None:
        """At a partition's end goes on behind what is no record: a transaction's markers, and what it aborted."""
        error, partition, offset = message.error(), message.partition(), message.offset()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:  # its name of a local error
            assert partition is not None and offset is not None
            self._next[partition] = max(self._next[partition], offset)

    def _taken(self, message: Message) -> TopicRecord:
        partition, offset = message.partition(), message.offset()
        assert partition is not None and offset is not None
        self._next[partition] = offset + 1
        return TopicRecord(partition, offset, message.timestamp()[1], message.value(), message.key())

    def _offsets(self) -> dict[int, tuple[int, int]]:
        """Of each partition the first offset, and the one behind the last record."""
        offsets: dict[int, tuple[int, int]] = {}

        def answered() -> bool:
            try:
                for number in self._partitions:
                    partition = TopicPartition(self._topic, number)
                    offsets[number] = self._consumer.get_watermark_offsets(partition, timeout=10)
            except KafkaException:
                return False  # a broker that has just started may not know yet that it leads
            return True

        wait_until(answered, READ_SECONDS, f"the broker does not tell the ends of {self._topic}")
        return offsets


def read_topic(kafka: KafkaSettings, topic: str) -> list[TopicRecord]:
    """Every record of a topic, to its present end at least, in order within a partition."""
    with closing(Reader(kafka, topic)) as reader:
        return reader.read()


def count_records(kafka: KafkaSettings, topic: str) -> int:
    """How many records a topic has taken; nothing may have been deleted from it."""
    with closing(Reader(kafka, topic)) as reader:
        return sum(reader.ends().values())


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
        self._reader = Reader(kafka, kafka.usage_topic)

    def close(self) -> None:
        """Reads no more."""
        self._reader.close()

    def read(self) -> None:
        """Reads on to what is the end now."""
        for record in self._reader.read(TABLE_SECONDS):
            self._take(record)

    def forget(self) -> None:
        """Forgets the records that are not needed for rows of what is newest now, or newer.

        Reading forgets nothing: when a host that was silent reports again, its row stays at the old event for a moment,
        and is compared with that.
        """
        for records in self.hosts.values():
            while records[0].append_ms < records[-1].append_ms - self._keep_ms:
                records.popleft()

    def history(self, host: str, since_ms: int = 0) -> list[Record]:
        """What is kept of a host since a time, and the last few events before it: a step begins before a window."""
        records = list(self.hosts[host])
        since = next((index for index, raw in enumerate(records) if raw.append_ms >= since_ms), len(records))
        return [Record(raw.append_ms, decode_usage(raw.value)) for raw in records[max(0, since - STEPS_BEFORE) :]]

    def _take(self, record: TopicRecord) -> None:
        assert record.key is not None and record.value is not None
        key, place = record.key.decode(), (record.partition, record.offset)
        self.records += 1
        if key == POISON or key.startswith("witness"):
            self.witnessed[place] = hash(record.value)
        if key == POISON:
            self.poison.append(place)
            return
        self.hosts[key].append(Raw(record.append_ms, record.value))
