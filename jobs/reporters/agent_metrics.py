"""The agent's metrics for Prometheus, read at each scrape; docs/metrics.md says what they mean.

Imported only if `agent.metrics_port` is set, so that an agent without metrics uses no memory for them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from importlib import metadata

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from vacancy.connectors.kafka.outbox import Outbox
from vacancy.jobs.reporters.agent import Agent
from vacancy.schemas.events import Event


class AgentCollector(Collector):
    """The counts of an agent and its outbox.

    Args:
        agent: the agent.
        outbox: the agent's outbox.
        host_id: the id of this host.
        clock: the outbox's clock, in monotonic seconds.
    """

    def __init__(self, agent: Agent, outbox: Outbox, host_id: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._agent = agent
        self._outbox = outbox
        self._host_id = host_id
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        """The current figures; called in the thread of the scrape."""
        info = GaugeMetricFamily("vacancy_agent_info", "The host's identity; always 1.", labels=["host_id", "version"])
        info.add_metric([self._host_id, metadata.version("vacancy")], 1)
        yield info
        produced = CounterMetricFamily(
            "vacancy_agent_events_produced", "Events queued for the broker.", labels=["event"]
        )
        failures = CounterMetricFamily(
            "vacancy_agent_collect_failures", "Readings that gave no event.", labels=["event"]
        )
        duration = SummaryMetricFamily(
            "vacancy_agent_collect_seconds", "How long reading the node's figures took.", labels=["event"]
        )
        unknown = CounterMetricFamily(
            "vacancy_agent_unknown_figures",
            "Usage readings that went on without a figure, or with one that is not certain.",
            labels=["figure"],
        )
        for event, readings in self._agent.readings.items():
            label = [event.name.lower()]
            produced.add_metric(label, readings.produced)
            failures.add_metric(label, readings.failures)
            duration.add_metric(label, readings.reads, readings.seconds)
        for figure, count in sorted(self._agent.unknown.copy().items()):
            unknown.add_metric([figure], count)
        yield from (produced, failures, duration, unknown)
        yield from self._delivery()

    def _delivery(self) -> Iterator[Metric]:
        outbox = self._outbox
        delivered = CounterMetricFamily(
            "vacancy_agent_events_delivered", "Events that the broker has acknowledged.", labels=["event"]
        )
        delivered.add_metric([Event.USAGE.name.lower()], outbox.delivered)
        delivered.add_metric([Event.INVENTORY.name.lower()], outbox.inventories_delivered)
        yield delivered
        yield CounterMetricFamily("vacancy_agent_events_dropped", "Usage events dropped.", outbox.dropped)
        yield CounterMetricFamily(
            "vacancy_agent_delivery_errors", "Events whose delivery failed with an error.", outbox.delivery_errors
        )
        yield GaugeMetricFamily("vacancy_agent_events_waiting", "Usage events not delivered yet.", outbox.left.usage)
        if outbox.delivered_at is not None:
            yield GaugeMetricFamily(
                "vacancy_agent_last_delivery_timestamp_seconds",
                "When the broker last acknowledged an event, in seconds since 1970.",
                time.time() - (self._clock() - outbox.delivered_at),
            )
