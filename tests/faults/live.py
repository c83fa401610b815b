"""The whole system, live, to be hurt: what the kill tests and the soak share.

A fleet at 1 Hz, an agent, a broker, a cluster of one JobManager and two TaskManagers with a ZooKeeper, and PostgreSQL
behind a network that can be cut::

    simulator, agent, witnesses -> broker -> TaskManagers -> proxy -> PostgreSQL
                                             JobManager, ZooKeeper
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import statistics
import subprocess
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import psycopg2
from confluent_kafka import Consumer, KafkaException, TopicPartition
from pydantic import SecretStr

from tests.cluster import FlinkCluster
from tests.conftest import reachable_directory
from tests.endtoend import (
    TABLE_SECONDS,
    Table,
    config_file,
    differences_of_one,
    install,
    open_table,
    own_environment,
    own_topics,
    vacancy,
    wait_for_table,
)
from tests.faults.witnesses import POISON, WITNESSES, Witnesses
from tests.histories import decode_usage
from tests.oracle import Record
from tests.proxy import Proxy
from tests.waiting import wait_until
from vacancy.connectors.kafka.client import client_config
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs.commands import dead_letters
from vacancy.jobs.flink.cluster import find_job
from vacancy.jobs.flink.rest import FlinkRest, Status, explained
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local import settings_file
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.local.postgres_server import PostgresServer
from vacancy.schemas.errors import VacancyError

FRESH_SECONDS = 3.0
"""Half of the rows are no older than this while all is well: a host reports each second, and emit is another."""
END_SECONDS = 30.0
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
            "simulator": Program(self, "simulate", "--hosts", str(self.hosts), "--interval", "1s"),
            "agent": Program(self, "agent"),
        }
        for program in self.programs.values():
            stack.callback(program.stop)
            program.start()
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

    def _submit(self) -> set[str]:
        """Submits the job; the command lines of all processes that this takes."""
        seen: set[str] = set()
        with (self.directory / "submit.log").open("w+b") as log:
            process = subprocess.Popen(
                vacancy("job", "submit", "--config", self.config),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=own_environment(),
            )
            while process.poll() is None:
                seen |= command_lines(with_descendants(process.pid))
                time.sleep(0.05)
            log.seek(0)
            assert process.returncode == 0, log.read().decode()
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
        deadline = time.monotonic() + 2 * TABLE_SECONDS
        latest: dict[str, Any] = {}
        while not latest.get("completed") or latest["completed"]["trigger_timestamp"] <= after_ms:
            why = (latest.get("failed") or {}).get("failure_message")
            assert time.monotonic() < deadline, (
                f"the job completes no checkpoint; the last that failed did so for {why}"
            )
            time.sleep(0.05)
            with suppress(OSError, VacancyError):  # the JobManager may be away
                latest = self.checkpoints()["latest"]

    def faults(self) -> list[str]:
        """What can be done to it, of FAULTS."""
        return [fault for fault in FAULTS if fault != FULL_DISK or self.has_small_disk]

    def processes(self) -> dict[str, list[psutil.Process]]:
        """Its living processes, by what they are."""
        found = {member.name: member.pid for member in self.cluster.members}
        found |= {name: program.pid for name, program in self.programs.items()}
        found |= {"broker": self.broker.child.pid or 0, "PostgreSQL": self.postgres.child.pid or 0}
        return {name: alive for name, pid in found.items() if (alive := with_descendants(pid))}

    def verify(self) -> None:
        """Compares the table, as it is and live, with the oracle; then the dead letters and what was acknowledged.

        Each row must be what the oracle says of its newest event, and that no older than what was in the topic before.
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
        self.topic.read()
        assert letters <= set(self.topic.poison), "a dead letter is none"
        assert rows.keys() <= self.topic.hosts.keys()
        wrong = []
        for host, row in rows.items():
            wrong += differences_of_one(row, self.topic.history(host), self.window_ms)
        assert not wrong, f"{len(wrong)} differences from the oracle: {wrong[:5]}"
        assert not self.watch.failures, self.watch.failures[:3]

    def verify_at_rest(self) -> None:
        """Ends all that sends; the table then is exactly what the oracle says, and nothing acknowledged is missing."""
        for program in self.programs.values():
            program.stop()
        acknowledged = self.witnesses.finish()
        self.topic.read()
        fleet = {host: self.topic.history(host) for host in self.topic.hosts}
        wait_for_table(self.table, fleet, self.window_ms, self.witnesses.sender)
        missing = [place for place, value in acknowledged.items() if self.topic.witnessed.get(place) != hash(value)]
        assert len(acknowledged) > WITNESSES
        assert not missing, f"acknowledged and not in the topic: {missing[:5]}"
        assert self._dead_letters() == set(self.topic.poison)
        assert not self.watch.failures, self.watch.failures[:3]

    def _dead_letters(self) -> set[tuple[int, int]]:
        return {(letter.partition or 0, letter.offset or 0) for letter in dead_letters.read(self.settings.kafka)}


