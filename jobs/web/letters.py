"""What the page reads from Kafka: the newest dead letters, and a host's newest events.

What always holds: nothing is committed, and one reads at a time, for a moment.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import deque
from typing import Any

from confluent_kafka import Consumer, KafkaException, TopicPartition

from vacancy.connectors.kafka.client import LastError, client_config, failed, refused
from vacancy.connectors.kafka.dead_letters import DeadLetter, read
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.web.questions import BusyError
from vacancy.schemas.codec import decode
from vacancy.schemas.errors import VacancyError
from vacancy.schemas.events import Event

_NEWEST = 1000
"""Dead letters that are looked at, from the end of each partition."""
_SHOWN_BYTES = 16
_KEPT_S = 5.0
_TAILS = 4
_TAIL_LIFE_S = 15.0
_BACK = 2000
"""Records of a host's partition that are looked through for its last events."""
_EVENTS = 20
_TIMEOUT_S = 5.0


class Letters:
    """Reads the ends of topics."""

    def __init__(self, settings: KafkaSettings) -> None:
        self.configured = "bootstrap_servers" in settings.model_fields_set
        """Whether the settings name a broker; without one nothing is read."""
        self._settings = settings
        self._lock = threading.Lock()
        self._letters: tuple[float, list[dict[str, Any]]] | None = None
        self._tails: dict[str, _Tail] = {}

    def newest(self) -> list[dict[str, Any]]:
        """Of each reason the newest dead letter, and how many of the newest there are; the newest reason first.

        Raises:
            VacancyError: no broker answers, or none is configured.
        """
        with _Held(self._lock):
            self._require_broker()
            if self._letters is None or time.monotonic() - self._letters[0] > _KEPT_S:
                by_reason: dict[str | None, tuple[int, DeadLetter]] = {}
                for letter in read(self._settings, _NEWEST):
                    number, last = by_reason.get(letter.reason, (0, letter))
                    by_reason[letter.reason] = number + 1, max(last, letter, key=lambda each: each.written)
                found = sorted(by_reason.values(), key=lambda item: item[1].written, reverse=True)
                self._letters = time.monotonic(), [_document(number, letter) for number, letter in found]
            return self._letters[1]

    def events(self, host_id: str) -> list[dict[str, Any]]:
        """A host's newest usage events, the newest first; those that come while somebody looks are added.

        Raises:
            VacancyError: no broker answers, or none is configured.
        """
        with _Held(self._lock):
            self._require_broker()
            now = time.monotonic()
            for idle in [host for host, tail in self._tails.items() if now - tail.asked_at > _TAIL_LIFE_S]:
                self._tails.pop(idle).close()
            tail = self._tails.get(host_id)
            if tail is None:
                if len(self._tails) >= _TAILS:
                    raise BusyError(f"the events of {_TAILS} hosts are being looked at; look again in a moment")
                tail = self._tails[host_id] = _Tail(self._settings, host_id)
            return tail.events()

    def close(self) -> None:
        """Closes the consumers."""
        with self._lock:
            while self._tails:
                self._tails.popitem()[1].close()

    def _require_broker(self) -> None:
        if not self.configured:
            raise VacancyError("no broker is configured; set kafka.bootstrap_servers")


class _Held:
    """Holds a lock, or gives up when others hold it for long."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=_TIMEOUT_S):
            raise BusyError("others are reading from Kafka; look again in a moment")

    def __exit__(self, *exception: object) -> None:
        self._lock.release()


class _Tail:
    """Follows a host's partition from a little before its end."""

    def __init__(self, settings: KafkaSettings, host_id: str) -> None:
        self.asked_at = time.monotonic()
        self._key = host_id.encode()
        self._settings = settings
        self._errors = LastError()
        self._newest: deque[dict[str, Any]] = deque(maxlen=_EVENTS)
        config = client_config(settings) | {
            "group.id": "vacancy-web",  # the client library insists on a group; nothing is ever committed to it
            "enable.auto.commit": False,
            "error_cb": self._errors,
        }
        try:
            self._consumer = Consumer(config)
        except KafkaException as error:
            raise refused(error) from None
        try:
            self._assign()
        except KafkaException as error:
            self._consumer.close()
            raise failed(settings, _TIMEOUT_S, error, self._errors) from None

    def _assign(self) -> None:
        topic = self._settings.usage_topic
        partitions = len(self._consumer.list_topics(topic, timeout=_TIMEOUT_S).topics[topic].partitions)
        if not partitions:
            raise VacancyError(f"topic {topic} does not exist: `vacancy doctor` says how to create it")
        # As the client library partitions by keys.
        place = TopicPartition(topic, zlib.crc32(self._key) % partitions)
        start, end = self._consumer.get_watermark_offsets(place, timeout=_TIMEOUT_S)
        place.offset = max(start, end - _BACK)
        self._consumer.assign([place])

    def events(self) -> list[dict[str, Any]]:
        """The newest events, the newest first; reads on for a moment."""
        self.asked_at = time.monotonic()
        while time.monotonic() - self.asked_at < 0.5:
            messages = self._consumer.consume(500, timeout=0.1)
            for message in messages:
                if message.error() is None and message.key() == self._key:
                    self._newest.appendleft(
                        {
                            "append_time": message.timestamp()[1] / 1000,
                            "partition": message.partition(),
                            "offset": message.offset(),
                            "text": _text(message.value() or b""),
                        }
                    )
            if not messages:
                break
        return list(self._newest)

    def close(self) -> None:
        """Closes the consumer."""
        self._consumer.close()


def _text(payload: bytes) -> str:
    """An event in few words."""
    try:
        decoded = decode(payload)
    except ValueError as error:
        return f"not decoded: {error}"
    if decoded.event != Event.USAGE:
        return f"no usage event: {decoded.event.value}"
    record = decoded.record
    return (
        f"no. {record['seq']}: {record['vcpus_allocated']} of {record['vcpus_capacity']} VCPUs allocated, "
        f"{record['memory_mb_allocated']:,} MiB; {record['memory_mb_available']:,} MiB measured, "
        f"{record['instances']} instances"
    )


def _document(number: int, letter: DeadLetter) -> dict[str, Any]:
    shown = letter.payload[:_SHOWN_BYTES].hex(" ") + (" …" if letter.payload_bytes > _SHOWN_BYTES else "")
    return letter.as_json() | {"count": number, "payload": shown}
