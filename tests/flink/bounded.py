"""The production graph between bounded edges: JSON files in, JSON files out."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.harness.histories import usage_key
from vacancy.connectors.flink.edges import production_edges
from vacancy.connectors.settings import KafkaSettings, PostgresSettings
from vacancy.jobs.flink.job_jars import flink_jars
from vacancy.topology.settings import JobSettings


@dataclass(frozen=True)
class TopicRecord:
    """A Kafka record as the graph's sources show it; a usage event without a key gets its right one."""

    append_ms: int
    payload: bytes | None
    key: str | None = None
    headers: Mapping[str, Any] = field(default_factory=dict)
    partition: int = 0
    offset: int = 0


@dataclass(frozen=True)
class Output:
    """What the three sinks got, as parsed JSON."""

    host: list[dict[str, Any]]
    host_inventory: list[dict[str, Any]]
    dead_letters: list[dict[str, Any]]


def run_graph(
    directory: Path,
    settings: JobSettings,
    usage: Sequence[TopicRecord],
    inventory: Sequence[TopicRecord] = (),
    **graph: Any,
) -> Output:
    """Runs the graph over records, in their order, until all windows are done; ``graph`` is for ``topology.graph``."""
    from pyflink.datastream import StreamExecutionEnvironment
    from pyflink.table import StreamTableEnvironment

    from vacancy.topology.graph import Edges, build, configuration

    with_keys = [replace(record, key=usage_key(record.payload)) if record.key is None else record for record in usage]
    _write(directory / "usage_topic", with_keys)
    _write(directory / "inventory_topic", inventory)
    flink = configuration(settings)
    flink.set_string("pipeline.jars", ";".join(jar.as_uri() for jar in flink_jars()))
    environment = StreamTableEnvironment.create(StreamExecutionEnvironment.get_execution_environment(flink))
    build(environment, settings, Edges(bounded_edges(directory, settings)), **graph).execute().wait()
    return Output(*(_read(directory / sink) for sink in ("host", "host_inventory", "dead_letters")))


def bounded_edges(directory: Path, settings: JobSettings) -> list[str]:
    """The production edges, column for column, with files behind them."""
    statements = production_edges(
        KafkaSettings(),
        PostgresSettings().job_dsn,
        emit=settings.emit,
        idle_timeout=settings.idle_timeout,
    )
    return [_on_files(statement, directory) for statement in statements]


def _on_files(statement: str, directory: Path) -> str:
    table = re.search(r"TABLE (\w+)", statement)
    assert table is not None, statement
    columns = re.sub(r" METADATA( FROM '\w+')?( VIRTUAL)?", "", statement[: statement.index(") WITH (")])
    columns = re.sub(r",\s*PRIMARY KEY \(host_id\) NOT ENFORCED", "", columns)
    return (
        f"{columns}) WITH ('connector' = 'filesystem', 'path' = '{directory / table[1]}', 'format' = 'json', "
        "'json.timestamp-format.standard' = 'ISO-8601')"
    )


def _write(directory: Path, records: Sequence[TopicRecord]) -> None:
    directory.mkdir(parents=True)
    lines = [
        json.dumps(
            {
                "host_key": record.key,
                "headers": {name: base64.b64encode(value).decode() for name, value in record.headers.items()},
                "payload": None if record.payload is None else base64.b64encode(record.payload).decode(),
                "partition": record.partition,
                "offset": record.offset,
                "append_time": utc(record.append_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            }
        )
        for record in records
    ]
    (directory / "records.json").write_text("\n".join(lines) + "\n" if lines else "", encoding="utf-8")


def _read(directory: Path) -> list[dict[str, Any]]:
    files = [file for file in directory.rglob("*") if file.is_file() and not file.name.startswith(".")]
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def utc(milliseconds: int) -> datetime:
    """ms since 1970 as a time."""
    return datetime.fromtimestamp(milliseconds / 1000, tz=UTC)
