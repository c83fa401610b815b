"""A real guest from its claim to its end: QEMU, libvirt, the agent, a broker, the job and PostgreSQL.

The agent's interval is many times what may pass until something is seen, so that was sent for libvirt's events. The
table is looked at every 50 ms, and at no look may the guest count twice, or not at all between its claim and its end.
"""

from __future__ import annotations

import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import psycopg2
import pytest
from pydantic import SecretStr

from tests.harness.agent import Agent
from tests.harness.hypervisor import Hypervisor, running_hypervisor
from tests.harness.installation import config_file, install
from tests.harness.job import Job
from tests.harness.servers import new_database
from tests.harness.topic import own_topics
from tests.harness.waiting import wait_until
from vacancy.connectors.scheduler.adapter import Scheduler
from vacancy.connectors.scheduler.request import Request
from vacancy.connectors.settings import AgentSettings
from vacancy.jobs.local import settings_file

if TYPE_CHECKING:
    from vacancy.jobs.local.kafka_server import KafkaServer
    from vacancy.jobs.local.postgres_server import PostgresServer

EMIT = timedelta(milliseconds=500)
INTERVAL = timedelta(seconds=20)
SEEN_WITHIN_S = EMIT.total_seconds() + 1.0
LOOK_EVERY_S = 0.05
LIMIT_S = 60.0
# One statement, so one snapshot: the row and the claims are of one moment. What is held is what is not free of what the
# host can promise, which may itself change, as the memory of a virtual machine does.
LOOK = """
SELECT s.vcpus_capacity - s.vcpus_free, s.memory_mb_capacity - s.memory_mb_free, s.disk_gb_capacity - s.disk_gb_free,
  s.instances, %(consumer)s::uuid = ANY (s.recent_consumers),
  (SELECT settled_at IS NOT NULL FROM vacancy.claim WHERE consumer = %(consumer)s::uuid)
FROM vacancy.schedulable_host AS s WHERE s.reason IS NULL
"""


class Seen(NamedTuple):
    """What a look at the table sees of the host; settled is None while there is no claim."""

    vcpus_held: int
    memory_mb_held: int
    disk_gb_held: int
    instances: int
    listed: bool
    settled: bool | None


class Watch:
    """Looks every 50 ms, on its own; ``looks`` is when and what."""

    def __init__(self, dsn: SecretStr, consumer: uuid.UUID) -> None:
        self.looks: list[tuple[float, Seen]] = []
        self._dsn = dsn.get_secret_value()
        self._consumer = str(consumer)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._end.set()
        self._thread.join(LIMIT_S)

    def _watch(self) -> None:
        with closing(psycopg2.connect(self._dsn)) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            while not self._end.wait(LOOK_EVERY_S):
                cursor.execute(LOOK, {"consumer": self._consumer})
                self.looks += [(time.monotonic(), Seen(*row)) for row in cursor.fetchall()]

    @property
    def now(self) -> Seen | None:
        """The newest look."""
        return self.looks[-1][1] if self.looks else None

    def wait_for(self, **expected: Any) -> float:
        """Waits until something is seen, and returns when it was."""
        began = len(self.looks)

        def first() -> float | None:
            return next(
                (at for at, seen in self.looks[began:] if {**seen._asdict(), **expected} == seen._asdict()), None
            )

        wait_until(first, LIMIT_S, f"{expected} is not seen: {self.now}")
        at = first()
        assert at is not None
        return at

    def story(self) -> list[Seen]:
        """What was seen one after the other, each once."""
        return [seen for seen, _ in groupby(seen for _, seen in self.looks)]


class Life(NamedTuple):
    """What was seen of a guest, and in how many seconds after its start and its end."""

    story: list[Seen]
    started_s: float
    killed_s: float


@pytest.fixture(scope="module")
def hypervisor() -> Iterator[Hypervisor]:
    with running_hypervisor() as hypervisor:
        yield hypervisor


@pytest.fixture(scope="module")
def life(
    hypervisor: Hypervisor,
    kafka_broker: KafkaServer,
    postgres_server: PostgresServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> Life:
    """Claimed, started and killed under the eyes of the agent and the job."""
    directory = tmp_path_factory.mktemp("guest")
    with new_database(postgres_server) as database:
        settings = install(
            directory,
            own_topics(kafka_broker.bootstrap_servers),
            database,
            {"emit": EMIT, "window": timedelta(minutes=2)},
        )
        agent_settings = AgentSettings(
            host_id="hypervisor", collector="libvirt", libvirt_uri=hypervisor.uri, interval=INTERVAL
        )
        config_file(directory).write_text(settings_file.dumps(settings.model_copy(update={"agent": agent_settings})))
        consumer, guest = uuid.uuid4(), Request(vcpus=1, memory_mb=64, disk_gb=1)
        document = hypervisor.guest(
            "guest", str(consumer), vcpus=guest.vcpus, memory_mb=guest.memory_mb, disk_gb=guest.disk_gb
        )
        scheduler = Scheduler(settings.postgres.scheduler_dsn)
        with (
            Job(directory) as job,
            Agent(directory) as agent,
            Watch(settings.postgres.reader_dsn, consumer) as watch,
        ):
            job.wait_until_ready()
            watch.wait_for(instances=0)

            scheduler.claim(guest, [consumer])
            watch.wait_for(settled=False)
            hypervisor.virsh("create", str(document))
            started = time.monotonic()
            started_s = watch.wait_for(instances=1) - started
            killed = time.monotonic()
            os.kill(hypervisor.qemu_pid("guest"), signal.SIGKILL)
            killed_s = watch.wait_for(instances=0) - killed
            print(f"seen {started_s:.2f} s after its start, gone {killed_s:.2f} s after its end")
            agent.stop()
            job.stop()
        scheduler.close()
        return Life(watch.story(), started_s, killed_s)


@pytest.mark.timeout(600)
def test_a_guest_counts_once_from_its_claim_to_its_end(life: Life) -> None:
    assert life.story == [
        Seen(0, 0, 0, instances=0, listed=False, settled=None),
        Seen(1, 64, 1, instances=0, listed=False, settled=False),
        Seen(1, 64, 1, instances=1, listed=True, settled=True),
        Seen(0, 0, 0, instances=0, listed=True, settled=True),
    ]


@pytest.mark.timing
@pytest.mark.timeout(600)
def test_a_guest_is_seen_at_once(life: Life) -> None:
    assert life.started_s <= SEEN_WITHIN_S
    assert life.killed_s <= SEEN_WITHIN_S
