"""Dead letters: what the job has put aside.

A dead letter is a Kafka record whose headers are UTF-8 texts that say where it comes from and why: ``vacancy.key``,
``vacancy.append_time`` (ISO 8601, UTC), ``vacancy.reason``, ``vacancy.payload_bytes`` and ``vacancy.payload_sha256``.
There are two kinds. A record that could not be decoded has its coordinates (``vacancy.topic``, ``vacancy.partition``,
``vacancy.offset``); its value is the payload as it came. A row that the database refused has ``vacancy.table``; its
value is the row as JSON. Of a value that is too large for the topic the beginning is there. Reading commits nothing.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from vacancy.connectors.kafka.client import LastError, client_config, failed, refused, unreachable
from vacancy.connectors.settings import KafkaSettings
from vacancy.schemas.errors import VacancyError

_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class DeadLetter:
    """One record that could not be decoded, or a row that was refused; None is what the dead letter has no header for.

    Attributes:
        append_time: when the broker appended the original, or the newest event in the row; ISO 8601 in UTC.
        topic: the original's topic.
        partition: the original's partition.
        offset: the original's offset.
        table: the table that the row was for.
        key: the original's key, or the row's.
        reason: why it was put aside.
        payload: the original's value or the row as JSON, from its beginning as far as it fits the topic.
        payload_bytes: how long it was as a whole.
        payload_sha256: its SHA-256 as a whole, in hex.
        written: when the broker appended the dead letter itself (ms since 1970), its partition and offset.
    """

    append_time: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    table: str | None
    key: str | None
    reason: str | None
    payload: bytes
    payload_bytes: int
    payload_sha256: str | None
    written: tuple[int, int, int]

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "append_time": self.append_time,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "table": self.table,
            "key": self.key,
            "reason": self.reason,
            "payload_bytes": self.payload_bytes,
            "payload_sha256": self.payload_sha256,
            "payload": base64.b64encode(self.payload).decode("ascii"),
        }


def read(settings: KafkaSettings, newest: int | None = None) -> Iterator[DeadLetter]:
    """Every dead letter up to the end that the topic has now; in order within each of its partitions.

    Args:
        settings: where the topic is.
        newest: only about so many from the end of each partition.

    Raises:
        ConfigError: the client refuses the settings.
        VacancyError: no broker answers, it does not let us read, or there is no such topic.
    """
    errors = LastError()
    config = client_config(settings) | {
        # The client library insists on a group; nothing is ever committed to it.
        "group.id": "vacancy-dead-letters",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "fetch.wait.max.ms": 100,
        "error_cb": errors,
    }
    try:
        consumer = Consumer(config)
    except KafkaException as error:
        raise refused(error) from None
    try:
        yield from _read(consumer, settings, errors, newest)
    finally:
        consumer.close()


def _read(consumer: Consumer, settings: KafkaSettings, errors: LastError, newest: int | None) -> Iterator[DeadLetter]:
    topic = settings.dead_letter_topic
    try:
        metadata = consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic]
        partitions = metadata.partitions
        if metadata.error is not None and metadata.error.code() == KafkaError.TOPIC_AUTHORIZATION_FAILED:
            raise unreachable(settings, _TIMEOUT_S, str(metadata.error.str()))
        if not partitions:
            raise VacancyError(f"topic {topic} does not exist: `vacancy doctor` says how to create it")
        ends = {}
        for partition in partitions:
            start, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=_TIMEOUT_S)
            if newest is not None:
                start = max(start, end - newest)
            if end > start:
                ends[partition] = end
                consumer.incremental_assign([TopicPartition(topic, partition, start)])
        while ends:
            message = consumer.poll(_TIMEOUT_S)
            if message is None:
                raise unreachable(settings, _TIMEOUT_S, errors.text)
            yield from _of_message(message, ends)
    except KafkaException as error:
        consumer.poll(0)  # lets the library say why
        raise failed(settings, _TIMEOUT_S, error, errors) from None


def _of_message(message: Message, ends: dict[int, int]) -> Iterator[DeadLetter]:
    """The dead letter in a message, if it is one from before the end; a partition read to its end leaves ends."""
    partition, offset = message.partition(), message.offset()
    assert partition is not None and offset is not None  # noqa: S101  # so in any message from a broker
    error = message.error()
    if error is not None:
        # Comes where the partition ends without a record: after an open or aborted transaction.
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001  # the library's names of local errors begin so
            raise KafkaException(error)
        ends.pop(partition, None)
        return
    if offset < ends.get(partition, 0):
        yield _dead_letter(message, (message.timestamp()[1], partition, offset))
    # Not only at the end of the partition, which moves on for as long as dead letters come in.
    if offset + 1 >= ends.get(partition, 0):
        ends.pop(partition, None)


def _dead_letter(message: Message, written: tuple[int, int, int]) -> DeadLetter:
    headers = {name: _text(value) for name, value in dict(message.headers() or []).items()}
    payload = message.value() or b""
    size = _number(headers.get("vacancy.payload_bytes"))
    return DeadLetter(
        append_time=headers.get("vacancy.append_time"),
        topic=headers.get("vacancy.topic"),
        partition=_number(headers.get("vacancy.partition")),
        offset=_number(headers.get("vacancy.offset")),
        table=headers.get("vacancy.table"),
        key=headers.get("vacancy.key"),
        reason=headers.get("vacancy.reason"),
        payload=payload,
        payload_bytes=len(payload) if size is None else size,
        payload_sha256=headers.get("vacancy.payload_sha256"),
        written=written,
    )


def _text(value: str | bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else value


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch("[0-9]{1,19}", text) else None  # whoever may write there writes anything
