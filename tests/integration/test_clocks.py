"""The running job and a real broker: clocks that were wrong, keys that move, topics made anew, transactions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psycopg2
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but not in its __all__
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    ResourceType,
)
from psycopg2.extensions import connection as Connection  # noqa: N812  # a class that psycopg2 names like a function

from tests.harness.histories import BASE_MS, encode_usage, usage_event
from tests.harness.installation import config_file, install
from tests.harness.job import Job
from tests.harness.process import Process, vacancy
from tests.harness.rows import query
from tests.harness.topic import own_topics
from tests.harness.waiting import wait_until
from vacancy import NoHostFitsError, Request, Scheduler, SchedulerSettings
from vacancy.connectors.kafka.client import client_config, ensure_topics, open_transactions
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.commands.doctor import diagnose
from vacancy.jobs.settings import Settings
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer

ROW_SECONDS = 120.0
AHEAD_S = 1800
UNAGED = SchedulerSettings(max_age=timedelta(hours=1))
"""On a busy machine no host goes stale meanwhile."""
INVENTORY: dict[str, Any] = {
    "agent_version": "1",
    "agent_time": BASE_MS,
    "boot_id": "boot",
    "zone": None,
    "status": "ENABLED",
    "status_reason": None,
    "inventories": {
        name: {
            "total": 16 * unit,
            "reserved": 0,
            "min_unit": 1,
            "max_unit": 16 * unit,
            "step_size": 1,
            "allocation_ratio": 1.0,
        }
        for name, unit in (("VCPU", 1), ("MEMORY_MB", 1024), ("DISK_GB", 100))
    },
    "traits": [],
    "aggregates": [],
    "numa_cells": [],
    "pci_pools": [],
    "reporting_interval_ms": 1000,
    "source": "host",
    "allocated": {},
}


class Fleet:
    """Hosts that send what a test says, each event a second after the last by the host's own clock."""

    def __init__(self, kafka: KafkaSettings, owner: Connection) -> None:
        self.kafka, self.owner = kafka, owner
        self._producer = self.producer()
        self._admin = AdminClient(client_config(kafka))
        self._usage, self._inventory = Encoder(Event.USAGE), Encoder(Event.INVENTORY)
        self._seconds = 0

    def producer(self, **more: Any) -> Producer:
        return Producer(
            client_config(self.kafka) | {"linger.ms": 0} | {name.replace("_", "."): v for name, v in more.items()}
        )

    def stamps(self, of: str, kind: Literal["CreateTime", "LogAppendTime"]) -> None:
        """Sets whose time a topic's records have."""
        resource = ConfigResource(
            ResourceType.TOPIC,
            of,
            incremental_configs=[
                ConfigEntry("message.timestamp.type", kind, incremental_operation=AlterConfigOpType.SET)
            ],
        )
        for future in self._admin.incremental_alter_configs([resource]).values():
            future.result(30)

    def add_partitions(self, of: str, total: int) -> None:
        for future in self._admin.create_partitions([NewPartitions(of, total)]).values():
            future.result(30)
        wait_until(
            lambda: len(self._admin.list_topics(of, timeout=10).topics[of].partitions) == total,
            30,
            f"{of} has no {total} partitions",
        )
        self._producer = self.producer()  # the former one learns of them some time

    def make_anew(self, topic: str) -> None:
        """Deletes a topic and makes it again: its offsets begin again."""
        for future in self._admin.delete_topics([topic]).values():
            future.result(30)
        wait_until(lambda: topic not in self._admin.list_topics(timeout=10).topics, 30, f"{topic} is not deleted")
        ensure_topics(self.kafka)
        self._producer = self.producer()

    def usage(self, host: str, vcpus_free: int, *, ahead_s: float = 0, partition: int = 0, **fields: Any) -> None:
        self.send(self.kafka.usage_topic, host, self.usage_of(host, vcpus_free, **fields), ahead_s, partition)

    def usage_of(self, host: str, vcpus_free: int, **fields: Any) -> bytes:
        self._seconds += 1
        return encode_usage(
            usage_event(
                host_id=host,
                vcpus_capacity=16,
                vcpus_allocated=16 - vcpus_free,
                memory_mb_capacity=16_384,
                memory_mb_available=16_384,
                monotonic_ns=(1_000 + self._seconds) * 1_000_000_000,
                **fields,
            )
        )

    def inventory(self, host: str, *, ahead_s: float = 0, partition: int = 0, **fields: Any) -> None:
        self.send(self.kafka.inventory_topic, host, self.inventory_of(host, **fields), ahead_s, partition)

    def inventory_of(self, host: str, **fields: Any) -> bytes:
        return self._inventory.encode(INVENTORY | {"host_id": host, "name": host} | fields)

    def retire(self, host: str, *, ahead_s: float = 0) -> None:
        self.send(self.kafka.inventory_topic, host, None, ahead_s, 0)

    def send(self, topic: str, host: str, value: bytes | None, ahead_s: float, partition: int) -> None:
        self._producer.produce(topic, value, host, partition, timestamp=round((time.time() + ahead_s) * 1000))
        assert self._producer.flush(30) == 0

    def row(self, host: str) -> dict[str, Any] | None:
        """The host as schedulers see it."""
        found = query(
            self.owner,
            "SELECT vcpus_free, reason, extract(epoch FROM age)::float8, status FROM vacancy.schedulable_host"
            " WHERE host_id = %s",
            host,
        )
        return dict(zip(("free", "reason", "age", "status"), found[0], strict=True)) if found else None

    def wait_for(self, host: str, **expected: Any) -> dict[str, Any]:
        """Waits until a host is as expected."""
        wait_until(
            lambda: (row := self.row(host)) and expected.items() <= row.items(),
            ROW_SECONDS,
            lambda: f"{host} is {self.row(host)}, should be {expected}",
        )
        row = self.row(host)
        assert row is not None
        return row


