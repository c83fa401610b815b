"""Listens to a cloud's notifications with oslo.messaging.

What always holds:

- A message is acknowledged only after its consumer has applied it. A message that the consumer cannot take now goes
  back into the queue.
- The library retries RabbitMQ for ever. The log says once that RabbitMQ is away and once that it is back; the consumer
  is told too, since notifications may be lost. RabbitMQ is back when all connections are: Nova's notifications and
  Ceilometer's samples have one each, and what is sent while a connection is away is lost.
"""

from __future__ import annotations

import logging
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from oslo_config import cfg

with warnings.catch_warnings():
    # oslo.messaging imports eventlet, which warns that it is deprecated; it is not used here.
    warnings.simplefilter("ignore")
    import oslo_messaging

from vacancy.connectors.settings import BridgeSettings
from vacancy.schemas.errors import ConfigError

_LOG = logging.getLogger("vacancy.bridge")
_LIBRARY = "oslo.messaging._drivers.impl_rabbit"
_PREFETCH = 1_000
"""Unacknowledged messages per connection: without a limit a whole backlog would be loaded into memory."""
_ANEW_S = 5.0
"""The library starts again one second after it has given up, and tries to connect every one or two seconds."""


class Taker(Protocol):
    """Takes the messages; returning False puts one back into the queue. Called by one thread; never raises."""

    def notification(self, event_type: str, publisher_id: str, timestamp: str, payload: Any) -> bool:
        """A notification from Nova."""

    def samples(self, payload: Any) -> bool:
        """A message from Ceilometer."""

    def undecodable(self, reason: str) -> None:
        """A message that oslo.messaging could not read; it is lost."""

    def away(self, since: bool) -> None:
        """RabbitMQ is away (True), or back."""


class _Endpoint:
    """The endpoint that oslo.messaging calls: the names of its methods are the priorities that the queues bind."""

    def __init__(self, take: Callable[[str, str, str, Any], bool]) -> None:
        self._take = take

    def _call(self, context: Any, publisher_id: str, event_type: str, payload: Any, metadata: Any) -> str:
        del context
        taken = self._take(event_type, publisher_id, metadata["timestamp"], payload)
        result = oslo_messaging.NotificationResult
        return str(result.HANDLED if taken else result.REQUEUE)


class _NovaEndpoint(_Endpoint):
    info = warn = error = critical = _Endpoint._call  # noqa: SLF001  # our own


class _CeilometerEndpoint(_Endpoint):
    sample = _Endpoint._call  # noqa: SLF001  # our own


class Listener:
    """Listens from :meth:`start` to :meth:`stop`.

    Args:
        settings: the topics.
        conf: oslo.config's, with the transport's options.
        taker: gets what is heard.

    Raises:
        ConfigError: the transport is not as oslo.messaging wants it.
    """

    def __init__(self, settings: BridgeSettings, conf: Any, taker: Taker) -> None:
        url = None if settings.transport_url is None else settings.transport_url.get_secret_value()
        try:
            self._transport = oslo_messaging.get_notification_transport(conf, url=url)
        except (oslo_messaging.InvalidTransportURL, oslo_messaging.DriverLoadFailure, cfg.Error, ValueError) as error:
            # The error's text may hold the URL, which may hold a password.
            raise ConfigError(
                f"bridge.transport_url: oslo.messaging refuses it ({type(error).__name__}); "
                "write rabbit://user:password@host:5672/vhost"
            ) from None
        if "oslo_messaging_rabbit" in conf and not conf.oslo_messaging_rabbit.rabbit_qos_prefetch_count:
            conf.set_override("rabbit_qos_prefetch_count", _PREFETCH, "oslo_messaging_rabbit")
        self._watch = _Watch(taker)
        self._servers = [
            self._server(settings, settings.exchange, settings.topics, "", _NovaEndpoint(taker.notification))
        ]
        if settings.ceilometer_topics:

            def samples(event_type: str, publisher_id: str, timestamp: str, payload: Any) -> bool:
                del event_type, publisher_id, timestamp
                return taker.samples(payload)

            endpoint = _CeilometerEndpoint(samples)
            exchange, topics = settings.ceilometer_exchange, settings.ceilometer_topics
            self._servers.append(self._server(settings, exchange, topics, "-samples", endpoint))
        self._started: list[Any] = []
        self._thread = threading.Thread(target=self._start, name="listener", daemon=True)

    def start(self) -> None:
        """Starts to listen without waiting for RabbitMQ; messages arrive once it can be reached."""
        logger = logging.getLogger(_LIBRARY)
        logger.addHandler(self._watch)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self._thread.start()

    def stop(self) -> None:
        """Stops listening; messages received but not taken go back into the queue."""
        for server in self._started:
            server.stop()
            server.wait()
        logging.getLogger(_LIBRARY).removeHandler(self._watch)

    def _start(self) -> None:
        for server in self._servers:
            # One worker: what is heard is taken in its order, and takers need no lock of their own.
            server.start(override_pool_size=1)
            self._started.append(server)
        self._watch.reached()

    def _server(
        self, settings: BridgeSettings, exchange: str, topics: Sequence[str], suffix: str, endpoint: _Endpoint
    ) -> Any:
        targets = [oslo_messaging.Target(exchange=exchange, topic=topic) for topic in topics]
        pool = settings.queue + suffix
        return oslo_messaging.get_notification_listener(
            self._transport, targets, [endpoint], executor="threading", allow_requeue=True, pool=pool
        )


class _Watch(logging.Handler):
    """Learns from the library's log whether RabbitMQ can be reached; the library tells it nowhere else.

    Each connection logs from its own thread and names itself in the lines about its state. Before it is established it
    has no name.
    """

    def __init__(self, taker: Taker) -> None:
        super().__init__()
        self._taker = taker
        self._away: dict[str, float] = {}
        """The connections that are away, with the time of each one's last failure in monotonic seconds."""
        self._of_thread: dict[int | None, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Turns the library's lines about every attempt into one line per change."""
        message = record.getMessage()
        named = re.match(r"\[([^]]+)\] ", message)
        connection = named[1] if named else ""
        if "unreachable" in message or "closed the connection" in message or "Connection failed" in message:
            self._of_thread[record.thread] = connection
            if not self._away:
                _LOG.warning("RabbitMQ cannot be reached, trying on: %s", message.partition("] ")[2] or message)
                self._taker.away(True)
            self._away[connection] = time.monotonic()
        elif named and "Reconnected" in message:
            self._back(connection)
        elif "Failed to process message" in message:
            self._taker.undecodable(str(record.exc_info[1]) if record.exc_info else message)
        elif record.levelno >= logging.WARNING:
            _LOG.log(record.levelno, "oslo.messaging: %s", message)
            if "Unable to connect" in message:
                # The connection broke again right after it came back. The library retries and logs no success.
                anew = threading.Timer(_ANEW_S, self._unless_it_failed_again, [self._of_thread.get(record.thread, "")])
                anew.daemon = True
                anew.start()

    def reached(self) -> None:
        """All connections are established."""
        with self._alone():
            self._back("")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Called like :meth:`emit`, by one thread at a time."""
        self.acquire()
        try:
            yield
        finally:
            self.release()

    def _unless_it_failed_again(self, connection: str) -> None:
        with self._alone():
            if time.monotonic() - self._away.get(connection, 0.0) >= _ANEW_S:
                self._back(connection)

    def _back(self, connection: str) -> None:
        if self._away.pop(connection, None) is not None and not self._away:
            _LOG.warning("RabbitMQ is there again; what it may have lost is read from the truth")
            self._taker.away(False)
