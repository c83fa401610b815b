"""A process's figures, served for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.registry import Collector

from vacancy.schemas.errors import VacancyError


@contextmanager
def exported(section: str, port: int, address: str, collector: Collector) -> Iterator[None]:
    """Serves the figures, and those of the process, while it lasts.

    Args:
        section: of the settings, which say where: ``agent`` for ``agent.metrics_port``.
        port: where.
        address: where.
        collector: gives the figures.

    Raises:
        VacancyError: the port is not to be had.
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