class Program:
    """A command of ours that goes on until it is ended."""

    def __init__(self, live: Live, *arguments: str) -> None:
        self._directory = live.directory
        self._arguments = vacancy(*arguments, "--config", live.config)
        self._log = live.directory / f"{arguments[0]}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """Its process id; 0 if it does not run."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    def start(self) -> None:
        """Starts it, or starts it again."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments, stdout=log, stderr=subprocess.STDOUT, cwd=self._directory, env=own_environment()
            )

    def kill(self) -> None:
        """kill -9."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """Ends it in good order."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(END_SECONDS)


class Raw(NamedTuple):
    """A record of a host; append_ms is the broker's time in ms since 1970."""

    append_ms: int
    value: bytes


class Topic:
    """Follows the usage topic; keeps the newest records of each host, undecoded, so that it can go on for hours.

    Args:
        kafka: the broker and the topic.
        keep_ms: how far the records of a host reach back from its newest one after :meth:`forget`; more than a window
            and a step.
    """

    def __init__(self, kafka: KafkaSettings, keep_ms: int) -> None:
        self.hosts: defaultdict[str, deque[Raw]] = defaultdict(deque)
        self.poison: list[tuple[int, int]] = []
        """Where the records are that are no events: partition and offset."""
        self.witnessed: dict[tuple[int, int], int] = {}
        """Of the witnesses' records and the poison: the hash of each, by partition and offset."""
        self.records = 0
        self._keep_ms = keep_ms
        self._consumer = Consumer(client_config(kafka) | {"group.id": "test", "enable.auto.commit": False})
        self._next = dict.fromkeys(range(kafka.partitions), 0)
        self._name = kafka.usage_topic
        self._consumer.assign([TopicPartition(self._name, number, 0) for number in self._next])

    def close(self) -> None:
        """Reads no more."""
        self._consumer.close()

    def read(self) -> None:
        """Reads on to what is the end now."""
        ends: dict[int, int] = {}

        def asked() -> bool:
            try:
                for number in self._next:
                    partition = TopicPartition(self._name, number)
                    ends[number] = self._consumer.get_watermark_offsets(partition, timeout=10)[1]
            except KafkaException:
                return False  # a broker that has just started may not know yet that it leads
            return True

        def at_the_end() -> bool:
            for message in self._consumer.consume(10_000, timeout=0.1):
                if message.error() is None:
                    self._take(message)
            return all(self._next[number] >= end for number, end in ends.items())

        wait_until(asked, TABLE_SECONDS, f"the broker does not tell the ends of {self._name}")
        wait_until(at_the_end, TABLE_SECONDS, f"{self._name} is not read to its end")

    def forget(self) -> None:
        """Forgets the records that are not needed for rows of what is newest now, or newer.

        Reading forgets nothing: when a host that was silent reports again, its row stays at the old event for a moment,
        and is compared with that.
        """
        for records in self.hosts.values():
            while records[0].append_ms < records[-1].append_ms - self._keep_ms:
                records.popleft()

    def history(self, host: str) -> list[Record]:
        """What is kept of a host."""
        return [Record(raw.append_ms, decode_usage(raw.value)) for raw in self.hosts[host]]

    def _take(self, message: Any) -> None:
        key, value, place = message.key().decode(), message.value(), (message.partition(), message.offset())
        self._next[place[0]] = place[1] + 1
        self.records += 1
        if key == POISON or key.startswith("witness"):
            self.witnessed[place] = hash(value)
        if key == POISON:
            self.poison.append(place)
            return
        self.hosts[key].append(Raw(message.timestamp()[1], value))


class Look(NamedTuple):
    """What the table showed: at seconds of time.monotonic(), ms since 1970, seconds."""

    at_s: float
    newest_ms: int
    median_ms: float
    median_age_s: float
    hosts: int


