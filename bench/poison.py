"""What undecodable records cost: the job's throughput with none, 1 % and 10 % of them beside the same good records.

The production graph reads Kafka topics to their end: the decoder, the windows, the dead letters into Kafka, all but the
rows, which go to Flink's blackhole. The three topics hold the same good records, bad ones come on top. Their time
stamps go on by a second a round of the fleet, as live ones do, so windows fill and slide.

Start-up is left out: a run is timed from when two fifths of the good records have been decoded to the end of the job.
Rounds go there and back through the mixes, so that a slow minute of the machine meets all of them.

    python -m bench.poison
"""

from __future__ import annotations

import json
import os
import random
import re
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.request import urlopen

import click
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # public, but not in its __all__
from rich.table import Table

from bench.common import CONSOLE, OTHERS, cpu_seconds, save
from connectors.flink import production_edges
from connectors.kafka import client_config, ensure_topics, producer
from connectors.settings import KafkaSettings, PostgresSettings
from jobs import ports
from jobs.fleet import NS_PER_S, Fleet
from jobs.flink_jars import flink_jars
from jobs.jars import ensure_jars
from jobs.job import prepare_java
from jobs.kafka_server import KafkaServer
from jobs.simulate import UsageEncoder
from schemas.errors import VacancyError
from schemas.events import SINGLE_OBJECT_HEADER_BYTES as HEADER_BYTES
from topology.settings import JobSettings

HOSTS = 10_000
START_MS = 1_700_000_000_000
TIMED_FROM = 0.4
"""Share of the good records after which the clock starts: Java has compiled what it will."""
BIG_EVERY = 2_000
"""One in so many bad records is of 1 MiB."""
BIG_BYTES = 1 << 20
RUN_S = 600.0
_POLL_S = 0.1


class Mix(NamedTuple):
    """A topic's bad records, as a share of the good ones."""

    name: str
    share: float

    @property
    def topic(self) -> str:
        """Its topic."""
        return f"bench.{self.share:g}"


MIXES = (Mix("good alone", 0.0), Mix("1 % bad", 0.01), Mix("10 % bad", 0.1))


class Run(NamedTuple):
    """One run of the job over a topic."""

    good_per_s: float
    cpu_s_per_million: float
    dead_letters: int


