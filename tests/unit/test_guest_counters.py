"""Sums over guests' devices never decrease, whichever guests and devices come and go."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from vacancy.connectors.collectors.guest_counters import Sums

DEVICES = st.sampled_from(["vda", "vdb", "vnet0", "vnet1"])
STEPS = st.lists(st.dictionaries(DEVICES, st.tuples(st.integers(0, 50), st.integers(0, 50))), max_size=30)


def test_a_device_that_goes_keeps_what_it_counted() -> None:
    sums = Sums[str](1)
    assert sums.take({"vda": (5,), "vdb": (7,)}) == (12,)
    assert sums.take({"vda": (6,)}) == (13,)
    assert sums.take({}) == (13,)
    assert sums.take({"vdb": (2,)}) == (15,)


def test_a_device_that_begins_anew_adds_to_what_it_had_counted() -> None:
    sums = Sums[str](2)
    assert sums.take({"vda": (5, 5)}) == (5, 5)
    assert sums.take({"vda": (9, 4)}) == (14, 9)


def test_a_device_that_is_there_and_tells_nothing_counts_once() -> None:
    sums = Sums[str](1)
    assert sums.take({"vda": (5,)}) == (5,)
    assert sums.take({}, lambda _: True) == (5,)
    assert sums.take({"vda": (6,)}) == (6,)


@given(STEPS, st.sets(DEVICES))
def test_sums_never_go_back(steps: list[dict[str, tuple[int, int]]], silent: set[str]) -> None:
    sums = Sums[str](2)
    before: tuple[int, ...] = (0, 0)
    for step in steps:
        now = sums.take(step, silent.__contains__)
        known = tuple(value for value in now if value is not None)
        assert len(known) == 2
        assert all(new >= old for new, old in zip(known, before, strict=True))
        before = known


@given(st.lists(st.tuples(DEVICES, st.integers(0, 50), st.booleans()), max_size=40))
def test_what_devices_count_between_two_readings_is_what_the_sum_grows_by(steps: list[tuple[str, int, bool]]) -> None:
    """A device keeps counting, or starts again after a reading that did not find it."""
    sums, counts, total = Sums[str](1), defaultdict[str, int](int), 0
    for device, amount, goes in steps:
        if goes and device in counts:
            del counts[device]
            assert sums.take({name: (count,) for name, count in counts.items()}) == (total,)
        counts[device] += amount
        total += amount
        assert sums.take({name: (count,) for name, count in counts.items()}) == (total,)
