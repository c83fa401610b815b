"""Whatever is killed: what was acknowledged stays, the table catches up by itself, and no row goes back."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.installation import config_file, install
from tests.harness.job import Job, ask_flink
from tests.harness.oracle import Record
from tests.harness.servers import reachable_directory
from tests.harness.stack import Up, all_parts
from tests.harness.table import TABLE_SECONDS, Table, differences_of_one, open_table, wait_for_table
from tests.harness.topic import TopicRecord, histories, own_topics, read_topic
from tests.harness.waiting import wait_until
from tests.harness.witnesses import WITNESSES, Witnesses
from vacancy.jobs.settings import Settings, load_settings

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

HOSTS = 1000
WINDOW = timedelta(seconds=10)
WINDOW_MS = 10_000


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory that PostgreSQL's user can reach."""
    parent = reachable_directory()
    yield parent / "stack"
    shutil.rmtree(parent)


@pytest.mark.timeout(1200)
def test_kill_of_the_whole_stack_loses_nothing(directory: Path) -> None:
    """kill -9 of `vacancy up` amid 1,000 hosts at 1 Hz, with a client of our own that sees what is acknowledged."""
    arguments = ("--hosts", str(HOSTS), "--interval", "1s", "--window", f"{WINDOW_MS}ms")
    with Up(directory, *arguments) as first:
        first.wait_until_up()
        settings = load_settings(config_file(directory))
        usage = settings.kafka.usage_topic
        with open_table(settings.postgres.reader_dsn) as table, Witnesses(settings.kafka) as witnesses:
            newest = Newest(table)
            wait_until(lambda: len(newest.look()) >= HOSTS + WITNESSES + 1, TABLE_SECONDS, "hosts are missing")
            before, parts = newest.look(), all_parts(directory)
            first.process.kill()
            first.process.wait()

            with Up(directory, *arguments) as second:
                second.wait_until_up(newest.look)
                assert not [process for process in parts if process.is_running()]
                again = load_settings(config_file(directory))
                assert (again.kafka, again.postgres) == (settings.kafka, settings.postgres)
                # Some hosts of a simulated fleet fall silent, so not all of them come back.
                wait_until(
                    lambda: sum(ms > before.get(host, 0) for host, ms in newest.look().items()) > 0.95 * len(before),
                    TABLE_SECONDS,
                    "the table does not go on",
                )
                acknowledged = witnesses.finish()
                newest.wait_for(read_topic(settings.kafka, usage))
                rows = table.rows()
                topic = read_topic(settings.kafka, usage)
                second.stop()

    assert len(acknowledged) > 100
    assert missing(acknowledged, topic) == []
    fleet = histories(topic)
    assert rows.keys() == fleet.keys()
    assert [wrong for history in fleet.values() for wrong in numbering(history)] == []
    for host, row in rows.items():
        assert differences_of_one(row, fleet[host], WINDOW_MS) == []


@pytest.mark.timeout(900)
def test_the_job_survives_its_broker_and_its_database(
    kafka_broker: KafkaServer, directory: Path, tmp_path: Path
) -> None:
    """Both are killed and started again under the running job, while events go on."""
    from vacancy.jobs.local.postgres_server import PostgresServer

    postgres = PostgresServer(directory)
    postgres.start()
    kafka = own_topics(kafka_broker.bootstrap_servers)
    settings = install(tmp_path, kafka, postgres.owner_dsn, {"window": WINDOW, "checkpoint_interval": "1s"})
    try:
        with (
            Job(tmp_path) as job,
            open_table(settings.postgres.reader_dsn) as table,
            Witnesses(kafka) as witnesses,
        ):
            newest = Newest(table)
            job.wait_for_checkpoint()
            newest.wait_for(read_topic(kafka, kafka.usage_topic))
            kafka_broker.child.kill()
            kafka_broker.start()
            newest.wait_for(read_topic(kafka, kafka.usage_topic))

            postgres.child.kill()
            wait_until(lambda: has_failed(settings), TABLE_SECONDS, "the job does not notice")
            postgres.start()
            newest.wait_for(read_topic(kafka, kafka.usage_topic))
            # It runs on: what it failed for is over.
            over_ms = time.time() * 1000
            job.wait_for_checkpoint()
            newest.wait_for(read_topic(kafka, kafka.usage_topic))
            found = ask_flink(settings)
            assert found.state == "RUNNING"
            assert [failure for failure in found.failures if failure.at_ms > over_ms] == []

            acknowledged = witnesses.finish()
            topic = read_topic(kafka, kafka.usage_topic)
            assert missing(acknowledged, topic) == []
            wait_for_table(table, histories(topic), WINDOW_MS, witnesses.sender)
            newest.look()
            job.stop()
    finally:
        postgres.stop()


def has_failed(settings: Settings) -> bool:
    """Whether the job has failed, or even its cluster, which it then starts again."""
    try:
        return ask_flink(settings).failures != []
    except OSError:
        return True


class Newest:
    """The newest event that each host's row was seen to hold; a row that is older than it was fails the test."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._looked_at = -1.0
        self._observed_ms: dict[str, int] = {}

    def look(self) -> dict[str, int]:
        """Looks at the table, but for five times a second at most; ms since 1970 by host."""
        if time.monotonic() > self._looked_at + 0.2:
            now = self._table.observed_ms()
            if now:  # else the server is away
                back = {host: (ms, now.get(host)) for host, ms in self._observed_ms.items() if now.get(host, 0) < ms}
                assert not back, f"rows went back or away, first {list(back.items())[:3]}"
            self._observed_ms = self._observed_ms | now
            self._looked_at = time.monotonic()
        return dict(self._observed_ms)

    def wait_for(self, topic: list[TopicRecord]) -> None:
        """Waits until the table has reached what is in a topic."""
        reached = {host: seen[-1].append_ms for host, seen in histories(topic).items()}

        def behind() -> list[str]:
            observed = self.look()
            return [host for host, ms in reached.items() if observed.get(host, 0) < ms]

        wait_until(lambda: not behind(), TABLE_SECONDS, f"{len(behind())} of {len(reached)} hosts do not catch up")


def missing(acknowledged: dict[tuple[int, int], bytes | None], topic: list[TopicRecord]) -> list[tuple[int, int]]:
    """Where something was acknowledged that the topic does not hold there."""
    stored = {(record.partition, record.offset): record.value for record in topic}
    return [place for place, value in acknowledged.items() if stored.get(place) != value]


def numbering(history: list[Record]) -> list[str]:
    """Where the events of a host's boots do not count without a gap; an agent that starts again counts from 0."""
    last: dict[str, int] = {}
    wrong = []
    for record in history:
        boot, seq = record.event["boot_id"], record.event["seq"]
        if seq not in (0, last.get(boot, -1) + 1):
            wrong.append(f"{seq} of {record.event['host_id']}, {boot} after {last.get(boot)} at {record.append_ms} ms")
        last[boot] = seq
    return wrong
