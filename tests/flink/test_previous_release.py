"""The previous release's agent before the graph of today, and its adapter on the tables of today."""

from __future__ import annotations

import json
import subprocess
import uuid
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg2
import pytest
from pydantic import SecretStr

from tests.flink.bounded import TopicRecord, run_graph
from tests.harness.previous import Release, previous_release
from tests.harness.process import END_SECONDS, Process
from tests.harness.rows import query, upsert_inventory, upsert_usage
from tests.harness.topic import own_topics, read_topic
from tests.harness.waiting import PATIENCE, wait_until
from vacancy.connectors.kafka.client import ensure_topics
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.request import Request
from vacancy.topology.settings import JobSettings

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

LIMIT_SECONDS = 60.0
EVENTS = 4
ADAPTER = """
import json, sys
from {module} import NoHostFitsError, Request, Scheduler

dsn, first, second = sys.argv[1:]
scheduler = Scheduler(dsn)
request = Request(vcpus=4, memory_mb=8192, disk_gb=40, required=("HW_CPU_X86_AVX2",), forbidden=("CUSTOM_OLD",))
claims = scheduler.claim(request, [first, second])
again = scheduler.claim(request, [first])
try:
    scheduler.claim(Request(vcpus=60))
except NoHostFitsError as error:
    refused = error.refusal.dimension
print(json.dumps({{
    "code": sys.modules[Scheduler.__module__].__file__,
    "hosts": [claim.host_name for claim in claims],
    "again": [claim.claimed_at == claims[0].claimed_at for claim in again],
    "refused": refused,
    "candidates": [candidate.host_id for candidate in scheduler.candidates(request)],
    "free": [host.vcpus_free for host in scheduler.hosts()],
    "released": [str(consumer) for consumer in scheduler.release(first)],
}}))
"""


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    return previous_release(tmp_path_factory.mktemp("previous"))


def test_its_agent_s_events_become_rows(release: Release, kafka_broker: KafkaServer, tmp_path: Path) -> None:
    kafka = own_topics(kafka_broker.bootstrap_servers)
    ensure_topics(kafka)
    config = tmp_path / "vacancy.toml"
    topics = {"usage_topic": kafka.usage_topic, "inventory_topic": kafka.inventory_topic}
    lines = "\n".join(f'{name} = "{topic}"' for name, topic in topics.items())
    config.write_text(f'[kafka]\nbootstrap_servers = "{kafka.bootstrap_servers}"\n{lines}\n', encoding="utf-8")
    agent = release.command("agent", "--config", config, "--host-id", "its-host", "--interval", "100ms")

    def sent() -> dict[str, list[TopicRecord]]:
        return {
            name: [
                TopicRecord(one.append_ms, one.value, (one.key or b"").decode(), {}, one.partition, one.offset)
                for one in read_topic(kafka, topic)
            ]
            for name, topic in topics.items()
        }

    with Process(agent, tmp_path, tmp_path / "agent.log", release.environment) as process:
        wait_until(
            lambda: len((now := sent())["usage_topic"]) >= EVENTS and now["inventory_topic"],
            LIMIT_SECONDS,
            lambda: f"{release.revision} sends nothing: {process.output}",
        )
        process.stop()
    events = sent()
    output = run_graph(tmp_path / "graph", JobSettings(), events["usage_topic"], events["inventory_topic"])
    assert output.dead_letters == []
    assert {row["host_id"] for row in output.host} == {"its-host"}
    newest = max(output.host, key=lambda row: str(row["observed_at"]))
    assert newest["samples"] == len(events["usage_topic"])
    assert newest["vcpus_capacity"] > 0
    assert newest["memory_mb_available"] > 0
    inventory = output.host_inventory[-1]
    assert (inventory["host_id"], inventory["status"], inventory["retired"]) == ("its-host", "ENABLED", False)
    assert json.loads(inventory["inventories"])["VCPU"]["total"] > 0


def test_its_adapter_claims_beside_that_of_today(release: Release, database: str, tmp_path: Path) -> None:
    migrate(SecretStr(database))
    module = "vacancy" if release.has_one_package else "connectors.scheduler"
    program = tmp_path / "adapter.py"
    program.write_text(ADAPTER.format(module=module), encoding="utf-8")
    first, second = str(uuid.uuid4()), str(uuid.uuid4())
    with closing(psycopg2.connect(database)) as owner:
        owner.autocommit = True
        now = datetime.now(UTC)
        upsert_inventory(owner, observed_at=now)
        upsert_usage(owner, observed_at=now, vcpus_free=32, recent_consumers="{}")
        ended = subprocess.run(
            [release.command()[0], str(program), database, first, second],
            cwd=tmp_path,
            env=dict(release.environment),
            capture_output=True,
            text=True,
            check=False,
            timeout=END_SECONDS * PATIENCE,
        )
        assert ended.returncode == 0, ended.stderr
        said = json.loads(ended.stdout)
        assert Path(said.pop("code")).is_relative_to(release.directory)
        assert said == {
            "hosts": ["compute-1", "compute-1"],
            "again": [True],
            "refused": "vcpus_free",
            "candidates": ["host-1"],
            "free": [24],
            "released": [first],
        }
        assert query(owner, "SELECT vcpus_free, claims FROM vacancy.schedulable_host") == [(28, 1)]
        request = Request(vcpus=4, memory_mb=8192, disk_gb=40, required=("HW_CPU_X86_AVX2",), forbidden=("CUSTOM_OLD",))
        with closing(Scheduler(database)) as scheduler:
            (claim,) = scheduler.claim(request, [second])
            assert claim.host_id == "host-1"
            assert query(owner, "SELECT vcpus_free FROM vacancy.schedulable_host") == [(28,)]
            assert scheduler.release(second) == [uuid.UUID(second)]
