"""The job's figures through Flink's own Prometheus reporter, and its log as JSON, from one real run."""

from __future__ import annotations

import json
import re
import urllib.request
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from jobs import ports, toml
from jobs.settings import LogSettings
from tests.endtoend import TABLE_SECONDS, Job, Sender, config_file, install, own_topics
from tests.histories import encode_usage, usage_event
from tests.waiting import wait_until

if TYPE_CHECKING:
    from jobs.kafka_server import KafkaServer

HOSTS, EVENTS, REPEATED, BAD = 3, 10, 4, 2
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Scrape:
    """What Flink serves: figures of our job by name and operator."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        self._samples = [sample for family in families for sample in family.samples]
        self.names = {sample.name for sample in self._samples}

    def total(self, name: str, operator: str = "") -> float:
        """A figure, summed over the subtasks of the operators whose names match."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name
            and sample.labels.get("job_name") == "vacancy"
            and re.match(operator, sample.labels.get("operator_name", ""))
        )


def test_each_figure_moves(kafka_broker: KafkaServer, database: str, tmp_path: Path) -> None:
    kafka = own_topics(kafka_broker.bootstrap_servers)
    settings = install(tmp_path, kafka, database, {"checkpoint_interval": "1 s"})
    port = ports.free_port(settings.local.flink_port)
    settings = settings.model_copy(
        update={
            "local": settings.local.model_copy(update={"flink_metrics_port": port}),
            "log": LogSettings(format="json"),
        }
    )
    config_file(tmp_path).write_text(toml.dumps(settings), encoding="utf-8")
    sender = Sender(kafka)
    for host in range(HOSTS):
        events = [
            encode_usage(usage_event(host_id=f"host-{host}", seq=number, monotonic_ns=(number + 1) * 1_000_000_000))
            for number in range(EVENTS)
        ]
        sender.send([*events, *events[:REPEATED]], f"host-{host}")
    sender.send([b"rubbish"] * BAD, "host-0")
    sender.flush()

    operator = "flink_taskmanager_job_task_operator"
    with Job(tmp_path) as job:
        job.wait_until_ready()
        wait_until(lambda: Scrape(port).total(f"{operator}_numLateEvents") == HOSTS * REPEATED, TABLE_SECONDS, "late")
        wait_until(
            lambda: Scrape(port).total(f"{operator}_numRecordsSend", "dead_letters") == BAD, TABLE_SECONDS, "bad"
        )
        wait_until(
            lambda: Scrape(port).total("flink_jobmanager_job_numberOfCompletedCheckpoints") > 0, TABLE_SECONDS, "good"
        )
        scrape = Scrape(port)
        job.stop()
    assert scrape.total(f"{operator}_pendingRecords") == 0
