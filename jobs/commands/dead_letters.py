"""`vacancy dead-letters`: what could not be decoded, from the beginning of the dead-letter topic to its present end.

A dead letter is a Kafka record whose value is the payload as it came and whose headers are UTF-8 texts that say where
from and why: ``vacancy.topic``, ``vacancy.partition``, ``vacancy.offset``, ``vacancy.append_time`` (ISO 8601, UTC, ms)
and ``vacancy.reason``. Reading them commits nothing.
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
from rich.console import Console

from vacancy.connectors.kafka.client import LastError, client_config, failed, refused, unreachable
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.options import load, settings_options
from vacancy.jobs.rendering import PlainTable
from vacancy.jobs.terminal import dumps
from vacancy.schemas.errors import VacancyError

_TIMEOUT_S = 10.0
_SHOWN_BYTES = 8


@dataclass(frozen=True)
class DeadLetter:
    """One record that could not be decoded; a coordinate is None where the dead letter lacks that header.

    Attributes:
        append_time: when the broker appended the original; ISO 8601 in UTC.
        topic: the original's topic.
        partition: the original's partition.
        offset: the original's offset.
        reason: why it could not be decoded.
        payload: the original's value.
        written: when the broker appended the dead letter itself (ms since 1970), its partition and offset.
    """

    append_time: str | None
    topic: str | None
    partition: int | None
    offset: int | None
    reason: str | None
    payload: bytes
    written: tuple[int, int, int]

    def as_json(self) -> dict[str, Any]:
        """What ``--json`` prints."""
        return {
            "append_time": self.append_time,
            "topic": self.topic,
            "partition": self.partition,
            "offset": self.offset,
            "reason": self.reason,
            "payload_bytes": len(self.payload),
            "payload": base64.b64encode(self.payload).decode("ascii"),
        }


@click.command(
    help="""Show the records that could not be decoded: where they came from, why, and their bytes.

    \b
    A table:                    vacancy dead-letters
    The newest twenty:          vacancy dead-letters --limit 20
    The bytes of the newest:    vacancy dead-letters --json --limit 1 | jq -r .[].payload | base64 -d
    How many for each reason:   vacancy dead-letters --json | jq 'group_by(.reason)[] | [.[0].reason, length]'

    In JSON the payload is in base64; in the table only its first bytes show, in hex.
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
    return DeadLetter(
        append_time=headers.get("vacancy.append_time"),
        topic=headers.get("vacancy.topic"),
        partition=_number(headers.get("vacancy.partition")),
        offset=_number(headers.get("vacancy.offset")),
        reason=headers.get("vacancy.reason"),
        payload=message.value() or b"",
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
    table.add_column("topic", min_width=8, overflow="fold")
    table.add_column("partition", min_width=5, justify="right", overflow="fold")
    table.add_column("offset", min_width=6, justify="right", overflow="fold")
    table.add_column("reason", min_width=13, overflow="fold")
    table.add_column("payload_bytes", min_width=7, justify="right", overflow="fold")
    table.add_column("payload", min_width=8, overflow="fold")
    for letter in letters:
        more = " …" if len(letter.payload) > _SHOWN_BYTES else ""
        cells = (letter.append_time, letter.topic, letter.partition, letter.offset, letter.reason, len(letter.payload))
        shown = letter.payload[:_SHOWN_BYTES].hex() + more
        table.add_row(*("" if cell is None else str(cell) for cell in (*cells, shown)))
    console = Console()
    if table.row_count:
        console.print(table)
    console.print(f"{table.row_count} dead letters")
