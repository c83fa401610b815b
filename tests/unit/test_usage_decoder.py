"""Payloads to columns: every version, every kind of rubbish, and only the bad ones lost."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.codec import Encoder
from schemas.events import CONFLUENT_MARKER, Event, SchemaVersion, fingerprint, newest
from tests.histories import encode_usage, usage_event
from topology.framing import MAX_PAYLOAD_BYTES
from topology.usage import ABSENT, COLUMNS, UsageDecoder, _tripwire

GOOD = encode_usage(usage_event(host_id="good", cpu_steal_ns=None, cpu_busy_ns=7))
HEADER = newest(Event.USAGE).header
CONSUMER = "6fdb7a3e-8a1c-4d3a-9c80-0f6d0b0a3f01"


def test_a_good_event_in_columns() -> None:
    decoded = UsageDecoder().decode([encode_usage(usage_event(recent_consumers=[CONSUMER] * 2, cpu_steal_ns=None))])
    assert decoded.reasons == [None]
    assert tuple(sorted(decoded.columns)) == tuple(sorted(COLUMNS))
    assert decoded.columns["host_id"][0] == "host-0"
    assert decoded.columns["memory_mb_available"][0] == 6000
    assert decoded.columns["cpu_steal_ns"][0] == ABSENT
    assert decoded.columns["recent_consumers"][0] == f"{{{CONSUMER},{CONSUMER}}}"
    assert decoded.columns["vcpus_capacity"].dtype == np.int64


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "empty payload"),
        (b"", "empty payload"),
        (b"\x00" * (MAX_PAYLOAD_BYTES + 1), "more than 65536 bytes"),
        (b"hello", "not an Avro single-object encoding: starts with 6865"),
        (b"\xc3\x01\x01\x02", "header cut short"),
        (b"\xc3\x01" + b"\x01" * 20, "unknown schema fingerprint 0101010101010101"),
        (CONFLUENT_MARKER + b"\x00\x00\x00\x01" + GOOD[10:], "not an Avro single-object encoding: starts with 0000"),
        (HEADER, "undecodable"),
        (GOOD[:-1], "undecodable"),
        (GOOD[:50], "undecodable"),
        (GOOD + b"\x00", "undecodable: 1 bytes left over"),
        (HEADER + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + GOOD[11:], "undecodable"),
        (encode_usage(usage_event(host_id="")), "invalid: host_id"),
        (encode_usage(usage_event(host_id="a\x00b")), "invalid: host_id"),
        (encode_usage(usage_event(boot_id="ü")), "invalid: boot_id"),
        (encode_usage(usage_event(cpu_count=0)), "invalid: cpu_count is less than 1"),
        (encode_usage(usage_event(disk_read_bytes=-1)), "invalid: disk_read_bytes is less than 0"),
        (encode_usage(usage_event(recent_consumers=["'; DROP"])), "invalid: recent_consumers"),
    ],
)
def test_a_bad_payload_says_why_and_stands_alone(payload: bytes | None, reason: str) -> None:
    decoded = UsageDecoder().decode([GOOD, payload, GOOD])
    assert decoded.reasons[0] is None
    assert decoded.reasons[2] is None
    assert reason in str(decoded.reasons[1])
    assert list(decoded.columns["cpu_busy_ns"][[0, 2]]) == [7, 7]


def test_a_payload_that_is_the_decoders_own_tripwire_hides_neither_itself_nor_others() -> None:
    tripwire = _tripwire(newest(Event.USAGE).text)
    assert tripwire
    payloads = [GOOD, HEADER + tripwire.datum, GOOD, GOOD[:50], HEADER + tripwire.datum, GOOD]
    decoded = UsageDecoder().decode(payloads)
    assert [reason is None for reason in decoded.reasons] == [True, False, True, False, False, True]
    assert decoded.reasons[1] == f"undecodable: {tripwire.failure}"
    assert list(decoded.columns["cpu_busy_ns"][[0, 2, 5]]) == [7, 7, 7]


@given(
    st.lists(st.one_of(st.none(), st.just(GOOD), st.binary(max_size=300), st.binary(max_size=300).map(HEADER.__add__)))
)
def test_any_bytes_spoil_their_own_row_alone(payloads: list[bytes | None]) -> None:
    decoded = UsageDecoder().decode(payloads)
    alone = UsageDecoder()
    assert decoded.reasons == [alone.decode([payload]).reasons[0] for payload in payloads]
    for payload, reason, host_id in zip(payloads, decoded.reasons, decoded.columns["host_id"], strict=True):
        if payload == GOOD:
            assert reason is None
            assert host_id == "good"


@given(st.data())
def test_mutated_events_never_raise(data: st.DataObject) -> None:
    payloads = []
    for _ in range(20):
        mutated = bytearray(GOOD)
        for _ in range(data.draw(st.integers(1, 4))):
            mutated[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
        payloads.append(bytes(mutated))
    decoded = UsageDecoder().decode(payloads)
    for row, reason in enumerate(decoded.reasons):
        if reason is None:
            assert decoded.columns["cpu_count"][row] >= 1
            assert decoded.columns["vcpus_capacity"][row] >= 0


def version(number: int, change: Any) -> SchemaVersion:
    document = json.loads(newest(Event.USAGE).text)
    change(document["fields"])
    text = json.dumps(document)
    return SchemaVersion(Event.USAGE, number, text, fingerprint(text))


def test_newer_and_older_writers_get_their_defaults() -> None:
    def without_pressure(fields: list[dict[str, Any]]) -> None:
        fields[:] = [field for field in fields if not field["name"].endswith("_pressure_us")]

    def with_more(fields: list[dict[str, Any]]) -> None:
        fields.insert(3, {"name": "gpus", "type": {"type": "array", "items": "string"}, "default": []})

    older, ours, newer = version(0, without_pressure), newest(Event.USAGE), version(2, with_more)
    assert older.fingerprint != ours.fingerprint != newer.fingerprint
    decoder = UsageDecoder([older, newer, ours])
    payloads = []
    for writer, extra in ((older, {}), (ours, {}), (newer, {"gpus": ["a"]})):
        event = usage_event(host_id=f"v{writer.version}", cpu_pressure_us=5) | extra
        payloads.append(writer.header + _datum(writer, event))
    decoded = decoder.decode(payloads)
    assert decoded.reasons == [None] * 3
    assert list(decoded.columns["host_id"]) == ["v0", "v1", "v2"]
    assert list(decoded.columns["cpu_pressure_us"]) == [ABSENT, 5, 5]
    # A reader that does not know the newest writer refuses its events; it does not guess.
    assert "unknown schema fingerprint" in str(UsageDecoder([older, ours]).decode(payloads).reasons[2])


def test_the_registry_is_asked_for_confluents_frames() -> None:
    def lookup(schema_id: int) -> str:
        return {7: newest(Event.USAGE).text}[schema_id]

    decoder = UsageDecoder(registry=lookup)
    framed = Encoder(Event.USAGE, schema_id=7).encode(usage_event(host_id="confluent"))
    decoded = decoder.decode([framed, GOOD, CONFLUENT_MARKER + b"\x00\x00\x00\x08" + GOOD[10:]])
    assert decoded.reasons == [None, None, "the schema registry has no schema 8"]
    assert list(decoded.columns["host_id"][:2]) == ["confluent", "good"]


def _datum(writer: SchemaVersion, event: dict[str, Any]) -> bytes:
    import io

    import fastavro

    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer.document), event)
    return stream.getvalue()
