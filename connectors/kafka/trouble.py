"""Log lines about topics that accept no events: the reason and the remedy at the start, the duration at the end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from vacancy.connectors.kafka.client import diagnosis
from vacancy.connectors.settings import KafkaSettings


class Trouble:
    """Tracks which topics accept no events, and since when.

    Args:
        settings: where the brokers are.
        log: the logger for the lines.
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
        """Logs that a topic accepts no events, unless that is already known.

        Args:
            topic: the topic's name.
            reason: what the client or the broker says.
            meanwhile: what happens to the events until then.
            since: when it began, on the clock; None: now.
        """
        if topic in self._since:
            return
        self._since[topic] = self._clock() if since is None else since
        why, remedy = diagnosis(self._settings, reason)
        where = self._settings.bootstrap_servers
        remedy = remedy or "`vacancy doctor` says more"
        self._log.warning("topic %s at %s takes no events: %s; %s; %s", topic, where, why, remedy, meanwhile)

    def end(self, topic: str, *more: str) -> None:
        """Logs that a topic accepts events again, if it did not before; the texts in `more` are logged in any case."""
        what = list(more)
        if (since := self._since.pop(topic, None)) is not None:
            what.insert(0, f"topic {topic} takes events again after {self._clock() - since:.0f} s")
        if what:
            self._log.warning("%s", "; ".join(what))
