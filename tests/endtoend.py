"""What the end-to-end tests share: a topic as histories, the table as the oracle says it, the job as a process."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

import psutil
import psycopg2
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from psycopg2 import extensions
from pydantic import SecretStr

from tests import oracle
from tests.histories import decode_usage
from tests.oracle import Record
from tests.waiting import wait_until
from vacancy.connectors.kafka.client import client_config, ensure_topics, producer
from vacancy.connectors.postgres.migrations import migrate
from vacancy.connectors.settings import KafkaSettings, PostgresSettings
from vacancy.jobs import ports
from vacancy.jobs.local import settings_file
from vacancy.jobs.local.processes import end_leftovers, leftovers
from vacancy.jobs.settings import LocalSettings, Settings
from vacancy.topology.settings import JobSettings

READY_SECONDS = 180.0
"""Flink's start takes some 10 s on two idle cores, and several times that on busy ones."""
END_SECONDS = 60.0
TABLE_SECONDS = 120.0
_UUIDS = extensions.new_array_type((2951,), "uuid[]", psycopg2.STRING)


class TopicRecord(NamedTuple):
    """A record as it stands in its topic; append_ms is the broker's time in ms since 1970."""

    partition: int
    offset: int
    append_ms: int
    value: bytes | None


def own_topics(bootstrap_servers: str, partitions: int = 2) -> KafkaSettings:
    """Topics that no other test has; made by :func:`install`."""
    name = uuid.uuid4().hex
    return KafkaSettings(
        bootstrap_servers=bootstrap_servers,
        usage_topic=f"{name}.usage",
        inventory_topic=f"{name}.inventory",
        dead_letter_topic=f"{name}.dead-letters",
        partitions=partitions,
    )


def install(directory: Path, kafka: KafkaSettings, owner_dsn: str, job: Mapping[str, Any]) -> Settings:
    """Makes topics and tables, and writes ``vacancy.toml``; all of the job's files lie in the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    ensure_topics(kafka)
    dsn = SecretStr(owner_dsn)
    migrate(dsn)
    settings = Settings().model_copy(
        update={
            "kafka": kafka,
            "postgres": PostgresSettings(owner_dsn=dsn, job_dsn=dsn, scheduler_dsn=dsn, reader_dsn=dsn),
            "job": JobSettings(checkpoint_dir=(directory / "checkpoints").as_uri(), **job),
            "local": LocalSettings(flink_port=ports.free_port()),
        }
    )
    config_file(directory).write_text(settings_file.dumps(settings), encoding="utf-8")
    return settings


def config_file(directory: Path) -> Path:
    """The settings file of an installation."""
    return directory / "vacancy.toml"


def vacancy(*arguments: str | Path) -> list[str]:
    """A command line of ours, for subprocess."""
    return [sys.executable, "-m", "vacancy", *map(str, arguments)]


_OF_JAVA = frozenset({"FLINK_LOG_DIR", "LOG4J_PROPERTIES", "JVM_ARGS", "HADOOP_CLASSPATH"})
"""What tests with Flink in this very process have set, by prepare_java()."""


def own_environment(**more: str) -> dict[str, str]:
    """The environment without settings of whoever runs the tests."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("VACANCY_") and name not in _OF_JAVA
    } | more


def what_an_agent_says(directory: Path, *arguments: str | Path) -> tuple[list[str], str]:
    """The first three lines on an agent's stderr, and what follows once it is asked to end, which it does well."""
    with subprocess.Popen(
        vacancy("agent", *arguments),
        cwd=directory,
        env=own_environment(),
        stderr=subprocess.PIPE,
        text=True,
    ) as agent:
        try:
            assert agent.stderr is not None
            lines = [agent.stderr.readline() for _ in range(3)]
            agent.send_signal(signal.SIGTERM)
            rest = agent.communicate(timeout=END_SECONDS)[1]
        finally:
            agent.kill()
    assert agent.returncode == 0
    return lines, rest


