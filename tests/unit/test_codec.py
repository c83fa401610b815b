"""Encodes and decodes single events."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime as dt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.collectors.collector import (
    HugePages,
    Inventory,
    InventoryReading,
    NumaCell,
    PciPool,
    UsageReading,
)
from vacancy.connectors.kafka.schema_registry import Registry
from vacancy.schemas.codec import Encoder, decode
from vacancy.schemas.errors import ConfigError
from vacancy.schemas.events import Event, newest

LONGS = st.integers(-(2**63), 2**63 - 1)
INTS = st.integers(-(2**31), 2**31 - 1)
TEXTS = st.text(max_size=40)
AGENT_TIMES = st.integers(0, 4_102_444_800_000)


def records(event: Event) -> st.SearchStrategy[dict[str, Any]]:
    """Any record of an event's newest schema."""
    return _of(newest(event).document)


def _of(schema: Any) -> st.SearchStrategy[Any]:
    if isinstance(schema, list):
        return st.one_of([_of(branch) for branch in schema])
    kind = schema["type"] if isinstance(schema, dict) else schema
    simple: dict[str, st.SearchStrategy[Any]] = {
        "null": st.none(),
        "string": TEXTS,
        "int": INTS,
        "double": st.floats(allow_nan=False),
    }
    if kind in simple:
        return simple[kind]
    if kind == "long":
        return AGENT_TIMES if isinstance(schema, dict) else LONGS
    if kind == "record":
        return st.fixed_dictionaries({field["name"]: _of(field["type"]) for field in schema["fields"]})
    if kind == "enum":
        return st.sampled_from(schema["symbols"])
    if kind == "array":
        return st.lists(_of(schema["items"]), max_size=3)
    assert kind == "map"
    return st.dictionaries(TEXTS, _of(schema["values"]), max_size=3)


def _with_datetime(record: dict[str, Any]) -> dict[str, Any]:
    epoch = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
    return record | {"agent_time": epoch + dt.timedelta(milliseconds=record["agent_time"])}


@given(st.data(), st.sampled_from(Event))
def test_what_is_encoded_is_decoded(data: st.DataObject, event: Event) -> None:
    record = data.draw(records(event))
    payload = Encoder(event).encode(record)
    decoded = decode(payload)
    assert payload.startswith(newest(event).header)
    assert (decoded.event, decoded.writer) == (event, newest(event).version)
    assert decoded.record == _with_datetime(record)


@given(records(Event.USAGE), st.binary(min_size=1, max_size=8))
def test_bytes_left_over_are_an_error(record: dict[str, Any], rest: bytes) -> None:
    with pytest.raises(ValueError, match="left over"):
        decode(Encoder(Event.USAGE).encode(record) + rest)


@given(records(Event.USAGE), st.data())
def test_a_truncated_event_is_an_error(record: dict[str, Any], data: st.DataObject) -> None:
    payload = Encoder(Event.USAGE).encode(record)
    with pytest.raises(ValueError, match=r"undecodable|fingerprint|not an Avro event"):
        decode(payload[: data.draw(st.integers(0, len(payload) - 1))])


@given(st.binary(max_size=200))
def test_any_bytes_behind_a_header_decode_or_are_a_value_error(datum: bytes) -> None:
    for event in Event:
        with contextlib.suppress(ValueError):
            assert decode(newest(event).header + datum).event is event


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "starts with nothing"),
        (b"\xc3\x01" + bytes(8), "unknown schema fingerprint 0000000000000000"),
        (b"\x00\x00\x00\x00\x01", "not an Avro event: starts with 0000"),
        (b"{}", "not an Avro event: starts with 7b7d"),
    ],
)
def test_what_is_no_event_says_why(payload: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        decode(payload)


@pytest.mark.parametrize(
    "change", [{"seq": None}, {"seq": "1"}, {"seq": 2**63}, {"host_id": 1}, {"recent_consumers": 1}, {"no_such": 1}]
)
def test_a_record_that_does_not_fit_the_schema_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        Encoder(Event.USAGE).encode(_usage() | change)


def test_every_field_of_a_reading_is_one_of_its_schema_and_the_agent_adds_the_rest() -> None:
    fields = {event: {field["name"] for field in newest(event).document["fields"]} for event in Event}
    usage = {field.name for field in dataclasses.fields(UsageReading)}
    inventory = {field.name for field in dataclasses.fields(InventoryReading)}
    assert fields[Event.USAGE] - usage == {"host_id", "seq", "agent_time", "unknown"}
    assert fields[Event.INVENTORY] - inventory == {"host_id", "agent_time", "reporting_interval_ms", "agent_version"}
    assert usage <= fields[Event.USAGE]
    assert inventory <= fields[Event.INVENTORY]


def test_a_full_inventory_reading_encodes() -> None:
    reading = InventoryReading(
        boot_id="b",
        name="n",
        inventories={"VCPU": Inventory(4, 1, 4, 2.0)},
        status="DISABLED",
        status_reason="repair",
        zone="z",
        traits=("HW_CPU_X86_AVX",),
        aggregates=("a",),
        numa_cells=(NumaCell(0, (0, 1), (1,), 1024, (HugePages(2048, 8, 7),)),),
        pci_pools=(PciPool("8086", "10ed", None, 2, 1, {"physical_network": "net1"}),),
        allocated={"CUSTOM_FPGA": 2},
        source="lxc",
    )
    more = {"host_id": "h", "agent_time": 0, "reporting_interval_ms": 1000, "agent_version": "1"}
    record = decode(Encoder(Event.INVENTORY).encode(dataclasses.asdict(reading) | more)).record
    assert record["numa_cells"][0]["pages"] == [{"size_kb": 2048, "total": 8, "free": 7}]
    assert record["pci_pools"][0]["tags"] == {"physical_network": "net1"}
    assert record["inventories"]["VCPU"]["allocation_ratio"] == 2.0
    assert (record["allocated"], record["source"]) == ({"CUSTOM_FPGA": 2}, "lxc")


def test_confluents_wire_format_by_way_of_a_registry() -> None:
    # The client library's own in-memory registry.
    registry = Registry("mock://test")
    schema_id = registry.register(Event.USAGE, "vacancy.usage")
    assert registry.register(Event.USAGE, "vacancy.usage") == schema_id
    payload = Encoder(Event.USAGE, schema_id).encode(_usage())
    assert payload[:5] == b"\x00" + schema_id.to_bytes(4, "big")
    assert decode(newest(Event.USAGE).header + payload[5:]).record["host_id"] == "h"


def test_a_registry_url_that_is_none_is_a_config_error() -> None:
    with pytest.raises(ConfigError, match=r"kafka\.schema_registry_url"):
        Registry("registry")


def _usage() -> dict[str, Any]:
    reading = UsageReading("b", 1, 2, 0, 3, 0, 4, 0, 5, 6, 2, 7, 0)
    return dataclasses.asdict(reading) | {"host_id": "h", "seq": 0, "agent_time": 0}