@dataclass(frozen=True)
class Outage:
    """How the table went through something.

    Attributes:
        without_rows_s: longest time in which no host's row moved on.
        median_age_s: how old half of the rows were at most, at the worst moment.
        seconds: until it was over.
    """

    without_rows_s: float
    median_age_s: float
    seconds: float

    def __str__(self) -> str:
        """One line."""
        return (
            f"{self.without_rows_s:.1f} s without fresh rows, median age up to {self.median_age_s:.1f} s, "
            f"over after {self.seconds:.1f} s"
        )


@dataclass
class Watch:
    """Looks at the table ten times a second, past the network that is cut; a context manager.

    A row that goes back in time is a failure.
    """

    dsn: SecretStr
    failures: list[str] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    _observed_ms: dict[str, int] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, condition: Callable[[Look], bool]) -> None:
        """Waits until the last look was such."""
        deadline = time.monotonic() + 2 * TABLE_SECONDS
        while not (self.looks and condition(self.looks[-1])):
            assert time.monotonic() < deadline, f"the table does not come right; last {self.looks[-1:]}"
            self._stop.wait(0.05)

    def wait_until_fresh(self, hosts: int = 1) -> None:
        """Waits until half of the rows are fresh, and there are so many."""
        self.wait_for(
            lambda look: look.hosts >= hosts and look.median_age_s + time.monotonic() - look.at_s < FRESH_SECONDS
        )

    def since(self, start_s: float) -> Outage:
        """How the table went through what began at a time of time.monotonic()."""
        looks = [look for look in self.looks if look.at_s > start_s - 1]
        gap_s, moved = 0.0, looks[0]
        for look in looks:
            if look.newest_ms > moved.newest_ms:
                gap_s, moved = max(gap_s, look.at_s - moved.at_s), look
        now_s = time.monotonic()
        return Outage(max(gap_s, now_s - moved.at_s), max(look.median_age_s for look in looks), now_s - start_s)

    def _watch(self) -> None:
        with open_table(self.dsn) as table:
            while not self._stop.wait(0.1):
                self._look(table)

    def _look(self, table: Table) -> None:
        now = table.observed_ms()
        if not now:
            return  # the server is away
        before = self._observed_ms
        back = [(host, ms, now.get(host)) for host, ms in before.items() if now.get(host, 0) < ms]
        if back:
            self.failures.append(f"rows went back or away, first {back[:3]}")
        self._observed_ms = now
        median_ms = statistics.median(now.values())
        age_s = time.time() - median_ms / 1000
        self.looks.append(Look(time.monotonic(), max(now.values()), median_ms, age_s, len(now)))


def with_descendants(pid: int) -> list[psutil.Process]:
    """A process and all below it; empty if it is gone, or pid is 0."""
    try:
        process = psutil.Process(pid) if pid else None
        return [process, *process.children(recursive=True)] if process else []
    except psutil.NoSuchProcess:
        return []


def command_lines(processes: Iterable[psutil.Process]) -> set[str]:
    """What those that are still there were started with."""
    found = set()
    for process in processes:
        with suppress(psutil.Error):
            found.add(" ".join(process.cmdline()))
    return found


def memory_mib(processes: Mapping[str, list[psutil.Process]]) -> dict[str, float]:
    """What processes hold, in MiB by name; what several share counts once (PSS)."""
    found = {}
    for name, group in processes.items():
        total = 0
        for process in group:
            with suppress(psutil.Error):
                total += process.memory_full_info().pss
        found[name] = total / 2**20
    return found


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


def wait_until_time(at_s: float) -> None:
    """Waits until a time of time.monotonic(): what takes its time, as a cut of so many seconds does."""
    wait_until(lambda: time.monotonic() >= at_s, END_SECONDS + max(0.0, at_s - time.monotonic()), "time stands still")


def kill_a_task_manager(live: Live) -> None:
    """kill -9 of the one that has most tasks; the cluster's supervisor starts it again."""
    free = {manager["id"]: manager["freeSlots"] for manager in live.cluster.ask("/taskmanagers")["taskmanagers"]}
    min(live.cluster.task_managers, key=lambda member: free.get(member.resource_id, math.inf)).kill()


def kill_the_job_manager(live: Live) -> None:
    """kill -9; the next one goes on by what ZooKeeper knows."""
    live.cluster.job_manager.kill()