class Ended:
    """How a command ended."""

    def __init__(self, directory: Path, *arguments: str | Path, seconds: float = 60) -> None:
        result = subprocess.run(
            vacancy(*arguments),
            cwd=directory,
            env=own_environment(),
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
        self.status, self.output, self.errors = result.returncode, result.stdout, result.stderr

    def error(self) -> str:
        """The one line of stderr."""
        assert re.fullmatch(r"vacancy: [^\n]+\n", self.errors), self.errors
        return self.errors.removeprefix("vacancy: ").rstrip()


class Agent:
    """`vacancy agent`; a context manager that ends it well."""

    def __init__(self, directory: Path) -> None:
        self._log = directory / "agent.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                vacancy("agent", "--config", config_file(directory)),
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=own_environment(),
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()

    def said(self, pattern: str) -> list[str]:
        """Its lines that a pattern matches."""
        assert self._process.poll() is None, self._log.read_text()
        return re.findall(rf".*{pattern}.*", self._log.read_text())

    def stop(self) -> str:
        """Ends it in good order; all that it said."""
        self._process.terminate()
        assert self._process.wait(END_SECONDS) == 0, self._log.read_text()
        return self._log.read_text()


class Job:
    """`vacancy job run` in a process group of its own; a context manager that kills what is left at the end."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._log = directory / "job.log"
        self._log_start = self._log.stat().st_size if self._log.exists() else 0
        self._former_checkpoints = self._checkpoints()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                vacancy("job", "run", "--config", config_file(directory)),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=directory,
                env=own_environment(),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()

    @property
    def output(self) -> str:
        """What it said since it was started."""
        return self._log.read_bytes()[self._log_start :].decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Waits until it says that it runs."""

        def ready() -> bool:
            assert self.process.poll() is None, f"the job ended: {self.output}"
            return "ready" in self.output.splitlines()

        wait_until(ready, READY_SECONDS, f"the job is not ready; see {self._log}")

    def wait_for_checkpoint(self) -> None:
        """Waits until it has completed one more checkpoint, which it does when all of it works."""
        wait_until(
            lambda: self._checkpoints() - self._former_checkpoints,
            READY_SECONDS,
            f"the job makes no checkpoint; see {self._log}",
        )
        self._former_checkpoints |= self._checkpoints()

    def _checkpoints(self) -> set[Path]:
        return set(self._directory.glob("checkpoints/*/chk-*/_metadata"))

    def stop(self) -> None:
        """Ends it in good order; nothing of its group is left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(END_SECONDS) == 0, self.output
        wait_until(lambda: not group(self.process.pid), END_SECONDS, f"left over: {group(self.process.pid)}")

    def kill(self) -> None:
        """Kills its whole group at once, as a crash of the machine would."""
        if self.process.poll() is None or group(self.process.pid):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        wait_until(lambda: not group(self.process.pid), END_SECONDS, f"left over: {group(self.process.pid)}")


def group(group_id: int) -> list[psutil.Process]:
    """The living processes of a process group."""
    found = []
    for process in psutil.process_iter(["status"]):
        try:
            if os.getpgid(process.pid) == group_id and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process)
        except ProcessLookupError:
            continue
    return found


class Up:
    """`vacancy up` on a directory, in a session of its own; a context manager that leaves nothing running.

    Args:
        directory: the stack's.
        arguments: further flags.
        prefix: a command that runs it, such as ``ip netns exec``.
    """

    def __init__(self, directory: Path, *arguments: str, prefix: Sequence[str] = ()) -> None:
        self._directory = directory
        self._output = directory.with_name(f"{directory.name}-{uuid.uuid4().hex[:8]}.output")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, *vacancy("up", "--data-dir", directory, *arguments)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=directory.parent,
                env=own_environment(),
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        end_leftovers(self._directory, seconds=1)

    @property
    def output(self) -> str:
        """What it said."""
        return self._output.read_text(encoding="utf-8")

    def wait_until_up(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Waits until its first row is in the table, looking at something else meanwhile."""
        self.wait_for("Settings file  ", meanwhile)

    def wait_for(self, text: str, meanwhile: Callable[[], object] = lambda: None) -> None:
        """Waits until it says something."""

        def said() -> bool:
            assert self.process.poll() is None, f"vacancy up ended: {self.output}"
            meanwhile()
            return text in self.output

        wait_until(said, 2 * READY_SECONDS, f"vacancy up does not say {text!r}")

    def stop(self) -> None:
        """Ends it in good order; no part of it is left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(END_SECONDS) == 0, self.output
        assert all_parts(self._directory) == []


def all_parts(directory: Path) -> list[psutil.Process]:
    """The living processes of a stack."""
    parts = leftovers(directory)
    for process in psutil.process_iter(["name"]):
        try:
            # PostgreSQL's processes overwrite their environment, but they work in their data directory.
            if process.info["name"] == "postgres" and Path(process.cwd()).is_relative_to(directory):
                parts.append(process)
        except psutil.Error:
            continue
    return [process for process in dict.fromkeys(parts) if process.is_running()]


class FlinkFailure(NamedTuple):
    """What a job failed for, in one line, and when, in ms since 1970."""

    at_ms: int
    text: str


class FlinkJob(NamedTuple):
    """What Flink's REST interface says of the one job of a cluster; each failure made it restart."""

    state: str
    failures: list[FlinkFailure]


def ask_flink(settings: Settings) -> FlinkJob:
    """The job's state, and the failures that it went through; Flink answers as of up to 3 s ago."""
    jobs = f"http://{ports.HOST}:{settings.local.flink_port}/jobs"
    (job,) = _get(f"{jobs}/overview")["jobs"]
    history = _get(f"{jobs}/{job['jid']}/exceptions")["exceptionHistory"]
    assert not history["truncated"]
    failures = [FlinkFailure(entry["timestamp"], entry["stacktrace"].splitlines()[0]) for entry in history["entries"]]
    return FlinkJob(job["state"], failures)


def _get(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310  # our own
        return json.load(response)


def read_topic(kafka: KafkaSettings, topic: str) -> list[TopicRecord]:
    """Every record up to the present end of a topic, in order within a partition."""
    config = {"group.id": "test", "enable.auto.commit": False, "fetch.wait.max.ms": 50}
    consumer = Consumer(client_config(kafka) | config)
    found: list[TopicRecord] = []
    try:
        ends = {}
        for number in consumer.list_topics(topic, timeout=30).topics[topic].partitions:
            start, end = _offsets(consumer, TopicPartition(topic, number))
            if end > start:
                ends[number] = end
        consumer.assign([TopicPartition(topic, number, 0) for number in ends])
        deadline = time.monotonic() + 60
        while ends:
            assert time.monotonic() < deadline, f"partitions {sorted(ends)} of {topic} were not read to their end"
            for message in consumer.consume(10_000, timeout=0.5):
                assert message.error() is None, message.error()
                partition, offset = message.partition(), message.offset()
                assert partition is not None and offset is not None
                if offset < ends.get(partition, 0):
                    found.append(TopicRecord(partition, offset, message.timestamp()[1], message.value()))
                if offset >= ends.get(partition, math.inf) - 1:
                    ends.pop(partition)
    finally:
        consumer.close()
    return found


def _offsets(consumer: Consumer, partition: TopicPartition) -> tuple[int, int]:
    answers: list[tuple[int, int]] = []

    def answered() -> bool:
        try:
            answers.append(consumer.get_watermark_offsets(partition, timeout=10))
        except KafkaException:
            return False  # a broker that has just started may not know yet that it leads
        return True

    wait_until(answered, 60, f"the broker does not tell the end of {partition}")
    return answers[0]


def count_records(kafka: KafkaSettings, topic: str) -> int:
    """How many records a topic has taken; nothing may have been deleted from it."""
    consumer = Consumer(client_config(kafka) | {"group.id": "test"})
    try:
        partitions = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        return sum(_offsets(consumer, TopicPartition(topic, number))[1] for number in partitions)
    finally:
        consumer.close()


def histories(records: Iterable[TopicRecord]) -> dict[str, list[Record]]:
    """The usage events of a topic by host, in the order of their partition; what does not decode is left out."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        try:
            event = decode_usage(record.value or b"")
        except ValueError:
            continue
        found[event["host_id"]].append(Record(record.append_ms, event))
    return dict(found)


class Sender:
    """Produces to the usage topic, and remembers what the broker acknowledged: partition, offset and value."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer: Producer = producer(kafka, linger_ms=0)
        self.acknowledged: dict[tuple[int, int], bytes | None] = {}

    def send(
        self,
        values: Iterable[bytes | None],
        key: str | None = None,
        partition: int = -1,
        headers: dict[str, str | bytes | None] | None = None,
    ) -> None:
        """Hands records over, to the key's partition or to one named."""
        for value in values:
            while True:
                try:
                    self._producer.produce(
                        self._kafka.usage_topic,
                        value,
                        key,
                        partition,
                        on_delivery=self._delivered(value),
                        headers=headers,
                    )
                    break
                except BufferError:
                    self._producer.poll(0.1)

    def _delivered(self, value: bytes | None) -> Any:
        def remember(error: object, message: Any) -> None:
            if error is None:
                self.acknowledged[message.partition(), message.offset()] = value

        return remember

    def poll(self, seconds: float) -> None:
        """Serves acknowledgements for so long."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._producer.poll(left)

    def flush(self, seconds: float = 240) -> None:
        """Waits until everything is acknowledged."""
        assert self._producer.flush(seconds) == 0, f"not acknowledged after {seconds:g} s"


class Table:
    """Reads vacancy.host; survives a server that goes away."""

    def __init__(self, dsn: SecretStr) -> None:
        self._dsn = dsn.get_secret_value()
        self._connection: Any = None

    def observed_ms(self) -> dict[str, int]:
        """When each host was last seen; empty while the server is away."""
        rows = self._query("SELECT host_id, round(extract(epoch FROM observed_at) * 1000)::bigint FROM vacancy.host")
        return dict(rows)

    def rows(self) -> dict[str, dict[str, Any]]:
        """Each host's row as the oracle has it."""
        rows = self._query(
            "SELECT to_jsonb(h) - '{observed_at,window_start,window_end,recent_consumers}'::text[],"
            " round(extract(epoch FROM observed_at) * 1000)::bigint, recent_consumers, window_end = observed_at"
            " FROM vacancy.host h"
        )
        assert all(ends_with_event for *_, ends_with_event in rows)
        return {
            row["host_id"]: row | {"observed_ms": ms, "recent_consumers": consumers} for row, ms, consumers, _ in rows
        }

    def close(self) -> None:
        """Closes the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _query(self, statement: str) -> list[tuple[Any, ...]]:
        try:
            if self._connection is None:
                self._connection = psycopg2.connect(self._dsn, connect_timeout=5)
                self._connection.autocommit = True
                extensions.register_type(_UUIDS, self._connection)
            with self._connection.cursor() as cursor:
                cursor.execute(statement)
                return list(cursor.fetchall())
        except (psycopg2.OperationalError, psycopg2.InterfaceError):
            self.close()
            return []


@contextmanager
def open_table(dsn: SecretStr) -> Iterator[Table]:
    """The table, for as long as the context lasts."""
    table = Table(dsn)
    try:
        yield table
    finally:
        table.close()


def differences(row: Mapping[str, Any] | None, expected: Mapping[str, Any]) -> list[str]:
    """How a row of the table differs from the oracle's, which may be nothing; rates may differ by rounding."""
    if row is None:
        return [f"{expected['host_id']} has no row"]
    return [
        f"{expected['host_id']}.{name} is {row[name]}, should be {value}"
        for name, value in expected.items()
        if not _same(row[name], value)
    ]


def differences_of_one(row: Mapping[str, Any], history: Sequence[Record], window_ms: int) -> list[str]:
    """How a live row differs from what the oracle says of its host's events with the row's time, the last or another.

    Of events with one append time, as after an outage, the row of one may be there before that of the last.
    """
    found = [differences(row, each) for each in oracle.rows_at(history, window_ms, row["observed_ms"])]
    if not found:
        ends_ms = [record.append_ms for record in history[:: max(1, len(history) - 1)]]
        return [f"{row['host_id']} is at {row['observed_ms']} ms, and no event of it; its first and last: {ends_ms}"]
    return next((none for none in found if not none), found[0])


def _same(value: Any, right: Any) -> bool:
    if isinstance(right, float) and value is not None:  # a float that is whole comes as an integer
        return math.isclose(value, right, rel_tol=1e-9)
    return bool(value == right)


def wait_for_table(table: Table, fleet: Mapping[str, Sequence[Record]], window_ms: int, sender: Sender) -> None:
    """Waits until the table is exactly what the oracle says, and names the first differences otherwise."""
    expected = {host_id: row for host_id, history in fleet.items() if (row := oracle.newest_row(history, window_ms))}
    newest = {host_id: row["observed_ms"] for host_id, row in expected.items()}
    found: list[str] = ["nothing was read yet"]

    def settled() -> bool:
        sender.poll(0.2)
        observed = table.observed_ms()
        if observed != newest:
            behind = [host_id for host_id, ms in newest.items() if observed.get(host_id) != ms]
            found[:] = [
                f"{len(behind)} of {len(newest)} hosts are not at their newest event, first "
                f"{[(host_id, newest[host_id], observed.get(host_id)) for host_id in behind[:3]]}"
            ]
            return False
        rows = table.rows()
        found[:] = [line for host_id, row in expected.items() for line in differences(rows.get(host_id), row)]
        return not found

    deadline = time.monotonic() + TABLE_SECONDS
    while not settled():
        assert time.monotonic() < deadline, f"after {TABLE_SECONDS:g} s: {len(found)} differences: {found[:5]}"
