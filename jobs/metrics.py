"""Serves a process's metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from vacancy.schemas.errors import VacancyError


@contextmanager
def exported(section: str, port: int, address: str, collector: Collector) -> Iterator[None]:
    """Serves a collector's metrics and those of the process inside the ``with`` block.

    Args:
        section: the section of the settings that has the port, for messages: ``agent`` for ``agent.metrics_port``.
        port: the port to listen on.
        address: the address to listen on.
        collector: returns the metrics.

    Raises:
        VacancyError: the port cannot be opened.
    """
    registry = CollectorRegistry()
    registry.register(collector)
    ProcessCollector(registry=registry)
    try:
        server, thread = start_http_server(port, address, registry)
    except OSError as error:
        raise VacancyError(
            f"{section}.metrics_port: {address}:{port} cannot be opened: "
            f"{error.strerror or error}; end what listens there, or set another"
        ) from None
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
