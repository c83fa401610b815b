"""Bytes from the usage topic to columns, a whole Arrow batch at a time.

Shapes: n payloads in, n reasons and n rows of :data:`COLUMNS` out, in the order of the payloads. A row whose reason is
not None is bad and its columns hold zeros and Nones.

What always holds:

- A bad payload spoils its own row alone, whatever its bytes are, and costs little: framing is checked before decoding,
  and a batch that fails is searched for the ones that do not decode.
- What comes out fits the tables: ids are printable ASCII, consumers are UUIDs, amounts and counters are never negative.
- A counter that the writer's kernel does not have is :data:`ABSENT`, since a nullable column would leave Arrow's fast
  path through pandas.
- A field that the writer's version does not know gets the newest version's default; one that only the writer knows is
  dropped.
"""

from __future__ import annotations

import functools
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyruhvro import deserialize_array, serialize_record_batch

from schemas.events import Event, SchemaVersion, released
from topology.framing import DATUM_ERRORS, BadPayloadError, Framing, RegistryLookup

ABSENT = -1

IDS = ("host_id", "boot_id")
AMOUNTS = (
    "monotonic_ns",
    "vcpus_capacity",
    "vcpus_allocated",
    "memory_mb_capacity",
    "memory_mb_allocated",
    "disk_gb_capacity",
    "disk_gb_allocated",
    "memory_mb_available",
    "disk_gb_available",
    "cpu_count",
    "cpu_busy_ns",
    "instances",
)
COUNTERS = (
    "cpu_iowait_ns",
    "cpu_steal_ns",
    "disk_read_bytes",
    "disk_write_bytes",
    "net_rx_bytes",
    "net_tx_bytes",
    "cpu_pressure_us",
    "memory_pressure_us",
    "io_pressure_us",
)
CONSUMERS = "recent_consumers"
COLUMNS = (*IDS, *AMOUNTS, *COUNTERS, CONSUMERS)
"""What the dataflow reads of a usage event: two texts, then int64 columns, then a PostgreSQL array literal of UUIDs."""

_FIRST_PIECE = 32
_NO_BRANCH_INDEX = 1_000_003
_NO_BRANCH = b"\x86\x89\x7a"
"""As Avro encodes it: zigzag, 7 bits a byte, the low ones first."""
_READER = pa.schema(
    [(name, pa.string()) for name in IDS]
    + [(name, pa.int64()) for name in (*AMOUNTS, *COUNTERS)]
    + [(CONSUMERS, pa.list_(pa.string()))]
)
_ID_PATTERN = r"^[\x21-\x7e]{1,255}$"
_UUID_PATTERN = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"


@dataclass(frozen=True)
class DecodedUsage:
    """n reasons (None for a good row) and, by column, n values: object arrays for text, int64 arrays for the rest."""

    reasons: list[str | None]
    columns: dict[str, np.ndarray[Any, np.dtype[Any]]]


@dataclass
class _Run:
    """Payloads of one writer's schema: their rows in the batch, and the data without the header."""

    rows: list[int]
    data: list[bytes]