@pytest.fixture
def installation(kafka_broker: KafkaServer, database: str, tmp_path: Path) -> Settings:
    kafka = own_topics(kafka_broker.bootstrap_servers, partitions=1)
    return install(tmp_path, kafka, database, {"emit": "100ms", "checkpoint_interval": "500ms"})


@pytest.fixture
def fleet(installation: Settings, database: str) -> Iterator[Fleet]:
    with closing(psycopg2.connect(database)) as owner:
        owner.autocommit = True
        query(owner, "SELECT set_config('vacancy.max_age', '1 h', false)")
        yield Fleet(installation.kafka, owner)


@pytest.mark.timeout(900)
def test_a_clock_that_was_ahead_holds_no_row(installation: Settings, fleet: Fleet, tmp_path: Path) -> None:
    """One life of the job, a second one from its checkpoint and a third without: each case is a host of its own."""
    kafka = installation.kafka
    with Job(tmp_path) as job:
        job.wait_until_ready()
        for host in ("usage", "inventory", "retired", "stays", "moves"):
            fleet.inventory(host)
            fleet.usage(host, 4)
        for host in ("usage", "inventory", "retired", "stays", "moves"):
            fleet.wait_for(host, free=4, reason=None)

        for topic in (kafka.usage_topic, kafka.inventory_topic):
            fleet.stamps(topic, "CreateTime")
        for host in ("usage", "stays", "moves"):
            fleet.usage(host, 16, ahead_s=AHEAD_S)
        fleet.inventory("inventory", ahead_s=AHEAD_S)
        fleet.retire("retired", ahead_s=AHEAD_S)
        # A row from the future is out, and says so, and nothing knows its age.
        for host in ("usage", "stays", "moves"):
            fleet.wait_for(host, free=16, reason="clock ahead", age=None)
        fleet.wait_for("inventory", reason="clock ahead")
        wait_until(lambda: fleet.row("retired") is None, ROW_SECONDS, "the host is not retired")
        with (
            closing(Scheduler(installation.postgres.scheduler_dsn, UNAGED)) as scheduler,
            pytest.raises(NoHostFitsError) as refused,
        ):
            scheduler.claim(Request(vcpus=1, memory_mb=1, disk_gb=1))
        assert refused.value.refusal.ruled_out == {"clock ahead": 4}
        clocks = [finding for finding in diagnose(installation) if finding.check == "clocks"]
        assert [finding.remedy is not None for finding in clocks] == [True]
        assert "of 4 hosts" in clocks[0].message

        for topic in (kafka.usage_topic, kafka.inventory_topic):
            fleet.stamps(topic, "LogAppendTime")
        for _ in range(6):
            fleet.usage("usage", 0)
        row = fleet.wait_for("usage", free=0, reason=None)
        assert 0 <= row["age"] < ROW_SECONDS
        fleet.inventory("inventory", status="DISABLED", status_reason="full")
        fleet.wait_for("inventory", reason="disabled: full")
        fleet.inventory("retired")
        # Usage that is written before the host is back is late and left out, and no second event follows here.
        fleet.wait_for("retired", reason="no usage yet")
        fleet.usage("retired", 3)
        fleet.wait_for("retired", free=3, reason=None)

        # The host's key moves to another partition, while the row is in the future.
        for topic in (kafka.usage_topic, kafka.inventory_topic):
            fleet.add_partitions(topic, 2)
        fleet.usage("moves", 1, partition=1)
        fleet.inventory("moves", partition=1, status_reason="moved")
        fleet.wait_for("moves", free=1, reason=None)
        job.wait_for_checkpoint()
        fleet.wait_for("stays", free=16, reason="clock ahead")

    settled = {host: fleet.row(host) for host in ("usage", "inventory", "retired", "stays", "moves")}

    def unchanged() -> None:
        """Once the job has read to the end, as a host that came last shows."""
        for host, before in settled.items():
            after = fleet.row(host)
            assert before and after
            assert {key: after[key] for key in ("free", "reason", "status")} == {
                key: before[key] for key in ("free", "reason", "status")
            }, host

    for number, start in enumerate((Job, fresh_job)):
        with start(tmp_path) as job:
            job.wait_until_ready()
            for partition in (0, 1):
                probe = f"probe-{number}-{partition}"
                fleet.inventory(probe, partition=partition)
                fleet.usage(probe, 5, partition=partition)
                fleet.wait_for(probe, free=5, reason=None)
            unchanged()
            if start is fresh_job:
                # And after all that hosts are heard: also one that has booted in between.
                fleet.usage("stays", 2)
                fleet.wait_for("stays", free=2, reason=None)
                fleet.usage("moves", 2, partition=1, boot_id="boot-2")
                fleet.wait_for("moves", free=2, reason=None)
                # A topic that is made anew under the running job: offsets begin again, in the partition of the row.
                fleet.make_anew(kafka.usage_topic)
                fleet.usage("usage", 7)
                fleet.wait_for("usage", free=7, reason=None)


