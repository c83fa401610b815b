"""The scheduler adapter's figures in an application's registry, on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.rows import upsert_inventory, upsert_usage
from vacancy.connectors.postgres.connection import UnreachableError
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.answers import NoHostFitsError
from vacancy.connectors.scheduler.metrics import SchedulerCollector
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import SchedulerSettings

INVENTORIES = """{
  "VCPU": {"total": 64, "reserved": 0, "min_unit": 1, "max_unit": 64, "step_size": 1, "allocation_ratio": 1.0}
}"""
Samples = dict[tuple[str, str], float]
"""Figures by their name and the value of their one label, "" where there is none."""


@pytest.fixture
def scheduler(owner: Connection, database: str) -> Iterator[Scheduler]:
    now = datetime.now(UTC)
    upsert_inventory(owner, observed_at=now, inventories=INVENTORIES)
    upsert_usage(owner, observed_at=now, recent_consumers="{}")
    made = Scheduler(database)
    yield made
    made.close()


def scraped(registry: CollectorRegistry) -> Samples:
    """What Prometheus would read."""
    families = text_string_to_metric_families(generate_latest(registry).decode())
    return {
        (sample.name.removeprefix("vacancy_scheduler_"), "".join(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
        if not sample.name.endswith("_bucket") or sample.labels.pop("le") == "+Inf"
    }


def test_each_figure_moves(scheduler: Scheduler) -> None:
    registry = CollectorRegistry()
    registry.register(SchedulerCollector(scheduler))
    before = scraped(registry)
    assert before["claims_total", ""] == before["call_duration_seconds_count", "claim"] == 0

    claims = scheduler.claim(Request(vcpus=1), count=3)
    scheduler.release(*(claim.consumer for claim in claims))
    scheduler.candidates(Request(vcpus=1))
    scheduler.hosts()
    for request in (Request(vcpus=60), Request(vcpus=60), Request(required=("CUSTOM_NONE",))):
        with pytest.raises(NoHostFitsError):
            scheduler.claim(request)

    after = scraped(registry)
    assert after["claims_total", ""] == 3
    assert after["refusals_total", "vcpus_free"] == 2
    assert after["refusals_total", "required"] == 1
    assert after["call_duration_seconds_count", "claim"] == after["call_duration_seconds_bucket", "claim"] == 4
    assert {after["call_duration_seconds_count", call] for call in ("release", "candidates", "hosts")} == {1}
    assert 0 < after["call_duration_seconds_sum", "claim"] < 60
    assert after["retries_total", ""] == after["reconnects_total", ""] == after["contended_hosts_total", ""] == 0


def test_a_server_that_is_away_shows_as_reconnects_and_long_calls() -> None:
    away = Scheduler(
        "postgresql://nobody@127.0.0.1:1/nothing", SchedulerSettings(retry_for=timedelta(milliseconds=300))
    )
    registry = CollectorRegistry()
    registry.register(SchedulerCollector(away))
    with pytest.raises(UnreachableError):
        away.claim(Request(vcpus=1))
    after = scraped(registry)
    assert after["reconnects_total", ""] > 0
    assert after["call_duration_seconds_sum", "claim"] >= 0.2
