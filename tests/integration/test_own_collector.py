"""The guide's collector, from the very text of the guide."""

from __future__ import annotations

import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.agent import Agent
from tests.harness.guides import guide_collector
from tests.harness.installation import config_file
from tests.harness.topic import own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.collectors.selection import make_collector
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import Settings
from vacancy.schemas.codec import decode
from vacancy.schemas.errors import ConfigError

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_S = 60.0


def test_the_guides_collector_is_short_and_whole(tmp_path: Path) -> None:
    source = guide_collector(tmp_path, tmp_path / "instances")
    assert len(source.splitlines()) < 60


def test_an_agent_sends_what_the_guides_collector_reads(
    kafka_broker: KafkaServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instances = tmp_path / "instances"
    guide_collector(tmp_path, instances)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    kafka = own_topics(kafka_broker.bootstrap_servers, partitions=1)
    ensure_topics(kafka)
    settings = AgentSettings.model_validate({"collector": "text_file:TextFileCollector", "interval": "50 ms"})
    both = Settings().model_copy(update={"kafka": kafka, "agent": settings})
    config_file(tmp_path).write_text(settings_file.dumps(both), encoding="utf-8")
    first, second = str(uuid.uuid4()), str(uuid.uuid4())

    def newest() -> tuple[int, int, set[str]]:
        records = [record.value for record in read_topic(kafka, kafka.usage_topic) if record.value]
        if not records:
            return 0, 0, set()
        event = decode(records[-1]).record
        return event["vcpus_allocated"], event["memory_mb_allocated"], set(event["recent_consumers"])

    with Agent(tmp_path) as agent:
        wait_until(lambda: agent.said("the usage cannot be read, trying on: FileNotFoundError"), LIMIT_S, "not said")
        instances.write_text(f"{first} 2 1024 10\n", encoding="utf-8")
        wait_until(lambda: newest() == (2, 1024, {first}), LIMIT_S, "the first instance is not told")
        instances.write_text(f"{first} 2 1024 10\n\n{second} 1 512 5\n", encoding="utf-8")
        wait_until(lambda: newest() == (3, 1536, {first, second}), LIMIT_S, "the second instance is not told")
        instances.write_text("", encoding="utf-8")
        wait_until(lambda: newest() == (0, 0, set()), LIMIT_S, "their end is not told")
        inventory = [record.value for record in read_topic(kafka, kafka.inventory_topic) if record.value]
        assert decode(inventory[0]).record["source"] == "text-file"
        assert "can be read again" in agent.stop()


@pytest.mark.parametrize("collector", ["no_such:Collector", "json:Collector", "no.such.module:Collector"])
def test_a_collector_that_is_not_there_is_said(collector: str) -> None:
    with pytest.raises(ConfigError, match=rf"agent\.collector: {re.escape(collector)} cannot be loaded: .*PYTHONPATH"):
        make_collector(AgentSettings(collector=collector))


@pytest.mark.parametrize("collector", ["libvrt", "a:", ":b", "a b:c", "a:b.c"])
def test_what_cannot_be_a_collector_is_a_mistake_in_the_settings(collector: str) -> None:
    with pytest.raises(ValueError, match="collector"):
        AgentSettings(collector=collector)
