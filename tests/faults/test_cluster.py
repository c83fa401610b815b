"""The job on a standalone Flink cluster: submitted, stopped, upgraded and resumed, and what it says when it cannot.

The cluster is one JobManager and two TaskManagers, each a process; broker and database are real ones.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import time
import urllib.request
import uuid
from collections.abc import Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka.admin import AdminClient

from tests.faults.test_resume import BAD, fleet_in_chunks
from tests.harness.cluster import FlinkCluster
from tests.harness.histories import decode_usage, encode_next_usage, encode_usage, next_version, usage_event
from tests.harness.installation import config_file, install
from tests.harness.process import Ended
from tests.harness.seeds import draws, seed_of
from tests.harness.sender import Sender
from tests.harness.table import TABLE_SECONDS, open_table, wait_for_table
from tests.harness.topic import histories, own_topics, read_topic
from tests.harness.waiting import wait_until
from vacancy.connectors.kafka import dead_letters
from vacancy.connectors.kafka.client import client_config, ensure_topics
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.jobs.flink.cluster import find_job
from vacancy.jobs.flink.rest import FlinkRest, explained
from vacancy.jobs.local import settings_file
from vacancy.schemas.events import Event
from vacancy.topology.settings import JobSettings

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

long = pytest.mark.skipif(
    not os.environ.get("VACANCY_TEST_CLUSTER"), reason="half a minute and more; VACANCY_TEST_CLUSTER=1 runs it"
)
ROOT = Path(__file__).parents[2]
SUBMIT_SECONDS = 240.0
BUCKET = "vacancy"
S3_SECRET = "s3-secret-4712"


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """The URL of an S3 server with a bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=ports.HOST, port=ports.free_port(), verbose=False)
    server.start()
    try:
        url = f"http://{ports.HOST}:{server.get_host_and_port()[1]}"
        make_bucket = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")  # noqa: S310  # our own
        urllib.request.urlopen(make_bucket, timeout=10).close()  # noqa: S310  # as above
        yield url
    finally:
        server.stop()


@pytest.fixture(scope="module")
def cluster(s3: str) -> Iterator[FlinkCluster]:
    """A cluster that reaches the S3 server by Flink's own plugin."""
    from vacancy.jobs.jars import ensure_jars

    options = {
        "s3.endpoint": s3,
        "s3.path-style-access": "true",
        "s3.region": "eu-central-1",
        "s3.access-key": "somebody",
        "s3.secret-key": S3_SECRET,
    }
    (plugin,) = ensure_jars("s3")
    with FlinkCluster(configuration=options, plugins={"s3-fs-native": plugin}) as running:
        yield running


@pytest.fixture(autouse=True)
def no_job_is_left(cluster: FlinkCluster) -> Iterator[None]:
    """Ends what a test that failed has left running."""
    yield
    cluster.cancel_jobs()


@pytest.fixture
def kafka(kafka_broker: KafkaServer) -> KafkaSettings:
    """Topics of one's own."""
    return own_topics(kafka_broker.bootstrap_servers)


