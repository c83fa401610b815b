"""The same job on Quix Streams: decoding, a window per host in its state, an upsert of each host's newest row.

It runs in a separate environment (requirements/peer.in) without Vacancy's packages. One process per core forms a
consumer group. It has no dead letters: undecodable records are dropped. After each commit it prints a line with the
number of events so far.

    python bench/peer/quix.py BOOTSTRAP_SERVERS TOPIC SCHEMA_FILE DSN WINDOW_MS EMIT_S
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import fastavro
import psycopg2
from psycopg2.extras import execute_values
from quixstreams import Application, State
from quixstreams.sinks import BatchingSink, SinkBatch

HEADER_BYTES = 10
COUNTERS = (
    "cpu_busy_ns",
    "cpu_iowait_ns",
    "cpu_steal_ns",
    "disk_read_bytes",
    "disk_write_bytes",
    "net_rx_bytes",
    "net_tx_bytes",
)
FREE = ("vcpus", "memory_mb", "disk_gb")
TABLE = "bench.peer"
COLUMNS = (
    "host_id",
    "observed_ms",
    "samples",
    *(f"{name}_free" for name in FREE),
    *(f"{name}_free_min" for name in FREE),
    *(f"{name}_per_s" for name in COUNTERS),
)
MAKE_TABLE = (
    f"CREATE SCHEMA IF NOT EXISTS bench; CREATE TABLE IF NOT EXISTS {TABLE} (host_id text PRIMARY KEY,"
    f" observed_ms bigint, samples int, {', '.join(f'{name} double precision' for name in COLUMNS[3:])})"
    " WITH (fillfactor = 48)"
)
UPSERT = (
    f"INSERT INTO {TABLE} ({', '.join(COLUMNS)}) VALUES %s ON CONFLICT (host_id) DO UPDATE SET "
    f"{', '.join(f'{name} = EXCLUDED.{name}' for name in COLUMNS[1:])} WHERE {TABLE}.observed_ms < EXCLUDED.observed_ms"
)


class Rows(BatchingSink):  # type: ignore[misc]  # quixstreams is not in our environment
    """Upserts the newest row of each host, at each commit."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self._connection = psycopg2.connect(dsn)
        with self._connection, self._connection.cursor() as cursor:
            # All members of the group start at once, and IF NOT EXISTS does not prevent a conflict then.
            cursor.execute(f"SELECT pg_advisory_xact_lock(1); {MAKE_TABLE}")
        self._done = 0

    def write(self, batch: SinkBatch) -> None:
        """Writes a batch: only the last row of each host."""
        newest = {item.value[0]: item.value for item in batch}
        with self._connection, self._connection.cursor() as cursor:
            execute_values(cursor, UPSERT, sorted(newest.values()), page_size=1000)
        self._done += batch.size
        print(self._done, flush=True)


def main(servers: str, topic_name: str, schema_file: str, dsn: str, window_ms: int, emit_s: float) -> None:
    """Runs until it is killed."""
    schema = fastavro.parse_schema(json.loads(Path(schema_file).read_text(encoding="utf-8")))

    def decode(payload: bytes) -> list[Any] | None:
        try:
            event: Any = fastavro.schemaless_reader(io.BytesIO(payload[HEADER_BYTES:]), schema, None)
        except (EOFError, IndexError, ValueError):
            return None
        free = [event[f"{name}_capacity"] - event[f"{name}_allocated"] for name in FREE]
        return [event["host_id"], event["monotonic_ns"], *free, *(event[name] or 0 for name in COUNTERS)]

    def window(event: list[Any], key: object, append_ms: int, headers: object, state: State) -> list[Any]:
        del key, headers
        kept: list[list[Any]] = [sample for sample in state.get("kept") or [] if sample[0] >= append_ms - window_ms]
        kept.append([append_ms, *event[1:]])
        state.set("kept", kept)
        first, last = kept[0], kept[-1]
        elapsed_s = (last[1] - first[1]) / 1e9 or None
        rates = [elapsed_s and (last[at] - first[at]) / elapsed_s for at in range(5, 5 + len(COUNTERS))]
        least = [min(sample[at] for sample in kept) for at in range(2, 5)]
        return [event[0], append_ms, len(kept), *event[2:5], *least, *rates]

    with tempfile.TemporaryDirectory(prefix="vacancy-peer-") as state_dir:
        app = Application(
            broker_address=servers,
            consumer_group="peer",
            auto_offset_reset="earliest",
            state_dir=Path(state_dir) / uuid.uuid4().hex,
            commit_interval=emit_s,
            loglevel="WARNING",
            topic_create_timeout=60,
        )
        topic = app.topic(topic_name, key_deserializer="bytes", value_deserializer="bytes")
        frame = app.dataframe(topic).apply(decode).filter(lambda event: event is not None)
        frame = frame.apply(window, stateful=True, metadata=True)
        frame.sink(Rows(dsn))
        app.run()


if __name__ == "__main__":
    servers_, topic_, schema_file_, dsn_, window_ms_, emit_s_ = sys.argv[1:]
    main(servers_, topic_, schema_file_, dsn_, int(window_ms_), float(emit_s_))
