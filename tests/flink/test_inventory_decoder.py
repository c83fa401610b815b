"""Inventory records to columns, null records to retirements."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.flink.decoders import Decoder
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import Event, newest

ENCODER = Encoder(Event.INVENTORY)


def inventory_event(**fields: Any) -> dict[str, Any]:
    vcpu = {"total": 8, "reserved": 1, "min_unit": 1, "max_unit": 8, "step_size": 1, "allocation_ratio": 4.0}
    event: dict[str, Any] = {
        "host_id": "host-0",
        "boot_id": "boot-0",
        "agent_time": 1_790_000_000_000,
        "name": "host-0.example",
        "status": "ENABLED",
        "inventories": {"VCPU": vcpu},
        "traits": ['a"b', "c\\d", "HW_CPU_X86_AVX2"],
        "reporting_interval_ms": 1000,
        "agent_version": "0.1.0",
    }
    return event | fields


@pytest.fixture(scope="module")
def decoder() -> Decoder:
    return Decoder(Event.INVENTORY)


def test_a_good_event_in_columns(decoder: Decoder) -> None:
    row = decoder.row("host-0", ENCODER.encode(inventory_event()))
    assert row["reason"] is None
    assert row["retired"] is False
    assert row["zone"] is None
    assert row["traits"] == '{"a\\"b","c\\\\d","HW_CPU_X86_AVX2"}'
    assert json.loads(row["inventories"])["VCPU"]["allocation_ratio"] == 4.0
    assert row["source"] == "unknown"
    assert decoder.row("host-0", ENCODER.encode(inventory_event(source="libvirt")))["source"] == "libvirt"
    assert row["allocated"] is None
    assert json.loads(decoder.row("host-0", ENCODER.encode(inventory_event(allocated={"VGPU": 3})))["allocated"]) == {
        "VGPU": 3
    }


def test_null_retires_the_host_of_the_key(decoder: Decoder) -> None:
    row = decoder.row("host-0", None)
    assert (row["reason"], row["host_id"], row["retired"], row["name"]) == (None, "host-0", True, None)


@pytest.mark.parametrize(
    ("key", "payload", "reason"),
    [
        (None, None, "the key is not"),
        ("a b", None, "the key is not"),
        ("host-0", b"", "empty payload"),
        ("host-0", newest(Event.INVENTORY).header, "undecodable"),
        ("host-0", ENCODER.encode(inventory_event()) + b"\x00", "1 bytes left over"),
        ("host-1", ENCODER.encode(inventory_event()), "host_id is not the record's key"),
        ("host-0", ENCODER.encode(inventory_event(name="a\x00b")), "NUL"),
        ("host-0", ENCODER.encode(inventory_event(boot_id="")), "boot_id"),
        ("host-0", ENCODER.encode(inventory_event(reporting_interval_ms=0)), "reporting_interval_ms"),
        ("host-0", ENCODER.encode(inventory_event(inventories={"v cpu": {"total": 1}})), "resource class"),
        ("host-0", ENCODER.encode(inventory_event(inventories={"VCPU": {"total": -1}})), "total of VCPU"),
        (
            "host-0",
            ENCODER.encode(inventory_event(inventories={"VCPU": {"total": 1, "allocation_ratio": float("nan")}})),
            "allocation_ratio of VCPU",
        ),
        ("host-0", ENCODER.encode(inventory_event(allocated={"VGPU": -1})), "allocated of VGPU"),
        ("host-0", ENCODER.encode(inventory_event(source="my own")), "source is not"),
    ],
)
def test_a_bad_record_says_why(decoder: Decoder, key: str | None, payload: bytes | None, reason: str) -> None:
    row = decoder.row(key, payload)
    assert reason in row.pop("reason")
    assert set(row.values()) == {None}


def test_any_bytes_give_a_row(decoder: Decoder) -> None:
    good = ENCODER.encode(inventory_event())
    header = newest(Event.INVENTORY).header

    @given(st.binary(max_size=400))
    def check(rubbish: bytes) -> None:
        for payload in (header + rubbish, good[: 10 + len(rubbish)] + rubbish):
            row = decoder.row("host-0", payload)
            assert row["reason"] is not None or row["host_id"] == "host-0"
        assert decoder.row("host-0", good)["reason"] is None

    check()
