"""Notifications and samples: valid ones are read, and everything else is refused with a reason."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.openstack import ceilometer, notifications

FLAVOR = {"vcpus": 4, "memory_mb": 2048, "root_gb": 10, "ephemeral_gb": 1, "swap": 1025, "extra_specs": {}}
DATA = {
    "uuid": "x", "host": "a", "node": "a", "state": "active", "flavor": {"nova_object.data": FLAVOR}, "hosts": ["a"],
    "binary": "nova-compute", "disabled": False, "forced_down": False, "disabled_reason": None, "nodename": "a",
    "availability_zone": None, "metadata": {"availability_zone": "az-1"},
    "metrics": [{"nova_object.data": {"name": "cpu.user.time", "value": 1}}],
}  # fmt: skip
SAMPLE = {
    "counter_name": "cpu", "counter_volume": 1, "timestamp": "2026-01-01T00:00:00", "resource_id": "x",
    "resource_metadata": {"instance_id": "x"},
}  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["cpu", "active", "nova-compute", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(DATA)), inner, max_size=3),
    max_leaves=8,
)
EVENTS = st.sampled_from(["instance.create.end", "service.update", "aggregate.add_host.end", "metrics.update", "x", ""])


@pytest.mark.parametrize(
    ("extra_specs", "amounts"),
    [
        ({}, {"VCPU": 4, "MEMORY_MB": 2048, "DISK_GB": 13}),
        ({"hw:cpu_policy": "dedicated"}, {"PCPU": 4, "MEMORY_MB": 2048, "DISK_GB": 13}),
        (
            {
                "resources:VCPU": "0",
                "resources:MEMORY_MB": "0",
                "resources:DISK_GB": "0",
                "resources:CUSTOM_METAL": "1",
            },
            {"CUSTOM_METAL": 1},
        ),
    ],
)
def test_a_flavor_takes_what_nova_asks_placement_for(extra_specs: dict[str, str], amounts: dict[str, int]) -> None:
    assert notifications.amounts_of(FLAVOR | {"extra_specs": extra_specs}) == amounts


@pytest.mark.parametrize(
    ("event_type", "publisher_id", "alive"),
    [
        ("metrics.update", "nova-compute:a", "a"),
        ("instance.power_on.end", "nova-compute:a", "a"),
        ("instance.delete.end", "nova-api:a", None),
        ("instance.update", "nova-compute:a", None),
        ("service.update", "nova-compute:a", None),
    ],
)
def test_only_what_nova_compute_sends_itself_is_its_sign_of_life(
    event_type: str, publisher_id: str, alive: str | None
) -> None:
    read = notifications.read(event_type, publisher_id, "2026-01-01 00:00:00.5", {"nova_object.data": DATA})
    assert (read.alive, read.at) == (alive, 1_767_225_600.5)


@given(EVENTS, st.sampled_from(["2026-01-01 00:00:00.5", "x"]), st.sampled_from(sorted(DATA)), JSON)
def test_whatever_comes_in_a_field_it_is_read_or_refused(event: str, timestamp: str, field: str, value: Any) -> None:
    flavor = FLAVOR | dict.fromkeys(FLAVOR, value)
    for data in (DATA | {field: value}, DATA | {"flavor": {"nova_object.data": flavor}}, value):
        with suppress(ValueError):
            notifications.read(event, "nova-compute:a", timestamp, {"nova_object.data": data})
    with suppress(ValueError):
        notifications.read(event, "nova-compute:a", timestamp, value)


@given(st.sampled_from(sorted(SAMPLE)), JSON)
def test_whatever_comes_in_a_sample_it_is_read_or_refused_and_others_are_read(field: str, value: Any) -> None:
    reasons: list[str] = []
    read = ceilometer.read([SAMPLE | {field: value}, SAMPLE], reasons.append)
    assert read[-1].value == 1
    assert len(read) + len(reasons) <= 2
    ceilometer.read(value, reasons.append)
