"""The whole system, live, to be hurt: what the kill tests and the soak share.

A fleet at 1 Hz, an agent, a broker, a cluster of one JobManager and two TaskManagers with a ZooKeeper, and PostgreSQL
behind a network that can be cut::

    simulator, agent, witnesses -> broker -> TaskManagers -> proxy -> PostgreSQL
                                             JobManager, ZooKeeper
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import psutil
import psycopg2
from pydantic import SecretStr

from tests.harness.cluster import FlinkCluster
from tests.harness.installation import config_file, install
from tests.harness.process import Process, command_lines, vacancy, with_descendants
from tests.harness.proxy import Proxy
from tests.harness.servers import reachable_directory
from tests.harness.table import TABLE_SECONDS, differences_of_one, open_table, wait_for_table
from tests.harness.topic import Topic, own_topics
from tests.harness.waiting import wait_until
from tests.harness.watch import Watch
from tests.harness.witnesses import WITNESSES, Witnesses
from vacancy.connectors.kafka import dead_letters
from vacancy.jobs.flink.cluster import find_job
from vacancy.jobs.flink.rest import FlinkRest, Status
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local import settings_file
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas.errors import VacancyError

SUBMIT_SECONDS = 240.0
CHECKPOINT_DISK_BYTES = 1024 * 1024 * 1024
"""Many times what the checkpoints take."""
PASSWORD = "swordfish-4711"
"""The job's in the database."""


