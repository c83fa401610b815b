"""The alternative of 2013 to the job: one plain Python process that keeps a table of the newest event of each host.

It reads the usage topic from its current end or its start, decodes one event after the other, keeps each host's newest
event and upserts the changed hosts every ``emit``, all in one thread. It has no windows (`*_free_min`), no rates, no
dead letters, no inventory, no checkpoint and no second core, and it does not read while it writes.

    python bench/baseline.py --config vacancy.toml --emit 1s
"""

from __future__ import annotations

import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import psycopg2
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, TopicPartition
from psycopg2.extras import execute_values

from vacancy.connectors.kafka.client import client_config
from vacancy.jobs.options import DurationType
from vacancy.jobs.settings import load_settings
from vacancy.schemas.codec import decode

TABLE = "bench.host"
COLUMNS = (
    "host_id",
    "observed_at",
    "vcpus_capacity",
    "vcpus_free",
    "memory_mb_capacity",
    "memory_mb_free",
    "memory_mb_available",
    "disk_gb_capacity",
    "disk_gb_free",
    "disk_gb_available",
    "instances",
    "recent_consumers",
)
_NOT_KNOWN = ("window_start", "window_end", "samples", "vcpus_free_min", "memory_mb_free_min", "disk_gb_free_min")
MAKE_TABLE = f"""
CREATE SCHEMA IF NOT EXISTS bench;
DROP TABLE IF EXISTS {TABLE};
CREATE TABLE {TABLE} (LIKE vacancy.host INCLUDING ALL) WITH (fillfactor = 48);
ALTER TABLE {TABLE} {", ".join(f"ALTER {column} DROP NOT NULL" for column in _NOT_KNOWN)};
"""
_UPSERT = f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES %s ON CONFLICT (host_id) DO UPDATE SET " + ", ".join(
    f"{column} = EXCLUDED.{column}" for column in COLUMNS[1:]
)
_TEMPLATE = f"({', '.join(['%s'] * (len(COLUMNS) - 1))}, %s::uuid[])"
_BATCH = 1000


@click.command()
@click.option("--config", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--emit", type=DurationType(), required=True)
@click.option("--from-start", is_flag=True, help="Start with the topic's first event.")
def main(config: Path, emit: timedelta, from_start: bool) -> None:
    """Keeps the table until it is killed; after each write prints a line with the number of events so far."""
    settings = load_settings(config)
    topic = settings.kafka.usage_topic
    consumer = Consumer(client_config(settings.kafka) | {"group.id": "bench", "enable.auto.commit": False})
    start = OFFSET_BEGINNING if from_start else OFFSET_END
    partitions = consumer.list_topics(topic).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, start) for partition in partitions])
    with closing(psycopg2.connect(settings.postgres.owner_dsn.get_secret_value())) as connection:
        changed: dict[str, tuple[Any, ...]] = {}
        done = 0
        write_at_s = time.monotonic()
        while True:
            for message in consumer.consume(_BATCH, timeout=max(0.0, write_at_s - time.monotonic())):
                row = _row(decode(message.value() or b"").record, message.timestamp()[1])
                changed[row[0]] = row
                done += 1
            if time.monotonic() >= write_at_s:
                # Lost time is not made up by a burst.
                write_at_s = max(write_at_s, time.monotonic() - emit.total_seconds()) + emit.total_seconds()
                if changed:
                    with connection, connection.cursor() as cursor:
                        execute_values(cursor, _UPSERT, list(changed.values()), _TEMPLATE, page_size=_BATCH)
                    changed.clear()
                print(done, flush=True)


def _row(event: dict[str, Any], append_ms: int) -> tuple[Any, ...]:
    """The values of COLUMNS."""
    return (
        event["host_id"],
        datetime.fromtimestamp(append_ms / 1000, UTC),
        event["vcpus_capacity"],
        event["vcpus_capacity"] - event["vcpus_allocated"],
        event["memory_mb_capacity"],
        event["memory_mb_capacity"] - event["memory_mb_allocated"],
        event["memory_mb_available"],
        event["disk_gb_capacity"],
        event["disk_gb_capacity"] - event["disk_gb_allocated"],
        event["disk_gb_available"],
        event["instances"],
        [str(consumer) for consumer in event["recent_consumers"]],
    )


if __name__ == "__main__":
    main()
