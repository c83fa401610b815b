"""The server's own metrics, in Prometheus's text format."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from vacancy.jobs.web.application import Application


class _Metrics(Collector):
    def __init__(self, application: Application) -> None:
        self._application = application

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        application = self._application
        watch = application.watch
        yield GaugeMetricFamily("vacancy_web_hosts", "Hosts on the page.", len(watch.fleet.slot_of))
        yield CounterMetricFamily("vacancy_web_looks", "Looks at the tables.", watch.looks)
        yield CounterMetricFamily("vacancy_web_failed_looks", "Looks that failed.", watch.failed_looks)
        yield CounterMetricFamily("vacancy_web_rows", "Changed rows that the looks found.", watch.rows)
        yield GaugeMetricFamily("vacancy_web_look_seconds", "How long the newest look took.", watch.look_seconds)
        yield GaugeMetricFamily("vacancy_web_frame_bytes", "Size of the newest frame.", watch.frame_bytes)
        questions = CounterMetricFamily("vacancy_web_questions", "Questions to the database.", labels=["kind"])
        questions.add_metric(["host"], application.questions.asking.asked)
        questions.add_metric(["fits"], application.fits.asking.asked)
        yield questions


def exposition(application: Application) -> bytes:
    """The metrics as text."""
    registry = CollectorRegistry()
    registry.register(_Metrics(application))
    ProcessCollector(registry=registry)
    return generate_latest(registry)
