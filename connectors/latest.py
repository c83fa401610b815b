"""What one process has to say of many hosts, on its way to Kafka.

What always holds:

- Of each host and topic one event at most is on its way and one waits: the newest. What it took the place of is not
  sent, since nobody needs a figure of a moment that is over; so nothing grows while the broker is away.
- An event that the broker does not take is sent again, unless a newer one waits, for as long as it takes.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from connectors.kafka import LastError, diagnosis, producer
from connectors.settings import KafkaSettings
from schemas.events import Event, kafka_headers, released

_LOG = logging.getLogger("vacancy.agent")
_AWAY_AFTER_S = 5.0
_RETRY_AFTER_S = 1.0
_REFUSALS = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD, KafkaError.RECORD_LIST_TOO_LARGE}
)
"""What is wrong with the event itself, so that sending it again is no use."""


class _Slot(NamedTuple):
    event: Event
    host_id: str


class Latest:
    """Delivers the newest events of many hosts; its methods are for one thread, and none waits longer than told.

    Args:
        settings: where the brokers are, and the topics.
        clock: monotonic seconds.

    Raises:
        ConfigError: the client refuses the settings.
    """

    def __init__(self, settings: KafkaSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._topics = {Event.USAGE: settings.usage_topic, Event.INVENTORY: settings.inventory_topic}
        registry = settings.schema_registry_url is not None
        self._headers = {event: {} if registry else kafka_headers(released(event)) for event in Event}
        self._clock = clock
        self._errors = LastError()
        self._producer = self._new_producer()
        self._broken = False
        self._waiting: dict[_Slot, bytes] = {}
        self._on_the_way: dict[_Slot, bytes] = {}
        self._answered_at = clock()
        self._retry_at = 0.0
        self._away = False
        self.delivered = 0
        """Events that the broker has acknowledged."""

    def put(self, event: Event, host_id: str, payload: bytes) -> None:
        """Puts a host's event in the place of one that waits."""
        if not (self._waiting or self._on_the_way):
            self._answered_at = self._clock()
        self._waiting[_Slot(event, host_id)] = payload

    @property
    def left(self) -> int:
        """Events that are not delivered yet."""
        return len(self._waiting.keys() | self._on_the_way.keys())

    def serve(self, wait_s: float) -> None:
        """Hands over what may be, and waits up to wait_s for the broker's answers; returns at the first."""
        self._hand_over()
        self._producer.poll(wait_s)
        self._hand_over()
        if self.left and self._clock() - self._answered_at > _AWAY_AFTER_S:
            self._note_away(self._errors.text or "no answer")

    def close(self, limit_s: float) -> int:
        """Delivers what it can within limit_s, and returns how many were left."""
        deadline = self._clock() + limit_s
        while self.left and (remaining_s := deadline - self._clock()) > 0:
            self.serve(min(remaining_s, 0.1))
        left = self.left
        # Without this the client library waits for its own when it is taken down.
        self._producer.purge()
        self._producer.poll(0)
        return left

    def _hand_over(self) -> None:
        if self._clock() < self._retry_at:
            return
        if self._broken:
            if self._on_the_way:
                return
            self._producer, self._broken = self._new_producer(), False
        for slot in [slot for slot in self._waiting if slot not in self._on_the_way]:
            payload = self._on_the_way[slot] = self._waiting.pop(slot)

            def on_delivery(error: KafkaError | None, message: Message, slot: _Slot = slot) -> None:
                del message
                self._on_answer(slot, error)

            try:
                self._producer.produce(
                    self._topics[slot.event],
                    payload,
                    slot.host_id.encode(),
                    on_delivery=on_delivery,
                    headers=self._headers[slot.event],
                )
            except KafkaException as error:
                self._on_answer(slot, error.args[0])

    def _on_answer(self, slot: _Slot, error: KafkaError | None) -> None:
        payload = self._on_the_way.pop(slot)
        if error is None:
            self.delivered += 1
            self._answered_at = self._clock()
            self._errors.text = None
            if self._away:
                self._away = False
                _LOG.warning("the broker takes events again")
        elif error.code() in _REFUSALS:
            _LOG.error("%s event of %s dropped: %s", slot.event.name.lower(), slot.host_id, error.str())
        else:
            # A fatal error is the end of an idempotent producer; a new one takes over.
            self._broken = self._broken or error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001  # its name
            self._waiting.setdefault(slot, payload)
            self._retry_at = self._clock() + _RETRY_AFTER_S
            self._note_away(str(error.str()), "`vacancy doctor` says more")

    def _note_away(self, reason: str, remedy: str | None = None) -> None:
        if not self._away:
            self._away = True
            why, mend = diagnosis(self._settings, reason)
            why = f"{why}; {mend or remedy}" if mend or remedy else why
            _LOG.warning("%s takes no events: %s; keeping the newest of each", self._settings.bootstrap_servers, why)

    def _new_producer(self) -> Producer:
        return producer(
            self._settings,
            on_error=self._errors,
            client_id="vacancy-storage",
            topic_metadata_propagation_max_ms=round(_AWAY_AFTER_S * 500),
        )
