"""Inventory records to columns, null records to retirements."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.flink.decoders import Decoder
from tests.flink.registry import running_registry
from vacancy.schemas.codec import Encoder
from vacancy.schemas.events import CONFLUENT_MARKER, SINGLE_OBJECT_HEADER_BYTES, Event, newest
from vacancy.topology.graph import SchemaRegistry

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


def inventory(**fields: Any) -> bytes:
    """One whose VCPU differs."""
    return ENCODER.encode(inventory_event(inventories={"VCPU": {"total": 1} | fields}))


def page(**fields: Any) -> dict[str, Any]:
    return {"size_kb": 2048, "total": 8, "free": 8} | fields


def cell(**fields: Any) -> dict[str, Any]:
    return {"id": 0, "cpus": [0, 1], "free_cpus": [1], "memory_mb": 1024, "pages": []} | fields


def pool(**fields: Any) -> dict[str, Any]:
    return {"vendor_id": "8086", "product_id": "10c9", "total": 4, "free": 4} | fields


def cells(*each: dict[str, Any]) -> bytes:
    return ENCODER.encode(inventory_event(numa_cells=each))


def pools(*each: dict[str, Any]) -> bytes:
    return ENCODER.encode(inventory_event(pci_pools=each))


def test_what_is_alike_in_part_is_not_alike(decoder: Decoder) -> None:
    for payload in (
        pools(pool(), pool(numa_node=0), pool(numa_node=1), pool(tags={"a": "b"}), pool(product_id="10ca")),
        cells(cell(), cell(id=1, cpus=[2], free_cpus=[2], pages=[page(), page(size_kb=1048576)])),
    ):
        assert decoder.row("host-0", payload)["reason"] is None


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
    assert row["disk_pool"] is None
    assert decoder.row("host-0", ENCODER.encode(inventory_event(disk_pool="ceph")))["disk_pool"] == "ceph"
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
        (None, None, "there is no key"),
        ("a b", None, 'the key is "a b", not 1 to 255 printable ASCII'),
        ("host-0", b"", "empty payload"),
        ("host-0", newest(Event.INVENTORY).header, "undecodable"),
        ("host-0", ENCODER.encode(inventory_event()) + b"\x00", "1 bytes left over"),
        ("host-1", ENCODER.encode(inventory_event()), 'host_id is "host-0", but the key is "host-1"'),
        ("host-0", ENCODER.encode(inventory_event(name="a\x00b")), "NUL"),
        ("host-0", ENCODER.encode(inventory_event(boot_id="")), 'boot_id is "", not 1 to 255'),
        ("host-0", inventory(total=-1), 'inventories."VCPU".total is -1, not 0 to 1000000000000'),
        ("host-0", inventory(allocation_ratio=float("nan")), 'inventories."VCPU".allocation_ratio is NaN, not 1.0E-4'),
        ("host-0", inventory(total=10**10, allocation_ratio=1000.0), 'capacity of inventories."VCPU" is 1.0E13'),
        (
            "host-0",
            ENCODER.encode(inventory_event(inventories={"v cpu": {"total": 1}})),
            'a key of inventories is "v cpu", not 1 to 255 upper-case letters',
        ),
        ("host-0", ENCODER.encode(inventory_event(allocated={"VGPU": -1})), 'allocated."VGPU" is -1'),
        ("host-0", cells(cell(), cell(cpus=[2], free_cpus=[])), "numa_cells has id 0 twice"),
        ("host-0", cells(cell(), cell(id=1)), "numa_cells.cpus has 0 in cells 0 and 1"),
        ("host-0", cells(cell(free_cpus=[0, 7])), "numa_cells.free_cpus has 7, which is not in cpus"),
        ("host-0", cells(cell(pages=[page(), page()])), "numa_cells.pages has size_kb 2048 twice"),
        ("host-0", cells(cell(pages=[page(free=9)])), "numa_cells.pages.free is 9, above total, 8"),
        ("host-0", cells(cell(pages=[page(total=10**12, free=0)])), "numa_cells.pages are 2.0E12 MiB"),
        ("host-0", pools(pool(), pool(total=5)), 'pci_pools has vendor_id, product_id, numa_node, tags "8086", "10c9"'),
        ("host-0", pools(pool(free=5)), "pci_pools.free is 5, above total, 4"),
        (
            "host-0",
            pools(pool(vendor_id="8086\n")),
            'pci_pools.vendor_id is "8086\\u000a", not 4 lower-case hex digits',
        ),
    ],
)
def test_a_bad_record_says_why(decoder: Decoder, key: str | None, payload: bytes | None, reason: str) -> None:
    row = decoder.row(key, payload)
    assert reason in row.pop("reason")
    assert set(row.values()) == {None}


@pytest.mark.parametrize("symbol", [2, 5, 100])
def test_an_unknown_symbol_takes_the_enums_default(decoder: Decoder, symbol: int) -> None:
    """By its number, as a later agent may write it, and by its name, where the registry has that agent's schema."""
    event = inventory_event(status="DISABLED", status_reason="down")
    datum = ENCODER.encode(event)
    reason = b"\x02\x08down"
    assert datum.count(b"\x02" + reason) == 1
    later = datum.replace(b"\x02" + reason, _zigzag(symbol) + reason)
    row = decoder.row("host-0", later)
    assert (row["reason"], row["status"], row["status_reason"]) == (None, "DISABLED", "down")
    text = newest(Event.INVENTORY).text
    symbols = ["ENABLED", *(f"S{number}" for number in range(1, symbol)), "DRAINING"]
    assert text.count('["ENABLED", "DISABLED"], "default": "DISABLED"') == 1
    writer = text.replace(
        '["ENABLED", "DISABLED"], "default": "DISABLED"', f'{json.dumps(symbols)}, "default": "ENABLED"'
    )
    with running_registry({1: writer}, "user:password") as url:
        framed = CONFLUENT_MARKER + (1).to_bytes(4, "big") + later[SINGLE_OBJECT_HEADER_BYTES:]
        row = Decoder(Event.INVENTORY, registry=SchemaRegistry(url, "user:password")).row("host-0", framed)
    assert (row["reason"], row["status"]) == (None, "DISABLED")


def test_no_symbol_at_all_is_undecodable(decoder: Decoder) -> None:
    datum = ENCODER.encode(inventory_event(status="DISABLED", status_reason="down"))
    for symbol in (-1, 2**30, -(2**31)):
        reason = decoder.row("host-0", datum.replace(b"\x02\x02\x08down", _zigzag(symbol) + b"\x02\x08down"))["reason"]
        assert reason.startswith("undecodable: "), symbol


def _zigzag(number: int) -> bytes:
    """A number as Avro writes it."""
    rest = number << 1 if number >= 0 else (-number << 1) - 1
    groups = []
    while rest > 0x7F:
        groups.append(rest & 0x7F | 0x80)
        rest >>= 7
    return bytes([*groups, rest])


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
