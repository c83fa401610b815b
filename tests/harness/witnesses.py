"""Clients of our own beside a fleet, which see what the broker acknowledges."""

from __future__ import annotations

import threading
import time
import uuid
from random import Random
from typing import Self

from tests.harness.histories import encode_next_usage, encode_usage, usage_event
from tests.harness.sender import Sender
from vacancy.connectors.settings import KafkaSettings

WITNESSES = 5
NEXT_WITNESSES = 2
"""Of them, those that are of the next release: they write a version of the schema that the job does not know."""
POISON = "poison"
"""The key of records that are no events."""


class Witnesses:
    """Sends events of a few hosts of our own, ten times a second each, and poison; a context manager.

    They send from a thread, and know what was acknowledged.
    """

    def __init__(self, kafka: KafkaSettings, poison_per_s: float = 0) -> None:
        self.sender = Sender(kafka)
        self._poison_each_turn = poison_per_s / 10
        self._random = Random(uuid.uuid4().int)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._send)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def finish(self) -> dict[tuple[int, int], bytes | None]:
        """Sends no more, and gives all that was sent and acknowledged: by partition and offset."""
        self.__exit__()
        self.sender.flush()
        return self.sender.acknowledged

    def _send(self) -> None:
        seq, due = 0, 0.0
        while not self._stop.wait(0.1):
            for number in range(WITNESSES):
                host = f"witness-{number}"
                event = usage_event(
                    host_id=host,
                    boot_id="witness",
                    seq=seq,
                    monotonic_ns=time.monotonic_ns(),
                    cpu_busy_ns=time.monotonic_ns() // 3,
                    vcpus_allocated=seq % 5,
                )
                if number < NEXT_WITNESSES:
                    newer, headers = encode_next_usage(event)
                    self.sender.send([newer], host, headers=headers)
                else:
                    payload = encode_usage(event)
                    self.sender.send([payload], host)
            due += self._poison_each_turn
            while due >= 1:
                due -= 1
                self.sender.send([self._spoiled(payload)], POISON)
            self.sender.poll(0)
            seq += 1

    def _spoiled(self, payload: bytes) -> bytes:
        """No event: random bytes, an unknown fingerprint, or an event cut short."""
        kind = self._random.randrange(3)
        if kind == 0:
            return self._random.randbytes(self._random.randint(1, 300))
        if kind == 1:
            return payload[:2] + self._random.randbytes(8) + payload[10:]
        return payload[: self._random.randint(1, len(payload) - 1)]
