"""What a scheduler counts."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass, field

from vacancy.connectors.scheduler.histogram import Histogram

_CALLS = ("candidates", "claim", "claim_many", "release", "hosts")


@dataclass
class Counters:
    """What a scheduler has done since it was created; each count only grows.

    Attributes:
        claims: claims made, one per consumer.
        refusals: calls for which no host fitted.
        retries: calls repeated because of concurrent transactions (serialization failures and deadlocks).
        reconnects: calls repeated because the connection broke or could not be established.
        contended_hosts: hosts skipped because others were claiming from them at that moment.
        refused_by: refusals by the dimension that ran out.
        durations: how long calls took, by the method's name.
    """

    claims: int = 0
    refusals: int = 0
    retries: int = 0
    reconnects: int = 0
    contended_hosts: int = 0
    refused_by: Counter[str] = field(default_factory=Counter)
    durations: dict[str, Histogram] = field(
        default_factory=lambda: {call: Histogram() for call in _CALLS}, compare=False
    )
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **amounts: int) -> None:
        """Adds to several counts at once."""
        with self._lock:
            for name, amount in amounts.items():
                setattr(self, name, getattr(self, name) + amount)

    def refuse(self, dimension: str) -> None:
        """Counts a refusal."""
        with self._lock:
            self.refusals += 1
            self.refused_by[dimension] += 1

    def took(self, call: str, seconds: float) -> None:
        """Counts a call."""
        with self._lock:
            self.durations[call].add(seconds)

    def unlock(self) -> None:
        """Replaces the lock: after a fork, the old one may be held by a thread that only exists in the parent."""
        self._lock = threading.Lock()
