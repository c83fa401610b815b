"""What is said of topics that take no events: the reason and the remedy at the beginning, the duration at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from vacancy.connectors.kafka.client import diagnosis
from vacancy.connectors.settings import KafkaSettings


class Trouble:
    """Which topics take no events, and since when.

    Args:
        settings: where the brokers are.
        log: where it is said.
        clock: monotonic seconds.
    """

    def __init__(
        self, settings: KafkaSettings, log: logging.Logger, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._log = log
        self._clock = clock
        self._since: dict[str, float] = {}

    def begin(self, topic: str, reason: str, meanwhile: str, since: float | None = None) -> None:
        """A topic takes no events.

        Args:
            topic: which.
            reason: what the client or the broker says.
            meanwhile: what becomes of the events.
            since: on the clock; None: since now.
        """
        if topic in self._since:
            return
        self._since[topic] = self._clock() if since is None else since
        why, remedy = diagnosis(self._settings, reason)
        where = self._settings.bootstrap_servers
        remedy = remedy or "`vacancy doctor` says more"
        self._log.warning("topic %s at %s takes no events: %s; %s; %s", topic, where, why, remedy, meanwhile)

    def end(self, topic: str, *more: str) -> None:
        """A topic has taken an event; more is said along, and by itself where there was no trouble."""
        what = list(more)
        if (since := self._since.pop(topic, None)) is not None:
            what.insert(0, f"topic {topic} takes events again after {self._clock() - since:.0f} s")
        if what:
            self._log.warning("%s", "; ".join(what))