class Deployment:
    """An installation whose job is on the cluster."""

    def __init__(self, directory: Path, cluster: FlinkCluster, kafka: KafkaSettings, database: str, **job: Any) -> None:
        self.directory = directory
        job = {"checkpoint_interval": "1 s", "flink_url": cluster.url, "name": f"vacancy-{uuid.uuid4().hex[:8]}", **job}
        self.settings = install(directory, kafka, database, job)
        self.sender = Sender(kafka)
        self.window_ms = int(self.settings.job.window.total_seconds() * 1000)

    def configure(self, **job: Any) -> None:
        """Changes settings of the job, and the file."""
        update = {"job": JobSettings(**{**self.settings.job.model_dump(), **job})}
        self.settings = self.settings.model_copy(update=update)
        config_file(self.directory).write_text(settings_file.dumps(self.settings), encoding="utf-8")
        self.window_ms = int(self.settings.job.window.total_seconds() * 1000)

    def run(self, *arguments: str, code: Path = ROOT) -> Ended:
        """Runs `vacancy job ...`, of changed code if so named."""
        command, *rest = arguments
        return Ended(code, "job", command, "--config", config_file(self.directory), *rest, seconds=SUBMIT_SECONDS)

    def submit(self, *arguments: str, code: Path = ROOT) -> str:
        """Submits the job; its id."""
        ended = self.run("submit", "--json", *arguments, code=code)
        assert ended.status == 0, ended.errors
        return str(json.loads(ended.output)["job_id"])

    def stop(self) -> str:
        """Stops the job; its savepoint."""
        ended = self.run("stop", "--json")
        assert ended.status == 0, ended.errors
        return str(json.loads(ended.output)["savepoint"])

    def status(self) -> dict[str, Any]:
        """How the job is."""
        ended = self.run("status", "--json")
        assert ended.status == 0, ended.errors
        found: dict[str, Any] = json.loads(ended.output)
        return found

    def wait_for_failure(self, text: str) -> None:
        """Waits until the job has failed for a reason, and the status says so."""
        cluster = FlinkRest(self.settings.job.flink_url)
        job = find_job(cluster, self.settings.job.name, None)
        last: list[str] = []

        def failed() -> bool:
            failure = cluster.status(job.job_id).last_failure
            last[:] = [failure.message] if failure else []
            return bool(last) and text in explained(last[0])

        wait_until(failed, TABLE_SECONDS, f"no failure says {text!r}, the last one is {last}")
        assert text in self.status()["last_failure"]["message"]

    def wait_for_oracle(self) -> None:
        """Waits until the table is what the oracle says."""
        fleet = histories(read_topic(self.settings.kafka, self.settings.kafka.usage_topic))
        with open_table(self.settings.postgres.reader_dsn) as table:
            wait_for_table(table, fleet, self.window_ms, self.sender)

    def send_chunks(self, chunks: Sequence[Sequence[Any]]) -> None:
        """Sends a part of a fleet's histories; half of the hosts have agents of the next release."""
        for chunk in chunks:
            for message in chunk:
                if message.host_id[-1] in "13579":
                    payload, headers = encode_next_usage(decode_usage(message.payload))
                    self.sender.send([payload], message.host_id, headers=headers)
                else:
                    self.sender.send([message.payload], message.host_id)
            self.sender.flush()
            self.sender.poll(0.003)

    def beat(self, seconds: float, hosts: int = 20) -> None:
        """Sends events of some hosts, ten times a second each, for so long."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            now_ns = time.monotonic_ns()
            for number in range(hosts):
                event = usage_event(
                    host_id=f"host-{number}",
                    boot_id="boot",
                    seq=now_ns,
                    monotonic_ns=now_ns,
                    vcpus_allocated=now_ns // 1_000_000 % 5,
                    cpu_busy_ns=now_ns // 3,
                )
                self.sender.send([encode_usage(event)], event["host_id"])
            self.sender.poll(0.1)
        self.sender.flush()


@pytest.mark.timeout(600)
@draws()
def test_changed_code_goes_on_from_a_savepoint(
    cluster: FlinkCluster, kafka: KafkaSettings, database: str, tmp_path: Path, kept: int | None
) -> None:
    """Stopped amid its topic, resumed by other code at another parallelism and emit: the table equals the oracle.

    Half of the hosts write a version of the schema that the first job does not know and the second one does.
    """
    chunks = fleet_in_chunks(Random(seed_of(kept)))
    third = len(chunks) // 3
    vacancy_on = Deployment(tmp_path / "deployment", cluster, kafka, database, window=timedelta(seconds=3))

    vacancy_on.send_chunks(chunks[:third])
    job_id = vacancy_on.submit()
    again = vacancy_on.run("submit")
    assert again.status == 1
    assert f"already runs at {cluster.url} as {job_id}" in again.error()
    assert vacancy_on.submit("--if-running", "keep") == job_id
    vacancy_on.wait_for_oracle()
    status = vacancy_on.status()
    assert (status["job_id"], status["state"], status["restarts"]) == (job_id, "RUNNING", 0)
    assert status["tasks"] == status["tasks_running"] > 0
    assert 0 < status["uptime_seconds"] < 600
    vacancy_on.send_chunks(chunks[third : 2 * third])
    savepoint = vacancy_on.stop()
    assert savepoint.startswith(f"file:{tmp_path}/deployment/savepoints/savepoint-")
    assert "has ended already (FINISHED)" in vacancy_on.run("stop").error()

    vacancy_on.send_chunks(chunks[2 * third :])
    vacancy_on.configure(parallelism=3, emit="300ms")
    vacancy_on.submit("--from-savepoint", savepoint, code=upgraded(tmp_path / "upgraded"))
    # Nothing is read again: what the savepoint had read is not in what the sources of this job have read.
    vacancy_on.wait_for_oracle()
    assert vacancy_on.status()["restarts"] == 0
    topic = read_topic(kafka, kafka.usage_topic)
    letters = [letter.payload for letter in dead_letters.read(kafka)]
    assert sorted(letters) == sorted(record.value for record in topic if record.value in BAD)
    vacancy_on.stop()

    refused = vacancy_on.run("submit", "--from-savepoint", savepoint, code=incompatible(tmp_path / "incompatible"))
    assert refused.status == 1
    assert "the savepoint holds state of an operator that this job does not have" in refused.error()


def test_what_cannot_run_is_said_at_once(
    cluster: FlinkCluster, kafka: KafkaSettings, database: str, tmp_path: Path
) -> None:
    """A savepoint that is not there, and fewer slots than the job needs: one error, and no job is left behind."""
    vacancy_on = Deployment(tmp_path, cluster, kafka, database)
    missing = tmp_path / "savepoints" / "savepoint-none"
    refused = vacancy_on.run("submit", "--from-savepoint", missing.as_uri())
    assert refused.status == 1
    assert "the cluster finds no savepoint or retained checkpoint there" in refused.error()
    assert str(missing) in refused.error()
    vacancy_on.configure(parallelism=64)
    refused = vacancy_on.run("submit")
    assert refused.status == 1
    assert re.search(r"the job needs 64 task slots, and \d of the \d at .* are free", refused.error())
    assert all(job.ended for job in FlinkRest(cluster.url).jobs())


def upgraded(directory: Path) -> Path:
    """Our code with a version more of the schemas, and a sink more behind the window.

    The sink has the planner count anew.
    """
    topology = copied(directory) / "topology"
    for event in Event:
        version = next_version(event)
        file = directory / "schemas" / "events" / event.value / f"v{version.version}.avsc"
        file.write_text(version.text, encoding="utf-8")
    (topology / "sql" / "15_allocated.sql").write_text(
        "CREATE TEMPORARY TABLE allocated (host_id STRING, vcpus BIGINT) WITH ('connector' = 'blackhole')",
        encoding="utf-8",
    )
    (topology / "sql" / "60_insert_allocated.sql").write_text(
        "-- What is allocated.\nINSERT INTO allocated SELECT host_id, host.vcpus_free FROM host_window",
        encoding="utf-8",
    )
    return directory


def incompatible(directory: Path) -> Path:
    """Our code with another name for the operator that keeps the windows."""
    graph = copied(directory) / "topology" / "graph.py"
    text = graph.read_text(encoding="utf-8")
    name = '"ProcessTableFunction": "host_window"'
    assert name in text
    graph.write_text(text.replace(name, name.replace("host_window", "another_name")), encoding="utf-8")
    return directory


def copied(directory: Path) -> Path:
    """A copy of our packages, from which `python -m vacancy` runs."""
    for package in ("jobs", "topology", "connectors", "schemas", "vacancy"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, directory / package, symlinks=True, ignore=ignored)
    return directory


@long
@pytest.mark.timeout(600)
def test_rocksdb_and_checkpoints_in_s3_and_another_window(
    cluster: FlinkCluster, kafka: KafkaSettings, database: str, tmp_path: Path
) -> None:
    """From RocksDB with its state in S3 to the heap, with a longer window: exact once that window has passed.

    The second job is started by `flink run -py`.
    """
    directory = f"s3://{BUCKET}/{uuid.uuid4().hex}"
    vacancy_on = Deployment(
        tmp_path, cluster, kafka, database, window=timedelta(seconds=2), emit="200ms", state_backend="rocksdb"
    )
    vacancy_on.configure(checkpoint_dir=f"{directory}/checkpoints")
    vacancy_on.submit()
    vacancy_on.beat(3)
    vacancy_on.wait_for_oracle()
    wait_until(lambda: vacancy_on.status()["last_checkpoint"], TABLE_SECONDS, "no checkpoint")
    assert vacancy_on.status()["last_checkpoint"]["path"].startswith(f"{directory}/checkpoints/")
    refused = vacancy_on.run("submit", "--if-running", "duplicate", "--resume")
    assert refused.status == 2
    assert "is not a file:// URI" in refused.error()
    savepoint = vacancy_on.stop()
    assert savepoint.startswith(f"{directory}/savepoints/")

    vacancy_on.configure(window="4 s", state_backend="hashmap")
    python = ("-pyclientexec", sys.executable, "-py", ROOT / "jobs" / "flink" / "entry_point.py")
    run = cluster.flink("run", "-d", "-s", savepoint, *python, "--config", config_file(vacancy_on.directory))
    assert run.returncode == 0, run.stdout + run.stderr
    assert vacancy_on.status()["job_id"] in run.stdout
    vacancy_on.beat(4.5)
    vacancy_on.wait_for_oracle()
    assert vacancy_on.status()["restarts"] == 0
    shown = cluster.shows(vacancy_on.status()["job_id"])
    assert [place for place, text in shown.items() if S3_SECRET in text] == []
    assert any(directory in text for text in shown.values())
    vacancy_on.stop()


@long
@pytest.mark.timeout(600)
def test_application_mode_with_our_jars_in_lib(kafka: KafkaSettings, database: str, tmp_path: Path) -> None:
    """A cluster for this one job, which its job manager starts; nothing is sent along."""
    alone = FlinkCluster(task_managers=1, application=config_file(tmp_path))
    vacancy_on = Deployment(tmp_path, alone, kafka, database, ship=False)
    with alone:
        vacancy_on.beat(1)
        vacancy_on.wait_for_oracle()
        assert vacancy_on.status()["state"] == "RUNNING"
        assert vacancy_on.stop().startswith(f"file:{tmp_path}/savepoints/")
        # The job manager ends with its job.
        alone.job_manager.wait()


@long
@pytest.mark.timeout(600)
def test_a_topic_is_deleted_under_the_job(
    cluster: FlinkCluster, kafka: KafkaSettings, database: str, tmp_path: Path
) -> None:
    """The job says so, and reads the topic that is made anew."""
    vacancy_on = Deployment(tmp_path, cluster, kafka, database, window=timedelta(seconds=2), emit="200ms")
    vacancy_on.submit()
    vacancy_on.beat(3)
    vacancy_on.wait_for_oracle()
    topic = kafka.usage_topic
    admin = AdminClient(client_config(kafka))
    admin.delete_topics([topic])[topic].result(30)
    vacancy_on.wait_for_failure("a topic is gone")
    ensure_topics(kafka)
    vacancy_on.beat(2)
    vacancy_on.wait_for_oracle()
    vacancy_on.stop()