def kill_the_broker(live: Live) -> None:
    """kill -9, and a new start."""
    live.broker.child.kill()
    live.broker.start()


def kill_the_database_in_mid_commit(live: Live) -> None:
    """kill -9 of the server and the session of the job that is at its commit, and a new start."""
    live.execute("ALTER SYSTEM SET commit_delay = 100000", "ALTER SYSTEM SET commit_siblings = 0")
    live.execute("SELECT pg_reload_conf()")
    with closing(psycopg2.connect(live.postgres.owner_dsn)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            found: list[int] = []

            def at_its_commit() -> bool:
                # All it does takes less than these 60 ms, but for the commit, which now waits 100 ms.
                cursor.execute(
                    "SELECT pid FROM pg_stat_activity WHERE usename = 'job' AND state = 'active'"
                    " AND backend_xid IS NOT NULL AND clock_timestamp() > query_start + interval '60 ms'"
                )
                found[:] = [pid for (pid,) in cursor.fetchall()]
                return bool(found)

            wait_until(at_its_commit, TABLE_SECONDS, "the job commits nothing")
            for pid in found:
                os.kill(pid, signal.SIGKILL)
            live.postgres.child.kill()
    live.postgres.start()
    live.execute("ALTER SYSTEM RESET commit_delay", "ALTER SYSTEM RESET commit_siblings", "SELECT pg_reload_conf()")


def kill_what_sends(live: Live) -> None:
    """kill -9 of the simulator and of the agent, and a new start."""
    for program in live.programs.values():
        program.kill()
    for program in live.programs.values():
        program.start()


def cut_the_network(live: Live, seconds: float = 30.0) -> None:
    """The network between cluster and database, for so long; nobody is told."""
    live.network.cut()
    wait_until_time(time.monotonic() + seconds)
    live.network.mend()


def fill_the_checkpoint_disk(live: Live) -> None:
    """Until a checkpoint has failed."""
    failed, completed = (live.checkpoints()["counts"][name] for name in ("failed", "completed"))
    assert live.has_small_disk
    filler = live.checkpoints_dir / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1024 * 1024, 4096):
            with suppress(OSError):
                while file.write(bytes(size)) == size:
                    pass
    wait_until(
        lambda: live.checkpoints()["counts"]["failed"] > failed, TABLE_SECONDS, "no checkpoint fails on a full disk"
    )
    filler.unlink()
    wait_until(lambda: live.checkpoints()["counts"]["completed"] > completed, TABLE_SECONDS, "no checkpoint completes")


def revoke_rights(live: Live) -> None:
    """The job's to write the table, until its status says so."""
    restarts = live.status().restarts
    live.execute("REVOKE INSERT, UPDATE ON vacancy.host FROM vacancy_job")

    def told() -> bool:
        status = live.status()
        failure = explained(status.last_failure.message) if status.last_failure else ""
        return status.restarts > restarts and all(
            part in failure for part in ("the database refuses its rows", "permission denied for table host")
        )

    try:
        wait_until(told, TABLE_SECONDS, "the job's status does not say that the database refuses its rows")
    finally:
        live.execute("GRANT INSERT, UPDATE ON vacancy.host TO vacancy_job")


FULL_DISK = "the checkpoint disk full"
FAULTS = {
    "a TaskManager killed": kill_a_task_manager,
    "the JobManager killed": kill_the_job_manager,
    "the broker killed": kill_the_broker,
    "PostgreSQL killed in mid-commit": kill_the_database_in_mid_commit,
    "simulator and agent killed": kill_what_sends,
    "the network to PostgreSQL cut for 30 s": cut_the_network,
    FULL_DISK: fill_the_checkpoint_disk,
    "the job's rights revoked": revoke_rights,
}


def go_through(live: Live, fault: str) -> Outage:
    """Does it to the system and waits until that is over: how the table went through it.

    It is over when half of the hosts have rows of what they sent afterwards, fresh ones, and the job has completed a
    checkpoint that it began afterwards.
    """
    live.watch.wait_until_fresh()
    start_s = time.monotonic()
    FAULTS[fault](live)
    over_ms = time.time() * 1000

    live.watch.wait_for(lambda look: look.median_ms > over_ms)
    live.wait_for_checkpoint(over_ms)
    live.watch.wait_until_fresh()
    return live.watch.since(start_s)