class UsageDecoder:
    """Decodes the payloads of the usage topic.

    Args:
        versions: the versions to know, the reader's last; every released one unless a test says otherwise.
        registry: looks up Confluent schema ids; None where no registry is configured.
    """

    def __init__(self, versions: Sequence[SchemaVersion] | None = None, registry: RegistryLookup | None = None) -> None:
        known = released(Event.USAGE) if versions is None else versions
        self._defaults = {field["name"]: field.get("default") for field in known[-1].document["fields"]}
        self._framing = Framing(known, registry)

    def decode(self, payloads: Sequence[bytes | None]) -> DecodedUsage:
        """Decodes n payloads to n rows; never raises for what is in a payload."""
        decoded = DecodedUsage(
            reasons=[None] * len(payloads),
            columns={name: np.full(len(payloads), None, dtype=object) for name in (*IDS, CONSUMERS)}
            | {name: np.zeros(len(payloads), dtype=np.int64) for name in (*AMOUNTS, *COUNTERS)},
        )
        runs: dict[str, _Run] = {}
        for row, payload in enumerate(payloads):
            try:
                writer, datum = self._framing.unframe(payload)
            except BadPayloadError as bad:
                decoded.reasons[row] = str(bad)
                continue
            run = runs.setdefault(writer, _Run([], []))
            run.rows.append(row)
            run.data.append(datum)
        pieces: list[pa.RecordBatch] = []
        rows: list[int] = []
        for writer, run in runs.items():
            batch, kept = _decode_run(writer, run, decoded.reasons)
            pieces.append(self._as_reader(batch))
            rows += kept
        if pieces:
            _fill(decoded, rows, pa.Table.from_batches(pieces).combine_chunks())
        return decoded

    def _as_reader(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """A batch with the reader's columns and types; its default where the writer does not know one."""
        return pa.RecordBatch.from_arrays(
            [
                batch.column(field.name).cast(field.type)
                if batch.schema.get_field_index(field.name) >= 0
                else pa.array([self._defaults[field.name]] * batch.num_rows, field.type)
                for field in _READER
            ],
            schema=_READER,
        )


def _decode_run(writer: str, run: _Run, reasons: list[str | None]) -> tuple[pa.RecordBatch, list[int]]:
    """A run's good data as one batch, and the row of each; notes the reasons of the bad."""
    rows, data = run.rows, run.data
    # Without a tripwire the second time: with it, what raises the very same passes for good.
    for tripwire in (_tripwire(writer), None):
        try:
            batch = deserialize_array(data, writer)
            break
        except ValueError:
            bad = _isolate(writer, data, tripwire)
        for index, failure in bad.items():
            reasons[rows[index]] = f"undecodable: {failure}"
        data = [datum for index, datum in enumerate(data) if index not in bad]
        rows = [row for index, row in enumerate(rows) if index not in bad]
    else:
        batch = deserialize_array(data, writer)
    for index, reason in _left_over(batch, writer, data).items():
        reasons[rows[index]] = reason
    return batch, rows


def _isolate(writer: str, data: list[bytes], tripwire: _Tripwire | None) -> dict[int, str]:
    """What the bad ones of some data raise, by index: pieces that grow while they are good, halved where one is not."""
    bad: dict[int, str] = {}
    start, size = 0, _FIRST_PIECE
    while start < len(data):
        end = start + size
        failure = _failure(writer, data[start:end], tripwire)
        if failure is None:
            start, size = end, 2 * size
            continue
        first, end = start, min(end, len(data))  # the first bad one is in [first, end)
        while end - first > 1:
            middle = (first + end) // 2
            if _failure(writer, data[first:middle], tripwire) is None:
                first = middle
            else:
                end = middle
        bad[first] = failure
        start, size = first + 1, _FIRST_PIECE
    return bad


class _Tripwire(NamedTuple):
    """A datum that never decodes, and what it raises."""

    datum: bytes
    failure: str


@functools.cache
def _tripwire(writer: str) -> _Tripwire | None:
    """A union's branch that does not exist, after as many zeros as it takes to get there; None if none does."""
    for zeros in range(256):
        datum = bytes(zeros) + _NO_BRANCH
        failure = _failure(writer, [datum])
        if failure and str(_NO_BRANCH_INDEX) in failure:
            return _Tripwire(datum, failure)
    return None


def _failure(writer: str, data: list[bytes], tripwire: _Tripwire | None = None) -> str | None:
    """What the first bad one of some data raises; None if there is none.

    What decodes costs four times what does not, for the Arrow columns made of it: hence the tripwire at the end.
    """
    try:
        deserialize_array([*data, tripwire.datum] if tripwire else data, writer)
    except ValueError as error:
        return None if tripwire and str(error) == tripwire.failure else str(error)
    return None


def _fill(decoded: DecodedUsage, rows: list[int], table: pa.Table) -> None:
    """Writes a table's columns into their rows, and the reasons of those that do not make sense."""
    bad: dict[int, str] = {}
    # A list would be made an array for each column.
    places = slice(None) if len(rows) == len(decoded.reasons) else np.asarray(rows, dtype=np.intp)
    for name in IDS:
        # Nobody has looked yet whether a text is UTF-8; what matches is ASCII, and what does not goes no further.
        good = pc.match_substring_regex(table[name], _ID_PATTERN)
        _flag(bad, ~good.to_numpy(), f"invalid: {name} is not printable ASCII")
        decoded.columns[name][places] = pc.if_else(good, table[name], None).to_numpy()
    for name in (*AMOUNTS, *COUNTERS):
        least = 1 if name == "cpu_count" else 0
        column = table[name]
        values = (column.fill_null(ABSENT) if column.null_count else column).to_numpy()
        wrong = values < least
        if column.null_count:
            wrong &= column.is_valid().to_numpy()
        _flag(bad, wrong, f"invalid: {name} is less than {least}")
        decoded.columns[name][places] = values
    decoded.columns[CONSUMERS][places] = _consumer_literals(table[CONSUMERS], bad)
    for index, reason in bad.items():
        decoded.reasons[rows[index]] = decoded.reasons[rows[index]] or reason


def _flag(bad: dict[int, str], wrong: np.ndarray[Any, np.dtype[np.bool_]], reason: str) -> None:
    """Notes the reason for each index whose value is true, unless it has one."""
    for index in np.flatnonzero(wrong):
        bad.setdefault(int(index), reason)


@functools.cache
def _parsed(writer: str) -> Any:
    return fastavro.parse_schema(json.loads(writer))


def _left_over(batch: pa.RecordBatch, writer: str, data: list[bytes]) -> dict[int, str]:
    """Data that decodes before it ends: a forged length, or two data in one payload.

    Encoding the batch again tells whose length differs at a fraction of a microsecond each; only those, which a writer
    that blocks its arrays makes too, are then read with an eye on where the reader stops.
    """
    encoded = serialize_record_batch(batch, writer, 1)[0]
    lengths = np.fromiter(map(len, data), dtype=np.int64, count=len(data))
    suspects = np.flatnonzero(pc.binary_length(encoded).to_numpy(zero_copy_only=False) != lengths)
    bad: dict[int, str] = {}
    for index in map(int, suspects):
        stream = io.BytesIO(data[index])
        try:
            fastavro.schemaless_reader(stream, _parsed(writer))
        except DATUM_ERRORS as error:
            bad[index] = f"undecodable: {error or type(error).__name__}"
            continue
        if rest := len(data[index]) - stream.tell():
            bad[index] = f"undecodable: {rest} bytes left over"
    return bad


def _consumer_literals(consumers: pa.ChunkedArray, bad: dict[int, str]) -> list[str]:
    """One PostgreSQL array literal a row, of UUIDs alone."""
    literals = ["{}"] * len(consumers)
    uuids = pc.list_flatten(consumers)
    parents = pc.list_parent_indices(consumers).to_numpy()
    good = pc.match_substring_regex(uuids, _UUID_PATTERN).to_numpy()
    for index in parents[~good]:
        bad.setdefault(int(index), "invalid: recent_consumers holds what is not a UUID")
    for index in np.unique(parents):
        if int(index) not in bad:
            literals[index] = "{" + ",".join(consumers[int(index)].as_py()) + "}"
    return literals