def fresh_job(directory: Path) -> Job:
    """The job without its checkpoints."""
    job = Job(directory)
    Process.__init__(
        job, vacancy("job", "run", "--fresh", "--config", config_file(directory)), directory, directory / "job.log"
    )
    return job


@pytest.mark.timeout(600)
def test_what_a_transaction_aborts_never_was(installation: Settings, fleet: Fleet, tmp_path: Path) -> None:
    kafka = installation.kafka
    transactional = fleet.producer(transactional_id=f"{kafka.usage_topic}.t", transaction_timeout_ms=60_000)
    transactional.init_transactions(30)

    def in_transaction(end: Callable[[], None] | None, host: str) -> None:
        transactional.begin_transaction()
        transactional.produce(kafka.inventory_topic, fleet.inventory_of(host), host, 0)
        transactional.produce(kafka.usage_topic, fleet.usage_of(host, 16), host, 0)
        transactional.flush(30)
        if end is not None:
            end()

    with Job(tmp_path) as job:
        job.wait_until_ready()
        in_transaction(transactional.abort_transaction, "ghost")
        in_transaction(transactional.commit_transaction, "committed")
        fleet.wait_for("committed", free=16, reason=None)
        assert fleet.row("ghost") is None
        assert open_transactions(kafka, watch_s=0.1) == []

        # One that is open holds up what comes behind it, and nothing shows that it may not do.
        in_transaction(None, "ghost")
        fleet.usage("committed", 3)
        (usage, inventory) = sorted(
            open_transactions(kafka, watch_s=0.5), key=lambda problem: "inventory" in problem.what
        )
        assert f"partition 0 of topic {kafka.usage_topic} is read to offset " in usage.what
        assert f"partition 0 of topic {kafka.inventory_topic} is read to offset " in inventory.what
        found = [finding.message for finding in diagnose(installation) if finding.check == "topics"]
        assert usage.what in found
        assert (fleet.row("committed") or {})["free"] == 16
        transactional.abort_transaction()
        fleet.wait_for("committed", free=3, reason=None)
        assert fleet.row("ghost") is None
