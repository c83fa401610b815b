"""An event is never larger than the job takes, whatever a collector reads; what is left out is said."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.histories import usage_event
from vacancy.schemas.bounds import COUNTER_END, MAX_EVENT_BYTES
from vacancy.schemas.codec import Encoder, decode
from vacancy.schemas.events import Event
from vacancy.schemas.fitting import FittingEncoder, encode_fitting, no_counts

USAGE, INVENTORY = (Encoder(event) for event in Event)


def inventory_event(**fields: Any) -> dict[str, Any]:
    return {
        "host_id": "host",
        "boot_id": "boot",
        "agent_time": 0,
        "name": "node",
        "status": "ENABLED",
        "inventories": {"VCPU": {"total": 8}},
        "reporting_interval_ms": 1000,
        "agent_version": "1",
    } | fields


def cell(number: int, cpus: int = 1) -> dict[str, Any]:
    own = [number * cpus + cpu for cpu in range(cpus)]
    return {"id": number, "cpus": own, "free_cpus": own, "memory_mb": 2**20, "pages": []}


def fitted(event: Event, record: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    payload, left_out = encode_fitting(USAGE if event is Event.USAGE else INVENTORY, event, record)
    assert len(payload) <= MAX_EVENT_BYTES
    return decode(payload).record, left_out


def test_what_fits_goes_as_it_is() -> None:
    record = usage_event(recent_consumers=[str(uuid.uuid4())] * 1500)
    assert encode_fitting(USAGE, Event.USAGE, record) == (USAGE.encode(record), ())


def test_of_20_000_consumers_the_newest_go() -> None:
    consumers = [str(uuid.UUID(int=number)) for number in range(20_000)]
    sent, left_out = fitted(Event.USAGE, usage_event(recent_consumers=consumers))
    assert sent["recent_consumers"] == consumers[-1500:]
    assert left_out == ("18500 of 20000 recent_consumers",)


def test_of_10_000_cells_the_first_go() -> None:
    sent, left_out = fitted(Event.INVENTORY, inventory_event(numa_cells=[cell(number) for number in range(10_000)]))
    assert [each["id"] for each in sent["numa_cells"]] == list(range(1024))
    assert left_out == ("8976 of 10000 numa_cells",)
    sent, left_out = fitted(Event.INVENTORY, inventory_event(numa_cells=[cell(number, 64) for number in range(1024)]))
    assert [each["id"] for each in sent["numa_cells"]] == list(range(128))
    assert left_out == ("896 of 1024 numa_cells",)


def test_a_class_that_is_left_out_takes_its_allocation_with_it() -> None:
    """Held amounts that were left out alone would read as none."""
    names = [f"CUSTOM_{number:0200}" for number in range(500)]
    record = inventory_event(
        inventories={name: {"total": 10} for name in names}, allocated=dict.fromkeys(names, 10), zone="z" * 300
    )
    sent, left_out = fitted(Event.INVENTORY, record)
    assert sent["inventories"].keys() == sent["allocated"].keys()
    assert 100 <= len(sent["inventories"]) < 500
    missing = 500 - len(sent["inventories"])
    assert left_out == (f"{missing} of 500 allocated", f"{missing} of 500 inventories", "the end of zone")


def test_time_of_the_cpus_that_is_at_its_end_begins_again() -> None:
    sent, left_out = fitted(
        Event.USAGE, usage_event(cpu_busy_ns=COUNTER_END + 1, cpu_iowait_ns=2**64 + 5, cpu_steal_ns=COUNTER_END)
    )
    assert (sent["cpu_busy_ns"], sent["cpu_iowait_ns"], sent["cpu_steal_ns"]) == (0, 5, COUNTER_END)
    assert left_out == ()


@pytest.mark.parametrize("value", [COUNTER_END + 1, 2**63 - 1, 2**63, 2**64 - 1, 10**30, -1])
@pytest.mark.parametrize("name", ["net_rx_bytes", "disk_read_ops", "io_pressure_us"])
def test_what_is_no_count_is_null(name: str, value: int) -> None:
    record = usage_event(**{name: value})
    assert no_counts(record) == {name: f"{value} is no count"}
    sent, left_out = fitted(Event.USAGE, record)
    assert sent[name] is None
    assert left_out == ()


def test_what_may_not_be_cut_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"an event of 7.... bytes; 65536 is the most"):
        encode_fitting(INVENTORY, Event.INVENTORY, inventory_event(host_id="h" * 70_000))


@given(
    st.fixed_dictionaries(
        {
            "numa_cells": st.integers(0, 3000).map(lambda count: [cell(number, 3) for number in range(count)]),
            "traits": st.integers(0, 5000).map(lambda count: [f"CUSTOM_{number}" for number in range(count)]),
            "aggregates": st.integers(0, 3000).map(lambda count: [str(uuid.UUID(int=n)) for n in range(count)]),
            "pci_pools": st.integers(0, 3000).map(
                lambda count: [
                    {"vendor_id": "8086", "product_id": f"{number:04x}", "total": 1, "free": 1}
                    for number in range(count)
                ]
            ),
        }
    )
)
def test_any_inventory_fits_and_is_a_part_of_what_was_read(fields: dict[str, list[Any]]) -> None:
    sent, left_out = fitted(Event.INVENTORY, inventory_event(**fields))
    for name, value in fields.items():
        assert len(sent[name]) <= len(value)
        assert (len(sent[name]) < len(value)) == any(line.endswith(f" of {len(value)} {name}") for line in left_out)


def test_what_is_left_out_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    encoder = FittingEncoder(Event.INVENTORY, INVENTORY, logging.getLogger("vacancy.test"))
    for cells in (1025, 1025, 1, 1, 1026):
        encoder.encode(inventory_event(numa_cells=[cell(number) for number in range(cells)]))
    assert [record.getMessage() for record in caplog.records] == [
        "the inventory of host host is more than an event holds; left out: 1 of 1025 numa_cells",
        "the inventory of host host fits an event again",
        "the inventory of host host is more than an event holds; left out: 2 of 1026 numa_cells",
    ]
