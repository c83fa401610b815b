"""`vacancy dead-letters`: what was put aside, from the beginning of the dead-letter topic to its present end.

A dead letter is a Kafka record whose headers are UTF-8 texts that say where it comes from and why: ``vacancy.key``,
``vacancy.append_time`` (ISO 8601, UTC), ``vacancy.reason``, ``vacancy.payload_bytes`` and ``vacancy.payload_sha256``.
There are two kinds. A record that could not be decoded has its coordinates (``vacancy.topic``, ``vacancy.partition``,
``vacancy.offset``); its value is the payload as it came. A row that the database refused has ``vacancy.table``; its
value is the row as JSON. Of a value that is too large for the topic the beginning is there. Reading commits nothing.
"""

from __future__ import annotations

import base64
import heapq
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from vacancy.connectors.kafka.client import LastError, client_config, failed, refused, unreachable
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import PlainTable, table_console
from vacancy.jobs.terminal import dumps
from vacancy.schemas.errors import VacancyError

_TIMEOUT_S = 10.0
_SHOWN_BYTES = 8


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


@click.command(
    help="""Show what was put aside: records that could not be decoded and rows that the database refused.

    Each with where it came from, why, and its bytes.

    \b
    A table:                    vacancy dead-letters
    The newest twenty:          vacancy dead-letters --limit 20
    The bytes of the newest:    vacancy dead-letters --json --limit 1 | jq -r .[].payload | base64 -d
    How many for each reason:   vacancy dead-letters --json | jq 'group_by(.reason)[] | [.[0].reason, length]'

    In JSON the payload is in base64; in the table only its first bytes show, in hex. payload_bytes is its length as a
    whole: of one that is too large for the topic the beginning is there.
    """
)
@settings_options
@click.option("--json", "as_json", is_flag=True, help="Print a JSON array.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest so many.  [default: all]")
def command(config: Path | None, data_dir: Path | None, as_json: bool, limit: int | None) -> None:
    """Prints the dead letters."""
    letters: Iterable[DeadLetter] = read(load(config, data_dir).kafka)
    if limit is not None:
        letters = reversed(heapq.nlargest(limit, letters, key=lambda letter: letter.written))
    if as_json:
        _print_json(letters)
    else:
        _print_table(letters)


def read(settings: KafkaSettings) -> Iterator[DeadLetter]:
    """Every dead letter up to the end that the topic has now; in order within each of its partitions.

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
        yield from _read(consumer, settings, errors)
    finally:
        consumer.close()


def _read(consumer: Consumer, settings: KafkaSettings, errors: LastError) -> Iterator[DeadLetter]:
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
    return int(text) if text and text.isascii() and text.isdigit() else None


def _print_json(letters: Iterable[DeadLetter]) -> None:
    """One array, an element a line, each printed as it comes: a topic of dead letters may be large."""
    before = "[\n "
    for letter in letters:
        sys.stdout.write(before + dumps(letter.as_json()))
        before = ",\n "
    sys.stdout.write("[]\n" if before.startswith("[") else "\n]\n")


def _print_table(letters: Iterable[DeadLetter]) -> None:
    table = PlainTable()
    table.add_column("append_time", no_wrap=True)
    # Widths that leave something of each column on a terminal of 80.
    table.add_column("topic or table", min_width=8, overflow="fold")
    table.add_column("partition", min_width=5, justify="right", overflow="fold")
    table.add_column("offset", min_width=6, justify="right", overflow="fold")
    table.add_column("key", min_width=6, overflow="fold")
    table.add_column("reason", min_width=13, overflow="fold")
    table.add_column("payload_bytes", min_width=7, justify="right", overflow="fold")
    table.add_column("payload", min_width=8, overflow="fold")
    for letter in letters:
        more = " …" if letter.payload_bytes > _SHOWN_BYTES else ""
        where = (letter.topic or letter.table, letter.partition, letter.offset, letter.key)
        shown = letter.payload[:_SHOWN_BYTES].hex() + more
        cells = (letter.append_time, *where, letter.reason, letter.payload_bytes, shown)
        table.add_row(*("" if cell is None else str(cell) for cell in cells))
    console = table_console()
    if table.row_count:
        console.print(table)
    console.print(f"{table.row_count} dead letters")
