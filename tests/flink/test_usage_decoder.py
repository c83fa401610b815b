"""Payloads to columns: every version, every kind of rubbish, and only the bad ones lost."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import fastavro
import pytest
from hypothesis import given
from hypothesis import strategies as st
from py4j.protocol import Py4JJavaError

from tests.flink.decoders import Decoder
from tests.flink.registry import running_registry
from tests.harness.histories import encode_usage, usage_event
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import CONFLUENT_MARKER, Event, SchemaVersion, fingerprint, newest
from vacancy.topology.graph import SchemaRegistry

ABSENT = -1
GOOD = encode_usage(usage_event(host_id="good", cpu_steal_ns=None, cpu_busy_ns=7))
HEADER = newest(Event.USAGE).header
CONSUMER = "6fdb7a3e-8a1c-4d3a-9c80-0f6d0b0a3f01"
GIB = b"\x80\x80\x80\x80\x08"
"""2^30 as Avro writes a length or a count."""


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(Event.USAGE)


def test_a_good_event_in_columns(decoder: Decoder) -> None:
    row = decoder.row(encode_usage(usage_event(recent_consumers=[CONSUMER] * 2, cpu_steal_ns=None)))
    assert row["reason"] is None
    assert row["host_id"] == "host-0"
    assert row["memory_mb_available"] == 6000
    assert row["cpu_steal_ns"] == ABSENT
    assert row["recent_consumers"] == f"{{{CONSUMER},{CONSUMER}}}"
    event = usage_event()
    row = decoder.row(encode_usage(event))
    for name in row.keys() - {"reason", "recent_consumers"}:
        assert row[name] == event[name], name
    assert row["recent_consumers"] == "{}"


def test_what_an_event_does_not_know_is_no_count_and_is_named(decoder: Decoder) -> None:
    """An amount that is not known stands as it is: 0, since nothing is free of it; so does what is from earlier."""
    doubts = {"unknown": ["cpu_busy_ns", "net_rx_bytes", "disk_gb_available"], "uncertain": ["disk_read_bytes", "a\\b"]}
    event = usage_event(cpu_busy_ns=0, net_rx_bytes=7, disk_gb_available=0, disk_read_bytes=5)
    row, certain = (decoder.row(encode_usage(event | more)) for more in (doubts, {}))
    assert row["uncertain"] == r'{"a\\b","cpu_busy_ns","disk_gb_available","disk_read_bytes","net_rx_bytes"}'
    assert row == {**certain, "cpu_busy_ns": ABSENT, "net_rx_bytes": ABSENT, "uncertain": row["uncertain"]}


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "empty payload"),
        (b"", "empty payload"),
        (b"\x00" * 65_537, "payload of more than 65536 bytes"),
        (b"hello", "not an Avro single-object encoding: starts with 6865"),
        (b"h", "not an Avro single-object encoding: starts with 68"),
        (b"\xc3\x01\x01\x02", "header cut short after 4 bytes"),
        (b"\xc3\x01" + b"\x01" * 20, "unknown schema fingerprint 0101010101010101"),
        (CONFLUENT_MARKER + b"\x00\x00\x00\x01" + GOOD[10:], "not an Avro single-object encoding: starts with 0000"),
        (HEADER, "undecodable: ends after 10 bytes"),
        (GOOD[:-1], "undecodable: ends after"),
        (GOOD[:50], "undecodable: "),
        (GOOD + b"\x00", "undecodable: 1 bytes left over"),
        (HEADER + GIB + GOOD[11:], "undecodable: 1073741824 bytes where "),
        (GOOD[:-3] + GIB, "undecodable: 1073741824 items where 0 bytes are left"),
        (GOOD[:-1] + GIB, "undecodable: "),
        (encode_usage(usage_event(unknown=["a b"])), 'invalid: unknown is "a b", not 1 to 64 printable ASCII'),
        (encode_usage(usage_event(uncertain=["a"] * 65)), "invalid: uncertain has 65 items, more than 64"),
        (HEADER + b"\x01" + GOOD[11:], "undecodable: -1 bytes where "),
        (HEADER + b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01" + GOOD[11:], "undecodable: "),
        (HEADER + b"\xff" * 11 + GOOD[11:], "undecodable: a number of more than 10 bytes"),
        (HEADER + b"\x04\xc3\x28" + GOOD[15:], "undecodable: text that is not UTF-8"),
        (encode_usage(usage_event(host_id="a\x00b")), 'invalid: host_id is "a\\u0000b", not 1 to 255 printable ASCII'),
        (encode_usage(usage_event(cpu_count=0)), "invalid: cpu_count is 0, not 1 to 65536"),
        (encode_usage(usage_event(disk_read_bytes=-1)), "invalid: disk_read_bytes is -1, not 0 to 4611686018427387903"),
        (
            encode_usage(usage_event(recent_consumers=["'; DROP"])),
            """invalid: recent_consumers is "'; DROP", not 36 char""",
        ),
    ],
)
def test_a_bad_payload_says_why_and_stands_alone(decoder: Decoder, payload: bytes | None, reason: str) -> None:
    good = decoder.digest(GOOD)
    row = decoder.row(payload)
    assert str(row.pop("reason")).startswith(reason)
    assert set(row.values()) == {None}
    assert decoder.digest(GOOD) == good


PAYLOADS = st.one_of(
    st.just(GOOD),
    st.binary(max_size=300),
    st.binary(max_size=300).map(HEADER.__add__),
    st.binary(max_size=300).map(lambda rubbish: GOOD[: 10 + len(rubbish)] + rubbish),
)


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, 'invalid: host_id is "good", but there is no key'),
        ("other", 'invalid: host_id is "good", but the key is "other"'),
        ("good\x1b[2J", 'invalid: host_id is "good", but the key is "good\\u001b[2J"'),
    ],
)
def test_a_host_speaks_under_its_own_key_alone(decoder: Decoder, key: str | None, reason: str) -> None:
    assert decoder.row(key, GOOD)["reason"] == reason
    assert decoder.row("good", GOOD)["reason"] is None


def test_any_bytes_spoil_their_own_row_alone(decoder: Decoder) -> None:
    good = decoder.digest(GOOD)

    @given(st.lists(PAYLOADS, max_size=8))
    def check(payloads: list[bytes]) -> None:
        for payload in payloads:
            digest = decoder.digest(payload)
            assert (payload == GOOD) == (digest == good)
        # What came before has left nothing behind.
        assert decoder.digest(GOOD) == good

    check()


def test_mutated_events_are_refused_or_make_sense(decoder: Decoder) -> None:
    @given(st.data())
    def check(data: st.DataObject) -> None:
        mutated = bytearray(GOOD)
        for _ in range(data.draw(st.integers(1, 4))):
            mutated[data.draw(st.integers(0, len(GOOD) - 1))] = data.draw(st.integers(0, 255))
        row = decoder.row(bytes(mutated))
        if row["reason"] is None:
            assert row["cpu_count"] >= 1
            assert row["vcpus_capacity"] >= 0
            assert row["cpu_iowait_ns"] >= ABSENT

    check()


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

    older, ours, newer = version(0, without_pressure), newest(Event.USAGE), version(3, with_more)
    assert older.fingerprint != ours.fingerprint != newer.fingerprint
    decoder = Decoder(Event.USAGE, [older, newer, ours])
    payloads = []
    for writer, extra in ((older, {}), (ours, {}), (newer, {"gpus": ["a"]})):
        event = usage_event(host_id=f"v{writer.version}", cpu_pressure_us=5) | extra
        payloads.append(writer.header + _datum(writer, event))
    rows = [decoder.row(f"v{number}", payload) for number, payload in zip((0, 2, 3), payloads, strict=True)]
    assert [row["reason"] for row in rows] == [None] * 3
    assert [row["host_id"] for row in rows] == ["v0", "v2", "v3"]
    assert [row["cpu_pressure_us"] for row in rows] == [ABSENT, 5, 5]
    # What is skipped is looked at as well.
    forged = newer.header + _datum(newer, usage_event() | {"gpus": ["a"]}).replace(b"\x02\x02a\x00", GIB + b"\x02a\x00")
    assert "items where" in decoder.row(forged)["reason"]
    # A reader that does not know the newest writer refuses its events; it does not guess.
    assert "unknown schema fingerprint" in Decoder(Event.USAGE, [older, ours]).row(payloads[2])["reason"]


@pytest.fixture
def registry() -> Iterator[SchemaRegistry]:
    """One that has the newest schema as 7, a text that is no schema as 9, and asks who we are."""
    schemas = {7: newest(Event.USAGE).text, 9: "no schema"}
    with running_registry(schemas, credentials="us er:pa:ss") as url:
        yield SchemaRegistry(url, "us er:pa:ss")


def test_the_registry_is_asked_for_confluents_frames(registry: SchemaRegistry) -> None:
    decoder = Decoder(Event.USAGE, registry=registry)
    framed = Encoder(Event.USAGE, schema_id=7).encode(usage_event(host_id="confluent"))
    assert decoder.row("confluent", framed)["host_id"] == "confluent"
    assert decoder.row(GOOD)["host_id"] == "good"
    reasons = {
        b"\x00\x00\x00\x08" + GOOD[10:]: "the schema registry has no schema 8",
        b"\x00\x00\x00\x09" + GOOD[10:]: "undecodable: schema 9 of the schema registry is none of Avro's",
        b"\x00": "header cut short after 2 bytes",
    }
    for rest, reason in reasons.items():
        assert decoder.row(CONFLUENT_MARKER + rest)["reason"] == reason
        assert decoder.row(CONFLUENT_MARKER + rest)["reason"] == reason  # also where it is remembered


def test_a_registry_that_fails_makes_no_record_bad(registry: SchemaRegistry) -> None:
    framed = Encoder(Event.USAGE, schema_id=7).encode(usage_event())
    for wrong, reason in (
        (SchemaRegistry("http://127.0.0.1:1"), "ConnectException"),
        (SchemaRegistry(registry.url, "user:wrong"), "status 401"),
        (SchemaRegistry(f"{registry.url}/elsewhere", registry.credentials), "status 404"),
    ):
        with pytest.raises(Py4JJavaError, match=f"the schema registry at {wrong.url} fails: {reason}") as failure:
            Decoder(Event.USAGE, registry=wrong).row(framed)
        assert "wrong" not in str(failure.value)


def _datum(writer: SchemaVersion, event: dict[str, Any]) -> bytes:
    stream = io.BytesIO()
    fastavro.schemaless_writer(stream, fastavro.parse_schema(writer.document), event)
    return stream.getvalue()
