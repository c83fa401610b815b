"""What sends to the usage topic, and knows what the broker acknowledged."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from confluent_kafka import Producer

from vacancy.connectors.kafka.client import producer
from vacancy.connectors.settings import KafkaSettings


class Sender:
    """Produces to the usage topic, and remembers what the broker acknowledged: partition, offset and value."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: Producer = producer(kafka, linger_ms=0)
        self.acknowledged: dict[tuple[int, int], bytes | None] = {}
        self.acknowledged_somewhere: list[bytes | None] = []
        """Sent again after a leader's end, and known to the next one already, which does not say where they are."""

    def send(
        self,
        values: Iterable[bytes | None],
        key: str | None = None,
        partition: int = -1,
        headers: dict[str, str | bytes | None] | None = None,
    ) -> None:
        """Hands records over, to the key's partition or to one named."""
        for value in values:
            while True:
                try:
                    self._producer.produce(
                        self._kafka.usage_topic,
                        value,
                        key,
                        partition,
                        on_delivery=self._delivered(value),
                        headers=headers,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)

    def _delivered(self, value: bytes | None) -> Any:
        def remember(error: object, message: Any) -> None:
            if error is None and message.offset() is None:
                self.acknowledged_somewhere.append(value)
            elif error is None:
                self.acknowledged[message.partition(), message.offset()] = value

        return remember

    def poll(self, seconds: float) -> None:
        """Serves acknowledgements for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._producer.poll(left)

    def flush(self, seconds: float = 240) -> None:
        """Waits until everything is acknowledged."""
        assert self._producer.flush(seconds) == 0, f"not acknowledged after {seconds:g} s"
