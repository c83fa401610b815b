"""What a scheduler has counted, for Prometheus; docs/metrics.md says what each figure means.

The application that embeds the scheduler owns the endpoint, so this is a collector for its registry:

>>> prometheus_client.REGISTRY.register(SchedulerCollector(scheduler))                # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.histogram import BOUNDS_S


class SchedulerCollector(Collector):
    """A scheduler's counters, read at each scrape; after a fork the child continues from the parent's counts.

    A registry accepts only one such collector: an application with several schedulers gives each its own registry.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._counters = scheduler.counters

    def collect(self) -> Iterator[Metric]:
        """The figures as they are now."""
        counters = self._counters
        yield CounterMetricFamily("vacancy_scheduler_claims", "Claims made, one per consumer.", counters.claims)
        refusals = CounterMetricFamily(
            "vacancy_scheduler_refusals",
            "Calls for which no host fitted, by the dimension that ran out.",
            labels=["dimension"],
        )
        for dimension, count in sorted(counters.refused_by.copy().items()):
            refusals.add_metric([dimension], count)
        yield refusals
        yield CounterMetricFamily(
            "vacancy_scheduler_retries", "Calls repeated because of concurrent transactions.", counters.retries
        )
        yield CounterMetricFamily(
            "vacancy_scheduler_reconnects", "Calls repeated because the connection broke.", counters.reconnects
        )
        yield CounterMetricFamily(
            "vacancy_scheduler_contended_hosts",
            "Hosts skipped because others were claiming from them.",
            counters.contended_hosts,
        )
        durations = HistogramMetricFamily(
            "vacancy_scheduler_call_duration_seconds", "How long calls took, retries included.", labels=["call"]
        )
        bounds = [*map(str, BOUNDS_S), "+Inf"]
        for call, histogram in sorted(counters.durations.items()):
            durations.add_metric([call], list(zip(bounds, histogram.at_most(), strict=True)), histogram.seconds)
        yield durations