@click.command()
@click.option("--records", type=click.IntRange(HOSTS), default=1_200_000, show_default=True, help="Good ones.")
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True)
@click.option("--save/--no-save", "saved", default=True, show_default=True)
def main(records: int, rounds: int, saved: bool) -> None:
    """Measures each mix in each round; prints a table, writes bench/results/poison.json."""
    runs: dict[Mix, list[Run]] = {mix: [] for mix in MIXES}
    with tempfile.TemporaryDirectory(prefix="vacancy-bench-") as name:
        prepare_java(Path(name) / "logs")
        cpu, start_s = cpu_seconds(), time.monotonic()
        server = KafkaServer(Path(name) / "kafka", 0, ensure_jars("kafka"))
        try:
            server.start()
            kafka = KafkaSettings(bootstrap_servers=server.bootstrap_servers)
            ensure_topics(kafka)
            with CONSOLE.status(f"filling {len(MIXES)} topics"):
                good, bad = _fill(kafka, records // HOSTS)
            with CONSOLE.status("warming up"):  # for Java, which all runs share
                _run(kafka, MIXES[0], good)
            for number in range(rounds):
                for mix in MIXES if number % 2 == 0 else reversed(MIXES):
                    with CONSOLE.status(f"round {number + 1} of {rounds}: {mix.name}"):
                        run = _run(kafka, mix, good)
                    if run.dead_letters != bad[mix]:
                        raise VacancyError(f"{mix.name}: {run.dead_letters} dead letters of {bad[mix]} bad records")
                    runs[mix].append(run)
                    CONSOLE.print(f"{mix.name:>10}: {run.good_per_s:>9,.0f} good records/s")
            others = cpu_seconds(cpu)[OTHERS] / (time.monotonic() - start_s)
        finally:
            server.stop()
    alone = runs[MIXES[0]]
    figures = [
        {
            "mix": mix.name,
            "bad_records": bad[mix],
            "good_per_s": round(statistics.median(run.good_per_s for run in of_mix)),
            "good_per_s_of_rounds": [round(run.good_per_s) for run in of_mix],
            # Within a round, since the machine changes from minute to minute.
            "to_good_alone": round(
                statistics.median(run.good_per_s / base.good_per_s for run, base in zip(of_mix, alone, strict=True)),
                3,
            ),
            "cpu_s_per_million_good": round(statistics.median(run.cpu_s_per_million for run in of_mix), 1),
        }
        for mix, of_mix in runs.items()
    ]
    CONSOLE.print(_table(figures))
    if saved:
        CONSOLE.print(save("poison", {"good_records": good, "others_cores_busy": round(others, 2), "mixes": figures}))


def _fill(kafka: KafkaSettings, fleet_rounds: int) -> tuple[int, dict[Mix, int]]:
    """Fills the topics; how many good records each holds, and how many bad ones."""
    config = {
        "message.timestamp.type": "CreateTime",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "max.message.bytes": str(2 * BIG_BYTES),
    }
    topics = [NewTopic(mix.topic, kafka.partitions, 1, config=config) for mix in MIXES]
    admin = AdminClient(client_config(kafka))
    for future in admin.create_topics(topics).values():
        future.result()
    sink = producer(kafka, queue_buffering_max_messages=400_000, linger_ms=20, message_max_bytes=2 * BIG_BYTES)
    chance = random.Random(0)  # noqa: S311  # no secret
    good, bad = 0, dict.fromkeys(MIXES, 0)
    for append_ms, key, value in good_records(fleet_rounds):
        good += 1
        for mix in MIXES:
            sink.produce(mix.topic, value, key, timestamp=append_ms)
            if chance.random() < mix.share:
                bad[mix] += 1
                payload = bad_payload(chance, value, bad[mix])
                sink.produce(mix.topic, payload, key, timestamp=append_ms)
        while len(sink) > 300_000:
            sink.poll(0.01)
    sink.flush()
    return good, bad


def good_records(fleet_rounds: int) -> Iterator[tuple[int, bytes, bytes]]:
    """(append time in ms, key, value) of a fleet that reports once a second."""
    fleet = Fleet(HOSTS, NS_PER_S, 1, START_MS)
    encoder = UsageEncoder()
    for tick in range(fleet_rounds * fleet.slices):
        now_ms = START_MS + fleet.tick_at_ns(tick) // 1_000_000
        for message in encoder.messages(fleet.advance(now_ms)):
            yield now_ms, message["key"], message["value"]


def bad_payload(chance: random.Random, good: bytes, number: int) -> bytes:
    """One of the kinds of bad records, each as often."""
    if number % BIG_EVERY == 0:
        return chance.randbytes(BIG_BYTES)
    kind = number % 5
    if kind == 0:
        return chance.randbytes(chance.randrange(1, 2 * len(good)))
    if kind == 1:
        return good[: chance.randrange(1, len(good))]
    if kind == 2:  # of a schema that nobody knows
        return good[:2] + chance.randbytes(HEADER_BYTES - 2) + good[HEADER_BYTES:]
    if kind == 3:  # the first text says that it is 1 GiB long
        return good[:HEADER_BYTES] + b"\x80\x80\x80\x80\x08" + good[HEADER_BYTES + 1 :]
    return b""


def _run(kafka: KafkaSettings, mix: Mix, good: int) -> Run:
    """Runs the job over a topic."""
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from topology.graph import Edges, build, configuration

    settings = JobSettings()
    port = ports.free_port()
    flink = configuration(settings)
    for key, value in {
        "pipeline.jars": ";".join(jar.as_uri() for jar in flink_jars()),
        "rest.address": ports.HOST,
        "rest.bind-port": str(port),
        "metrics.fetcher.update-interval": "100 ms",
    }.items():
        flink.set_string(key, value)
    statements = production_edges(
        kafka.model_copy(update={"usage_topic": mix.topic}),
        PostgresSettings().job_dsn,
        emit=settings.emit,
        idle_timeout=settings.idle_timeout,
        bounded=True,
    )
    edges = Edges([_without_database(statement) for statement in statements])
    environment = StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(flink))
    letters = _records(kafka, kafka.dead_letter_topic)
    client = build(environment, settings, edges).execute().get_job_client()
    url = f"http://{ports.HOST}:{port}/jobs/{client.get_job_id()}"
    deadline = time.monotonic() + RUN_S
    while (decoded := _decoded(url)) < TIMED_FROM * good:
        if time.monotonic() > deadline:
            raise VacancyError(f"{mix.name}: {decoded} of {good} records after {RUN_S:g} s")
        time.sleep(_POLL_S)
    start_s, start_cpu_s = time.monotonic(), cpu_seconds()["job JVM"]
    client.get_job_execution_result().result()
    elapsed_s, cpu_s = time.monotonic() - start_s, cpu_seconds()["job JVM"] - start_cpu_s
    timed = good - decoded
    return Run(timed / elapsed_s, cpu_s / timed * 1e6, _records(kafka, kafka.dead_letter_topic) - letters)


def _without_database(statement: str) -> str:
    """An edge as it is, unless it is a table of the database: that becomes a blackhole."""
    return re.sub(r"WITH \(.*'jdbc'.*\)", "WITH ('connector' = 'blackhole')", statement, flags=re.DOTALL)


def _decoded(url: str) -> int:
    """How many good records have gone on from the decoder."""
    with urlopen(url) as answer:  # noqa: S310  # our own http URL
        vertices = json.load(answer)["vertices"]
    return max((vertex["metrics"]["write-records"] for vertex in vertices), default=0)


def _records(kafka: KafkaSettings, topic: str) -> int:
    """How many records a topic holds."""
    with closing(Consumer(client_config(kafka) | {"group.id": "bench"})) as consumer:
        partitions = consumer.list_topics(topic).topics[topic].partitions
        return sum(consumer.get_watermark_offsets(TopicPartition(topic, number))[1] for number in partitions)


def _table(figures: list[dict[str, Any]]) -> Table:
    table = Table(title=f"The job's throughput, {os.cpu_count()} cores")
    for column in ("", "bad records", "good records/s", "to good alone", "CPU s per million"):
        table.add_column(column, justify="right")
    for row in figures:
        table.add_row(
            row["mix"],
            f"{row['bad_records']:,}",
            f"{row['good_per_s']:,}",
            f"{row['to_good_alone']:.2f}",
            f"{row['cpu_s_per_million_good']:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
