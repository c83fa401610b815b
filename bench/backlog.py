"""Shared by the backlog benchmarks: topics full of a fleet's events, and timed runs of the job over one of them.

Each round of the fleet's records is one second later than the one before, as with live hosts, so windows fill and
slide. A run is timed from the moment when a part of the records has been decoded to the end of the job, which leaves
out the start.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, but not in its __all__
from pydantic import SecretStr

from bench.common import cpu_seconds
from vacancy.connectors.flink.edges import production_edges
from vacancy.connectors.kafka.client import client_config, ensure_topics, producer
from vacancy.connectors.settings import KafkaSettings
from vacancy.jobs import ports
from vacancy.jobs.flink.job_jars import flink_jars
from vacancy.jobs.jars import ensure_jars
from vacancy.jobs.local.kafka_server import KafkaServer
from vacancy.jobs.simulator.fleet import NS_PER_S, Fleet
from vacancy.jobs.simulator.simulation import UsageEncoder
from vacancy.schemas.errors import VacancyError
from vacancy.topology.settings import JobSettings

START_MS = 1_700_000_000_000
TIMED_FROM = 0.4
"""Share of the records after which the timing starts: by then Java has compiled the hot code."""
RUN_S = 900.0
MAX_MESSAGE_BYTES = 2 * 1024 * 1024
_POLL_S = 0.1


class Record(NamedTuple):
    """A usage event of a topic; append_ms is ms since 1970."""

    append_ms: int
    key: bytes
    value: bytes


class Run(NamedTuple):
    """One run of the job over a topic."""

    events_per_s: float
    cpu_s_per_million: float


@contextmanager
def broker(directory: Path) -> Iterator[KafkaSettings]:
    """A new broker with the product's topics."""
    server = KafkaServer(directory / "kafka", 0, ensure_jars("kafka"))
    try:
        server.start()
        kafka = KafkaSettings(bootstrap_servers=server.bootstrap_servers)
        ensure_topics(kafka)
        yield kafka
    finally:
        server.stop()


def fleet_events(hosts: int, rounds: int) -> Iterator[Record]:
    """The events of a fleet that reports once a second."""
    fleet = Fleet(hosts, NS_PER_S, 1, START_MS)
    encoder = UsageEncoder()
    for tick in range(rounds * fleet.slices):
        now_ms = START_MS + fleet.tick_at_ns(tick) // 1_000_000
        for message in encoder.messages(fleet.advance(now_ms)):
            yield Record(now_ms, message["key"], message["value"])


def fill(kafka: KafkaSettings, topics: Sequence[str], records: Iterable[tuple[str, Record]]) -> dict[str, int]:
    """Creates and fills topics; returns the number of records in each."""
    config = {
        "message.timestamp.type": "CreateTime",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(MAX_MESSAGE_BYTES),
    }
    admin = AdminClient(client_config(kafka))
    for future in admin.create_topics(
        [NewTopic(topic, kafka.partitions, 1, config=config) for topic in topics]
    ).values():
        future.result()
    sink = producer(kafka, queue_buffering_max_messages=400_000, linger_ms=20, message_max_bytes=MAX_MESSAGE_BYTES)
    count = dict.fromkeys(topics, 0)
    for topic, event in records:
        sink.produce(topic, event.value, event.key, timestamp=event.append_ms)
        count[topic] += 1
        while len(sink) > 300_000:
            sink.poll(0.01)
    sink.flush()
    return count


def run_job(
    kafka: KafkaSettings,
    topic: str,
    events: int,
    settings: JobSettings,
    *,
    job_dsn: SecretStr | None = None,
    graph: Callable[[Any, JobSettings, list[str]], Any] | None = None,
) -> Run:
    """Runs the production graph over a topic to its end.

    Args:
        kafka: the broker.
        topic: the topic.
        events: the number of good events in the topic.
        settings: the job's settings.
        job_dsn: the database; None: rows go into Flink's blackhole.
        graph: builds another statement set instead of the production graph's, from environment, settings and edges.
    """
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from vacancy.topology.graph import Edges, build, configuration

    port = ports.free_port()
    flink = configuration(settings)
    options: Mapping[str, str] = {
        "pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars()),
        "rest.address": ports.HOST,
        "rest.bind-port": str(port),
        "metrics.fetcher.update-interval": "100 ms",
    }
    for key, value in options.items():
        flink.set_string(key, value)
    statements = production_edges(
        kafka.model_copy(update={"usage_topic": topic}),
        job_dsn or SecretStr("postgresql://nobody@localhost/none"),
        emit=settings.emit,
        idle_timeout=settings.idle_timeout,
        bounded=True,
    )
    if job_dsn is None:
        statements = [into_blackhole(statement) for statement in statements]
    environment = StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(flink))
    inserts = graph(environment, settings, statements) if graph else build(environment, settings, Edges(statements))
    client = inserts.execute().get_job_client()
    url = f"http://{ports.HOST}:{port}/jobs/{client.get_job_id()}"
    deadline = time.monotonic() + RUN_S
    while (done := _gone_on(url)) < TIMED_FROM * events:
        if time.monotonic() > deadline:
            raise VacancyError(f"{topic}: {done} of {events} events after {RUN_S:g} s")
        time.sleep(_POLL_S)
    start_s, start_cpu_s = time.monotonic(), cpu_seconds()["job JVM"]
    client.get_job_execution_result().result()
    elapsed_s, cpu_s = time.monotonic() - start_s, cpu_seconds()["job JVM"] - start_cpu_s
    return Run((events - done) / elapsed_s, cpu_s / (events - done) * 1e6)


def into_blackhole(statement: str) -> str:
    """An edge, unchanged unless it is a table of the database, which becomes a blackhole."""
    return re.sub(r"WITH \(.*'postgres'.*\)", "WITH ('connector' = 'blackhole')", statement, flags=re.DOTALL)


def records_of(kafka: KafkaSettings, topic: str) -> int:
    """The number of records in a topic."""
    with closing(Consumer(client_config(kafka) | {"group.id": "bench"})) as consumer:
        partitions = consumer.list_topics(topic).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions)


def _gone_on(url: str) -> int:
    """The number of good events that the decoder has emitted."""
    with urlopen(url) as answer:  # noqa: S310  # our own http URL
        vertices: list[dict[str, Any]] = json.load(answer)["vertices"]
    return max((vertex["metrics"]["write-records"] for vertex in vertices), default=0)
