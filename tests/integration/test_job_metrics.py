"""The job's figures through Flink's own Prometheus reporter, and its log as JSON, from one real run."""

from __future__ import annotations

import json
import re
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from tests.harness.histories import encode_usage, usage_event
from tests.harness.installation import config_file, install
from tests.harness.job import Job
from tests.harness.sender import Sender
from tests.harness.table import TABLE_SECONDS
from tests.harness.topic import own_topics
from tests.harness.waiting import wait_until
from vacancy.jobs import ports
from vacancy.jobs.local import settings_file
from vacancy.jobs.settings import LogSettings

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

HOSTS, EVENTS, REPEATED, BAD = 3, 10, 4, 2
OPERATOR = "flink_taskmanager_job_task_operator"
PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


class Scrape:
    """What Flink serves: figures of our job by name and operator."""

    def __init__(self, port: int) -> None:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
            families = list(text_string_to_metric_families(response.read().decode()))
        self._samples = [sample for family in families for sample in family.samples]
        self.names = {sample.name for sample in self._samples}

    def total(self, name: str, operator: str = ".*") -> float:
        """A figure, summed over the subtasks of the operators whose names match."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == name
            and sample.labels.get("job_name") == "vacancy"
            and re.fullmatch(operator, sample.labels.get("operator_name", ""))
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
    config_file(tmp_path).write_text(settings_file.dumps(settings), encoding="utf-8")
    sender = Sender(kafka)
    for host in range(HOSTS):
        events = [
            encode_usage(usage_event(host_id=f"host-{host}", seq=number, monotonic_ns=(number + 1) * 1_000_000_000))
            for number in range(EVENTS)
        ]
        sender.send([*events, *events[:REPEATED]], f"host-{host}")
    sender.send([b"rubbish"] * BAD, "host-0")
    sender.flush()

    with Job(tmp_path) as job:
        job.wait_until_ready()
        for figure, operator, expected in (
            (f"{OPERATOR}_numLateEvents", ".*", HOSTS * REPEATED),
            (f"{OPERATOR}_numRecordsSend", "dead_letters.*", BAD),
            (f"{OPERATOR}_numRecordsIn", "host:_Writer", HOSTS * EVENTS),
        ):
            wait_until(
                lambda: Scrape(port).total(figure, operator) == expected,  # noqa: B023  # called before the next
                TABLE_SECONDS,
                f"{figure} {operator} is not {expected}",
            )
        job.wait_for_checkpoint()
        scrape = Scrape(port)
        job.stop()
    assert scrape.total(f"{OPERATOR}_numRecordsIn", "Source:.*usage_topic") == HOSTS * (EVENTS + REPEATED) + BAD
    assert scrape.total(f"{OPERATOR}_pendingRecords") == 0
    assert scrape.total("flink_jobmanager_job_numberOfCompletedCheckpoints") > 0
    assert scrape.total("flink_jobmanager_job_lastCheckpointDuration") > 0
    assert scrape.total("flink_jobmanager_job_numRestarts") == 0
    explained = set(re.findall(r"`(flink_\w+)`", PAGE.read_text(encoding="utf-8")))
    assert explained - scrape.names == set()

    # stderr: what is no JSON is what the command says on stdout.
    lines = [json.loads(line) for line in job.output.splitlines() if line.startswith("{")]
    assert any("runs; http://" in line["message"] for line in lines)
    assert {line["job"] for line in lines} == {"job"}
    (log,) = (tmp_path / "logs").glob("*.log")
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    assert {entry["job"] for entry in entries} == {"flink"}
    assert {entry["level"] for entry in entries} <= {"INFO", "WARN", "ERROR"}
    assert any(re.fullmatch(r"[0-9a-f]{32}", entry.get("job_id", "")) for entry in entries)
