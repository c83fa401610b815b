"""Sends the events of many hosts to Kafka, each in time or not at all.

What always holds:

- An event that the broker has not accepted within :data:`KEEP_S` is given up: a late event would make a host look
  alive that may be dead by then. The caller learns each host whose inventory was given up, and sends a current one.
- No method waits longer than its argument says.
- Events arrive in the order they were sent. Those behind one that was given up while a broker held its answer back may
  arrive a second time: the client library then begins a new sequence with them. The job leaves repeated events out.
"""

from __future__ import annotations

import logging

from confluent_kafka import KafkaError, KafkaException, Message

from vacancy.connectors.kafka.client import LastError, producer
from vacancy.connectors.kafka.trouble import Trouble
from vacancy.connectors.settings import KafkaSettings
from vacancy.schemas.events import Event, kafka_headers, released

KEEP_S = 10.0
_QUEUE_EVENTS = 400_000
_LOG = logging.getLogger("vacancy.events")


class HostEvents:
    """Sends events; its methods are for one thread.

    Args:
        settings: where the brokers are, and the topics.
        client_id: the client's name in the brokers' logs and metrics.

    Raises:
        ConfigError: the client refuses the settings.
    """

    def __init__(self, settings: KafkaSettings, client_id: str) -> None:
        self._settings = settings
        self._topics = {Event.USAGE: settings.usage_topic, Event.INVENTORY: settings.inventory_topic}
        plain = settings.schema_registry_url is None
        self._headers = {event: kafka_headers(released(event)) if plain else {} for event in Event}
        self._errors = LastError()
        self._producer = producer(
            settings,
            on_error=self._errors,
            client_id=client_id,
            message_timeout_ms=round(KEEP_S * 1000),
            queue_buffering_max_messages=_QUEUE_EVENTS,
        )
        self._trouble = Trouble(settings, _LOG)
        self.left = 0
        """Events that the broker has not answered yet."""
        self.delivered = dict.fromkeys(Event, 0)
        """Events that the broker has acknowledged."""
        self.given_up = dict.fromkeys(Event, 0)
        """Events that the broker did not acknowledge in time, or refused."""
        self.to_repeat: set[str] = set()
        """Hosts whose inventory was given up; the caller removes each when it sends the inventory again."""

    def send(self, event: Event, host_id: str, payload: bytes | None) -> None:
        """Sends an event; a payload of None retires the host."""

        def answer(error: KafkaError | None, message: Message | None = None) -> None:
            del message
            self._answer(event, host_id, error)

        self.left += 1
        try:
            self._producer.produce(
                self._topics[event], payload, host_id.encode(), on_delivery=answer, headers=self._headers[event]
            )
        except KafkaException as error:
            answer(error.args[0])
        except BufferError:
            answer(KafkaError(KafkaError._QUEUE_FULL))  # noqa: SLF001  # its names of local errors begin so

    def serve(self, wait_s: float = 0.0) -> None:
        """Processes the broker's answers; waits up to wait_s for the first."""
        self._producer.poll(wait_s)

    def close(self, limit_s: float) -> int:
        """Delivers what it can within limit_s, and returns the number of events that were not delivered."""
        self._producer.flush(limit_s)
        left = self.left
        if left:
            self._producer.purge()
            self._producer.poll(0)
        return left

    def _answer(self, event: Event, host_id: str, error: KafkaError | None) -> None:
        self.left -= 1
        if error is None:
            self.delivered[event] += 1
            self._trouble.end(self._topics[event])
            return
        self.given_up[event] += 1
        if event is Event.INVENTORY:
            self.to_repeat.add(host_id)
        reason = self._errors.text or str(error.str())
        self._trouble.begin(self._topics[event], reason, f"giving up what has waited for {KEEP_S:.0f} s")
