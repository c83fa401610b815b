"""An agent's queue of events for Kafka.

What always holds:

- At most ``capacity`` usage events wait. When one more comes, the oldest that is not yet handed over is dropped. Every
  event added is counted once, as delivered, dropped or still waiting.
- Usage events arrive in the order they were added.
- The newest inventory waits until it is delivered, however long that takes.

Why there is a queue in front of the client library's own: that one cannot drop its oldest message. So only a few events
are handed over at a time, the next ones once all of these are answered, and the rest wait here.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from vacancy.connectors.kafka.client import LastError, producer
from vacancy.connectors.kafka.trouble import Trouble
from vacancy.connectors.settings import KafkaSettings
from vacancy.schemas.events import Event, kafka_headers, released

_LOG = logging.getLogger("vacancy.agent")
_MOST_HANDED_OVER = 32
"""Enough for thousands of events a second from a broker some ms away."""
_AWAY_AFTER_S = 5.0
_RETRY_AFTER_S = 1.0
_REFUSALS = frozenset(
    {KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.INVALID_MSG, KafkaError.INVALID_RECORD, KafkaError.RECORD_LIST_TOO_LARGE}
)
"""Errors of the event itself: sending it again would fail again."""


@dataclass(frozen=True)
class Left:
    """What is not delivered yet: the number of usage events, and whether an inventory waits."""

    usage: int
    inventory: bool

    def __bool__(self) -> bool:
        return self.usage > 0 or self.inventory


class Outbox:
    """Delivers one host's events; its methods are for one thread, and none waits longer than its argument says.

    Args:
        settings: where the brokers are, and the topics.
        host_id: the key of every event.
        capacity: usage events that may wait.
        clock: monotonic seconds.

    Raises:
        ConfigError: the client refuses the settings.
    """

    def __init__(
        self, settings: KafkaSettings, host_id: str, capacity: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._key = host_id.encode()
        self._capacity = capacity
        self._headers: dict[str, dict[str, str | bytes | None]] = {}
        if settings.schema_registry_url is None:
            self._headers = {
                settings.usage_topic: kafka_headers(released(Event.USAGE)),
                settings.inventory_topic: kafka_headers(released(Event.INVENTORY)),
            }
        self._most_handed_over = max(1, min(_MOST_HANDED_OVER, capacity // 4))
        self._clock = clock
        self._errors = LastError()
        self._producer = self._new_producer()
        self._broken = False
        self._usage: deque[bytes] = deque()
        self._usage_handed_over = 0
        self._usage_failed: list[bytes] = []
        self._inventory: bytes | None = None
        self._inventory_handed_over = False
        self._handed_over_at = 0.0
        self._retry_at = 0.0
        self._trouble = Trouble(settings, _LOG, clock)
        self._dropped_unsaid = 0
        self._refusing = False
        self.delivered = 0
        """Usage events that the broker has acknowledged."""
        self.dropped = 0
        """Usage events that were given up."""
        self.inventories_delivered = 0
        """Inventory events that the broker has acknowledged."""
        self.delivery_errors = 0
        """Events of both kinds that failed with an error from the broker, or from the client without a broker."""
        self.delivered_at: float | None = None
        """Clock time when the broker last acknowledged an event; None: never."""

    def add_usage(self, payload: bytes) -> None:
        """Queues a usage event; drops the oldest if too many wait."""
        self._usage.append(payload)
        while len(self._usage) > 1 and self.left.usage > self._capacity:
            self._usage.popleft()
            self._drop()

    def set_inventory(self, payload: bytes) -> None:
        """Queues the newest inventory in place of an older one that still waits."""
        self._inventory = payload

    @property
    def left(self) -> Left:
        """What is not delivered yet."""
        usage = len(self._usage) + self._usage_handed_over + len(self._usage_failed)
        return Left(usage, self._inventory is not None)

    def serve(self, wait_s: float) -> None:
        """Hands over the next events and waits up to wait_s for the broker's answers; returns at the first."""
        self._hand_over()
        self._producer.poll(wait_s)
        self._hand_over()
        self._look_whether_away()

    def close(self, limit_s: float) -> Left:
        """Delivers what it can within limit_s, and returns what was left."""
        deadline = self._clock() + limit_s
        while self.left and (remaining_s := deadline - self._clock()) > 0:
            self.serve(min(remaining_s, 0.1))
        left = self.left
        # Without this the client library waits for its queued messages when it is destroyed.
        self._producer.purge()
        self._producer.poll(0)
        return left

    def _hand_over(self) -> None:
        now = self._clock()
        if now < self._retry_at:
            return
        if self._broken and not (self._usage_handed_over or self._inventory_handed_over):
            self._producer, self._broken = self._new_producer(), False
        if self._broken:
            return
        if self._inventory is not None and not self._inventory_handed_over:
            self._inventory_handed_over = True
            self._handed_over_at = now
            self._produce(self._settings.inventory_topic, self._inventory, self._on_inventory)
        if self._usage_handed_over == 0 and self._usage:
            self._handed_over_at = now
            batch = [self._usage.popleft() for _ in range(min(len(self._usage), self._most_handed_over))]
            self._usage_handed_over = len(batch)
            for payload in batch:
                self._produce(self._settings.usage_topic, payload, self._on_usage)

    def _produce(self, topic: str, payload: bytes, answer: Callable[[KafkaError | None, bytes], None]) -> None:
        def on_delivery(error: KafkaError | None, message: Message) -> None:
            del message
            answer(error, payload)

        try:
            headers = self._headers.get(topic)
            self._producer.produce(topic, payload, self._key, on_delivery=on_delivery, headers=headers)
        except KafkaException as error:
            answer(error.args[0], payload)

    def _on_usage(self, error: KafkaError | None, payload: bytes) -> None:
        """Handles the answer to a usage event; once all are answered, the failed ones go back to the front."""
        self._usage_handed_over -= 1
        self.delivery_errors += error is not None
        if error is None:
            self.delivered += 1
            self._note_success(self._settings.usage_topic)
        elif error.code() in _REFUSALS:
            self._drop()
            self._note_refusal("usage event", error, payload)
        else:
            self._usage_failed.append(payload)
            self._note_failure(self._settings.usage_topic, error)
        if self._usage_handed_over == 0 and self._usage_failed:
            self._usage.extendleft(reversed(self._usage_failed))
            self._usage_failed.clear()

    def _on_inventory(self, error: KafkaError | None, payload: bytes) -> None:
        """Handles the answer to the inventory; a failed one waits again unless a newer one has replaced it."""
        self._inventory_handed_over = False
        self.delivery_errors += error is not None
        if error is None:
            self.inventories_delivered += 1
            self._note_success(self._settings.inventory_topic)
        elif error.code() in _REFUSALS:
            self._note_refusal("inventory", error, payload)
        else:
            self._note_failure(self._settings.inventory_topic, error)
            return
        if self._inventory is payload:
            self._inventory = None

    def _note_success(self, topic: str) -> None:
        now = self._clock()
        self._handed_over_at = self.delivered_at = now
        self._errors.text = None
        lost = []
        if topic == self._settings.usage_topic:
            self._refusing = False
            if self._dropped_unsaid:
                lost.append(f"{self._dropped_unsaid} usage events were dropped, {self.left.usage + 1} waited")
                self._dropped_unsaid = 0
        self._trouble.end(topic, *lost)

    def _note_failure(self, topic: str, error: KafkaError) -> None:
        # An idempotent producer cannot be used after a fatal error; a new one replaces it.
        self._broken = self._broken or error.fatal() or error.code() == KafkaError._FATAL  # noqa: SLF001  # its name
        self._retry_at = self._clock() + _RETRY_AFTER_S
        self._note_away(topic, str(error.str()))

    def _note_refusal(self, what: str, error: KafkaError, payload: bytes) -> None:
        if not self._refusing:
            _LOG.error("%s of %d bytes dropped, and any like it from now on: %s", what, len(payload), error.str())
        self._refusing = True

    def _look_whether_away(self) -> None:
        if self._clock() - self._handed_over_at > _AWAY_AFTER_S:
            reason = self._errors.text or "no answer"
            if self._usage_handed_over:
                self._note_away(self._settings.usage_topic, reason)
            if self._inventory_handed_over:
                self._note_away(self._settings.inventory_topic, reason)

    def _note_away(self, topic: str, reason: str) -> None:
        kept = f"the newest {self._capacity} events" if topic == self._settings.usage_topic else "the newest event"
        self._trouble.begin(topic, reason, f"keeping {kept}", self._handed_over_at)

    def _drop(self) -> None:
        self.dropped += 1
        self._dropped_unsaid += 1

    def _new_producer(self) -> Producer:
        return producer(
            self._settings,
            on_error=self._errors,
            client_id="vacancy-agent",
            # So that a missing topic is reported as such before the broker counts as away.
            topic_metadata_propagation_max_ms=round(_AWAY_AFTER_S * 500),
        )