class Live:
    """The system; a context manager that leaves nothing running.

    Args:
        hosts: of the simulated fleet.
        poison_per_s: how many records that are no events go to the usage topic.
        window: the job's.
    """

    def __init__(self, hosts: int, poison_per_s: float, window: timedelta = timedelta(seconds=10)) -> None:
        self.hosts = hosts
        self.window_ms = int(window.total_seconds() * 1000)
        self._window = window
        self._poison_per_s = poison_per_s
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._start(stack)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack) -> None:
        self.directory = reachable_directory()
        stack.callback(shutil.rmtree, self.directory)
        self.checkpoints_dir = self.directory / "checkpoints"
        self.has_small_disk = stack.enter_context(small_disk(self.checkpoints_dir))
        self.broker = KafkaServer(self.directory / "kafka", 0, ensure_jars("kafka"))
        stack.callback(self.broker.stop)
        self.broker.start()
        self.postgres = PostgresServer(self.directory / "postgres")
        stack.callback(self.postgres.stop)
        self.postgres.start()
        self.network = stack.enter_context(Proxy(self.postgres.port))
        self.cluster = stack.enter_context(FlinkCluster(jars=True, high_availability=True))
        stack.enter_context(self.cluster.supervised())
        self._install()
        self.programs = {
            "simulator": self._program("simulate", "--hosts", str(self.hosts), "--interval", "1s"),
            "agent": self._program("agent"),
        }
        for program in self.programs.values():
            stack.enter_context(program)
        self.command_lines = self._submit()
        self.flink = FlinkRest(self.cluster.url)
        self.topic = stack.enter_context(closing(Topic(self.settings.kafka, 3 * self.window_ms)))
        self.witnesses = stack.enter_context(Witnesses(self.settings.kafka, self._poison_per_s))
        self.table = stack.enter_context(open_table(self.settings.postgres.reader_dsn))
        self.watch = stack.enter_context(Watch(self.settings.postgres.reader_dsn))
        self.watch.wait_until_fresh(self.hosts)

    def _install(self) -> None:
        job = {
            "name": "vacancy",
            "window": self._window,
            "checkpoint_interval": "5 s",
            "flink_url": self.cluster.url,
            "ship": False,
        }
        kafka = own_topics(self.broker.bootstrap_servers)
        settings = install(self.directory, kafka, self.postgres.owner_dsn, job)
        self.execute(f"CREATE ROLE job LOGIN PASSWORD '{PASSWORD}' IN ROLE vacancy_job")
        dsn = self.job_dsn(PASSWORD)
        update = {"postgres": settings.postgres.model_copy(update={"job_dsn": SecretStr(dsn)})}
        self.settings = settings.model_copy(update=update)
        self.config.write_text(settings_file.dumps(self.settings), encoding="utf-8")

    def _program(self, command: str, *arguments: str) -> Process:
        """A command of ours that goes on until it is ended."""
        log = self.directory / f"{command}.log"
        return Process(vacancy(command, *arguments, "--config", self.config), self.directory, log)

    def _submit(self) -> set[str]:
        """Submits the job; the command lines of all processes that this takes."""
        seen: set[str] = set()
        with self._program("job", "submit") as submitting:

            def ended() -> bool:
                seen.update(command_lines(with_descendants(submitting.pid)))
                return submitting.ended

            wait_until(ended, SUBMIT_SECONDS, lambda: f"the job is not submitted: {submitting.output}")
            assert submitting.process.returncode == 0, submitting.output
        return seen

    @property
    def config(self) -> Path:
        """Its settings file."""
        return config_file(self.directory)

    def job_dsn(self, password: str) -> str:
        """How the job reaches the database."""
        return f"postgresql://job:{password}@{self.postgres.host}:{self.network.port}/postgres"

    def execute(self, *statements: str) -> None:
        """Runs statements as the database's owner, each in a transaction of its own."""
        with closing(psycopg2.connect(self.postgres.owner_dsn)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)

    def status(self) -> Status:
        """How the job is."""
        return self.flink.status(find_job(self.flink, self.settings.job.name, None).job_id)

    def checkpoints(self) -> dict[str, Any]:
        """What Flink's REST interface says of the job's checkpoints."""
        answer: dict[str, Any] = self.cluster.ask(f"/jobs/{self.status().job.job_id}/checkpoints")
        return answer

    def wait_for_checkpoint(self, after_ms: float) -> None:
        """Waits until the job has completed a checkpoint that it began after a time, in ms since 1970."""
        latest: dict[str, Any] = {}

        def completed() -> bool:
            with suppress(OSError, VacancyError):  # the JobManager may be away
                latest.update(self.checkpoints()["latest"])
            return bool(latest.get("completed")) and latest["completed"]["trigger_timestamp"] > after_ms

        def complaint() -> str:
            why = (latest.get("failed") or {}).get("failure_message")
            return f"the job completes no checkpoint; the last one that failed did so for {why}"

        wait_until(completed, 2 * TABLE_SECONDS, complaint, every_s=0.2)

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Its living processes, by what they are."""
        found = {member.name: member.pid for member in self.cluster.members}
        found |= {name: program.pid for name, program in self.programs.items() if not program.ended}
        found |= {"broker": self.broker.child.pid or 0, "PostgreSQL": self.postgres.child.pid or 0}
        return {name: alive for name, pid in found.items() if (alive := with_descendants(pid))}

    def verify(self, compared: int | None = None) -> None:
        """Compares the table, as it is and live, with the oracle; then the dead letters and what was acknowledged.

        Each row must be what the oracle says of its newest event, and that no older than what was in the topic before.

        Args:
            compared: how many rows are compared, drawn at random, where all take the machine too long. Of all it is
                asked that they catch up.
        """
        self.topic.read()
        self.topic.forget()
        reached = {host: records[-1].append_ms for host, records in self.topic.hosts.items()}
        poison = set(self.topic.poison)

        def behind() -> list[str]:
            observed = self.table.observed_ms()
            return [host for host, ms in reached.items() if observed.get(host, 0) < ms]

        wait_until(lambda: not behind(), TABLE_SECONDS, "rows do not catch up with the topic")
        rows = self.table.rows()
        wait_until(lambda: poison <= self._dead_letters(), TABLE_SECONDS, "dead letters are missing")
        letters = self._dead_letters()
        # A broker that was silent may tell for a moment what the end was when it led.
        wait_until(lambda: not self._unread(rows), TABLE_SECONDS, "rows are of events that nobody reads in the topic")
        assert letters <= set(self.topic.poison), "a dead letter is none"
        assert rows.keys() <= self.topic.hosts.keys()
        wrong = []
        for host in rows if compared is None else random.sample(sorted(rows), min(compared, len(rows))):
            history = self.topic.history(host, rows[host]["observed_ms"] - 2 * self.window_ms)
            wrong += differences_of_one(rows[host], history, self.window_ms)
        assert not wrong, f"{len(wrong)} differences from the oracle: {wrong[:5]}"
        assert not self.watch.failures, self.watch.failures[:3]

    def _unread(self, rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Reads on; the hosts whose rows are of events beyond what was read."""
        self.topic.read()
        newest = {host: records[-1].append_ms for host, records in self.topic.hosts.items()}
        return [host for host, row in rows.items() if newest.get(host, 0) < row["observed_ms"]]

    def verify_at_rest(self) -> None:
        """Ends all that sends; the table then is exactly what the oracle says, and nothing acknowledged is missing."""
        for program in self.programs.values():
            program.stop()
        acknowledged = self.witnesses.finish()
        self.topic.read()
        fleet = {
            host: self.topic.history(host, records[-1].append_ms - 2 * self.window_ms)
            for host, records in self.topic.hosts.items()
        }
        wait_for_table(self.table, fleet, self.window_ms, self.witnesses.sender)
        missing = [place for place, value in acknowledged.items() if self.topic.witnessed.get(place) != hash(value)]
        seen = set(self.topic.witnessed.values())
        somewhere = [value for value in self.witnesses.sender.acknowledged_somewhere if hash(value) not in seen]
        assert not somewhere, f"acknowledged and not in the topic: {somewhere[:5]}"
        assert len(acknowledged) > WITNESSES
        assert not missing, f"acknowledged and not in the topic: {missing[:5]}"
        assert self._dead_letters() == set(self.topic.poison)
        assert not self.watch.failures, self.watch.failures[:3]

    def _dead_letters(self) -> set[tuple[int, int]]:
        return {(letter.partition or 0, letter.offset or 0) for letter in dead_letters.read(self.settings.kafka)}


@contextmanager
def small_disk(directory: Path) -> Iterator[bool]:
    """Makes a directory with a disk of its own, which can be filled; whether it has one, which takes root."""
    directory.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={CHECKPOINT_DISK_BYTES}", "vacancy-test", directory],
            check=False,
            capture_output=True,
        ).returncode
    )
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", directory], check=True)
