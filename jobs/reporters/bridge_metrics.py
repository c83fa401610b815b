"""The bridge's metrics for Prometheus, read at each scrape; docs/bridge.md says what they mean."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from vacancy.jobs.reporters.bridge import Bridge


class BridgeCollector(Collector):
    """The counts of a bridge."""

    def __init__(self, bridge: Bridge) -> None:
        self._bridge = bridge

    def collect(self) -> Iterator[Metric]:
        """The current figures; called in the thread of the scrape."""
        bridge = self._bridge
        yield GaugeMetricFamily("vacancy_bridge_hosts", "Compute hosts that the bridge reports.", len(bridge.cloud))
        heard = CounterMetricFamily(
            "vacancy_bridge_notifications", "Notifications received, by outcome.", labels=["outcome"]
        )
        for outcome in ("applied", "nothing", "old", "refused", "unknown"):
            heard.add_metric([outcome], bridge.heard[outcome])
        yield heard
        for name, figures, what in (
            ("delivered", bridge.events.delivered, "Events that the broker has acknowledged."),
            ("given_up", bridge.events.given_up, "Events that the broker has not accepted in time."),
        ):
            family = CounterMetricFamily(f"vacancy_bridge_events_{name}", what, labels=["event"])
            for event, count in figures.items():
                family.add_metric([event.name.lower()], count)
            yield family
        yield GaugeMetricFamily(
            "vacancy_bridge_rabbitmq_up", "Whether RabbitMQ can be reached.", int(not bridge.rabbitmq_away)
        )
        yield GaugeMetricFamily(
            "vacancy_bridge_truth_age_seconds", "Seconds since the truth was last read.", bridge.cloud.truth_age_s
        )
        yield from self._corrections()

    def _corrections(self) -> Iterator[Metric]:
        kinds = ("missed", "extra", "changed")
        corrected = CounterMetricFamily(
            "vacancy_bridge_corrected_instances",
            "Instances that readings of the truth have corrected.",
            labels=["kind"],
        )
        for kind in kinds:
            corrected.add_metric([kind], self._bridge.corrected[kind])
        yield corrected
        if (difference := self._bridge.difference) is None:
            return
        last = GaugeMetricFamily(
            "vacancy_bridge_stale_instances", "The same, of the last reading alone.", labels=["kind"]
        )
        for kind in kinds:
            last.add_metric([kind], getattr(difference, kind))
        yield last
        yield GaugeMetricFamily(
            "vacancy_bridge_stale_seconds",
            "Longest time that the table may have been wrong when the truth was last read; 0 if it was right.",
            difference.since_s if difference.hosts else 0.0,
        )
